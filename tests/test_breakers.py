"""What the threads of one process share of the relays' room and rates, and who begins anew."""

import datetime as dt
import random
import threading
from collections.abc import Callable

import pytest

from outbox.breakers import Breakers
from outbox.errors import ConfigurationError, RelayUnavailable
from outbox.outbox import Outbox
from outbox.relay import Go, RelayLimits, Wait
from outbox.runner import Runner
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock
from outbox.testing.recording import RecordingTransport

PATIENCE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def one(breakers: Breakers, key: str, message: str, wanted: int | None = None) -> Go | Wait:
    found = breakers.admit([key], message, patience=0, wanted=wanted)
    return found if isinstance(found, Wait) else found[key]


def proven(clock: ManualClock, limits: RelayLimits | None = None) -> Breakers:
    breakers = Breakers(clock, random.Random(1), limits=limits)
    go = one(breakers, "mx", "probe", wanted=1)
    assert isinstance(go, Go)
    breakers.answered("mx", "probe")
    breakers.leave("mx", go)
    return breakers


def in_threads(number: int, act: Callable[[], object]) -> None:
    threads = [threading.Thread(target=act) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)


def test_however_many_threads_ask_no_more_connections_are_taken_than_there_are(clock: ManualClock) -> None:
    breakers = proven(clock, RelayLimits(connections=2))
    answers: list[Go | Wait] = []
    in_threads(8, lambda: answers.append(one(breakers, "mx", "m", wanted=1)))
    assert sum(isinstance(answer, Go) for answer in answers) == 2
    assert len(answers) == 8


def test_a_delivery_within_a_probe_s_own_thread_goes_beside_it_and_leaves_what_it_took(
    clock: ManualClock,
) -> None:
    breakers = Breakers(clock, random.Random(1))
    probe = one(breakers, "mx", "m", wanted=1)
    within = one(breakers, "mx", "n", wanted=5)
    assert (probe, within) == (Go(probe=True), Go())
    assert isinstance(probe, Go)
    assert isinstance(within, Go)
    breakers.leave("mx", within)
    breakers.answered("mx", "m")
    assert isinstance(one(breakers, "mx", "o", wanted=1), Wait), "the probe has its connection still"
    breakers.leave("mx", probe)
    assert isinstance(one(breakers, "mx", "o", wanted=1), Go)


def test_what_three_messages_met_pauses_the_relay_for_all(clock: ManualClock) -> None:
    breakers = proven(clock)
    pauses = [breakers.cut("mx", message, "mx:25") for message in "tuv"]
    assert pauses[:2] == [None, None]
    assert pauses[2] is not None
    assert isinstance(breakers.closed_for("mx"), Wait)


def test_those_who_are_put_off_come_back_one_after_the_other(clock: ManualClock) -> None:
    breakers = proven(clock)
    breakers.failed("mx", RelayUnavailable("mx:25", "refused"), "t")
    delays = [breakers.put_off("mx") for _ in range(3)]
    assert delays == sorted(set(delays))
    assert delays[0] >= dt.timedelta(seconds=4)


def test_a_run_that_begins_anew_has_the_same_limits(clock: ManualClock) -> None:
    fresh = proven(clock, RelayLimits(per_hour=1)).apart(hasty=True)
    assert one(fresh, "mx", "m") == Go(probe=True)
    fresh.answered("mx", "m")
    assert isinstance(one(fresh, "mx", "n"), Wait)


def test_a_runner_keeps_the_limits_that_it_is_given() -> None:
    with Outbox(MemoryStore(), RecordingTransport(), limits=RelayLimits(per_day=1)) as outbox:
        for number in range(3):
            outbox.submit(
                f"Subject: {number}\n\nx\n".encode(), sender="a@example.org", recipients=["b@example.org"]
            )
        assert outbox.drain().delivered == 1
        assert outbox.drain().delivered == 1, "a drain begins anew, with one message"


def test_a_runner_refuses_limits_that_are_none() -> None:
    with pytest.raises(ConfigurationError, match="limits is 5"):
        Runner(MemoryStore(), RecordingTransport(), limits=5)  # type: ignore[arg-type]  # that is what is refused

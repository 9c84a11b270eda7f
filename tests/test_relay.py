"""The breakers: which relay may be spoken to now."""

import datetime as dt
import random

import pytest

from outbox.errors import RelayMisconfigured, RelayUnavailable
from outbox.relay import Go, Relays, Wait

DOWN = RelayUnavailable("mx:25", "connection refused")
WRONG = RelayMisconfigured("mx:25", "535 bad credentials")


@pytest.fixture
def relays() -> Relays:
    return Relays(random.Random(1))


def test_an_unknown_relay_is_spoken_to(relays: Relays) -> None:
    assert relays.admit("mx", 0.0) == Go()


def test_a_relay_that_failed_is_left_alone_for_about_five_seconds(relays: Relays) -> None:
    wait = relays.failed("mx", DOWN, 100.0)
    assert 4.0 <= wait.total_seconds() <= 6.0
    admission = relays.admit("mx", 101.0)
    assert isinstance(admission, Wait)
    assert admission.delay == wait - dt.timedelta(seconds=1)
    assert "connection refused" in admission.reason


def test_one_relay_s_fault_closes_no_other(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0)
    assert relays.admit("other", 0.0) == Go()


def test_after_the_pause_one_message_probes_and_the_others_wait(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0)
    assert relays.closed_for("mx", 10.0) is None
    assert relays.admit("mx", 10.0) == Go()
    assert isinstance(relays.admit("mx", 10.0), Wait)
    assert isinstance(relays.closed_for("mx", 10.0), Wait)


def test_asking_whether_it_is_closed_takes_no_probe(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0)
    assert relays.closed_for("mx", 10.0) is None
    assert relays.closed_for("mx", 10.0) is None
    assert relays.admit("mx", 10.0) == Go()


def test_a_probe_that_is_answered_opens_the_relay(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0)
    relays.admit("mx", 10.0)
    assert relays.answered("mx")
    assert relays.admit("mx", 10.0) == Go()
    assert not relays.answered("mx"), "it was open already"


def test_each_failed_probe_doubles_the_pause_up_to_five_minutes(relays: Relays) -> None:
    now, pauses = 0.0, []
    for _ in range(12):
        assert relays.admit("mx", now) == Go()
        pauses.append(relays.failed("mx", DOWN, now).total_seconds())
        now += pauses[-1] + 0.001
    assert pauses[1] > pauses[0]
    assert pauses[3] > pauses[1]
    assert 240 <= pauses[-1] <= 360
    assert max(pauses) <= 360


def test_workers_that_were_under_way_when_it_failed_count_as_one_failure(relays: Relays) -> None:
    waits = [relays.failed("mx", DOWN, 0.0) for _ in range(8)]
    assert waits[-1].total_seconds() <= 6.0


def test_a_misconfigured_relay_is_probed_slowly(relays: Relays) -> None:
    assert relays.failed("mx", WRONG, 0.0).total_seconds() >= 48


def test_a_thousand_failures_do_not_overflow(relays: Relays) -> None:
    now = 0.0
    for _ in range(1000):
        relays.admit("mx", now)
        now += relays.failed("mx", DOWN, now).total_seconds()
    assert now < 1000 * 361


def test_a_failure_reported_late_in_a_pause_never_asks_for_no_wait_at_all(relays: Relays) -> None:
    pause = relays.failed("mx", DOWN, 0.0).total_seconds()
    assert relays.failed("mx", DOWN, pause - 0.001) >= dt.timedelta(seconds=1)

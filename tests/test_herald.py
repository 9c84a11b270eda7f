"""A runner says in the store that it is here: what it says, when, and that nothing depends on it."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from outbox import MemoryStore, Message, Outbox, Runner
from outbox.breakers import Breakers
from outbox.bulletin import Bulletin, RelayBulletin, read, written
from outbox.errors import RelayMisconfigured, StoreUnavailable
from outbox.herald import Herald
from outbox.protocols import Presence
from outbox.testing import ManualClock
from outbox.transports.function import FunctionTransport

MINUTE = dt.timedelta(minutes=1)


class _Relay:
    name = "smtp.example.org:587"

    def deliver(self, *_: object) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[MemoryStore]:
    with closing(MemoryStore(clock=clock)) as store:
        yield store


def _herald(
    store: object, breakers: Breakers, clock: ManualClock, counts: dict[str, int], *, late: bool = False
) -> Herald:
    return Herald(
        store,  # type: ignore[arg-type]  # whatever it is
        _Relay(),  # type: ignore[arg-type]  # nothing is delivered
        breakers,
        clock,
        queues=("mail", "mail.bulk"),
        workers=4,
        done=lambda: counts,
        in_hand=lambda: 3,
        late=late,
    )


def _said(store: MemoryStore) -> Bulletin:
    (presence,) = store.announced()
    bulletin = read(presence.text)
    assert bulletin is not None
    return bulletin


def test_a_runner_says_what_it_serves_and_how_it_finds_its_relay(
    store: MemoryStore, clock: ManualClock
) -> None:
    breakers = Breakers(clock, random.Random(1))
    herald = _herald(store, breakers, clock, {"delivered": 7})
    breakers.failed("", RelayMisconfigured("smtp.example.org:587", "535 wrong password"), "m1")

    herald.look()

    said = _said(store)
    assert (said.queues, said.workers, said.in_hand, said.done) == (
        ("mail", "mail.bulk"),
        4,
        3,
        {"delivered": 7},
    )
    (relay,) = said.relays
    assert (relay.name, relay.state, relay.misconfigured) == ("smtp.example.org:587", "paused", True)
    assert 40 < relay.opens_in < 80
    assert "535 wrong password" in relay.fault


def test_it_is_said_every_third_look_and_at_each_change_of_a_relay(
    store: MemoryStore, clock: ManualClock
) -> None:
    herald = _herald(store, Breakers(clock, random.Random(1)), clock, {})
    ages = []
    for look in range(8):
        if look == 7:
            herald.changed()
        herald.look()
        ages.append(store.announced()[0].age.total_seconds())
        clock.advance(dt.timedelta(seconds=10))

    assert ages == [0, 10, 20, 0, 10, 20, 0, 0]


def test_what_was_done_is_counted_over_the_last_five_minutes(store: MemoryStore, clock: ManualClock) -> None:
    counts: dict[str, int] = {}
    herald = _herald(store, Breakers(clock, random.Random(1)), clock, counts)
    for _ in range(60):
        herald.look()
        counts["delivered"] = counts.get("delivered", 0) + 10
        clock.advance(dt.timedelta(seconds=10))
    herald.look()

    said = _said(store)
    assert (said.window, said.done) == (300.0, {"delivered": 300})


def test_a_drain_that_is_short_says_nothing(store: MemoryStore, clock: ManualClock) -> None:
    herald = _herald(store, Breakers(clock, random.Random(1)), clock, {}, late=True)
    herald.look()
    assert store.announced() == []
    herald.leave()

    herald.look()
    assert len(store.announced()) == 1
    herald.leave()
    assert store.announced() == []


def test_a_store_that_fails_or_keeps_no_presence_disturbs_nobody(clock: ManualClock) -> None:
    class Failing(MemoryStore):
        def announce(self, *_: object, **__: object) -> None:
            raise StoreUnavailable("the disk is full")

        def withdraw(self, *_: object) -> None:
            raise StoreUnavailable("the disk is full")

    with closing(Failing(clock=clock)) as failing:
        for store in (failing, object()):
            herald = _herald(store, Breakers(clock, random.Random(1)), clock, {})
            herald.look()
            herald.leave()


def test_a_bulletin_comes_back_as_it_was_and_fits_whatever_is_in_it() -> None:
    relays = tuple(
        RelayBulletin(name=f"r{n}.example:25", state="paused", fault="\u2603" * 900, opens_in=n)
        for n in range(500)
    )
    whole = Bulletin(
        host="h", pid=1, queues=("mail",), workers=2, up=3.5, relays=relays[:2], done={"dead": 1}
    )
    back = read(written(whole))
    assert back is not None
    assert (back.relays[1].opens_in, back.done, back.queues) == (1.0, {"dead": 1}, ("mail",))

    much = Bulletin(host="h", pid=1, queues=("mail",), workers=2, up=3.5, relays=relays)
    text = written(much)
    short = read(text)
    assert short is not None
    assert len(text.encode()) <= 16 << 10
    assert len(short.relays) + short.more_relays == 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"kind": "outbox runner 1"}',
        '{"kind": "something else", "relays": []}',
        "[" * 9000,
        '{"kind": "outbox runner 1", "relays": [], "host": 7, "pid": 1, "queues": [], "workers": 1, "up": 1}',
    ],
)
def test_what_somebody_else_says_is_nothing(text: str) -> None:
    assert read(text) is None


def test_a_running_runner_is_seen_and_is_gone_when_it_has_stopped() -> None:
    with closing(MemoryStore()) as store:
        seen: list[Sequence[Presence]] = []
        runner = Runner(store, FunctionTransport(lambda *_: seen.append(store.announced())), queues=["mail"])
        Outbox(store).submit(Message(recipients=("a@example.org",), content=b"x"))
        announced = store.announce

        said = threading.Event()

        def announce(*args: str, **named: dt.timedelta) -> None:
            announced(*args, **named)
            said.set()

        store.announce = announce  # type: ignore[method-assign]  # a spy
        runner.start()
        assert said.wait(60)
        assert len(store.announced()) == 1
        assert runner.stop()
        assert store.announced() == []


def test_a_clock_that_was_set_while_it_runs_is_said_and_time_that_passes_is_not(
    store: MemoryStore, clock: ManualClock
) -> None:
    herald = _herald(store, Breakers(clock, random.Random(1)), clock, {})
    clock.advance(dt.timedelta(minutes=10))
    herald.look()
    assert _said(store).clock_moved == 0

    clock.set_back(dt.timedelta(hours=3))
    herald.changed()
    herald.look()
    assert _said(store).clock_moved == -10_800

"""Shared limits over a store that cannot be asked what may go, or not in time."""

from __future__ import annotations

import datetime as dt
import logging
import random
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any

import pytest
from drawing_office import EACH, THREE, Counted, Named, messages, office, ordered, wanting
from shared_limits import SHARED

from outbox import MemoryStore, Message, Runner, drawing as drawing_module
from outbox.breakers import Breakers
from outbox.drawing import Purser
from outbox.errors import StoreUnavailable
from outbox.protocols import Register, Swap
from outbox.relay import Go, purse as purse_module
from outbox.testing import ManualClock
from outbox.transports.function import FunctionTransport


class _Failing(MemoryStore):
    down = True

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        if self.down:
            raise StoreUnavailable("the store is away")
        return super().registers(names)


def test_a_store_that_cannot_be_asked_is_told_of_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    breakers = Breakers(clock, random.Random(1), limits=SHARED)
    transport: Any = Named()
    with closing(_Failing(clock=clock)) as store, caplog.at_level(logging.INFO, "outbox.runner"):
        purser = Purser(store, transport, breakers, clock, random.Random(1))
        for _ in range(3):
            assert isinstance(breakers.admit([""], "m", patience=0, wanted=1), dict)
            purser.draw([""])
            closed = breakers.closed_for("")
            assert closed is not None
            assert closed.limited
            clock.advance(closed.delay)
        store.down = False
        breakers.admit([""], "m", patience=0, wanted=1)
        purser.draw([""])
        breakers.admit([""], "m", patience=0, wanted=1)
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(" ")[0] for text in said] == ["the", "the"]
    assert "nothing does until it can be" in said[0]
    assert "can be asked again" in said[1]


class _NeverAsked(MemoryStore):
    """Gives mail and no register; after five times it does."""

    asked = 0

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        self.asked += 1
        if self.asked <= 5:
            raise StoreUnavailable("no right to the registers")
        return super().registers(names)


@pytest.mark.parametrize("several", [False, True])
def test_a_drain_ends_where_the_register_cannot_be_asked_and_raises_why(
    monkeypatch: pytest.MonkeyPatch, *, several: bool
) -> None:
    monkeypatch.setattr(drawing_module, "_back_off", lambda failures: 0.001 if failures < 5 else 9.0)
    with closing(_NeverAsked()) as store:
        store.put(messages(5))
        transport: Any = _ByDomain() if several else FunctionTransport(lambda *_: None)
        with pytest.raises(StoreUnavailable, match="no right to the registers") as raised:
            Runner(store, transport, limits=EACH).drain()
        assert "delivered=0" in raised.value.__notes__[0]
        assert store.asked == 5
        claims = store.claim(limit=10, lease=dt.timedelta(seconds=1), queues=["mail"])
        assert len(claims) == 5, "nothing is held under a lease"


def test_a_drain_that_could_not_ask_for_a_moment_delivers_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_back_off", lambda _: 0.001)
    with closing(_NeverAsked()) as store:
        store.asked = 1
        store.put(messages(5))
        assert Runner(store, FunctionTransport(lambda *_: None), limits=EACH).drain().delivered == 5


class _ByDomain(FunctionTransport):
    def __init__(self) -> None:
        super().__init__(lambda *_: None)

    def relay(self, _message: Message, recipient: str) -> str:
        return recipient.partition("@")[2]


def test_where_the_store_cannot_be_asked_for_some_relays_it_is_not_asked_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    _, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        store.error = StoreUnavailable("away")
        purser.serve(lambda: False)
        assert store.asked == 1
        assert all(breakers.closed_for(key) for key in THREE)
        wanting(breakers)
        assert ordered(breakers) == []


class _Far(Counted):
    """Each way to it and back takes so many seconds."""

    seconds: tuple[float, float] = (0.6, 0.6)
    clock: ManualClock

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        found = super().registers(names)
        self.clock.advance(dt.timedelta(seconds=self.seconds[0]))
        return found

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        stands = super().swap(swaps)
        self.clock.advance(dt.timedelta(seconds=self.seconds[1]))
        return stands


def tried(breakers: Breakers, purser: Purser, clock: ManualClock) -> bool:
    """Whether a message went, after a draw where it had to be drawn for."""
    breakers.admit(["a"], "m", patience=0, wanted=1)
    purser.draw(["a"])
    answer = breakers.admit(["a"], "m", patience=0, wanted=1)
    assert isinstance(answer, dict)
    go = answer["a"]
    if isinstance(go, Go):
        breakers.answered("a", "m")
        breakers.leave("a", go)
    clock.advance(dt.timedelta(seconds=6))
    return isinstance(go, Go)


@pytest.mark.parametrize("seconds", [(0.6, 0.6), (0.0, 1.2), (1.1, 0.1)])
def test_a_store_that_is_too_far_away_is_told_of_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture, seconds: tuple[float, float]
) -> None:
    clock, breakers, store, purser = office(_Far)
    assert isinstance(store, _Far)
    store.clock, store.seconds = clock, seconds
    with closing(store), caplog.at_level(logging.INFO, "outbox.runner"):
        assert not any(tried(breakers, purser, clock) for _ in range(12))
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith(
            "the store is too far away to share limits, and little or nothing goes: it took 1.20 s"
        )
        assert "to a, and that is of use for 0.5 s" in said
        assert isinstance(purser.given_up, StoreUnavailable)
        store.seconds = (0.002, 0.002)
        assert tried(breakers, purser, clock)
        assert len(caplog.records) == 1, "nobody has seen yet that what it gives is of use"
        assert all(tried(breakers, purser, clock) for _ in range(3))
    assert len(caplog.records) == 2
    assert "answers in time" in caplog.records[1].getMessage()


@pytest.mark.parametrize("seconds", [0.002, 0.2, 0.4])
def test_a_store_that_is_not_too_far_away_is_told_of_at_no_time(
    caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    clock, breakers, store, purser = office(_Far)
    assert isinstance(store, _Far)
    store.clock, store.seconds = clock, (seconds, seconds)
    with closing(store), caplog.at_level(logging.INFO, "outbox.runner"):
        assert all(tried(breakers, purser, clock) for _ in range(12))
    assert not caplog.records


def test_permits_that_nobody_wants_any_more_are_no_fault_of_a_store_that_is_near(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, breakers, store, purser = office()
    with closing(store), caplog.at_level(logging.INFO, "outbox.runner"):
        for _ in range(12):
            wanting(breakers)
            purser.draw(THREE)
            clock.advance(dt.timedelta(seconds=6))
    assert not caplog.records


class _FarInTruth(Counted):
    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        time.sleep(0.03)
        return super().registers(names)


def test_a_drain_ends_where_the_store_is_too_far_away_and_raises_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purse_module, "LATE", 0.01)
    monkeypatch.setattr(drawing_module, "_FAR", 0.005)
    with closing(_FarInTruth()) as store:
        store.put(messages(5))
        with pytest.raises(StoreUnavailable, match="too far away to share limits: it took 0"):
            Runner(store, FunctionTransport(lambda *_: None), limits=EACH).drain()
        assert len(store.claim(limit=10, lease=dt.timedelta(seconds=1), queues=["mail"])) == 5

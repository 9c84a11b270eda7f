"""Who asks the store for all relays whose limits are shared, and what befalls him."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Collection, Mapping
from contextlib import closing
from typing import Any

import pytest
from drawing_office import EACH, THREE, Counted, Named, office, ordered, wanting
from shared_limits import NANO, NOW, order, permits

from outbox import MemoryStore, drawing as drawing_module
from outbox.breakers import Breakers
from outbox.drawing import Purser
from outbox.protocols import Register, Swap
from outbox.relay import Go, Order
from outbox.relay.purse import Purses
from outbox.testing import ManualClock


def test_an_exception_while_one_relay_is_drawn_for_leaves_no_other_waiting_for_an_answer() -> None:
    clock, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        store.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            purser.serve(lambda: False)
        clock.advance(dt.timedelta(seconds=10))
        wanting(breakers)
        assert ordered(breakers) == list(THREE)


def test_an_exception_leaves_those_waiting_no_longer_who_were_not_asked_for_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    clock, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        store.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            purser.serve(lambda: False)
        wanting(breakers, THREE[1:])
        assert ordered(breakers) == ["b", "c"]
        clock.advance(dt.timedelta(seconds=10))
        wanting(breakers)
        assert "a" in ordered(breakers)


def test_an_exception_once_it_was_drawn_leaves_no_relay_waiting_for_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, breakers, store, purser = office()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with closing(store):
        wanting(breakers)
        with monkeypatch.context() as patched:
            patched.setattr(breakers, "drawn", interrupted)
            with pytest.raises(KeyboardInterrupt):
                purser.serve(lambda: False)
        clock.advance(dt.timedelta(seconds=10))
        wanting(breakers)
        assert ordered(breakers) == list(THREE)


def test_an_order_that_nobody_answers_is_asked_anew_after_a_while() -> None:
    clock, breakers, store, _ = office()
    with closing(store):
        wanting(breakers)
        assert ordered(breakers) == list(THREE)
        clock.advance(dt.timedelta(seconds=1))
        wanting(breakers)
        assert ordered(breakers) == [], "it is under way"
        clock.advance(dt.timedelta(seconds=60))
        wanting(breakers)
        assert ordered(breakers) == list(THREE)


class _Bells(Breakers):
    """Counts how often those who wait are woken."""

    rung = 0

    def _condition(self) -> threading.Condition:
        condition = super()._condition()
        ring = condition.notify_all

        def counted() -> None:
            self.rung += 1
            ring()

        condition.notify_all = counted  # type: ignore[method-assign]  # of this one
        return condition


def test_an_admission_wakes_whoever_draws_where_there_is_something_to_draw_that_was_not_there_before() -> (
    None
):
    clock = ManualClock()
    breakers = _Bells(clock, random.Random(1), limits=EACH)
    transport: Any = Named()
    keys = [f"mx{number}" for number in range(300)]
    with closing(MemoryStore(clock=clock)) as store:
        purser = Purser(store, transport, breakers, clock, random.Random(1))
        wanting(breakers, keys)
        assert breakers.rung == 1, "he draws for all of them"
        purser.serve(lambda: False)
        breakers.rung = 0
        for key in keys:
            answer = breakers.admit([key], f"m-{key}", patience=0, wanted=1)
            assert isinstance(answer, dict)
            assert isinstance(answer[key], Go)
            breakers.answered(key, f"m-{key}")
            breakers.leave(key, answer[key])
        woken = breakers.rung
        for _ in range(10):
            wanting(breakers, keys)
    assert woken - len(keys) <= 1, "each report ends a probe, and wakes those who wait for it"
    assert breakers.rung - woken <= 1


def test_whoever_draws_looks_at_those_relays_alone_that_want_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, breakers, store, purser = office()
    keys = [f"mx{number}" for number in range(300)]
    looked_at = 0
    order_of = Purses.order

    def counted(purses: Purses, now: float) -> Order | None:
        nonlocal looked_at
        looked_at += 1
        return order_of(purses, now)

    with closing(store):
        wanting(breakers, keys)
        purser.serve(lambda: False)
        monkeypatch.setattr(Purses, "order", counted)
        wanting(breakers, ["another"])
        assert ordered(breakers) == ["another"]
        assert looked_at == 1
        clock.advance(dt.timedelta(seconds=1))
        assert ordered(breakers) == sorted(keys), "what nobody has used is given back"
        assert looked_at == 301


def test_hundreds_of_relays_are_drawn_for_in_two_round_trips() -> None:
    clock, breakers, store, purser = office()
    keys = [f"mx{number}.example" for number in range(300)]
    with closing(store):
        wanting(breakers, keys)
        purser.serve(lambda: False)
        assert (store.asked, store.swapped) == (1, 1)
        assert not any(breakers.closed_for(key) for key in keys)
        clock.advance(dt.timedelta(seconds=5))
        wanting(breakers, keys)
        purser.draw(keys)
        assert (store.asked, store.swapped) == (2, 2)


def test_those_whom_another_was_faster_than_are_asked_for_again_together_and_the_others_go() -> None:
    """Of the registers every third has changed meanwhile, and then every ninth."""
    clock, breakers, store, purser = office(_Overtaken)
    keys = [f"mx{number}.example" for number in range(300)]
    told: list[int] = []
    with closing(store):
        wanting(breakers, keys)
        purser.serve(lambda: False, lambda: told.append(sum(waits(breakers, clock, key) for key in keys)))
        assert (store.asked, store.swapped) == (1, 3)
        assert isinstance(store, _Overtaken)
        assert store.sizes == [300, 100, 33]
        assert told == [100, 33, 0], "who was answered goes at once"
        assert not any(breakers.closed_for(key) for key in keys)


def waits(breakers: Breakers, clock: ManualClock, key: str) -> bool:
    """Whether an order for this relay is under way."""
    return breakers._known.relays.asking(key, clock.monotonic())


class _Overtaken(Counted):
    """Somebody else has always written every third of them, twice."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sizes: list[int] = []

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        self.sizes.append(len(swaps))
        if len(self.sizes) <= 2:
            for name in list(swaps)[2::3]:
                _, _, self._registers[name] = permits(order(1), self._registers.get(name), NOW)  # type: ignore[assignment]  # there is one to draw
        return super().swap(swaps)


class _FarAndOvertaken(Counted):
    """Each round trip takes 0.2 seconds, and somebody else has written when it is swapped for the first time."""

    clock: ManualClock

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        found = super().registers(names)
        self.clock.advance(dt.timedelta(seconds=0.2))
        return found

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        self.clock.advance(dt.timedelta(seconds=0.2))
        if not self.swapped:
            for name in swaps:
                _, _, self._registers[name] = permits(order(1), None, NOW - 9 * NANO)  # type: ignore[assignment]  # there is one to draw
        return super().swap(swaps)


def test_who_was_overtaken_counts_from_when_he_last_asked() -> None:
    clock, breakers, store, purser = office(_FarAndOvertaken)
    assert isinstance(store, _FarAndOvertaken)
    store.clock = clock
    with closing(store):
        wanting(breakers, ["a"])
        purser.serve(lambda: False)
        assert store.swapped == 2
        assert breakers.closed_for("a") is None
        clock.advance(dt.timedelta(seconds=0.25))
        answer = breakers.admit(["a"], "m", patience=0, wanted=1)
        assert isinstance(answer, dict)
        assert isinstance(answer["a"], Go)


def test_two_keys_that_have_one_register_are_both_answered() -> None:
    """Nobody calls a relay by what a lone surrogate is written as; if he does, it is drawn for twice."""
    clock, breakers, store, purser = office()
    twins = ["\ud800", "\\ud800"]
    with closing(store):
        wanting(breakers, twins)
        purser.serve(lambda: False)
        assert store.asked == 2
        clock.advance(dt.timedelta(milliseconds=20))
        assert not any(breakers.closed_for(key) for key in twins)


def test_who_sends_draws_for_his_own_relays_and_for_no_others() -> None:
    _, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        purser.draw(["b"])
        assert store.asked == 1
        assert breakers.closed_for("b") is None
        assert ordered(breakers) == ["a", "c"]


def test_whoever_draws_stops_between_two_portions_of_many_relays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    _, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        purser.serve(lambda: store.asked > 0)
        assert store.asked == 1
        wanting(breakers)
        assert ordered(breakers) == ["b", "c"]


class _Slow(Counted):
    """Each look at registers takes six seconds."""

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        found = super().registers(names)
        self.clock.advance(dt.timedelta(seconds=6))
        return found

    clock: ManualClock


def test_who_sends_begins_to_ask_no_further_register_after_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    clock, breakers, store, purser = office(_Slow)
    assert isinstance(store, _Slow)
    store.clock = clock
    with closing(store):
        wanting(breakers)
        purser.draw(THREE)
        assert store.asked == 1

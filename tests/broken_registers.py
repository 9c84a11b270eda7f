"""Memory stores that keep registers wrongly, each in one way."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import attrs
from breaking import caught_by

from outbox.protocols import Register
from outbox.stores.memory import MemoryStore


@caught_by("test_a_register_that_nobody_has_written_is_empty_and_tells_the_time")
class TellsNoTime(MemoryStore):
    def register(self, name: str, /) -> Register:
        return attrs.evolve(super().register(name), at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))


@caught_by("test_what_was_swapped_in_stands_there_until_it_is_swapped_again")
class KeepsOneRegister(MemoryStore):
    def register(self, name: str, /) -> Register:
        super().register(name)
        return super().register("a")

    def swap(self, name: str, old: str | None, new: str, /) -> Register | None:
        stands = super().swap("a", self._registers.get("a") if name != "a" else old, new)
        return None if name != "a" else stands


@caught_by("test_a_swap_of_what_does_not_stand_there_changes_nothing_and_says_what_does")
class TakesEverySwap(MemoryStore):
    def swap(self, name: str, old: str | None, new: str, /) -> Register | None:
        stands = super().swap(name, old, new)
        if stands is not None:
            self._registers[name] = new
        return stands


@caught_by("test_of_any_number_who_swap_the_same_at_once_one_succeeds")
class LooksAndThenWrites(MemoryStore):
    """All who are there see the same before the first of them writes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._all = threading.Barrier(4)

    def swap(self, name: str, old: str | None, new: str, /) -> Register | None:
        if old is None:
            return super().swap(name, old, new)
        stands = self.register(name)
        try:
            self._all.wait(1.0)
        except threading.BrokenBarrierError:
            self._all.reset()
        if stands.text != old:
            return stands
        self._registers[name] = new
        return None


@caught_by("test_of_two_who_begin_one_register_one_succeeds")
class BeginsAnew(MemoryStore):
    def swap(self, name: str, old: str | None, new: str, /) -> Register | None:
        if old is None:
            self._registers.pop(name, None)
        return super().swap(name, old, new)


@caught_by("test_a_register_is_kept_for_two_days_whoever_begins_others")
class KeepsThree(MemoryStore):
    def swap(self, name: str, old: str | None, new: str, /) -> Register | None:
        stands = super().swap(name, old, new)
        self._registers = dict(list(self._registers.items())[-3:])
        return stands


@caught_by("test_what_no_register_can_be_called_or_hold_is_refused")
class TakesAnyRegister(MemoryStore):
    def swap(self, name: str, old: str | None, new: str, /) -> Register | None:
        self._registers[name] = new
        return None


@caught_by("test_a_register_changes_no_message_and_is_no_news")
class WakesForRegisters(MemoryStore):
    def swap(self, name: str, old: str | None, new: str, /) -> Register | None:
        stands = super().swap(name, old, new)
        self._news.tell()
        return stands


@caught_by("test_a_closed_store_keeps_no_register")
class NeverCloses(MemoryStore):
    def register(self, name: str, /) -> Register:
        return Register(self._registers.get(name), self._clock.now())

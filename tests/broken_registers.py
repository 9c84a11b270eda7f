"""Memory stores that keep registers wrongly, each in one way."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Collection, Mapping
from typing import Any

import attrs
from breaking import caught_by

from outbox.protocols import Register, Swap
from outbox.stores.memory import MemoryStore


@caught_by("test_a_register_that_nobody_has_written_is_empty_and_tells_the_time")
class TellsNoTime(MemoryStore):
    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        return {name: attrs.evolve(each, at=then) for name, each in super().registers(names).items()}


@caught_by("test_what_was_swapped_in_stands_there_until_it_is_swapped_again")
class KeepsOneRegister(MemoryStore):
    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        (only,) = super().registers(["a"]).values()
        return dict.fromkeys(names, only)

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        for name, each in swaps.items():
            stands = super().swap(
                {"a": Swap(self._registers.get("a") if name != "a" else each.old, each.new)}
            )
            if name == "a":
                return stands
        return {}


@caught_by("test_a_swap_of_what_does_not_stand_there_changes_nothing_and_says_what_does")
class TakesEverySwap(MemoryStore):
    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        stands = super().swap(swaps)
        self._registers |= {name: swaps[name].new for name in stands}
        return stands


@caught_by("test_of_registers_that_are_swapped_at_once_each_is_by_itself")
class AllOrNothing(MemoryStore):
    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        found = self.registers(swaps)
        refused = {name: each for name, each in found.items() if each.text != swaps[name].old}
        return refused or super().swap(swaps)


@caught_by("test_hundreds_of_registers_are_asked_and_swapped_at_once")
class TellsOfAHundred(MemoryStore):
    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        return dict(list(super().registers(names).items())[:100])


@caught_by("test_of_none_there_is_nothing_to_say")
class TellsOfAllItHas(MemoryStore):
    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        return super().registers(names or ["all"])


@caught_by("test_whoever_swaps_several_at_once_waits_for_nobody_who_waits_for_him")
class WaitsForEachOther(MemoryStore):
    """Each register has a lock, taken in the order in which it is named; and nobody waits for ever."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._locks = {f"n{number}": threading.Lock() for number in range(20)}
        self._all = threading.Barrier(4)

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        held: list[threading.Lock] = []
        try:
            for name in swaps:
                if not self._locks[name].acquire(timeout=0.5):
                    raise TimeoutError("a deadlock")
                held.append(self._locks[name])
                if len(held) == 1:
                    self._meet()
            return super().swap(swaps)
        finally:
            for lock in held:
                lock.release()

    def _meet(self) -> None:
        """Those of both orders hold their first before either takes its next."""
        try:
            self._all.wait(0.2)
        except threading.BrokenBarrierError:
            self._all.reset()


@caught_by("test_of_any_number_who_swap_the_same_at_once_one_succeeds")
class LooksAndThenWrites(MemoryStore):
    """All who are there see the same before the first of them writes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._all = threading.Barrier(4)

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        if any(each.old is None for each in swaps.values()):
            return super().swap(swaps)
        stands = self.registers(swaps)
        try:
            self._all.wait(1.0)
        except threading.BrokenBarrierError:
            self._all.reset()
        refused = {name: each for name, each in stands.items() if each.text != swaps[name].old}
        self._registers |= {name: each.new for name, each in swaps.items() if name not in refused}
        return refused


@caught_by("test_of_two_who_begin_one_register_one_succeeds")
class BeginsAnew(MemoryStore):
    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        for name, each in swaps.items():
            if each.old is None:
                self._registers.pop(name, None)
        return super().swap(swaps)


@caught_by("test_a_register_is_kept_for_two_days_whoever_begins_others")
class KeepsThree(MemoryStore):
    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        stands = super().swap(swaps)
        self._registers = dict(list(self._registers.items())[-3:])
        return stands


@caught_by("test_what_no_register_can_be_called_or_hold_is_refused")
class TakesAnyRegister(MemoryStore):
    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        self._registers |= {name: each.new for name, each in swaps.items()}
        return {}


@caught_by("test_a_register_changes_no_message_and_is_no_news")
class WakesForRegisters(MemoryStore):
    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        stands = super().swap(swaps)
        self._news.tell()
        return stands


@caught_by("test_a_closed_store_keeps_no_register")
class NeverCloses(MemoryStore):
    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        return {name: Register(self._registers.get(name), self._clock.now()) for name in names}

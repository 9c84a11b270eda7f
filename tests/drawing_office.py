"""Whoever draws permits for one process, over a memory store that counts how often it is asked."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shared_limits import SHARED

from outbox import MemoryStore, Message
from outbox.breakers import Breakers
from outbox.drawing import Purser
from outbox.protocols import Register, Swap
from outbox.testing import ManualClock

__all__ = ["EACH", "THREE", "Counted", "Named", "messages", "office", "ordered", "wanting"]

EACH = {"*": SHARED}

THREE = ("a", "b", "c")


class Named:
    name = "smtp.example.org:587"


class Counted(MemoryStore):
    """Raises what is to be raised of registers, once, and counts how often it is asked."""

    error: BaseException | None = None
    asked = 0
    swapped = 0

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        self.asked += 1
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super().registers(names)

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        self.swapped += 1
        return super().swap(swaps)


def office(
    store_class: type[Counted] = Counted,
) -> tuple[ManualClock, Breakers, Counted, Purser]:
    clock = ManualClock()
    breakers = Breakers(clock, random.Random(1), limits=EACH)
    store = store_class(clock=clock)
    transport: Any = Named()
    return clock, breakers, store, Purser(store, transport, breakers, clock, random.Random(1))


def wanting(breakers: Breakers, keys: Sequence[str] = THREE) -> None:
    for key in keys:
        breakers.admit([key], f"m-{key}", patience=0, wanted=1)


def ordered(breakers: Breakers) -> list[str]:
    return sorted(breakers.await_orders(0.0, lambda: True))


def messages(number: int) -> list[Message]:
    return [Message(id=f"m{n}", recipients=["ann@example.org"], content=b"x") for n in range(number)]

"""What a drain took and could not send: when it is given back, so that it does not take the same again and again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

import attrs

from .lifecycle import Claim, Released, Settlement
from .slips import Noted

__all__ = ["Aside"]

_FOR_THE_END: Final = 1.0
_NUMBER: Final = 256
_SIZE: Final = 1 << 20
_AGAIN: Final = 25.0
"""Seconds: what a drain gives back a minute's cron job finds due, also where the drain itself took most of that."""


class Aside:
    """Few of them, and for a second: most drains are over by then, and what they give back is due at once.

    What a drain that lasts gives back comes again when that has lasted for 25
    seconds, 50, 100, and so on: so it tries all of it a few times at most, and
    is never kept from its end by what it cannot send.  Under a lease, and in
    memory, there is never much: whatever kills the process then would be
    laid to the charge of messages that nobody has handed over.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._since: float | None = None
        self._noted: list[Noted] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._noted)

    @property
    def claims(self) -> Sequence[Claim]:
        """Those that are there."""
        return [settlement.claim for settlement, _ in self._noted]

    def add(self, noted: Sequence[Noted]) -> None:
        """These were not sent."""
        self._noted += noted
        self._size += sum(len(settlement.claim.message.content) for settlement, _ in noted)

    def look(self, now: float) -> float:
        """In how many seconds what is there has to be given back."""
        self._began = now if self._began is None else self._began
        if not self._noted:
            self._since = None
            return _FOR_THE_END
        self._since = now if self._since is None else self._since
        full = len(self._noted) >= _NUMBER or self._size >= _SIZE
        return 0.0 if full else max(0.0, self._since + _FOR_THE_END - now)

    def give_back(self) -> Sequence[Noted]:
        """All of it, as it was noted: the drain is at its end, and claims no more."""
        noted, self._noted = self._noted, []
        self._size, self._since = 0, None
        return noted

    def put_off(self, now: float) -> Sequence[Noted]:
        """All of it, and none is due so soon that this drain would claim it again at once."""
        delay = self._delay(now)
        return [(_later(settlement, delay), took) for settlement, took in self.give_back()]

    def _delay(self, now: float) -> dt.timedelta:
        lasted, again = now - (now if self._began is None else self._began), _AGAIN
        while again <= lasted:
            again *= 2
        return dt.timedelta(seconds=again - lasted)


def _later(settlement: Settlement, delay: dt.timedelta) -> Settlement:
    verdict = settlement.verdict
    if not isinstance(verdict, Released) or verdict.delay >= delay:
        return settlement
    return attrs.evolve(settlement, verdict=attrs.evolve(verdict, delay=delay))

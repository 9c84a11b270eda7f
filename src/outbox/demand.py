"""How many more messages a process claims: as many as its workers will deliver soon, past those that only wait."""

from __future__ import annotations

import math
from typing import Final

from .protocols import MAX_BYTES
from .roster import Roster
from .stock import Stock

__all__ = ["BLOCKED_AT_MOST", "Demand"]

BLOCKED_AT_MOST: Final = 1000
"""As many claims of relays that take nothing now lie in one process, while others could be delivered."""
_PAST_AT_MOST: Final = 1000


class Demand:
    """What one desk wants, by its stock and its workers.

    Attributes:
        left: How many may be tried still; None is as many as there are.
        dry: The last claim brought nothing.
        shut: There is no relay to claim for.
        trickling: The last claim brought fewer than were asked for.
        low: So many in the stock, or fewer, are soon to be made up for.
    """

    def __init__(self, stock: Stock, roster: Roster, *, several: bool, limit: int | None) -> None:
        self.left = limit
        self.dry = self.shut = self.trickling = False
        self.low = math.inf
        self._stock = stock
        self._roster = roster
        self._several = several
        self._asked_for = 0
        self._in_vain = 0
        self._ration: float = math.inf

    @property
    def held_up(self) -> int:
        """How many wait for relays that take nothing now, while others could be delivered."""
        return self._stock.held_up if self._several else 0

    def number(self, now: float) -> int:
        """How many to claim now."""
        if self.dry or self._stock.size >= MAX_BYTES:
            return 0
        missing = self._missing(sum(hand.wants(now) for hand in self._roster.hands))
        missing = int(min(missing, max(0, self._ration - self._stock.number)))
        return missing if self.left is None else min(missing, self.left)

    def ask(self, number: int) -> None:
        """So many are asked for."""
        self._asked_for = number

    def claimed(self, number: int) -> None:
        """So many came."""
        self.dry, self.trickling = not number, number < self._asked_for
        if self.left is not None:
            self.left -= number

    def met(self) -> None:
        """What was claimed is delivered: where it was rationed, twice as much is."""
        self._in_vain, self._ration = 0, 2 * self._ration

    def missed(self, number: int) -> None:
        """So many were claimed in vain."""
        self._in_vain += number

    def untried(self, number: int) -> None:
        """So many count as not tried: whoever set the limit meant those that could be."""
        if self.left is not None:
            self.left += number

    def ration(self) -> None:
        """One place at a slow limit is for one message: the first of the queue when it opens, not one that waits here."""
        self._ration = 1

    def _missing(self, wanted: int) -> int:
        blocked = self.held_up
        ready = self._stock.number - blocked
        # Half of it is on the desk still: the fewer claims, the larger.
        self.low = blocked + wanted // 2
        if 2 * ready > wanted or blocked >= BLOCKED_AT_MOST:
            return 0
        # Past what is blocked in growing steps: behind it there may be mail for other relays.
        past = min(max(blocked, self._in_vain), _PAST_AT_MOST)
        return max(wanted - ready, past) if wanted else 0

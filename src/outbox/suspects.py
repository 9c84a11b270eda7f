"""Messages whose worker died: each may be what killed it, so it is handed over alone, and takes no other with it.

Alone is: nobody else is at work, and all that was delivered is written.
Whether that is so, the desk knows (:mod:`outbox.desk`).
"""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from .lifecycle import Claim
from .stock import Lane

__all__ = ["Suspects"]

_FOR_ISOLATION: Final = 1.0
_LONGEST: Final = 5.0


class Suspects:
    """Those that wait for their turn, and whether it is one's turn now (*alone*).

    While one waits nothing is claimed, nor begun.  So it waits for *patience*
    at most, and is then given back for four times as long.  Each time in vain
    doubles both, up to five seconds: one delivery that lasts for minutes must
    not keep all other mail back with it, and a suspect that comes every half
    minute meets a moment at which none lasts for longer.

    Args:
        patient: There is time enough: they wait for as long as it takes.
    """

    def __init__(self, *, patient: bool) -> None:
        self.alone = False
        self._waiting: deque[tuple[Lane, Claim]] = deque()
        self._came_at = 0.0
        self._patience = self._least = math.inf if patient else _FOR_ISOLATION

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[tuple[Lane, Claim]]:
        return iter(self._waiting)

    @property
    def first(self) -> tuple[Lane, Claim]:
        """Whose turn is next."""
        return self._waiting[0]

    def add(self, lane: Lane, claim: Claim, now: float, *, first: bool = False) -> None:
        """One more, behind the others or before them; all have patience anew."""
        (self._waiting.appendleft if first else self._waiting.append)((lane, claim))
        self._came_at = now

    def pop(self) -> tuple[Lane, Claim]:
        """The first one, taken away."""
        return self._waiting.popleft()

    def clear(self) -> Sequence[tuple[Lane, Claim]]:
        """All of them, taken away."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def isolate(self) -> None:
        """It is the first one's turn.  It stays until it is pulled: were its run dropped before, it would be one still."""
        self.alone, self._patience = True, self._least

    def left(self, now: float) -> float:
        """For how many seconds more they may wait."""
        return self._came_at + self._patience - now

    def give_up(self) -> tuple[Claim, dt.timedelta]:
        """The first one waited in vain: it, taken away, and for how long to give it back."""
        delay = dt.timedelta(seconds=4 * self._patience)
        self._patience = min(2 * self._patience, _LONGEST)
        return self.pop()[1], delay

"""Over how many connections, and how many messages at a time: what one relay has been seen to take."""

from __future__ import annotations

import math
from typing import Final

import attrs

__all__ = ["Room"]

MAX_BATCH: Final = 100
_USUAL: Final = 20
_STEP: Final = 1.0
_WIDER: Final = 30.0
_WARM: Final = 25.0
_MEASURED: Final = 10.0
_IN_A_ROW: Final = 3
_PACE: Final = 100.0
"""Messages a second, as long as nothing was measured."""


@attrs.define
class Room:
    """The connections that are *taken*, and the *width*: how many may be, of *most*.

    It begins with one connection and one message.  Both double for each round
    that went well: as many batches as there may be connections.  That is the
    slow start of TCP, and is through in a handful of round trips where the
    relay keeps up: what it has not kept up with is never doubled.

    What is *left_over* from before it last failed may hang there for long, and
    says nothing of how it is now: it counts against *most* alone.  By its
    *generation* it is told apart when it ends.

    A relay that failed is treated with care: doubling takes a second at
    least, up to half of the width at which it failed; from there one more
    connection every thirty seconds.  So a relay that takes only so many
    connections is not pushed over the edge again and again.  When all of it
    has been regained the failure is forgotten.
    """

    most: int = _USUAL
    width: int = 1
    number: int = 1
    taken: int = 0
    left_over: int = 0
    generation: int = 0
    pace: float = _PACE
    _safe: int = 0
    _careful: bool = False
    _ended: int = 0
    _in_vain: int = 0
    _step_at: float = -math.inf
    _wider_at: float = -math.inf
    _warm: list[float] = attrs.Factory(list)
    _done: int = 0
    _counted_from: float | None = None

    @classmethod
    def of(cls, connections: int | None) -> Room:
        """Room for so many connections at most."""
        most = connections or _USUAL
        return cls(most=most, safe=most)

    @property
    def in_use(self) -> int:
        """Those that are taken, and what is left over."""
        return self.taken + self.left_over

    def fresh(self, now: float) -> bool:
        """Whether the next connection would have to be opened."""
        return not self._warm or now - self._warm[-1] > _WARM

    def take(self, now: float) -> None:
        """A connection is in use."""
        if self.fresh(now):
            self._warm.clear()
        else:
            self._warm.pop()
        self.taken += 1

    def leave(self, now: float, done: int, generation: int, *, well: bool, in_vain: bool = False) -> None:
        """One is not in use any more, over which *done* messages went.

        *well*: it may be used again.  *in_vain*: but none of its messages was
        taken or refused; three in a row are a sign that it is asked too much.
        """
        current = generation == self.generation
        if current:
            self.taken = max(0, self.taken - 1)
        else:
            self.left_over = max(0, self.left_over - 1)
        if not well:
            return
        self._warm.append(now)
        if not (done and current):
            return
        self._in_vain = self._in_vain + 1 if in_vain else 0
        if self._in_vain == _IN_A_ROW:
            self.halve(now)
            self._in_vain = 0
        elif not in_vain:
            self._measure(now, done)
            self._ended += 1
            if self._ended >= self.width and now >= self._step_at:
                self._grow(now)

    def halve(self, now: float) -> None:
        """It took less than it was given."""
        self._shrink(now, max(1, self.width // 2), max(1, self.number // 2))

    def close(self, now: float) -> None:
        """It failed: it begins anew, with care."""
        self.generation += 1
        self.left_over, self.taken = self.in_use, 0
        self._warm.clear()
        self._shrink(now, 1, 1)

    def _grow(self, now: float) -> None:
        self._ended = 0
        self.number = min(MAX_BATCH, self.number * 2)
        if self.width < self._safe:
            self.width = min(self._safe, self.width * 2)
        elif self.width < self.most and now >= self._wider_at:
            self.width += 1
            self._wider_at = now + _WIDER
        if self.width == self.most and self.number == MAX_BATCH:
            self._careful, self._safe = False, self.most
        self._step_at = now + _STEP if self._careful else now

    def _shrink(self, now: float, width: int, number: int) -> None:
        if self.width > 1:
            # What fails while it is asked with one message says nothing of how wide it may be.
            self._safe = max(1, self.width // 2)
        self.width, self.number, self._ended = width, number, 0
        self._careful = True
        self._step_at, self._wider_at = now + _STEP, now + _WIDER

    def _measure(self, now: float, done: int) -> None:
        """How much it takes a second, of late: the half of what it took before at least."""
        if self._counted_from is None:
            self._counted_from = now
        self._done += done
        took = now - self._counted_from
        if took >= _MEASURED:
            self.pace = max(self._done / took, self.pace / 2)
            self._counted_from, self._done = now, 0

"""How many messages are changed in one commit, so that whoever delivers beside it waits for no longer than a moment."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

from outbox.clock import Clock, SystemClock

__all__ = ["STEP", "Pace"]

STEP: Final = 200
"""So many at most."""
_LEAST: Final = 10
_AIM: Final = 0.05
"""Seconds that a step is to take."""
_SHORTEST: Final = 0.002
"""Seconds: who waits for a write looks every millisecond whether it is his turn."""
_LONGEST: Final = 0.05


class Pace:
    """Fewer where the last ones took long, more where not; and after each step a pause in which others write.

    Without it those who wait meet a database that is nearly always taken, and
    have their turn by chance.

    Args:
        pause: Waits for so many seconds.

    Attributes:
        number: How many the next step is to change.
    """

    def __init__(self, clock: Clock | None = None, pause: Callable[[float], object] | None = None) -> None:
        self.number = STEP
        self._clock = clock or SystemClock()
        self._pause = pause or threading.Event().wait
        self._took = 0.0

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Within the block the step is done."""
        began = self._clock.monotonic()
        yield
        self._took = self._clock.monotonic() - began
        # By half or double at most: one that had to wait for others says little.
        share = _AIM / self._took if self._took > 0 else 2
        self.number = round(min(STEP, max(_LEAST, self.number * min(2, max(0.5, share)))))

    def rest(self) -> None:
        """Let others write: half as long as the step took."""
        self._pause(min(_LONGEST, max(_SHORTEST, self._took / 2)))

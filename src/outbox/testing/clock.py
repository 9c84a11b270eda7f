"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Final

__all__ = ["ManualClock"]

_NEW_YEAR: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_ZERO: Final = dt.timedelta(0)


class ManualClock:
    """A :class:`~outbox.clock.Clock` for tests.  Safe to use from many threads."""

    def __init__(self, start: dt.datetime = _NEW_YEAR) -> None:
        self._lock = threading.Lock()
        self._now = start.astimezone(dt.UTC)
        self._monotonic = 0.0

    def now(self) -> dt.datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, delta: dt.timedelta) -> None:
        """Let so much time pass, on the wall and in the process; never back."""
        if delta < _ZERO:
            raise ValueError(f"advance({delta}) would go back; set_back() moves the wall clock alone")
        with self._lock:
            self._now += delta
            self._monotonic += delta.total_seconds()

    def set_back(self, delta: dt.timedelta) -> None:
        """Set the wall clock back, as a correction of the machine's time would."""
        with self._lock:
            self._now -= delta

    def __repr__(self) -> str:
        return f"ManualClock({self._now.isoformat()})"

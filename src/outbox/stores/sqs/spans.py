"""Time as SQS has it: in whole seconds, and not for long."""

from __future__ import annotations

import datetime as dt
from typing import Final

import attrs

from outbox.stores.instants import FOREVER, width

__all__ = ["LONGEST_DELAY", "LONGEST_LEASE", "Lease", "seconds"]

LONGEST_DELAY: Final = 900
LONGEST_LEASE: Final = 43_200
_ROOM: Final = 5
"""Seconds by which we end before SQS does: it refuses an extension that goes beyond its twelve hours."""
_SECOND: Final = 1_000_000


def seconds(microseconds: int) -> int:
    """As whole seconds, rounded up: nothing comes before its time."""
    return -(-max(0, microseconds) // _SECOND)


@attrs.frozen
class Lease:
    """From *now* on until *until*, from one second to twelve hours; what is received now is hidden to *last* at most."""

    now: int
    seconds: int
    until: int
    last: int

    @classmethod
    def of(cls, lease: dt.timedelta, now: int) -> Lease:
        hidden = min(max(1, seconds(width(lease))), LONGEST_LEASE)
        return cls(now, hidden, now, now).at(now)

    @property
    def middle(self) -> int:
        return (self.now + self.until) // 2

    def at(self, now: int) -> Lease:
        """The same, beginning then."""
        return Lease(now, self.seconds, _after(now, self.seconds), _after(now, LONGEST_LEASE - _ROOM))

    def within(self, last: int) -> int:
        """Its seconds, where none may be later than *last*; none where that is over."""
        return max(0, min(self.seconds, (last - self.now) // _SECOND))

    def end(self, seconds: int) -> int:
        """When it ends, of so many seconds."""
        return _after(self.now, seconds)


def _after(now: int, seconds: int) -> int:
    return min(now + seconds * _SECOND, FOREVER)

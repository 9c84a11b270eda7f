"""Connections at rest, the latest used first: decides which to use and which have had their day."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import attrs

from outbox.clock import Clock
from outbox.errors import ConfigurationError

__all__ = ["Limits", "Pool", "Poolable"]


@attrs.frozen(kw_only=True)
class Limits:
    """How long a connection is of use: messages carried, age, and rest between two messages."""

    max_messages: int = 1000
    max_age: dt.timedelta = dt.timedelta(seconds=300)
    idle: dt.timedelta = dt.timedelta(seconds=30)

    def __attrs_post_init__(self) -> None:
        if self.max_messages < 1:
            raise ConfigurationError("max_messages must be at least 1")
        for name in ("max_age", "idle"):
            if getattr(self, name) < dt.timedelta(0):
                raise ConfigurationError(f"{name} must not be negative")


class Poolable(Protocol):
    """What a pool has to know of a connection; the instants are of the monotonic clock."""

    usable: bool
    messages: int
    opened_at: float
    rested_at: float

    def close(self) -> None: ...


C = TypeVar("C", bound=Poolable)


class _Shelf(Generic[C]):
    """The connections of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.resting: list[C] = []
        self.open = True


class Pool(Generic[C]):
    """Safe from many threads, and after a fork: a child finds it empty, and lets its parent's sockets be.

    Nothing here speaks to a server: whoever is handed connections to part
    with closes them.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._shelves: dict[int, _Shelf[C]] = {}

    def take(self) -> C | None:
        """The connection used last of those whose time is not over."""
        shelf = self._shelf()
        with shelf.lock:
            for number in reversed(range(len(shelf.resting))):
                if self._fresh(shelf.resting[number]):
                    return shelf.resting.pop(number)
        return None

    def give(self, connection: C) -> bool:
        """Keep *connection* for the next message; False where it is to be parted with."""
        shelf = self._shelf()
        connection.rested_at = self._clock.monotonic()
        with shelf.lock:
            if not (shelf.open and self._fresh(connection)):
                return False
            shelf.resting.append(connection)
        return True

    def spent(self, connection: C) -> bool:
        """Has it carried enough, or lived long enough?"""
        return (
            connection.messages >= self._limits.max_messages
            or self._clock.monotonic() - connection.opened_at >= self._limits.max_age.total_seconds()
        )

    def expired(self) -> Sequence[C]:
        """Those whose time is over, to be parted with."""
        shelf = self._shelf()
        with shelf.lock:
            over = [connection for connection in shelf.resting if not self._fresh(connection)]
            shelf.resting = [connection for connection in shelf.resting if connection not in over]
        return over

    def close(self) -> Sequence[C]:
        """Keep none from now on; those at rest, to be parted with."""
        shelf = self._shelf()
        with shelf.lock:
            shelf.open = False
            rest, shelf.resting = shelf.resting, []
        return rest

    def _fresh(self, connection: C) -> bool:
        rested = self._clock.monotonic() - connection.rested_at
        return connection.usable and not self.spent(connection) and rested < self._limits.idle.total_seconds()

    def _shelf(self) -> _Shelf[C]:
        # By process, for a lock or a socket that was forked belongs to the parent.
        pid = os.getpid()
        shelf = self._shelves.get(pid)
        if shelf is None:
            # Another thread of this process may have put ours there meanwhile.
            inherited = [self._shelves.pop(old, None) for old in tuple(self._shelves) if old != pid]
            shelf = self._shelves.setdefault(pid, _Shelf())
            for connection in (c for old in inherited if old for c in old.resting):
                connection.close()
        return shelf

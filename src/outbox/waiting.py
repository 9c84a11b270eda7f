"""Waits that a signal handler leaves whole, and may use itself.

The handler of a signal may raise anywhere in the main thread: a timeout, a
KeyboardInterrupt.  Within ``threading.Condition``, which is written in Python,
it leaves the lock taken for ever, and every other thread before it.  And what
it waits for itself may need the lock of the very code that it interrupted.
Here nobody takes a lock that somebody else needs: each waits before one of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final, Protocol

from outbox.clock import SystemClock

__all__ = ["Bed", "Flag", "Waiting"]

_PATIENCE: Final = 1.0
"""So many seconds later what somebody failed to tell is seen all the same: he was interrupted before he could."""


class Bed(Protocol):
    """What a thread sleeps in until another wakes it."""

    def acquire(self, *, timeout: float) -> object:
        """Sleep until it is released, so many seconds at most."""
        ...

    def release(self) -> None:
        """Wake whoever sleeps in it; RuntimeError where he need not be."""
        ...


class Waiting:
    """Threads that wait until something is true that others bring about; whoever does wakes them.

    Args:
        patience: After so many seconds they look by themselves; None: after a second.
    """

    def __init__(self, *, patience: float | None = None) -> None:
        self._patience = patience
        # Adding, removing and copying are one step each, and so need no lock.
        self._waiting: set[Bed] = set()

    def wait_for(
        self, true: Callable[[], bool], seconds: float = threading.TIMEOUT_MAX, *, bed: Bed | None = None
    ) -> bool:
        """Block until *true* says so; what it says in the end.

        Args:
            bed: What it sleeps in, which something else may wake it from, too.
        """
        clock, mine = SystemClock(), bed or _bed()
        until = clock.monotonic() + seconds
        try:
            # Before it is asked, so that nothing slips between the answer and the wait.
            self._waiting.add(mine)
            while not true():
                left = until - clock.monotonic()
                if left <= 0:
                    return False
                mine.acquire(timeout=min(left, self._patience or _PATIENCE))
        finally:
            self._waiting.discard(mine)
        return True

    def wake(self) -> None:
        """Something has come true: let everyone look."""
        for each in list(self._waiting):
            # He has been told already, and not looked yet.
            with contextlib.suppress(RuntimeError):
                each.release()


class Flag:
    """In the place of a :class:`threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        # Threads wait here for as long as a runner has nothing to do: each waking would cost it more than all the rest.
        self._waiting = Waiting(patience=threading.TIMEOUT_MAX)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def set(self) -> None:
        """Set it, and wake all who wait."""
        self._set = True
        self._waiting.wake()

    def clear(self) -> None:
        """Let others wait again."""
        self._set = False

    def wait(self, seconds: float = threading.TIMEOUT_MAX) -> bool:
        """Wait until it is set, for so many seconds at most; whether it is."""
        return self._set or self._waiting.wait_for(self.is_set, seconds)


def _bed() -> Bed:
    lock = threading.Lock()
    lock.acquire()
    return lock

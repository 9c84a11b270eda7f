"""How the workers of one process take turns: who may work beside whom, and who listens for news."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["Gathering", "Lounge", "Turns", "seconds"]

_LONGEST: Final = dt.timedelta(hours=1)


def seconds(wait: dt.timedelta) -> float:
    """The seconds of a wait, as many as a thread can be asked to wait."""
    return min(max(0.0, wait.total_seconds()), threading.TIMEOUT_MAX)


class Turns:
    """Many may work at once; a suspect is worked on alone.

    A message whose worker died may be what killed it.  It is handed over
    while nothing else of the process is in flight, so that it can take no
    other with it.

    A suspect that is waiting for that keeps everybody else outside.  So he
    waits for *patience* at most (None is for ever) and then lets them in for
    four times as long; each time in vain doubles both, so that in the end he
    outlasts the slowest delivery.
    """

    def __init__(self, *, patience: dt.timedelta | None = None) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._isolated = False
        self._closed = False
        self._least = self._patience = patience

    def enter(self) -> bool:
        """Join those who work, once nobody is isolated; False: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._isolated)
            if self._closed:
                return False
            self._working += 1
            return True

    def leave(self, *, isolated: bool) -> None:
        """End the turn that :meth:`enter` (and :meth:`isolate`) began."""
        with self._changed:
            self._working -= 1
            if isolated:
                self._isolated = False
            self._changed.notify_all()

    def isolate(self) -> dt.timedelta | None:
        """From within a turn: wait to be the only one; None once he is, otherwise how long to step back.

        Zero: another is or will be the only one, or it is closed.
        """
        with self._changed:
            if self._isolated or self._closed:
                return dt.timedelta(0)
            self._isolated = True
            waited = None if self._patience is None else seconds(self._patience)
            # Those at work end their turns; those who wait to enter stay outside.
            if self._changed.wait_for(lambda: self._closed or self._working == 1, waited):
                self._patience = self._least
                return None
            return self._step_back()

    def _step_back(self) -> dt.timedelta:
        tired = self._patience or dt.timedelta(0)
        self._patience = min(2 * tired, _LONGEST)
        self._isolated = False
        self._changed.notify_all()
        return 4 * tired

    def close(self) -> None:
        """Let nobody in any more; those who wait are told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Gathering:
    """Where those who are at their end wait for the others; *expected* is how many there are."""

    def __init__(self, expected: int) -> None:
        self._changed = threading.Condition()
        self._expected = expected

    def arrive(self) -> None:
        """One more is at his end."""
        with self._changed:
            self._expected -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait for the last one, or until it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._expected <= 0)

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._expected = 0
            self._changed.notify_all()


class Lounge:
    """Where idle workers wait: one listens to the store, the others to him.

    News wakes the one who listens; each worker that found something to
    claim calls the next, so that a burst wakes all and a single message one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._listening = False
        self._calls = 0
        self._idle = 0
        self._closed = False

    def call(self) -> None:
        """There is more than one worker's share: wake another, where one is idle."""
        with self._changed:
            if self._idle > self._calls:
                self._calls += 1
                self._changed.notify()

    def wait(self, listen: Callable[[], object]) -> bool:
        """Wait for news; the worker who finds the place free runs *listen*.  False: closed."""
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._closed or self._calls or not self._listening)
                if self._calls:
                    self._calls -= 1
                    return not self._closed
                if self._closed:
                    return False
                self._listening = True
            finally:
                self._idle -= 1
        try:
            listen()
        finally:
            with self._changed:
                self._listening = False
                self._changed.notify()
        return not self._closed

    def close(self) -> None:
        """End every wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

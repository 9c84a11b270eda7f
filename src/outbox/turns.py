"""How the workers of one process take turns: who may work beside whom, and who listens for news."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Lounge", "Turns"]


class Turns:
    """Many may work at once; a suspect is worked on alone.

    A message whose worker died may be what killed it.  It is handed over
    while nothing else of the process is in flight, so that it can take no
    other with it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._isolated = False
        self._closed = False

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

    def isolate(self) -> bool:
        """From within a turn: wait to be the only one; False: another is, or will be, or it is closed."""
        with self._changed:
            if self._isolated or self._closed:
                return False
            self._isolated = True
            # Those at work end their turns; those who wait to enter stay outside.
            self._changed.wait_for(lambda: self._closed or self._working == 1)
            return True

    def close(self) -> None:
        """Let nobody in any more; those who wait are told."""
        with self._changed:
            self._closed = True
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

"""Waits for what other processes commit: the kernel tells of it where it can, and the store is looked at in any case.

A watch only says when to look; polling is the truth.  Where the kernel tells
nothing, or not of all, a wait may be longer, and that is all.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from outbox.clock import SystemClock

from .inotify import Watch
from .news import News

__all__ = ["Watching"]

V = TypeVar("V")

_WATCHED: Final = 5.0
"""Seconds between two looks while the kernel is to tell of what there is to see."""
_AT_ONCE: Final = 0.0005
"""Seconds from a change to the look: our own process, if it made it, tells of it by then."""
_SOON: Final = tuple(_AT_ONCE * 2**step for step in range(11))
"""Seconds from look to look thereafter: SQLite's file changes before the commit is synced, and there to be seen."""
_DEAF: Final = 3
"""So many changes missed one after the other: the file system tells nothing."""


class Watching:
    """The waits of one process for one store: of those that wait, one thread sleeps before the watch.

    The others wait until he leaves, or there is news in their own process;
    then each looks for himself, and one of them takes his place.  A thread
    that an exception tears out of its wait leaves nothing that the others
    cannot do without.

    Args:
        path: The file that changes with each commit of another process.
    """

    def __init__(self, news: News, path: str) -> None:
        self._news = news
        self._path = path
        self._watch: Watch | None = None
        self._closed = False
        # Who listens, by thread.  To enter and to leave are one step each, and so need no lock.
        self._listener: dict[None, int] = {}

    def wait(
        self, timeout: dt.timedelta, look: Callable[[], V], seen: V, *, poll: dt.timedelta
    ) -> tuple[bool, V]:
        """Block until there is news for this thread, or *look* shows another thing than *seen*; and what it showed.

        Args:
            poll: How long from look to look where nobody tells of changes.
        """
        clock, me = SystemClock(), threading.get_ident()
        until = clock.monotonic() + timeout.total_seconds()
        vigil = _Vigil(self._news, poll.total_seconds())
        told = over = False
        try:
            while True:
                # In this order: of what comes after the look the kernel tells.
                if not vigil.prepare(self._listened(me), heard=self._heard):
                    self._leave(me)
                found = look()
                if told or found != seen:
                    vigil.found(told=told)
                    # Whoever returns from here goes to see all that there is: of that he need not be told again.
                    self._news.look()
                    return True, found
                if over:
                    return False, found
                told = vigil.sleep(max(0.0, until - clock.monotonic()))
                over = clock.monotonic() >= until
        finally:
            vigil.end()
            self._leave(me)

    def close(self) -> None:
        """Watch no more; whoever sleeps before the watch is woken by others."""
        self._closed, self._watch = True, None

    def abandon(self) -> None:
        """The same in a forked child, which has none of the parent's threads: its descriptors are closed at once."""
        watch = self._watch
        self.close()
        if watch is not None:
            watch.close()

    def _heard(self) -> bool:
        """Whether there is a thread that sleeps before the watch."""
        return bool(self._listener)

    def _listened(self, me: int) -> Watch | None:
        """The watch, where this thread is the one that sleeps before it."""
        watch = self._usable()
        if watch is not None and self._listener.setdefault(None, me) == me:
            return watch
        return None

    def _usable(self) -> Watch | None:
        watch = self._watch
        if watch is None and not self._closed:
            try:
                watch = self._watch = Watch(self._path)
            except OSError:
                return None
        return watch if watch is not None and watch.missed < _DEAF else None

    def _leave(self, me: int) -> None:
        if self._listener.get(None) == me:
            self._listener.pop(None, None)
            self._news.nudge()


class _Vigil:
    """One wait: how it sleeps from one look to the next."""

    def __init__(self, news: News, poll: float) -> None:
        self._news = news
        self._poll = poll
        self._watch: Watch | None = None
        self._heard: Callable[[], bool]
        self._soon: list[float] = []
        self._silent = False

    def prepare(self, watch: Watch | None, *, heard: Callable[[], bool]) -> bool:
        """Before a look; False where *watch*, before which this thread sleeps, is of no use now.

        Args:
            heard: Whether any thread sleeps before it.
        """
        self._heard = heard
        self._watch = None
        if watch is None:
            return True
        try:
            stirred = watch.stirred()
        except OSError:
            return False
        self._watch = watch
        if stirred:
            self._silent, self._soon = False, list(reversed(_SOON))
        return True

    def found(self, *, told: bool) -> None:
        """There is something new; where the watch should have told of it, note it."""
        if self._watch is None or not self._silent or told:
            return
        with contextlib.suppress(OSError):
            if self._watch.stirred():
                self._watch.told = True
            else:
                self._watch.missed += 1

    def end(self) -> None:
        """It is over; what may still come of the last change is left to the next wait."""
        if self._watch is not None and self._soon:
            self._watch.told = True

    def sleep(self, left: float) -> bool:
        """Until the next look, *left* seconds at most; True where there is news for this thread."""
        watch, self._silent = self._watch, False
        seldom = min(left, max(self._poll, _WATCHED))
        if watch is None:
            if self._heard():
                return self._news.wait(seldom, unless=lambda: not self._heard())
            return self._news.wait(min(left, self._poll))
        soon = self._soon.pop() if self._soon else None
        longest = seldom if soon is None else min(left, soon)
        told = self._news.wait(longest, unless=lambda: watch.told, bed=watch)
        if not told and watch.told:
            return self._news.wait(min(left, _AT_ONCE))
        self._silent = not told and soon is None
        return told

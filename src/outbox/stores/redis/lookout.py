"""Waits for what others put: the server tells of it where it can, and is asked in any case.

Of the threads that wait, one sleeps before the :class:`.bell.Bell`; the others
wait until he has heard something, or leaves and one of them takes his place.
What the bell says is a hint; polling is the truth.
"""

from __future__ import annotations

import datetime as dt
import random
import threading
from typing import Final

from outbox.clock import SystemClock
from outbox.errors import StoreError, StoreUnavailable

from .bell import Bell
from .caller import Caller
from .tidings import Tidings, number

__all__ = ["Lookout"]

_SELDOM: Final = 5.0
"""Seconds from look to look while the server is to tell of what there is to see."""
_SLOWEST: Final = 20
"""So many times *poll* is the longest from look to look where it tells nothing: nobody hammers a server that is down."""


class Lookout:
    """The waits of one process for one store.

    Args:
        poll: How long from look to look at first, where the server tells nothing.
    """

    def __init__(self, caller: Caller, tidings: Tidings, poll: dt.timedelta) -> None:
        self._caller = caller
        self._tidings = tidings
        self._poll = poll.total_seconds()
        self._closed = False
        self._bell: Bell | None = None
        # Who listens, by thread.  To enter and to leave are one step each, and so need no lock.
        self._listener: dict[None, int] = {}

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`."""
        clock, me = SystemClock(), threading.get_ident()
        until = clock.monotonic() + timeout.total_seconds()
        pace = self._poll
        try:
            while not self._tidings.news:
                left = until - clock.monotonic()
                if left <= 0:
                    return False
                bell = self._listening(me)
                if bell is None and self._listener.get(None, me) != me:
                    self._sleep(min(left, _SELDOM), None)
                    continue
                self._look()
                self._sleep(min(left, _spread(_SELDOM if bell is not None else pace)), bell)
                pace = min(2 * pace, _SLOWEST * self._poll)
        finally:
            self._leave(me)
        self._tidings.heard()
        return True

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        self._tidings.wake()

    def _sleep(self, seconds: float, bell: Bell | None) -> None:
        if self._tidings.news:
            return
        alone = bell is None
        self._tidings.wait(seconds, bed=bell, unless=lambda: alone and not self._listener)
        if self._closed:
            raise StoreUnavailable(f"this store of {self._caller.place} was closed")

    def _listening(self, me: int) -> Bell | None:
        """The bell, a read under way, where this thread is the one that sleeps before it."""
        if self._closed or self._listener.setdefault(None, me) != me:
            return None
        if self._bell is None or not self._bell.of_this_process:
            self._bell = self._caller.bell(self._tidings)
        return self._bell if self._bell.listen(self._tidings.latest) else None

    def _leave(self, me: int) -> None:
        if self._listener.get(None) == me:
            if self._closed and self._bell is not None:
                self._bell.hang_up()
            self._listener.pop(None, None)
            self._tidings.nudge()

    def _look(self) -> None:
        asked = self._tidings.latest
        try:
            found = self._caller.ask("XREVRANGE", self._caller.key("news"), "+", "-", "COUNT", 1)
        except StoreError:
            return
        self._tidings.learn(number(found[0][0] if found else b"0-1"), asked=asked)


def _spread(seconds: float) -> float:
    """Somewhat more or less, so that many who began at once do not go on at once."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - nobody gains by guessing it

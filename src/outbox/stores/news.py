"""How threads of one process learn that there may be something to claim."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from outbox.waiting import Bed, Waiting

__all__ = ["News"]


class News:
    """A number that changes with each piece of news, and remembers what each thread has seen.

    A thread has seen what there was when it last looked or last stopped
    waiting; so nothing slips between an empty claim and the wait after it,
    and each piece of news ends a thread's wait once.  A signal's handler may
    raise within any of it: the others go on, and learn a second later what
    they were not told.
    """

    def __init__(self) -> None:
        self._waiting = Waiting()
        self._numbers = itertools.count(1)
        self._told = 0
        self._thread = threading.local()

    def tell(self) -> None:
        """Something may have become claimable: end every wait."""
        # Another number each time, also from many threads at once.
        self._told = next(self._numbers)
        self._waiting.wake()

    def look(self) -> None:
        """This thread is about to see all that there is."""
        self._thread.seen = self._told

    def nudge(self) -> None:
        """What some wait for beside news may have come: let them look."""
        self._waiting.wake()

    def wait(
        self, seconds: float, *, unless: Callable[[], bool] = lambda: False, bed: Bed | None = None
    ) -> bool:
        """Block until there is news for this thread; False where the time ran out.

        Args:
            unless: What ends the wait as well; whoever brings it about calls :meth:`nudge`, or wakes from *bed*.
            bed: See :meth:`.waiting.Waiting.wait_for`.
        """
        seen = self._thread.__dict__.setdefault("seen", self._told)
        patience = min(max(0.0, seconds), threading.TIMEOUT_MAX)
        self._waiting.wait_for(lambda: self._told != seen or unless(), patience, bed=bed)
        if self._told == seen:
            return False
        self.look()
        return True

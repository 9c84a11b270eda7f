"""What this process knows of the store's news: their numbers come from the server, and grow, but for a failover."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from outbox.stores.forking import whole_after_fork
from outbox.waiting import Bed, Waiting

__all__ = ["NOTHING", "Number", "Tidings", "number"]

Number: TypeAlias = tuple[int, int]

NOTHING: Final[Number] = (0, 0)
"""Said where nothing was told."""
_NONE_YET: Final[Number] = (0, 1)
"""Before every piece of news: where the server has none."""


def number(text: bytes) -> Number:
    """The id of an entry in the stream of news, as a script tells it."""
    first, _, second = text.partition(b"-")
    return (int(first), int(second)) if first else NOTHING


class Tidings:
    """The latest piece of news, and what each thread has seen of it."""

    def __init__(self) -> None:
        self._waiting = Waiting()
        self._lock = threading.Lock()
        self._latest: Number = _NONE_YET
        self._woken = 0
        self._thread = threading.local()
        whole_after_fork(self._lock)

    def learn(self, told: Number, *, asked: Number | None = None) -> None:
        """There was this piece of news: end the waits of all who have not seen it.

        Args:
            asked: What was the latest when the server was asked.  Where it tells of an earlier one as its latest it is not
                the one that told of that: another has taken over, which lacks the last news and whose clock is behind.
                What it tells is the truth, and news to all.
        """
        with self._lock:
            if told in (NOTHING, self._latest):
                return
            if told < self._latest:
                if asked is None or told >= asked:
                    return
                self._woken += 1
            self._latest = told
        self._waiting.wake()

    def saw(self, told: Number, *, asked: Number | None = None) -> None:
        """This thread has seen all that there was up to this piece."""
        self.learn(told, asked=asked)
        self._thread.seen = self._latest if told == NOTHING else told
        self._thread.woken = self._woken

    def wake(self) -> None:
        """End every wait."""
        with self._lock:
            self._woken += 1
        self._waiting.wake()

    def nudge(self) -> None:
        """What some wait for beside news may have come: let them look."""
        self._waiting.wake()

    @property
    def news(self) -> bool:
        """Whether there is something that this thread has not seen."""
        seen: Number = self._thread.__dict__.setdefault("seen", self._latest)
        woken: int = self._thread.__dict__.setdefault("woken", self._woken)
        return self._latest > seen or self._woken != woken

    @property
    def latest(self) -> Number:
        """The latest piece of news that this process knows of."""
        return self._latest

    def heard(self) -> None:
        """This thread goes to see all that it has been told of."""
        self._thread.seen, self._thread.woken = self._latest, self._woken

    def wait(
        self, seconds: float, *, bed: Bed | None = None, unless: Callable[[], bool] = lambda: False
    ) -> bool:
        """Block until there is news for this thread; False where the time ran out.

        Args:
            unless: What ends the wait as well; whoever brings it about calls :meth:`nudge`.
        """
        patience = min(max(0.0, seconds), threading.TIMEOUT_MAX)
        return self._waiting.wait_for(lambda: self.news or unless(), patience, bed=bed)

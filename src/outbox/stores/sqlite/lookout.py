"""Whether there may be something to claim: seen without the lock for writing, and waited for."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence

from outbox.errors import CorruptRecord
from outbox.stores.instants import span

from . import claiming
from .connection import Database

__all__ = ["Lookout"]


class Lookout:
    """What each thread has seen of the news of this process, and of what others have committed.

    Args:
        poll: How long from look to look for what other processes have written, where the system does not tell of it.
    """

    def __init__(self, database: Database, poll: dt.timedelta, now: Callable[[], int]) -> None:
        self._database = database
        self._poll = poll
        self._now = now
        self._thread = threading.local()

    def look(self) -> None:
        """This thread is about to see all that there is."""
        self._database.news.look()
        self._thread.version = self._database.version()

    def worth_a_claim(self, queues: Sequence[str]) -> bool:
        """Whether this thread may find something: an idle one looks first, without the lock for writing."""
        self._database.news.look()
        if getattr(self._thread, "busy", False):
            return True
        self._database.require_same_file()
        self._thread.version = self._database.version()
        return self._due(queues)

    def found(self, anything: bool) -> None:
        """What this thread's claim came to: who found something goes on claiming, and need not look."""
        self._thread.busy = anything

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """See :meth:`outbox.protocols.SupportsWait.next_due`."""
        at = self._due_at(queues, self._now())
        return None if at is None else span(max(0, at - self._now()))

    def _due_at(self, queues: Sequence[str], now: int) -> int | None:
        return self._database.read(lambda sql: claiming.due_at(sql, queues, now))

    def _due(self, queues: Sequence[str]) -> bool:
        now = self._now()
        try:
            at = self._due_at(queues, now)
        except CorruptRecord:
            return True  # the claim sees to it
        return at is not None and at <= now

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`."""
        seen = self._thread.__dict__.setdefault("version", self._database.version())
        news, self._thread.version = self._database.watching.wait(
            timeout, self._database.version, seen, poll=self._poll
        )
        return news

"""The store: each verb is one transaction."""

from __future__ import annotations

import datetime as dt
import functools
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from outbox.clock import Clock, SystemClock
from outbox.errors import AmbiguousPut, ConfigurationError
from outbox.lifecycle import Claim, PutResult, Record, Released, Retry, Settlement, State, Summary
from outbox.message import Message
from outbox.protocols import MAX_BYTES, Change, Finding, Guarantee, QueueCount
from outbox.stores import standing as standings
from outbox.stores.instants import later, micros, span, width
from outbox.stores.selection import Turns, distinct

from . import browsing, claiming, putting, settling, steering, upkeep
from .connection import Database
from .translation import CommitFailed

__all__ = ["SQLiteStore"]

_DAY: Final = dt.timedelta(days=1)
_WEEK: Final = 7 * _DAY
_ZERO: Final = dt.timedelta(0)


class SQLiteStore:
    """A store in one SQLite file, for any number of threads and processes of one machine.

    What ``put`` and ``settle`` have returned from is on the disk: WAL with
    ``synchronous=FULL``.  The file is made with mode 0600 where there is
    none.  Not for a network file system.

    Args:
        path: The file; its directory must be there.
        clock: Decides what is due and when a lease has run out.
        remember: How long the id of a delivered message is known.
        keep_delivered: How long the whole record of a delivered message
            stays; None is not at all.
        busy_timeout: How long a write waits for other programs' writes.
        poll: How often ``wait`` looks for what other processes have written.

    Raises:
        ConfigurationError: the path is no place for a database, the file is
            none of ours, or a setting makes no sense.
        FormatError: another release wrote it in a format this one does not know.
        StoreUnavailable: it cannot be opened now.
        UnsupportedError: SQLite is older than 3.35, or the file system cannot do WAL.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset()

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        remember: dt.timedelta = _WEEK,
        keep_delivered: dt.timedelta | None = None,
        busy_timeout: dt.timedelta = dt.timedelta(seconds=30),
        poll: dt.timedelta = dt.timedelta(milliseconds=25),
    ) -> None:
        if remember < _ZERO or (keep_delivered or _ZERO) < _ZERO:
            raise ConfigurationError("remember and keep_delivered must not be negative")
        if not _ZERO <= busy_timeout <= _DAY or poll <= _ZERO:
            raise ConfigurationError("busy_timeout must be from 0 to 1 day, and poll must be positive")
        self._clock = clock or SystemClock()
        self._remember = width(remember)
        self._keep_delivered = keep_delivered
        self._poll = poll
        self._turns = Turns()
        self._seen = threading.local()
        self._database = Database(_path(path), patience=busy_timeout)

    def __repr__(self) -> str:
        return f"SQLiteStore({os.fspath(self._database.path)!r})"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`."""
        batch = tuple(messages)
        self._database.require_same_file()
        try:
            results = self._put(batch)
        except CommitFailed as error:
            raise AmbiguousPut(f"{error}; put it again with the same id") from error.__cause__
        self._database.news.tell()
        return results

    def _put(self, batch: Sequence[Message]) -> Sequence[PutResult]:
        size = sum(len(message.content) for message in batch)
        with self._database.writing(size) as sql:
            now = self._now()
            return putting.put(sql, batch, now=now, remembered_since=now - self._remember)

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; ties between queues as in :mod:`outbox.stores.selection`."""
        names = distinct(queues)
        self._database.news.look()
        self._seen.version = self._database.version()
        if limit < 1 or not self._due(names):
            return []
        with self._database.writing() as sql:
            now = self._now()
            return claiming.claim(
                sql, names, self._turns, limit=limit, max_bytes=max_bytes, now=now, until=later(now, lease)
            )

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; a lease that ran out and was not taken is extended."""
        with self._database.writing() as sql:
            return claiming.extend(sql, claims, later(self._now(), lease))

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`."""
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        with self._database.writing() as sql:
            now = self._now()
            stale = settling.settle(
                sql,
                settlements,
                fates,
                now=now,
                keep_delivered=self._keep_delivered is not None,
                remembered_since=now - self._remember,
            )
        if any(isinstance(each.verdict, Retry | Released) for each in settlements):
            self._database.news.tell()
        return stale

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`; what other threads are doing is waited for."""
        self._database.close()

    # -- waiting

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`; other processes' commits are seen within *poll*."""
        seen = self._seen.__dict__.setdefault("version", self._database.version())
        steps = max(1, math.ceil(timeout / self._poll))
        for _ in range(steps):
            told = self._database.news.wait((timeout / steps).total_seconds())
            version = self._database.version()
            if told or version != seen:
                self._seen.version = version
                return True
        return False

    def wake(self) -> None:
        """See :meth:`outbox.protocols.SupportsWait.wake`."""
        self._database.news.tell()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """See :meth:`outbox.protocols.SupportsWait.next_due`."""
        with self._database.reading() as sql:
            at = claiming.due_at(sql, distinct(queues))
        return None if at is None else span(max(0, at - self._now()))

    # -- looking

    def get(self, id: str, /) -> Record | None:
        """See :meth:`outbox.protocols.SupportsBrowse.get`."""
        with self._database.reading() as sql:
            return browsing.get(sql, id)

    def browse(
        self,
        *,
        states: Sequence[State] = (),
        queues: Sequence[str] = (),
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Summary]:
        """See :meth:`outbox.protocols.SupportsBrowse.browse`."""
        with self._database.reading() as sql:
            return browsing.browse(
                sql, states=states, queues=distinct(queues), after=after, limit=max(0, limit)
            )

    def count(self) -> Sequence[QueueCount]:
        """See :meth:`outbox.protocols.SupportsBrowse.count`."""
        with self._database.reading() as sql:
            return browsing.count(sql, self._now())

    # -- a person's word

    def requeue(self, ids: Sequence[str], /, *, uncertain: bool = False) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        with self._database.writing() as sql:
            now = self._now()
            command = functools.partial(standings.requeue, now=now, uncertain=uncertain)
            changes = steering.steer(sql, ids, command, now)
        self._database.news.tell()
        return changes

    def cancel(self, ids: Sequence[str], /) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.cancel`."""
        with self._database.writing() as sql:
            now = self._now()
            return steering.steer(sql, ids, functools.partial(standings.cancel, now=now), now)

    def purge(self, ids: Sequence[str], /) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """
        with self._database.writing() as sql:
            now = self._now()
            return steering.purge(sql, ids, now=now, remembered_since=now - self._remember)

    # -- upkeep

    def check(self) -> Sequence[Finding]:
        """See :meth:`outbox.protocols.SupportsMaintain.check`; it reads the whole file."""
        self._database.require_same_file()
        with self._database.reading() as sql:
            return list(upkeep.check(sql, self._database.path))

    def prune(self, *, limit: int = 1000) -> int:
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; the oldest first, ids before records."""
        with self._database.writing() as sql:
            now = self._now()
            return upkeep.prune(
                sql,
                limit=max(0, limit),
                now=now,
                kept_since=now - width(self._keep_delivered or _ZERO),
                remembered_since=now - self._remember,
            )

    # --

    def _now(self) -> int:
        return micros(self._clock.now())

    def _due(self, queues: Sequence[str]) -> bool:
        """Whether there is anything to claim: an idle worker asks this without the write lock."""
        with self._database.reading() as sql:
            at = claiming.due_at(sql, queues)
        return at is not None and at <= self._now()


def _path(path: str | os.PathLike[str]) -> Path:
    name = os.fspath(path)
    if name in ("", ":memory:") or name.startswith("file:"):
        raise ConfigurationError(
            f"SQLiteStore keeps its messages in a file, and {name!r} names none: pass a path, "
            "or use MemoryStore for what need not last"
        )
    return Path(name)

"""The store: each verb is a few renames."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import math
import os
import secrets
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, OutboxError
from outbox.lifecycle import Claim, PutResult, Record, Released, Retry, Settlement, State, Summary
from outbox.message import Message
from outbox.protocols import MAX_BYTES, Change, Finding, Guarantee, QueueCount
from outbox.stores import standing as standings
from outbox.stores.instants import later, micros, span, width
from outbox.stores.news import News
from outbox.stores.selection import distinct

from . import browsing, claiming, putting, settling, steering, upkeep
from .disk import Disk
from .folders import Folders
from .gate import Gate
from .leases import Leases
from .opening import open_spool
from .shelves import Shelves
from .translation import translated

__all__ = ["FilesystemStore"]

_WEEK: Final = dt.timedelta(days=7)
_ZERO: Final = dt.timedelta(0)
_BELL: Final = "bell"


class _Spool:
    """What one process has open of it; a forked child makes its own."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._path = path
        self.gate = Gate(path)
        self.news = News()
        self.seen = threading.local()
        self.folders: Folders = open_spool(disk, path)
        self.leases = Leases(self.folders)
        self.shelves = Shelves(self.folders)

    def close(self) -> None:
        if self.gate.close():
            self.shelves.close()
            self.folders.close()
        self.news.tell()

    def shut(self) -> _Spool:
        """The same, for nobody to use."""
        self.gate = Gate(self._path)
        self.gate.close()
        return self

    def bell(self) -> int:
        try:
            return self.folders.disk.stat(self.folders.root.handle, _BELL).mtime
        except FileNotFoundError:
            return 0


class FilesystemStore:
    """A store in a directory, for any number of threads and processes of one machine; a person can read it.

    What ``put`` and ``settle`` have returned from is on the disk.  The
    directory is made with mode 0700 where there is none.  Its order is
    approximate: exact as long as a priority has no more than a thousand
    messages that became due within a minute.  To find one message by its id
    it walks through the names of all.  Not for a network file system, and
    not for Windows.

    Args:
        path: The directory; the one above it must be there.
        clock: Decides what is due and when a lease has run out.
        remember: How long the id of a delivered message is known.
        keep_delivered: How long the whole record of a delivered message
            stays; None is not at all.
        poll: How often ``wait`` looks for what other processes have put.
        disk: For tests: what stands between the store and the file system.

    Raises:
        ConfigurationError: the path is no place for a spool, is something
            else's or another user's, or a setting makes no sense.
        FormatError: another release wrote it in a format this one does not know.
        StoreUnavailable: it cannot be opened now.
        UnsupportedError: the platform or the file system cannot do it.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset({Guarantee.ORDER})

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        remember: dt.timedelta = _WEEK,
        keep_delivered: dt.timedelta | None = None,
        poll: dt.timedelta = dt.timedelta(milliseconds=25),
        disk: Disk | None = None,
    ) -> None:
        if remember < _ZERO or (keep_delivered or _ZERO) < _ZERO:
            raise ConfigurationError("remember and keep_delivered must not be negative")
        if poll <= _ZERO:
            raise ConfigurationError("poll must be positive")
        if not os.fspath(path):
            raise ConfigurationError("FilesystemStore keeps its messages in a directory: pass its path")
        self._disk = disk or Disk()
        self._clock = clock or SystemClock()
        self._remember = width(remember)
        self._keep_delivered = keep_delivered
        self._poll = poll
        self._path = os.path.abspath(path)  # noqa: PTH100 - the seam speaks of strings
        self._abandoned: list[_Spool] = []
        with self._translated():
            self._spool = _Spool(self._disk, self._path)
        self._watch_forks()

    def __repr__(self) -> str:
        return f"FilesystemStore({self._path!r})"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`.

        Where the process is killed meanwhile each message is there whole, or not at all.
        """
        batch = tuple(messages)
        now = self._now()
        with self._inside() as spool:
            try:
                return putting.put(spool.folders, batch, now=now, remembered_since=now - self._remember)
            finally:
                self._ring(spool)

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; ties between queues as in :mod:`outbox.stores.selection`."""
        names = distinct(queues)
        with self._inside() as spool:
            spool.news.look()
            bell = spool.seen.bell = spool.bell()
            now = self._now()
            if limit < 1 or not names:
                return []
            choose = functools.partial(
                spool.shelves.choose, names, bell, now=now, limit=limit, max_bytes=max_bytes
            )
            return claiming.claim(
                spool.folders, spool.leases, spool.shelves, choose, now=now, until=later(now, lease)
            )

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; a lease that ran out and was not taken is extended."""
        with self._inside() as spool:
            try:
                return settling.extend(spool.folders, spool.leases, claims, later(self._now(), lease))
            finally:
                spool.shelves.changed()

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`."""
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        returned = any(isinstance(each.verdict, Retry | Released) for each in settlements)
        now = self._now()
        with self._inside() as spool:
            try:
                return settling.settle(
                    spool.folders,
                    spool.leases,
                    settlements,
                    fates,
                    now=now,
                    keep_delivered=self._keep_delivered is not None,
                    remembered_since=now - self._remember,
                )
            finally:
                if returned:
                    self._ring(spool)
                spool.shelves.changed()

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`; what other threads are doing is waited for."""
        self._spool.close()

    # -- waiting

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`; what other processes put is seen within *poll*."""
        with self._inside() as spool:
            seen = spool.seen.__dict__.setdefault("bell", spool.bell())
        steps = max(1, math.ceil(timeout / self._poll))
        for _ in range(steps):
            told = spool.news.wait((timeout / steps).total_seconds())
            with self._inside():
                bell = spool.bell()
            if told or bell != seen:
                spool.seen.bell = bell
                return True
        return False

    def wake(self) -> None:
        """See :meth:`outbox.protocols.SupportsWait.wake`."""
        self._spool.news.tell()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """See :meth:`outbox.protocols.SupportsWait.next_due`; never too late, but sooner where there is very much."""
        with self._inside() as spool:
            at = spool.shelves.due_at(distinct(queues), spool.bell())
            return None if at is None else span(max(0, at - self._now()))

    # -- looking

    def get(self, id: str, /) -> Record | None:
        """See :meth:`outbox.protocols.SupportsBrowse.get`; it walks through the names of all tickets."""
        with self._inside() as spool:
            return browsing.get(spool.folders, id)

    def browse(
        self,
        *,
        states: Sequence[State] = (),
        queues: Sequence[str] = (),
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Summary]:
        """See :meth:`outbox.protocols.SupportsBrowse.browse`; each page is a walk through the names of all tickets."""
        with self._inside() as spool:
            return browsing.browse(
                spool.folders, states=states, queues=distinct(queues), after=after, limit=max(0, limit)
            )

    def count(self) -> Sequence[QueueCount]:
        """See :meth:`outbox.protocols.SupportsBrowse.count`."""
        with self._inside() as spool:
            return browsing.count(spool.folders, self._now())

    # -- a person's word

    def requeue(self, ids: Sequence[str], /, *, uncertain: bool = False) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        now = self._now()
        command = functools.partial(standings.requeue, now=now, uncertain=uncertain)
        with self._inside() as spool:
            try:
                return steering.steer(spool.folders, ids, command, now)
            finally:
                self._ring(spool)

    def cancel(self, ids: Sequence[str], /) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.cancel`."""
        now = self._now()
        with self._inside() as spool:
            try:
                return steering.steer(spool.folders, ids, functools.partial(standings.cancel, now=now), now)
            finally:
                spool.shelves.changed()

    def purge(self, ids: Sequence[str], /) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """
        now = self._now()
        with self._inside() as spool:
            return steering.purge(spool.folders, ids, now=now, remembered_since=now - self._remember)

    # -- upkeep

    def check(self) -> Sequence[Finding]:
        """See :meth:`outbox.protocols.SupportsMaintain.check`; it reads every file."""
        with self._inside() as spool:
            return list(upkeep.check(spool.folders, self._path))

    def migrate(self) -> Sequence[str]:
        """See :meth:`outbox.protocols.SupportsMaintain.migrate`; there is one format yet."""
        with self._inside():
            return []

    def prune(self, *, limit: int = 1000) -> int:
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; the oldest first, ids before records."""
        now = self._now()
        with self._inside() as spool:
            return upkeep.prune(
                spool.folders,
                limit=max(0, limit),
                now=now,
                kept_since=now - width(self._keep_delivered or _ZERO),
                remembered_since=now - self._remember,
            )

    # --

    def _now(self) -> int:
        return micros(self._clock.now())

    @contextlib.contextmanager
    def _inside(self) -> Iterator[_Spool]:
        spool = self._spool
        with spool.gate.inside(), self._translated():
            yield spool

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise translated(error, self._path) from error

    def _ring(self, spool: _Spool) -> None:
        """Tell this process and the others that something may have come."""
        spool.shelves.changed()
        # The time is read by nobody: it only has to be another one each time.
        with contextlib.suppress(OSError):
            spool.folders.disk.touch(
                spool.folders.root.handle, _BELL, self._now() * 1000 + secrets.randbelow(10**9)
            )
        spool.news.tell()

    # -- fork

    def _watch_forks(self) -> None:
        me = weakref.ref(self)

        def born() -> None:
            store = me()
            if store is not None:
                store._born()  # noqa: SLF001 - its own method

        os.register_at_fork(after_in_child=born)

    def _born(self) -> None:
        """Locks may be held by threads that are not in the child, and open listings are shared: begin anew."""
        self._abandoned.append(self._spool)
        try:
            self._spool = _Spool(self._disk, self._path)
        except (OSError, OutboxError):
            # What cannot be opened here is not the parent's either: the child is told that it is closed.
            self._spool = self._abandoned[-1].shut()

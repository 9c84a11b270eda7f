"""The store: each verb is a few renames."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar, Final

from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, OutboxError
from outbox.filters import Filter
from outbox.lifecycle import Claim, PutResult, Record, Released, Retry, Settlement, State, Summary
from outbox.message import Message
from outbox.moving import Abandoned, Batch, Remembered
from outbox.protocols import MAX_BYTES, Change, Expected, Finding, Guarantee, Presence, QueueCount, Suspension
from outbox.stores import standing as standings, surroundings
from outbox.stores.content import Codings, ContentCoding
from outbox.stores.forking import Hooks, watch_forks
from outbox.stores.instants import later, micros, span
from outbox.stores.limits import Limits, bounded
from outbox.stores.names import (
    answered,
    beginning,
    file_name,
    is_id,
    require_presence,
    require_reason,
    require_suspension,
)
from outbox.stores.presence import Said
from outbox.stores.retention import Retention
from outbox.stores.selection import distinct
from outbox.stores.standing import Step

from . import (
    announcing,
    arriving,
    browsing,
    checking,
    claiming,
    finding,
    moving,
    putting,
    settling,
    steering,
    suspending,
    upkeep,
)
from .body import LONGEST_CODING
from .disk import Disk
from .spool import Spool
from .translation import translated

__all__ = ["FilesystemStore"]

_WEEK: Final = dt.timedelta(days=7)
_ZERO: Final = dt.timedelta(0)


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
        remember, remember_at_most, keep_delivered, keep_content, discard_after:
            See :class:`outbox.stores.retention.Retention`.
        max_messages, max_bytes, min_free: See :class:`outbox.stores.limits.Limits`;
            what other processes put is counted within a second, and within one
            more for every fifty thousand messages that wait.
        coding: What is done to content at rest, in order; see :mod:`outbox.stores.content`.
        also_reads: Further codings that content may be kept in.
        poll: How often ``wait`` looks for what other processes have put, where the system does not tell of it.
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
        path: str | bytes | os.PathLike[Any],
        *,
        clock: Clock | None = None,
        remember: dt.timedelta = _WEEK,
        remember_at_most: int = 1_000_000,
        keep_delivered: dt.timedelta | None = None,
        keep_content: bool = True,
        discard_after: dt.timedelta | None = None,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        min_free: int | None = None,
        coding: Sequence[ContentCoding] = (),
        also_reads: Sequence[ContentCoding] = (),
        poll: dt.timedelta = dt.timedelta(milliseconds=25),
        disk: Disk | None = None,
    ) -> None:
        if poll <= _ZERO:
            raise ConfigurationError("poll must be positive")
        if not os.fspath(path):
            raise ConfigurationError("FilesystemStore keeps its messages in a directory: pass its path")
        self._retention = Retention(
            remember=remember,
            remember_at_most=remember_at_most,
            keep_delivered=keep_delivered,
            keep_content=keep_content,
            discard_after=discard_after,
        )
        self._limits = Limits(max_messages=max_messages, max_bytes=max_bytes, min_free=min_free)
        self._codings = _codings(coding, also_reads)
        self._disk = disk or Disk()
        self._clock = clock or SystemClock()
        self._poll = poll
        self._path = os.path.abspath(file_name(path))  # noqa: PTH100 - the seam speaks of strings
        with self._translated():
            self._spool = self._opened()
        watch_forks(self, _FORKS)

    def __repr__(self) -> str:
        return f"FilesystemStore({self._path!r})"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`.

        Where the process is killed meanwhile each message is there whole, or not at all.
        """
        return self._put(messages, None)[0]

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.SupportsHandOver.put_claimed`; in the event of a kill as in :meth:`put`."""
        return self._put(messages, lease, attempted=attempted)[1]

    def _put(
        self, messages: Sequence[Message], lease: dt.timedelta | None, *, attempted: bool = False
    ) -> tuple[Sequence[PutResult], Sequence[Claim]]:
        batch, now = tuple(messages), self._now()
        with self._inside() as spool:
            spool.require_usable()
            self._limits.require_free(self._path)
            terms = putting.Terms(
                now=now,
                remembered_since=self._retention.known_since(now),
                codings=self._codings,
                crowd=spool.crowd,
                leased=None if lease is None else later(now, lease),
                leased_queues=() if lease is None else self._leased(spool, batch, now, attempted=attempted),
            )
            put = putting.Put(spool.folders, terms)
            try:
                results = put.put(batch)
            finally:
                if lease is None or put.finished_another or put.left_waiting:
                    spool.ring(now)
            return results, [] if lease is None else put.claims(spool.leases)

    @staticmethod
    def _leased(spool: Spool, messages: Sequence[Message], now: int, *, attempted: bool) -> Collection[str]:
        """The queues of these messages; only of those already *attempted* also where they are suspended."""
        queues = list({message.queue for message in messages})
        return queues if attempted else spool.suspended.served(spool.folders, queues, spool.bell(), now)

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; ties between queues as in :mod:`outbox.stores.selection`.

        Raises:
            ConfigurationError: content is in a coding that this store was
                opened without; nothing was claimed.
        """
        names = distinct(queues)
        with self._inside() as spool:
            spool.require_usable()
            spool.news.look()
            bell = spool.seen.bell = spool.bell()
            now = self._now()
            going_on = spool.suspended.served(spool.folders, names, bell, now)
            if limit < 1 or not going_on:
                return []
            choose = functools.partial(
                spool.shelves.choose, going_on, bell, now=now, limit=limit, max_bytes=max_bytes
            )
            terms = claiming.Terms(now=now, until=later(now, lease), codings=self._codings)
            return claiming.claim(spool.folders, spool.leases, spool.shelves, choose, terms)

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
            spool.require_usable()
            try:
                return settling.settle(
                    spool.folders, spool.leases, settlements, fates, retention=self._retention, now=now
                )
            finally:
                if returned:
                    spool.ring(now)

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`; what other threads are doing is waited for."""
        self._spool.close()

    # -- waiting

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`; see :mod:`outbox.stores.watching`."""
        with self._inside() as spool:
            seen = spool.seen.__dict__.setdefault("bell", spool.bell())
        news, spool.seen.bell = spool.watching.wait(timeout, self._heard, seen, poll=self._poll)
        return news

    def _heard(self) -> int:
        with self._inside() as spool:
            return spool.bell()

    def wake(self) -> None:
        """See :meth:`outbox.protocols.SupportsWait.wake`."""
        self._spool.news.tell()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """See :meth:`outbox.protocols.SupportsWait.next_due`; never too late, but sooner where there is very much."""
        with self._inside() as spool:
            bell, now = spool.bell(), self._now()
            going_on = spool.suspended.served(spool.folders, distinct(queues), bell, now)
            at = spool.shelves.due_at(going_on, bell)
            return None if at is None else span(max(0, at - now))

    # -- looking

    def get(self, id: str, /) -> Record | None:
        """See :meth:`outbox.protocols.SupportsBrowse.get`; it walks through the names of all tickets."""
        with self._inside() as spool:
            return browsing.get(spool.folders, id, self._codings) if is_id(id) else None

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
                spool.folders,
                states=states,
                queues=distinct(queues),
                after=beginning(after),
                limit=bounded(limit),
            )

    def find(self, sought: Filter, /, *, after: str = "") -> Iterator[Summary]:
        """See :meth:`outbox.filters.SupportsFind.find`.

        A walk through all names finds many thousands of them, of which only
        those are opened that may fit by their names.  What moves meanwhile
        comes later than its id says.
        """
        return finding.find(self._inside, sought, beginning(after))

    def count(self) -> Sequence[QueueCount]:
        """See :meth:`outbox.protocols.SupportsBrowse.count`."""
        with self._inside() as spool:
            bell, now = spool.bell(), self._now()
            serve = functools.partial(spool.suspended.served, spool.folders, bell=bell, now=now)
            return browsing.count(spool.folders, serve, now)

    # -- a person's word

    def requeue(
        self, ids: Sequence[str], /, *, uncertain: bool = False, expected: Expected | None = None
    ) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        return self._steer(
            ids, functools.partial(standings.requeue, uncertain=uncertain, expected=expected), heard=True
        )

    def cancel(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.cancel`."""
        return self._steer(ids, functools.partial(standings.cancel, expected=expected), heard=False)

    def hold(
        self, ids: Sequence[str], /, *, reason: str = "", expected: Expected | None = None
    ) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsHold.hold`."""
        require_reason(reason)
        return self._steer(
            ids, functools.partial(standings.hold, reason=reason, expected=expected), heard=False
        )

    def release(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsHold.release`."""
        return self._steer(ids, functools.partial(standings.release, expected=expected), heard=True)

    def _steer(self, ids: Sequence[str], command: Callable[..., Step], *, heard: bool) -> Sequence[Change]:
        """*heard*: whether others may have something to claim by it."""
        now = self._now()
        by_now = functools.partial(command, now=now)
        with self._inside() as spool:
            try:
                return answered(
                    ids, lambda known: steering.steer(spool.folders, known, by_now, now, spool.places)
                )
            finally:
                if heard:
                    spool.ring(now)
                else:
                    spool.shelves.changed()

    def purge(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """
        now = self._now()
        with self._inside() as spool:
            return answered(
                ids,
                lambda known: steering.purge(
                    spool.folders, known, self._retention, now, spool.places, expected=expected
                ),
            )

    # -- what is suspended

    def suspend(self, suspension: Suspension, /) -> None:
        """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
        require_suspension(suspension.kind, suspension.value, suspension.reason)
        with self._inside() as spool:
            suspending.suspend(spool.folders, suspension)
            spool.ring_out(self._now())

    def unsuspend(self, kind: str, value: str, /) -> bool:
        """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
        require_suspension(kind, value)
        with self._inside() as spool:
            now = self._now()
            was = suspending.unsuspend(spool.folders, kind, value, now)
            spool.ring_out(now)
            return was

    def suspensions(self) -> Sequence[Suspension]:
        """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
        with self._inside() as spool:
            return suspending.suspensions(spool.folders, self._now())

    # -- who is here

    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.announce`."""
        require_presence(name, text, for_)
        now = self._now()
        with self._inside() as spool:
            announcing.announce(spool.folders, Said(name, text, now, later(now, for_)), now)

    def withdraw(self, name: str, /) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
        with self._inside() as spool:
            announcing.withdraw(spool.folders, name)

    def announced(self) -> Sequence[Presence]:
        """See :meth:`outbox.protocols.SupportsPresence.announced`."""
        with self._inside() as spool:
            return announcing.announced(spool.folders, self._now())

    # -- from one store to another

    def identity(self) -> str:
        """See :meth:`outbox.moving.SupportsMove.identity`; a copy of the spool is the same store."""
        with self._inside() as spool:
            return moving.identity(spool.folders)

    def take(
        self,
        *,
        to: str,
        limit: int,
        max_bytes: int = MAX_BYTES,
        leave: Collection[str] = (),
        after: str = "",
    ) -> Batch | None:
        """See :meth:`outbox.moving.SupportsMove.take`."""
        now = self._now()
        with self._inside() as spool:
            spool.require_usable()
            try:
                return moving.take(
                    spool.folders,
                    self._codings,
                    now,
                    to=to,
                    limit=bounded(limit),
                    max_bytes=max_bytes,
                    leave=leave,
                    after=after,
                )
            finally:
                spool.shelves.changed()

    def give(self, batch: Batch, /) -> Sequence[str]:
        """See :meth:`outbox.moving.SupportsMove.give`."""
        now = self._now()
        with self._inside() as spool:
            spool.require_usable()
            try:
                return arriving.give(
                    spool.folders,
                    batch,
                    self._codings,
                    crowd=spool.crowd,
                    require_free=lambda: self._limits.require_free(self._path),
                    now=now,
                )
            finally:
                spool.ring(now)

    def last_given(self, source: str, /) -> str:
        """See :meth:`outbox.moving.SupportsMove.last_given`."""
        with self._inside() as spool:
            return arriving.last_given(spool.folders, source).name

    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        """See :meth:`outbox.moving.SupportsMove.conclude`."""
        now = self._now()
        with self._inside() as spool:
            spool.require_usable()
            try:
                moving.conclude(spool.folders, self._retention, now, name, back)
            finally:
                spool.ring(now)

    def abandon(self) -> Abandoned:
        """See :meth:`outbox.moving.SupportsMove.abandon`."""
        now = self._now()
        with self._inside() as spool:
            spool.require_usable()
            try:
                return moving.abandon(spool.folders, self._retention, now)
            finally:
                spool.ring(now)

    def has_left(self, id: str, /) -> bool:
        """See :meth:`outbox.moving.SupportsMove.has_left`; it walks through the names of what is remembered."""
        with self._inside() as spool:
            return moving.is_elsewhere(spool.folders, id)

    def remembered(self, *, after: Remembered | None = None, limit: int = 1000) -> Sequence[Remembered]:
        """See :meth:`outbox.moving.SupportsMove.remembered`."""
        with self._inside() as spool:
            return moving.remembered(spool.folders, self._retention, self._now(), after, bounded(limit))

    def remember(self, known: Sequence[Remembered], /) -> None:
        """See :meth:`outbox.moving.SupportsMove.remember`."""
        with self._inside() as spool:
            arriving.remember(spool.folders, known, self._retention, self._now())

    # -- upkeep

    def check(self) -> Sequence[Finding]:
        """See :meth:`outbox.protocols.SupportsMaintain.check`; it reads every file."""
        with self._inside() as spool:
            found = checking.check(spool.folders, self._path, self._codings, self._now())
            return [*found, surroundings.room(self._path, self._limits)]

    def migrate(self) -> Sequence[str]:
        """See :meth:`outbox.protocols.SupportsMaintain.migrate`; there is one format yet."""
        with self._inside():
            return []

    def prune(self, *, limit: int = 1000) -> int:
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; the oldest first, ids before records."""
        now = self._now()
        with self._inside() as spool:
            return upkeep.prune(spool.folders, self._retention, limit=bounded(limit), now=now)

    # --

    def _now(self) -> int:
        return micros(self._clock.now())

    @contextlib.contextmanager
    def _inside(self) -> Iterator[Spool]:
        spool = self._spool
        with spool.gate.inside(), self._translated():
            yield spool

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise translated(error, self._path) from error

    def _opened(self) -> Spool:
        return Spool(self._disk, self._path, self._limits)

    # -- fork

    def _born(self) -> None:
        """Locks may be held by threads that are not in the child, and open listings are shared: begin anew."""
        parent = self._spool
        self._disk.born()
        parent.abandon()
        if parent.gate.closed:
            return
        try:
            self._spool = self._opened()
        except (OSError, OutboxError):
            # What cannot be opened here is not the parent's either: the child is told that it is closed.
            self._spool = parent.shut()


def _nothing(_: FilesystemStore) -> None:
    """The parent's spool is as it was."""


_FORKS: Final = Hooks(
    before=_nothing,
    in_parent=_nothing,
    in_child=FilesystemStore._born,  # noqa: SLF001 - of this very class
)


def _codings(coding: Sequence[ContentCoding], also_reads: Sequence[ContentCoding]) -> Codings:
    codings = Codings(coding, also_reads)
    if len(codings.name) > LONGEST_CODING:
        raise ConfigurationError(
            f"the names of the codings have {len(codings.name)} letters together: {LONGEST_CODING} at most"
        )
    return codings

"""The store: each verb is one transaction."""

from __future__ import annotations

import datetime as dt
import functools
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from outbox.ages import Group
from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, CorruptRecord, StoreError
from outbox.filters import Filter
from outbox.lifecycle import Claim, PutResult, Record, Released, Retry, Settlement, State, Summary
from outbox.message import Message
from outbox.moving import Abandoned, Batch, Remembered
from outbox.protocols import (
    MAX_BYTES,
    Change,
    Exchanged,
    Expected,
    Finding,
    Glance,
    Guarantee,
    Intake,
    Presence,
    QueueCount,
    Suspension,
)
from outbox.stores import standing as standings
from outbox.stores.content import Codings, ContentCoding
from outbox.stores.instants import later, micros
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

from . import (
    aging,
    announcing,
    browsing,
    claiming,
    damage,
    finding,
    glancing,
    moving,
    pruning,
    putting,
    salvage,
    schema,
    settling,
    steering,
    suspending,
    upkeep,
)
from .claimant import Claimant
from .connection import Database
from .crowding import Crowd
from .entrance import Entrance
from .lookout import Lookout
from .naming import Sql
from .within import Within

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
        remember, remember_at_most, keep_delivered, keep_content, discard_after:
            See :class:`outbox.stores.retention.Retention`.
        max_messages, max_bytes, min_free: See :class:`outbox.stores.limits.Limits`;
            what other processes put is counted within a second.
        coding: What is done to content at rest, in order; see :mod:`outbox.stores.content`.
        also_reads: Further codings that content may be kept in.
        prefix: What the tables begin with, beside those of another program in
            its own database; None is a file of our own, with tables that
            begin with ``outbox_``.
        busy_timeout: How long a write waits for other processes' writes.
        poll: How often ``wait`` looks for what other processes have written, where the system does not tell of it.
        migrate: Whether tables of an earlier release are brought to this
            one's format, which programs of that release do not survive; it
            is refused while one of them has a lease.

    Raises:
        ConfigurationError: the path is no place for a database, the file is
            none of ours, or a setting makes no sense.
        FormatError: another release wrote it in a format this one does not know, or is not to migrate.
        StoreUnavailable: it cannot be opened now, or programs of an earlier release are delivering from it.
        UnsupportedError: SQLite is older than 3.35, or the file system cannot do WAL.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset()

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
        prefix: str | None = None,
        busy_timeout: dt.timedelta = dt.timedelta(seconds=30),
        poll: dt.timedelta = dt.timedelta(milliseconds=25),
        migrate: bool = True,
    ) -> None:
        if not _ZERO <= busy_timeout <= _DAY or poll <= _ZERO:
            raise ConfigurationError("busy_timeout must be from 0 to 1 day, and poll must be positive")
        reading = clock or SystemClock()
        # No method: whoever is handed it would keep the store.
        self._now: Callable[[], int] = lambda: micros(reading.now())
        self._retention = Retention(
            remember=remember,
            remember_at_most=remember_at_most,
            keep_delivered=keep_delivered,
            keep_content=keep_content,
            discard_after=discard_after,
        )
        limits = Limits(max_messages=max_messages, max_bytes=max_bytes, min_free=min_free)
        self._codings = Codings(coding, also_reads)
        self._database = Database(
            _path(path),
            patience=busy_timeout,
            prefix=prefix,
            migrate_at=self._now() if migrate else None,
        )
        self._indexes = salvage.Indexes(self._database)
        self._entrance = Entrance(
            database=self._database,
            indexes=self._indexes,
            codings=self._codings,
            retention=self._retention,
            limits=limits,
            crowd=Crowd(limits),
            now=self._now,
        )
        self._claimant = Claimant(self._database, self._indexes, self._codings, self._now)
        self._lookout = Lookout(self._database, poll, self._now)

    def __repr__(self) -> str:
        return f"SQLiteStore({os.fspath(self._database.path)!r})"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`."""
        results = self._entrance.put(messages)
        self._database.news.tell()
        return results

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.SupportsHandOver.put_claimed`."""

        def claim(sql: Sql, stored: putting.Stored) -> Sequence[Claim]:
            now = self._now()
            ready = stored.due if attempted else suspending.of_open_queues(sql, stored.due, now)
            return claiming.take(sql, ready, self._codings, now, later(now, lease))

        claims = self._entrance.put_and(messages, claim)
        self._database.news.tell()
        return claims

    def within(self, connection: sqlite3.Connection, /) -> Intake:
        """See :meth:`outbox.protocols.SupportsTransaction.within`; *connection* leads to this store's file.

        Its transaction may be one that Python begins by itself; where it
        commits each statement (``isolation_level=None``), begin one first.
        """
        return Within(connection, self._entrance.put_within, self._database)

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; ties between queues as in :mod:`outbox.stores.selection`.

        A lease need not outlive a power failure, which ends its holder too;
        so only that of an ``at_most_once`` message is on the disk on return.
        """
        names = distinct(queues)
        if not (limit >= 1 and self._lookout.worth_a_claim(names)):
            return []
        order = claiming.Order(queues=names, limit=bounded(limit), lease=lease, max_bytes=max_bytes)
        claims = self._claimant.claim(order)
        self._lookout.found(bool(claims))
        return claims

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; a lease that ran out and was not taken is extended."""

        def extend(sql: Sql) -> Sequence[Claim]:
            return claiming.extend(sql, claims, later(self._now(), lease))

        return self._database.write(extend, durable=any(claim.message.at_most_once for claim in claims))

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`."""

        def settle(part: Sequence[Settlement], whole: bool) -> Sequence[Claim]:
            return self._database.write(self._settling(part, whole=whole))

        stale = salvage.apart(settle, settlements, self._indexes)
        self._tell_of(settlements)
        return stale

    def exchange(
        self,
        settlements: Sequence[Settlement],
        /,
        *,
        limit: int,
        lease: dt.timedelta,
        queues: Sequence[str],
        max_bytes: int = MAX_BYTES,
    ) -> Exchanged:
        """See :meth:`outbox.protocols.SupportsExchange.exchange`."""
        names = distinct(queues)
        order = claiming.Order(queues=names, limit=bounded(limit), lease=lease, max_bytes=max_bytes)
        settle = self._settling(settlements)
        self._lookout.look()

        def exchange(sql: Sql) -> Exchanged:
            return Exchanged(settle(sql), self._claimant.claim_within(sql, order))

        try:
            exchanged = self._database.write(exchange)
        except CorruptRecord:
            # What was sent is noted first; then the claim sees to what it cannot read.
            return Exchanged(self.settle(settlements), self._claimant.claim(order))
        self._tell_of(settlements)
        return exchanged

    def _settling(
        self, settlements: Sequence[Settlement], *, whole: bool = True
    ) -> Callable[[Sql], Sequence[Claim]]:
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        return lambda sql: settling.settle(sql, settlements, fates, self._retention, self._now(), whole=whole)

    def _tell_of(self, settlements: Sequence[Settlement]) -> None:
        if any(isinstance(each.verdict, Retry | Released) for each in settlements):
            self._database.news.tell()

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`; what other threads are doing is waited for."""
        self._database.close()

    # -- waiting

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`; see :mod:`outbox.stores.watching`."""
        return self._lookout.wait(timeout)

    def wake(self) -> None:
        """See :meth:`outbox.protocols.SupportsWait.wake`."""
        self._database.news.tell()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """See :meth:`outbox.protocols.SupportsWait.next_due`."""
        return self._lookout.next_due(distinct(queues))

    # -- looking

    def get(self, id: str, /) -> Record | None:
        """See :meth:`outbox.protocols.SupportsBrowse.get`."""
        return self._database.read(lambda sql: browsing.get(sql, id, self._codings) if is_id(id) else None)

    def browse(
        self,
        *,
        states: Sequence[State] = (),
        queues: Sequence[str] = (),
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Summary]:
        """See :meth:`outbox.protocols.SupportsBrowse.browse`."""
        names, after = distinct(queues), beginning(after)
        return self._database.read(
            lambda sql: browsing.browse(sql, states=states, queues=names, after=after, limit=bounded(limit))
        )

    def find(self, sought: Filter, /, *, after: str = "") -> Iterator[Summary]:
        """See :meth:`outbox.filters.SupportsFind.find`; each reading looks at some thousand rows."""
        return finding.find(self._database.read, sought, beginning(after))

    def ages(self, borders: Sequence[dt.datetime], /) -> Iterator[Group]:
        """See :meth:`outbox.ages.SupportsAges.ages`; each reading counts some thousand rows."""
        return aging.ages(self._database.read, borders)

    def count(self) -> Sequence[QueueCount]:
        """See :meth:`outbox.protocols.SupportsBrowse.count`."""
        return self._database.read(lambda sql: browsing.count(sql, self._now()))

    def glance(self, *, most: int = 2_500) -> Glance:
        """See :meth:`outbox.protocols.SupportsGlance.glance`."""
        return self._database.read(lambda sql: glancing.glance(sql, self._now(), bounded(most)))

    # -- a person's word

    def requeue(
        self, ids: Sequence[str], /, *, uncertain: bool = False, expected: Expected | None = None
    ) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        changes = self._steer(
            ids, functools.partial(standings.requeue, uncertain=uncertain, expected=expected)
        )
        self._database.news.tell()
        return changes

    def cancel(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.cancel`."""
        return self._steer(ids, functools.partial(standings.cancel, expected=expected))

    def hold(
        self, ids: Sequence[str], /, *, reason: str = "", expected: Expected | None = None
    ) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsHold.hold`."""
        require_reason(reason)
        return self._steer(ids, functools.partial(standings.hold, reason=reason, expected=expected))

    def release(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsHold.release`."""
        changes = self._steer(ids, functools.partial(standings.release, expected=expected))
        self._database.news.tell()
        return changes

    def _steer(self, ids: Sequence[str], command: steering.Command) -> Sequence[Change]:
        def steer(part: Sequence[str], _: bool) -> Sequence[Change]:
            return self._database.write(lambda sql: steering.steer(sql, part, command, self._now()))

        return answered(ids, lambda part: salvage.apart(steer, part, self._indexes), damage.nameable)

    def purge(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """

        def purge(part: Sequence[str], whole: bool) -> Sequence[Change]:
            return self._database.write(
                lambda sql: steering.purge(
                    sql, part, self._retention, self._now(), expected=expected, whole=whole
                )
            )

        return answered(ids, lambda part: salvage.apart(purge, part, self._indexes), damage.nameable)

    # -- what is suspended

    def suspend(self, suspension: Suspension, /) -> None:
        """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
        require_suspension(suspension.kind, suspension.value, suspension.reason)
        self._database.write(lambda sql: suspending.suspend(sql, suspension))

    def unsuspend(self, kind: str, value: str, /) -> bool:
        """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
        require_suspension(kind, value)
        was = self._database.write(lambda sql: suspending.unsuspend(sql, kind, value, self._now()))
        self._database.news.tell()
        return was

    def suspensions(self) -> Sequence[Suspension]:
        """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
        return self._database.read(lambda sql: suspending.suspensions(sql, self._now()))

    # -- who is here

    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.announce`."""
        require_presence(name, text, for_)
        now = self._now()
        said = Said(name, text, now, later(now, for_))
        self._database.write(lambda sql: announcing.announce(sql, said, now), durable=False)

    def withdraw(self, name: str, /) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
        self._database.write(lambda sql: announcing.withdraw(sql, name), durable=False)

    def announced(self) -> Sequence[Presence]:
        """See :meth:`outbox.protocols.SupportsPresence.announced`."""
        return self._database.read(lambda sql: announcing.announced(sql, self._now()))

    # -- from one store to another

    def identity(self) -> str:
        """See :meth:`outbox.moving.SupportsMove.identity`; a copy of the file is the same store."""
        return self._database.read(schema.identity)

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
        return self._database.write(
            lambda sql: moving.take(
                sql,
                self._codings,
                self._now(),
                to=to,
                limit=bounded(limit),
                max_bytes=max_bytes,
                leave=leave,
                after=after,
            )
        )

    def give(self, batch: Batch, /) -> Sequence[str]:
        """See :meth:`outbox.moving.SupportsMove.give`."""
        return self._entrance.give(batch)

    def last_given(self, source: str, /) -> str:
        """See :meth:`outbox.moving.SupportsMove.last_given`."""
        return self._database.read(lambda sql: moving.last_given(sql, source))

    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        """See :meth:`outbox.moving.SupportsMove.conclude`."""
        self._database.write(lambda sql: moving.conclude(sql, self._retention, self._now(), name, back))
        self._database.news.tell()

    def abandon(self) -> Abandoned:
        """See :meth:`outbox.moving.SupportsMove.abandon`."""
        abandoned = self._database.write(lambda sql: moving.abandon(sql, self._retention, self._now()))
        self._database.news.tell()
        return abandoned

    def has_left(self, id: str, /) -> bool:
        """See :meth:`outbox.moving.SupportsMove.has_left`."""
        return self._database.read(lambda sql: moving.has_left(sql, id))

    def remembered(self, *, after: Remembered | None = None, limit: int = 1000) -> Sequence[Remembered]:
        """See :meth:`outbox.moving.SupportsMove.remembered`."""
        return self._database.read(
            lambda sql: moving.remembered(sql, self._retention, self._now(), after, bounded(limit))
        )

    def remember(self, known: Sequence[Remembered], /) -> None:
        """See :meth:`outbox.moving.SupportsMove.remember`."""
        self._database.write(lambda sql: moving.remember(sql, known, self._retention, self._now()))

    # -- upkeep

    def migrate(self) -> Sequence[str]:
        """See :meth:`outbox.protocols.SupportsMaintain.migrate`; opening the store has done it."""
        return []

    def check(self) -> Sequence[Finding]:
        """See :meth:`outbox.protocols.SupportsMaintain.check`; it reads the whole file."""
        self._database.require_same_file()
        found: list[Finding] = []
        try:
            self._database.read(
                lambda sql: found.extend(upkeep.check(sql, self._database.file, self._codings, self._now()))
            )
            self._database.read(lambda sql: found.extend(moving.check(sql, self._now())))
        except CorruptRecord as error:
            found.append(Finding("error", str(error), "look for a backup of the file"))
        return [*found, self._writable(), self._entrance.room()]

    def _writable(self) -> Finding:
        try:
            self._database.require_writable()
        except StoreError as error:
            return Finding("error", str(error), "until then nothing can be submitted, claimed or settled")
        return Finding("ok", f"{self._database.path} can be written")

    def prune(self, *, limit: int = 1000) -> int:
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; the oldest first, ids before records."""

        self._database.wal.look()
        return pruning.prune(
            self._database, self._retention, self._indexes, limit=bounded(limit), now=self._now()
        )


def _path(path: str | bytes | os.PathLike[Any]) -> Path:
    name = file_name(path)
    if name in ("", ":memory:") or name.startswith("file:"):
        raise ConfigurationError(
            f"SQLiteStore keeps its messages in a file, and {name!r} names none: pass a path, "
            "or use MemoryStore for what need not last"
        )
    # For good, wherever the process may go: a daemon changes its directory.
    return Path(name).absolute()

"""The store: each verb is one transaction."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from outbox.ages import Group
from outbox.clock import Clock
from outbox.errors import ConfigurationError, StoreError
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
    Register,
    Suspension,
    Swap,
)
from outbox.stores import standing as standings
from outbox.stores.content import Codings, ContentCoding
from outbox.stores.instants import micros, span
from outbox.stores.limits import Limits, bounded
from outbox.stores.names import (
    answered,
    beginning,
    is_id,
    require_presence,
    require_reason,
    require_register,
    require_suspension,
)
from outbox.stores.retention import Retention
from outbox.stores.selection import distinct

from . import (
    aging,
    announcing,
    arriving,
    browsing,
    claiming,
    glancing,
    migrations,
    moving,
    pruning,
    registering,
    steering,
    suspending,
    upkeep,
)
from .claimant import Claimant
from .contending import Locked
from .crowding import Crowd
from .entrance import Entrance
from .links import linked
from .listening import Herald, Lookout
from .naming import Names, Sql
from .settling import Settling
from .within import Home, Within

__all__ = ["PostgresStore"]

_WEEK: Final = dt.timedelta(days=7)
_ZERO: Final = dt.timedelta(0)


class PostgresStore:
    """A store in a PostgreSQL database, for any number of threads, processes and hosts.

    What ``put`` and ``settle`` have returned from is committed, as durably as
    the database commits (``synchronous_commit``).  The server's clock decides
    what is due and when a lease has run out; those of the hosts need not agree.

    Args:
        dsn: Where the database is, as libpq takes it: ``postgresql://user@host/database`` or ``host=... dbname=...``.
        clock: In the place of the server's clock, for tests.
        schema: In which the tables are.
        remember, remember_at_most, keep_delivered, keep_content, discard_after:
            See :class:`outbox.stores.retention.Retention`.
        max_messages, max_bytes: See :class:`outbox.stores.limits.Limits`;
            with a limit those who put wait for each other.
        coding: What is done to content at rest, in order; see :mod:`outbox.stores.content`.
        also_reads: Further codings that content may be kept in.
        max_connections: How many connections a process has open at most, beside one that listens.
        patience: How long a verb waits for one of them.
        timeout: How long the server may say nothing over a statement: then it is told to give up; where it
            does not, the connection is closed, and a put may or may not have been stored.
        poll: How often ``wait`` looks at first for what it was not told of; where nothing comes, four times as seldom.
        notify: Whether what is put is told to those who wait.
        listen: Whether ``wait`` has a connection of its own that listens, where no pooler hands its session on.
        prepare: Whether statements are prepared on the server; not for a
            pooler in transaction mode that does not keep track of them
            (PgBouncer before 1.22, or with ``max_prepared_statements = 0``).
        migrate: Whether the tables are made where there are none.

    Raises:
        ConfigurationError: the dsn cannot be used, a setting makes no sense, there are no tables and
            none are to be made, the database's encoding is not UTF8, or
            its transactions are not ``read committed`` by default.
        FormatError: another release made the tables, in a format that this one does not know.
        StoreUnavailable: the database cannot be reached now.
        UnsupportedError: the server is older than PostgreSQL 14.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset()

    def __init__(
        self,
        dsn: str,
        *,
        clock: Clock | None = None,
        schema: str = "public",
        remember: dt.timedelta = _WEEK,
        remember_at_most: int = 1_000_000,
        keep_delivered: dt.timedelta | None = None,
        keep_content: bool = True,
        discard_after: dt.timedelta | None = None,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        coding: Sequence[ContentCoding] = (),
        also_reads: Sequence[ContentCoding] = (),
        max_connections: int = 10,
        patience: dt.timedelta = dt.timedelta(seconds=30),
        timeout: dt.timedelta = dt.timedelta(seconds=30),
        poll: dt.timedelta = dt.timedelta(milliseconds=500),
        notify: bool = True,
        listen: bool = True,
        prepare: bool = True,
        migrate: bool = True,
    ) -> None:
        if max_connections < 1 or patience < _ZERO or min(timeout, poll) <= _ZERO:
            raise ConfigurationError(
                "max_connections must be at least 1, patience not negative, and timeout and poll positive"
            )
        # No method: whoever is handed it would keep the store.
        self._now: Callable[[], int | None] = lambda: None if clock is None else micros(clock.now())
        self._retention = Retention(
            remember=remember,
            remember_at_most=remember_at_most,
            keep_delivered=keep_delivered,
            keep_content=keep_content,
            discard_after=discard_after,
        )
        limits = Limits(max_messages=max_messages, max_bytes=max_bytes)
        self._codings = Codings(coding, also_reads)
        self._names = Names(schema)
        self._links = linked(
            dsn,
            self._names,
            most=max_connections,
            patience=patience.total_seconds(),
            longest=timeout.total_seconds(),
            prepare=prepare,
        )
        self._links.use(self._opened(migrate=migrate))
        self._home = Home(self._links)
        self._herald = Herald(self._names, tells=notify)
        self._entrance = Entrance(
            links=self._links,
            codings=self._codings,
            retention=self._retention,
            crowd=Crowd(limits, self._names),
            herald=self._herald,
            now=self._now,
        )
        self._claimant = Claimant(self._links, self._codings, self._now)
        self._lookout = Lookout(
            self._links, self._names, self._herald, self._is_due, poll=poll, listens=listen
        )

    def _opened(self, *, migrate: bool) -> Callable[[Sql], None]:
        """Look at the server and the tables."""

        def look(sql: Sql) -> None:
            migrations.require_fit(sql, self._links.name)
            migrations.require_isolation(sql, self._links.name)
            found = migrations.version(sql, self._names)
            if migrate and not found["version"]:
                migrations.migrate(sql, self._names)
                found = migrations.version(sql, self._names)
            migrations.require_known(found, self._links.name, self._names)

        return look

    def __repr__(self) -> str:
        return f"PostgresStore({self._links.name!r}, schema={self._names.schema!r})"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`."""
        results = self._entrance.put(messages)
        self._lookout.news.tell()
        return results

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.SupportsHandOver.put_claimed`."""
        claims = self._entrance.put_claimed(messages, lease=lease, attempted=attempted)
        self._lookout.news.tell()
        return claims

    def within(self, connection: Any, /) -> Intake:
        """See :meth:`outbox.protocols.SupportsTransaction.within`; *connection* is a ``psycopg.Connection`` to this store's database.

        Its transaction may be one that psycopg begins by itself; where it
        commits each statement (``autocommit``), begin one first:
        ``with connection.transaction():``.
        """
        return Within(
            connection,
            self._entrance.put_within,
            self._names,
            name=self._links.name,
            home=self._home,
        )

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; ties between queues as in :mod:`outbox.stores.selection`."""
        names = distinct(queues)
        self._lookout.looks(names)
        if limit < 1 or not names:
            return []
        order = claiming.Order(queues=names, limit=bounded(limit), lease=lease, max_bytes=max_bytes)
        return self._claimant.claim(order)

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; a lease that ran out and was not taken is extended."""
        if not claims:
            return []
        return self._links.use(lambda sql: claiming.extend(sql, claims, lease, self._now()))

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`."""
        settling = self._settling(settlements)

        def settle(sql: Sql) -> None:
            try:
                if settling.alone:
                    settling.write(sql, self._now())
                else:
                    with sql.connection.pipeline():
                        settling.write(sql, self._now())
            except Locked:
                settling.write_past(sql, self._now(), self._links.name)
            self._tell_others(sql, settlements)

        self._links.use(settle)
        self._tell_of(settlements)
        return settling.lost()

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
        settling = self._settling(settlements)
        self._lookout.looks(names)
        order = claiming.Order(queues=names, limit=bounded(limit), lease=lease, max_bytes=max_bytes)
        claims = self._claimant.claim(order, settling)
        if any(_returned_now(each) for each in settlements):
            # A hint, and no more: what was claimed is not thrown away for it.
            with contextlib.suppress(StoreError):
                self._links.use(lambda sql: self._tell_others(sql, settlements))
        self._tell_of(settlements)
        return Exchanged(settling.lost(), claims)

    def _settling(self, settlements: Sequence[Settlement]) -> Settling:
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        return Settling(settlements, fates, self._retention)

    def _tell_others(self, sql: Sql, settlements: Sequence[Settlement]) -> None:
        self._herald.tell(sql, (each.claim.message.queue for each in settlements if _returned_now(each)))

    def _tell_of(self, settlements: Sequence[Settlement]) -> None:
        if any(isinstance(each.verdict, Retry | Released) for each in settlements):
            self._lookout.news.tell()

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`; what other threads are doing is done first."""
        self._lookout.close()
        self._links.close()

    # -- waiting

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`; see :mod:`.listening`."""
        return self._lookout.wait(timeout)

    def wake(self) -> None:
        """See :meth:`outbox.protocols.SupportsWait.wake`."""
        self._lookout.news.tell()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """See :meth:`outbox.protocols.SupportsWait.next_due`."""
        names = distinct(queues)
        self._lookout.serves(names)
        now, at = self._links.use(lambda sql: claiming.due_at(sql, names, self._now()))
        return None if at is None else span(max(0, at - now))

    def _is_due(self, queues: Sequence[str]) -> bool:
        now, at = self._links.use(lambda sql: claiming.due_at(sql, queues, self._now()))
        return at is not None and at <= now

    # -- looking

    def get(self, id: str, /) -> Record | None:
        """See :meth:`outbox.protocols.SupportsBrowse.get`."""
        if not is_id(id):
            return None
        return self._links.use(lambda sql: browsing.get(sql, id, self._codings))

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
        return self._links.use(
            lambda sql: browsing.browse(sql, states=states, queues=names, after=after, limit=bounded(limit))
        )

    def find(self, sought: Filter, /, *, after: str = "") -> Iterator[Summary]:
        """See :meth:`outbox.filters.SupportsFind.find`."""
        return browsing.find(self._links, sought, beginning(after))

    def ages(self, borders: Sequence[dt.datetime], /) -> Iterator[Group]:
        """See :meth:`outbox.ages.SupportsAges.ages`."""
        return aging.ages(self._links, borders)

    def count(self) -> Sequence[QueueCount]:
        """See :meth:`outbox.protocols.SupportsBrowse.count`."""
        return self._links.use(lambda sql: browsing.count(sql, self._now()), slowly=True)

    def glance(self, *, most: int = 2_500) -> Glance:
        """See :meth:`outbox.protocols.SupportsGlance.glance`."""
        return self._links.use(lambda sql: glancing.glance(sql, bounded(most), self._now()))

    # -- a person's word

    def requeue(
        self, ids: Sequence[str], /, *, uncertain: bool = False, expected: Expected | None = None
    ) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        changes = self._steer(
            ids, functools.partial(standings.requeue, uncertain=uncertain, expected=expected)
        )
        self._lookout.news.tell()
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
        self._lookout.news.tell()
        return changes

    def _steer(self, ids: Sequence[str], command: steering.Command) -> Sequence[Change]:
        return answered(ids, lambda known: steering.steer(self._links, known, command, self._now()))

    def purge(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """
        return answered(
            ids,
            lambda known: steering.purge(self._links, known, self._retention, self._now(), expected=expected),
        )

    # -- what is suspended

    def suspend(self, suspension: Suspension, /) -> None:
        """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
        require_suspension(suspension.kind, suspension.value, suspension.reason)
        self._links.use(lambda sql: suspending.suspend(sql, suspension))

    def unsuspend(self, kind: str, value: str, /) -> bool:
        """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
        require_suspension(kind, value)
        was = self._links.use(lambda sql: suspending.unsuspend(sql, kind, value, self._now()))
        self._lookout.news.tell()
        return was

    def suspensions(self) -> Sequence[Suspension]:
        """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
        return self._links.use(lambda sql: suspending.suspensions(sql, self._now()))

    # -- who is here

    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.announce`."""
        require_presence(name, text, for_)
        self._links.use(lambda sql: announcing.announce(sql, name, text, for_, self._now()))

    def withdraw(self, name: str, /) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
        if is_id(name):
            self._links.use(lambda sql: announcing.withdraw(sql, name))

    def announced(self) -> Sequence[Presence]:
        """See :meth:`outbox.protocols.SupportsPresence.announced`."""
        return self._links.use(lambda sql: announcing.announced(sql, self._now()))

    # -- from one store to another

    def identity(self) -> str:
        """See :meth:`outbox.moving.SupportsMove.identity`; a copy of the database is the same store."""
        return self._links.use(migrations.identity)

    def take(
        self,
        *,
        to: str,
        limit: int,
        max_bytes: int = MAX_BYTES,
        leave: Collection[str] = (),
        after: str = "",
    ) -> Batch | None:
        """See :meth:`outbox.moving.SupportsMove.take`; what a claim or a command has in hand is waited for."""
        return self._links.use(
            lambda sql: moving.take(
                sql,
                self._codings,
                self._now(),
                to=to,
                limit=bounded(limit),
                max_bytes=max_bytes,
                leave=leave,
                after=after,
            ),
            slowly=True,
        )

    def give(self, batch: Batch, /) -> Sequence[str]:
        """See :meth:`outbox.moving.SupportsMove.give`."""
        refused = self._entrance.give(batch)
        self._lookout.news.tell()
        return refused

    def last_given(self, source: str, /) -> str:
        """See :meth:`outbox.moving.SupportsMove.last_given`."""
        return self._links.use(lambda sql: arriving.last_given(sql, source))

    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        """See :meth:`outbox.moving.SupportsMove.conclude`."""
        self._links.use(lambda sql: moving.conclude(sql, self._retention, self._now(), name, back))
        self._lookout.news.tell()

    def abandon(self) -> Abandoned:
        """See :meth:`outbox.moving.SupportsMove.abandon`."""
        abandoned = self._links.use(lambda sql: moving.abandon(sql, self._retention, self._now()))
        self._lookout.news.tell()
        return abandoned

    def has_left(self, id: str, /) -> bool:
        """See :meth:`outbox.moving.SupportsMove.has_left`."""
        return self._links.use(lambda sql: moving.has_left(sql, id))

    def remembered(self, *, after: Remembered | None = None, limit: int = 1000) -> Sequence[Remembered]:
        """See :meth:`outbox.moving.SupportsMove.remembered`."""
        return self._links.use(
            lambda sql: moving.remembered(sql, self._retention, self._now(), after, bounded(limit))
        )

    def remember(self, known: Sequence[Remembered], /) -> None:
        """See :meth:`outbox.moving.SupportsMove.remember`."""
        self._links.use(lambda sql: arriving.remember(sql, known, self._retention, self._now()))

    # -- what is kept together

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        """See :meth:`outbox.protocols.SupportsRegister.registers`."""
        for name in names:
            require_register(name)
        return self._links.use(lambda sql: registering.registers(sql, names, self._now()))

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        """See :meth:`outbox.protocols.SupportsRegister.swap`."""
        for name, each in swaps.items():
            require_register(name, each.new)
        return self._links.use(lambda sql: registering.swap(sql, swaps, self._now()))

    # -- upkeep

    def migrate(self) -> Sequence[str]:
        """See :meth:`outbox.protocols.SupportsMaintain.migrate`."""
        return self._links.use(lambda sql: migrations.migrate(sql, self._names))

    def check(self) -> Sequence[Finding]:
        """See :meth:`outbox.protocols.SupportsMaintain.check`."""
        self._links.require_open()
        found: list[Finding] = []
        try:
            self._links.use(
                lambda sql: found.extend(
                    upkeep.check(sql, self._links.name, self._names, self._codings, self._now())
                ),
                slowly=True,
            )
            self._links.use(lambda sql: found.extend(moving.check(sql, self._now())))
        except StoreError as error:
            found.append(
                Finding("error", str(error), "until then nothing can be submitted, claimed or settled")
            )
        return found

    def prune(self, *, limit: int = 1000) -> int:
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; the oldest first, ids before records."""
        return pruning.prune(self._links, self._retention, limit=bounded(limit), now=self._now())


def _returned_now(settlement: Settlement) -> bool:
    """Whether it can be claimed again at once."""
    verdict = settlement.verdict
    return isinstance(verdict, Retry | Released) and verdict.delay <= _ZERO

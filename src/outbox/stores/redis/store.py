"""The store: each verb is one script."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, Final

from outbox.ages import Group
from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.filters import Filter
from outbox.lifecycle import Claim, PutResult, Record, Settlement, State, Summary
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
    Presence,
    QueueCount,
    Register,
    Suspension,
    Swap,
)
from outbox.stores import standing as standings
from outbox.stores.content import Codings, ContentCoding
from outbox.stores.instants import later, span
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
from outbox.stores.presence import Said
from outbox.stores.retention import Retention
from outbox.stores.selection import distinct

from . import (
    announcing,
    arriving,
    browsing,
    counting,
    knowing,
    moving,
    opening,
    pruning,
    registering,
    steering,
    suspending,
    upkeep,
)
from .caller import Caller
from .claimant import Claimant
from .claiming import Order
from .driver import Driver
from .keys import Keys
from .lookout import Lookout
from .place import Place
from .putting import Putting, kept_span
from .scripts import EXCHANGE, EXTEND, LOOK, NEXT_DUE, SETTLE
from .settling import Portion, portions
from .tidings import Tidings, number

__all__ = ["RedisStore"]

_DAY: Final = dt.timedelta(days=1)
_WEEK: Final = 7 * _DAY
_ZERO: Final = dt.timedelta(0)
_AT_ONCE: Final = 1000
"""So many leases one script extends."""


class RedisStore:
    """A store in one Redis server (6.2 or newer), for any number of machines.

    What ``put`` and ``settle`` have returned from is as durable as the server
    is set up to be: with ``appendonly yes`` and ``appendfsync always`` it
    outlives a power failure; ``check`` says what is set, docs/redis.md what
    that means.  A server that may evict any key is refused.

    Args:
        url: ``redis://user:password@host:6379/0``, ``rediss://…`` for TLS, or
            ``unix:///run/redis.sock?db=0``.
        prefix: What the keys begin with; stores of two prefixes know nothing of each other.
        clock: Decides what is due and when a lease has run out; None is the
            server's own, which is the same for all who use it.
        remember, remember_at_most, keep_delivered, keep_content, discard_after:
            See :class:`outbox.stores.retention.Retention`.
        max_messages, max_bytes: See :class:`outbox.stores.limits.Limits`.
        coding: What is done to content at rest, in order; see :mod:`outbox.stores.content`.
        also_reads: Further codings that content may be kept in.
        timeout: How long one answer of the server is waited for.
        poll: How often ``wait`` looks for what others have put, where the server does not tell of it.
        ca_file, client_cert, client_key: For ``rediss://``: who signs the
            server's certificate, where it is nobody known here, and our own.
        create: Whether a store is made where there is none.

    Raises:
        ConfigurationError: the URL or a setting makes no sense, the server
            evicts keys, the user may not run a command that is needed, or
            there is no store and none is to be made.
        FormatError: another release wrote it in a format this one does not know.
        StoreUnavailable: the server cannot be reached now, or refuses us.
        UnsupportedError: it is older than 6.2.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset()

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "outbox",
        clock: Clock | None = None,
        remember: dt.timedelta = _WEEK,
        remember_at_most: int = 1_000_000,
        keep_delivered: dt.timedelta | None = None,
        keep_content: bool = True,
        discard_after: dt.timedelta | None = None,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        coding: Sequence[ContentCoding] = (),
        also_reads: Sequence[ContentCoding] = (),
        timeout: dt.timedelta = dt.timedelta(seconds=30),
        poll: dt.timedelta = dt.timedelta(milliseconds=100),
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        create: bool = True,
    ) -> None:
        if not _ZERO < timeout <= _DAY or poll <= _ZERO:
            raise ConfigurationError("timeout must be positive and up to 1 day, and poll must be positive")
        place = Place.parse(url, ca_file=ca_file, client_cert=client_cert, client_key=client_key)
        self._retention = Retention(
            remember=remember,
            remember_at_most=remember_at_most,
            keep_delivered=keep_delivered,
            keep_content=keep_content,
            discard_after=discard_after,
        )
        limits = Limits(max_messages=max_messages, max_bytes=max_bytes)
        self._codings = Codings(coding, also_reads)
        self._prefix = prefix
        driver = Driver(place, timeout=timeout.total_seconds())
        self._caller = Caller(driver, Keys(prefix), place, clock)
        opening.open_store(self._caller, create=create)
        self._tidings = Tidings()
        self._putting = Putting(self._caller, self._codings, self._retention, limits)
        self._claimant = Claimant(self._caller, self._codings, self._tidings)
        self._lookout = Lookout(self._caller, self._tidings, poll)

    def __repr__(self) -> str:
        return f"RedisStore({str(self._caller.place)!r}, prefix={self._prefix!r})"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`.

        Raises:
            UnsupportedError: it is more than 5,000 messages, or several of
                more than 256 MiB together: for as long as it took, the server
                could do nothing else.  None was stored.
        """
        asked = self._tidings.latest
        stored = self._putting.put(messages)
        self._tidings.learn(stored.news, asked=asked)
        return stored.results

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.SupportsHandOver.put_claimed`."""
        asked = self._tidings.latest
        stored = self._putting.put(messages, lease=lease, attempted=attempted)
        self._tidings.learn(stored.news, asked=asked)
        return stored.claims

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; a thousand at most, ties between queues as in :mod:`outbox.stores.selection`."""
        names = distinct(queues)
        if limit < 1 or not names:
            return []
        return self._claimant.claim(Order(queues=names, limit=limit, lease=lease, max_bytes=max_bytes))

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; a lease that ran out and was not taken is extended."""
        lost: list[Claim] = []
        for first in range(0, len(claims), _AT_ONCE):
            some = claims[first : first + _AT_ONCE]
            held = [claim.key for claim in some]
            args = {"claims": held, "lease": kept_span(lease)}
            _, gone = self._caller.run(EXTEND, args, queues=[claim.message.queue for claim in some])
            lost += [some[place] for place in gone]
        return lost

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`; a thousand at a time, each thousand durable when the next begins."""
        return self._settle(portions(settlements, self._retention))

    def _settle(self, some: Sequence[Portion]) -> list[Claim]:
        lost: list[Claim] = []
        for batch in some:
            _, news, stale = self._caller.run(SETTLE, batch.args, queues=batch.queues)
            self._tidings.learn(number(news))
            lost += batch.lost(stale)
        return lost

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
        """See :meth:`outbox.protocols.SupportsExchange.exchange`; of more than a thousand settlements the first are settled before."""
        names = distinct(queues)
        if limit < 1 or not names:
            return Exchanged(self.settle(settlements), [])
        *before, last = portions(settlements, self._retention)
        lost = self._settle(before)
        order = self._claimant.in_turn(Order(queues=names, limit=limit, lease=lease, max_bytes=max_bytes))
        args = {**last.args, **order.args()}
        asked = self._tidings.latest
        answer = self._caller.run(EXCHANGE, args, queues=[*order.queues, *last.queues])
        claims, more = self._claimant.received(answer[:4], asked)
        self._tidings.learn(number(answer[4]))
        if more and not claims:
            claims = self._claimant.claim(order)
        return Exchanged([*lost, *last.lost(answer[2])], claims)

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`."""
        self._caller.close()
        self._lookout.close()

    # -- waiting

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`; see :mod:`.lookout`."""
        return self._lookout.wait(timeout)

    def wake(self) -> None:
        """See :meth:`outbox.protocols.SupportsWait.wake`."""
        self._tidings.wake()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """See :meth:`outbox.protocols.SupportsWait.next_due`."""
        now, due = self._caller.run(NEXT_DUE, {}, queues=distinct(queues))
        return span(max(0, int(due) - int(now))) if due else None

    # -- looking

    def get(self, id: str, /) -> Record | None:
        """See :meth:`outbox.protocols.SupportsBrowse.get`."""
        return browsing.get(self._caller, id, self._codings) if is_id(id) else None

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
        return browsing.browse(self._caller, states=states, queues=names, after=after, limit=bounded(limit))

    def find(self, sought: Filter, /, *, after: str = "") -> Iterator[Summary]:
        """See :meth:`outbox.filters.SupportsFind.find`; a thousand at a time are looked at."""
        return browsing.find(self._caller, sought, beginning(after))

    def ages(self, borders: Sequence[dt.datetime], /) -> Iterator[Group]:
        """See :meth:`outbox.ages.SupportsAges.ages`."""
        return browsing.ages(self._caller, borders)

    def count(self) -> Sequence[QueueCount]:
        """See :meth:`outbox.protocols.SupportsBrowse.count`."""
        return counting.count(self._caller)

    def glance(self, *, most: int = 2_500) -> Glance:
        """See :meth:`outbox.protocols.SupportsGlance.glance`."""
        return counting.glance(self._caller, max(1, bounded(most)))

    # -- a person's word

    def requeue(
        self, ids: Sequence[str], /, *, uncertain: bool = False, expected: Expected | None = None
    ) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        return self._steer(ids, functools.partial(standings.requeue, uncertain=uncertain, expected=expected))

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
        return self._steer(ids, functools.partial(standings.release, expected=expected))

    def _steer(self, ids: Sequence[str], command: steering.Command) -> Sequence[Change]:
        def steer(known: Sequence[str]) -> Sequence[Change]:
            changes, news = steering.steer(self._caller, known, command)
            self._tidings.learn(news)
            return changes

        return answered(ids, steer)

    def purge(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """
        return answered(ids, lambda known: steering.purge(self._caller, known, self._retention, expected))

    # -- what is suspended

    def suspend(self, suspension: Suspension, /) -> None:
        """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
        require_suspension(suspension.kind, suspension.value, suspension.reason)
        suspending.suspend(self._caller, suspension)

    def unsuspend(self, kind: str, value: str, /) -> bool:
        """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
        require_suspension(kind, value)
        was, news = suspending.unsuspend(self._caller, kind, value)
        self._tidings.learn(news)
        return was

    def suspensions(self) -> Sequence[Suspension]:
        """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
        return suspending.suspensions(self._caller)

    # -- who is here

    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.announce`."""
        require_presence(name, text, for_)
        now = self._now()
        announcing.announce(self._caller, Said(name, text, now, later(now, for_)), now)

    def withdraw(self, name: str, /) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
        announcing.withdraw(self._caller, name)

    def announced(self) -> Sequence[Presence]:
        """See :meth:`outbox.protocols.SupportsPresence.announced`."""
        return announcing.announced(self._caller, self._now())

    # -- from one store to another

    def identity(self) -> str:
        """See :meth:`outbox.moving.SupportsMove.identity`; a copy of the server's data is the same store.

        Raises:
            ConfigurationError: the server may lose what it has answered for,
                as it is set up; so say all that a move begins with.
        """
        return moving.identity(self._caller)

    def take(
        self,
        *,
        to: str,
        limit: int,
        max_bytes: int = MAX_BYTES,
        leave: Collection[str] = (),
        after: str = "",
    ) -> Batch | None:
        """See :meth:`outbox.moving.SupportsMove.take`; a thousand at most."""
        return moving.take(
            self._caller,
            self._codings,
            to=to,
            limit=bounded(limit),
            max_bytes=max_bytes,
            leave=leave,
            after=after,
        )

    def give(self, batch: Batch, /) -> Sequence[str]:
        """See :meth:`outbox.moving.SupportsMove.give`.

        Raises:
            InvalidMessage: also where the batch is more than 5,000 messages, or 256 MiB of several.
        """
        refused, news = arriving.give(self._putting, batch)
        self._tidings.learn(news)
        return refused

    def last_given(self, source: str, /) -> str:
        """See :meth:`outbox.moving.SupportsMove.last_given`."""
        return arriving.last_given(self._putting, source)

    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        """See :meth:`outbox.moving.SupportsMove.conclude`."""
        self._tidings.learn(moving.conclude(self._caller, self._retention, name, back))

    def abandon(self) -> Abandoned:
        """See :meth:`outbox.moving.SupportsMove.abandon`."""
        abandoned, news = moving.abandon(self._caller, self._retention)
        self._tidings.learn(news)
        return abandoned

    def has_left(self, id: str, /) -> bool:
        """See :meth:`outbox.moving.SupportsMove.has_left`."""
        return is_id(id) and knowing.has_left(self._caller, id)

    def remembered(self, *, after: Remembered | None = None, limit: int = 1000) -> Sequence[Remembered]:
        """See :meth:`outbox.moving.SupportsMove.remembered`."""
        return knowing.remembered(self._caller, self._retention, self._now(), after, bounded(limit))

    def remember(self, known: Sequence[Remembered], /) -> None:
        """See :meth:`outbox.moving.SupportsMove.remember`; a thousand at a time, each thousand durable when the next begins."""
        knowing.remember(self._caller, known, self._retention)

    # -- what is kept together

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        """See :meth:`outbox.protocols.SupportsRegister.registers`."""
        for name in names:
            require_register(name)
        return registering.registers(self._caller, names)

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        """See :meth:`outbox.protocols.SupportsRegister.swap`."""
        for name, each in swaps.items():
            require_register(name, each.new)
        return registering.swap(self._caller, swaps)

    def _now(self) -> int:
        now, _ = self._caller.run(LOOK, {"ids": []})
        return int(now)

    # -- upkeep

    def migrate(self) -> Sequence[str]:
        """See :meth:`outbox.protocols.SupportsMaintain.migrate`; there is one format, and nothing to do but to see that it could be done."""
        self._caller.require_writes()
        return []

    def check(self) -> Sequence[Finding]:
        """See :meth:`outbox.protocols.SupportsMaintain.check`."""
        return [*upkeep.check(self._caller), *moving.check(self._caller, self._now())]

    def prune(self, *, limit: int = 1000) -> int:
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; the oldest first, ids before records."""
        return pruning.prune(self._caller, self._retention, bounded(limit))

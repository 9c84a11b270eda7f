"""Messages in this process's memory: for tests and trials, and the model that other stores are held to."""

from __future__ import annotations

import datetime as dt
import functools
import heapq
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, Final

from outbox.clock import Clock, SystemClock
from outbox.errors import StoreUnavailable
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
    Guarantee,
    Presence,
    QueueCount,
    Register,
    Suspension,
    Swap,
)

from . import standing as standings
from .ferry import Ferry
from .forking import whole_after_fork
from .instants import later, micros, moment, span
from .intake import Draft
from .limits import Limits, bounded
from .names import (
    answered,
    beginning,
    is_id,
    require_presence,
    require_reason,
    require_register,
    require_suspension,
)
from .news import News
from .presence import Said, shown, spent
from .retention import Retention
from .selection import distinct
from .shelf import Command, Shelf

__all__ = ["MemoryStore"]

_WEEK: Final = dt.timedelta(days=7)


class MemoryStore:
    """A store that lives and dies with its process; otherwise it promises what every store does.

    Args:
        clock: Decides what is due and when a lease has run out.
        remember, remember_at_most, keep_delivered, keep_content, discard_after:
            See :class:`outbox.stores.retention.Retention`.
        max_messages, max_bytes: See :class:`outbox.stores.limits.Limits`.

    Raises:
        ConfigurationError: a setting makes no sense.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset()

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        remember: dt.timedelta = _WEEK,
        remember_at_most: int = 1_000_000,
        keep_delivered: dt.timedelta | None = None,
        keep_content: bool = True,
        discard_after: dt.timedelta | None = None,
        max_messages: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        retention = Retention(
            remember=remember,
            remember_at_most=remember_at_most,
            keep_delivered=keep_delivered,
            keep_content=keep_content,
            discard_after=discard_after,
        )
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._news = News()
        self._shelf = Shelf(retention, Limits(max_messages=max_messages, max_bytes=max_bytes))
        self._ferry = Ferry(self._shelf)
        self._said: dict[str, Said] = {}
        self._registers: dict[str, str] = {}
        self._closed = False
        whole_after_fork(self._lock)

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._shelf.rows)} messages>"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; durable here is: until the process ends."""
        drafts = _drafts(messages)
        with self._lock:
            new, results = self._shelf.put(drafts, self._now())
        if new:
            self._news.tell()
        return results

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.SupportsHandOver.put_claimed`."""
        drafts = _drafts(messages)
        with self._lock:
            now = self._now()
            new, _ = self._shelf.put(drafts, now)
            queues = list({row.message.queue for row in new})
            going_on = queues if attempted else self._shelf.served(queues, now)
            ready = [r for r in new if r.message.queue in going_on and r.standing.due <= now]
            return [self._shelf.lease(row, now, later(now, lease)) for row in ready]

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; ties between queues as in :mod:`.selection`."""
        names = distinct(queues)
        self._news.look()
        with self._lock:
            return self._shelf.claim(names, self._now(), limit=limit, lease=lease, max_bytes=max_bytes)

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; a lease that ran out and was not taken is extended."""
        with self._lock:
            return self._shelf.extend(claims, later(self._now(), lease))

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`."""
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        with self._lock:
            stale = self._shelf.settle(settlements, fates, self._now())
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
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        self._news.look()
        with self._lock:
            now = self._now()
            stale = self._shelf.settle(settlements, fates, now)
            claims = self._shelf.claim(names, now, limit=limit, lease=lease, max_bytes=max_bytes)
        self._tell_of(settlements)
        return Exchanged(stale, claims)

    def close(self) -> None:
        """See :meth:`outbox.protocols.Store.close`; but a memory store cannot be opened again."""
        with self._lock:
            self._closed = True
        self._news.tell()

    # -- waiting

    def wait(self, timeout: dt.timedelta) -> bool:
        return self._news.wait(timeout.total_seconds())

    def wake(self) -> None:
        self._news.tell()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        names = distinct(queues)
        with self._lock:
            now = self._now()
            at = self._shelf.due_at(names, now)
        return None if at is None else span(max(0, at - now))

    # -- looking

    def get(self, id: str, /) -> Record | None:
        with self._lock:
            self._now()
            row = self._shelf.rows.get(id) if is_id(id) else None
            return None if row is None else row.record

    def browse(
        self,
        *,
        states: Sequence[State] = (),
        queues: Sequence[str] = (),
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Summary]:
        names, after = distinct(queues), beginning(after)
        with self._lock:
            self._now()
            rows = (
                row
                for row in self._shelf.rows.values()
                if row.id > after
                and (not states or row.standing.state in states)
                and (not names or row.message.queue in names)
            )
            page = heapq.nsmallest(bounded(limit), rows, key=lambda row: row.id)
            return [row.summary for row in page]

    def find(self, sought: Filter, /, *, after: str = "") -> Iterator[Summary]:
        """See :meth:`outbox.filters.SupportsFind.find`."""
        after = beginning(after)
        with self._lock:
            self._now()
            names = sorted(name for name in self._shelf.rows if name > after)
        for name in names:
            with self._lock:
                row = self._shelf.rows.get(name)
                summary = None if row is None else row.summary
            if summary is not None and sought.fits(summary):
                yield summary

    def count(self) -> Sequence[QueueCount]:
        with self._lock:
            return self._shelf.count(self._now())

    # -- a person's word

    def requeue(
        self, ids: Sequence[str], /, *, uncertain: bool = False, expected: Expected | None = None
    ) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        changes = self._steer(
            ids, functools.partial(standings.requeue, uncertain=uncertain, expected=expected)
        )
        self._news.tell()
        return changes

    def cancel(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        return self._steer(ids, functools.partial(standings.cancel, expected=expected))

    def hold(
        self, ids: Sequence[str], /, *, reason: str = "", expected: Expected | None = None
    ) -> Sequence[Change]:
        require_reason(reason)
        return self._steer(ids, functools.partial(standings.hold, reason=reason, expected=expected))

    def release(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsHold.release`."""
        changes = self._steer(ids, functools.partial(standings.release, expected=expected))
        self._news.tell()
        return changes

    def purge(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """
        with self._lock:
            return answered(ids, lambda known: self._shelf.purge(known, self._now(), expected))

    def suspend(self, suspension: Suspension, /) -> None:
        require_suspension(suspension.kind, suspension.value, suspension.reason)
        with self._lock:
            self._now()
            self._shelf.suspend(suspension)

    def unsuspend(self, kind: str, value: str, /) -> bool:
        require_suspension(kind, value)
        with self._lock:
            was_in_force = self._shelf.unsuspend(kind, value, self._now())
        self._news.tell()
        return was_in_force

    def suspensions(self) -> Sequence[Suspension]:
        with self._lock:
            return self._shelf.suspensions(self._now())

    # -- who is here

    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.announce`."""
        require_presence(name, text, for_)
        with self._lock:
            now = self._now()
            self._said[name] = Said(name, text, now, later(now, for_))
            for gone in spent(self._said.values(), now):
                del self._said[gone]

    def withdraw(self, name: str, /) -> None:
        """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
        with self._lock:
            self._now()
            self._said.pop(name, None)

    def announced(self) -> Sequence[Presence]:
        """See :meth:`outbox.protocols.SupportsPresence.announced`."""
        with self._lock:
            return shown(self._said.values(), self._now())

    # -- what is kept together

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        """See :meth:`outbox.protocols.SupportsRegister.registers`."""
        for name in names:
            require_register(name)
        with self._lock:
            at = moment(self._now())
            return {name: Register(self._registers.get(name), at) for name in names}

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        """See :meth:`outbox.protocols.SupportsRegister.swap`."""
        for name, each in swaps.items():
            require_register(name, each.new)
        with self._lock:
            at = moment(self._now())
            stands = {name: self._registers.get(name) for name in swaps}
            refused = {name for name, each in swaps.items() if stands[name] != each.old}
            self._registers |= {name: each.new for name, each in swaps.items() if name not in refused}
            return {name: Register(stands[name], at) for name in refused}

    # -- from one store to another

    def identity(self) -> str:
        """See :meth:`outbox.moving.SupportsMove.identity`."""
        return self._ferry.identity

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
        with self._lock:
            return self._ferry.take(
                self._now(), to=to, limit=bounded(limit), max_bytes=max_bytes, leave=leave, after=after
            )

    def give(self, batch: Batch, /) -> Sequence[str]:
        """See :meth:`outbox.moving.SupportsMove.give`."""
        with self._lock:
            refused = self._ferry.give(batch, self._now())
        self._news.tell()
        return refused

    def last_given(self, source: str, /) -> str:
        """See :meth:`outbox.moving.SupportsMove.last_given`."""
        with self._lock:
            self._now()
            return self._ferry.last_given(source).name

    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        """See :meth:`outbox.moving.SupportsMove.conclude`."""
        with self._lock:
            self._ferry.conclude(name, back, self._now())
        self._news.tell()

    def abandon(self) -> Abandoned:
        """See :meth:`outbox.moving.SupportsMove.abandon`."""
        with self._lock:
            abandoned = self._ferry.abandon(self._now())
        self._news.tell()
        return abandoned

    def has_left(self, id: str, /) -> bool:
        """See :meth:`outbox.moving.SupportsMove.has_left`."""
        with self._lock:
            return self._shelf.has_left(id)

    def remembered(self, *, after: Remembered | None = None, limit: int = 1000) -> Sequence[Remembered]:
        """See :meth:`outbox.moving.SupportsMove.remembered`."""
        with self._lock:
            return self._ferry.remembered(self._now(), after, bounded(limit))

    def remember(self, known: Sequence[Remembered], /) -> None:
        """See :meth:`outbox.moving.SupportsMove.remember`."""
        with self._lock:
            self._now()
            self._ferry.remember(known)

    # -- upkeep

    def migrate(self) -> Sequence[str]:
        """See :meth:`outbox.protocols.SupportsMaintain.migrate`; there is never anything to do."""
        with self._lock:
            self._now()
        return []

    def check(self) -> Sequence[Finding]:
        with self._lock:
            self._now()
        return [
            Finding(
                "warning",
                "messages are kept in memory, and are gone when the process ends",
                "use SQLiteStore where they are to outlive it",
            )
        ]

    def prune(self, *, limit: int = 1000) -> int:
        """See :meth:`outbox.protocols.SupportsMaintain.prune`; the oldest first, ids before records."""
        with self._lock:
            return self._shelf.prune(bounded(limit), self._now())

    # --

    def _now(self) -> int:
        if self._closed:
            raise StoreUnavailable("this MemoryStore was closed: its messages are gone, make another one")
        return micros(self._clock.now())

    def _steer(self, ids: Sequence[str], command: Command) -> Sequence[Change]:
        with self._lock:
            return answered(ids, lambda known: self._shelf.steer(known, command, self._now()))

    def _tell_of(self, settlements: Sequence[Settlement]) -> None:
        if any(isinstance(each.verdict, Retry | Released) for each in settlements):
            self._news.tell()


def _drafts(messages: Sequence[Message]) -> list[Draft]:
    return [Draft(message, message.envelope_digest) for message in messages]

"""Messages in this process's memory: for tests and trials, and the model that other stores are held to."""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final

import attrs

from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.lifecycle import Claim, PutResult, Record, Released, Retry, Settlement, State, Summary
from outbox.message import Message
from outbox.protocols import MAX_BYTES, Change, Finding, Guarantee, QueueCount

from . import standing as standings
from .forking import whole_after_fork
from .instants import later, micros, moment, span, width
from .intake import sift
from .lanes import Lane, Row
from .news import News
from .selection import PROMOTED, Offer, Turns, choose, distinct
from .standing import Standing, Step

__all__ = ["MemoryStore"]

_WEEK: Final = dt.timedelta(days=7)
_ZERO: Final = dt.timedelta(0)


@attrs.frozen
class _Tombstone:
    digest: bytes
    settled: int


class MemoryStore:
    """A store that lives and dies with its process; otherwise it promises what every store does.

    Args:
        clock: Decides what is due and when a lease has run out.
        remember: How long the id of a delivered message is known.
        keep_delivered: How long the whole record of a delivered message
            stays; None is not at all.
    """

    lacks: ClassVar[frozenset[Guarantee]] = frozenset()

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        remember: dt.timedelta = _WEEK,
        keep_delivered: dt.timedelta | None = None,
    ) -> None:
        if remember < _ZERO or (keep_delivered or _ZERO) < _ZERO:
            raise ConfigurationError("remember and keep_delivered must not be negative")
        self._clock = clock or SystemClock()
        self._remember = remember
        self._keep_delivered = keep_delivered
        self._lock = threading.Lock()
        self._news = News()
        self._turns = Turns()
        self._places = itertools.count(1)
        # One count for all messages: the token of a purged message never fits a later one of its id.
        self._generations = itertools.count(1)
        self._rows: dict[str, Row] = {}
        self._lanes: dict[str, Lane] = {}
        self._tombstones: dict[str, _Tombstone] = {}
        self._closed = False
        whole_after_fork(self._lock)

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._rows)} messages>"

    # -- the five verbs

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; durable here is: until the process ends."""
        batch = tuple(messages)
        with self._lock:
            now = self._now()
            new, results = sift(batch, self._known(batch, now))
            for message in new:
                row = Row(message=message, standing=standings.fresh(message, now))
                self._rows[row.id] = row
                self._enqueue(row, now)
        if new:
            self._news.tell()
        return results

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.claim`; ties between queues as in :mod:`.selection`."""
        self._news.look()
        names = distinct(queues)
        with self._lock:
            now = self._now()
            offers = [self._offer(name, now, limit, PROMOTED // len(names) or 1) for name in names]
            chosen = choose(self._turns.sort(offers), limit=limit, max_bytes=max_bytes)
            return [self._lease(self._rows[name], now, later(now, lease)) for name in chosen]

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.extend`; a lease that ran out and was not taken is extended."""
        lost: list[Claim] = []
        with self._lock:
            until = later(self._now(), lease)
            for claim in claims:
                row = self._held(claim)
                if row is None:
                    lost.append(claim)
                else:
                    row.standing = attrs.evolve(row.standing, due=until)
                    self._lane(row).schedule(row)
        return lost

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """See :meth:`outbox.protocols.Store.settle`."""
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]
        stale: list[Claim] = []
        with self._lock:
            now = self._now()
            for settlement, new in zip(settlements, fates, strict=True):
                row = self._held(settlement.claim)
                if row is None:
                    stale.append(settlement.claim)
                    continue
                attempt = standings.attempt(row.standing.attempts, settlement.verdict, now)
                row.history += [] if attempt is None else [attempt]
                self._stand(row, standings.settled(row.standing, new, settlement.verdict, now), now)
        if any(isinstance(each.verdict, Retry | Released) for each in settlements):
            self._news.tell()
        return stale

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
        with self._lock:
            now = self._now()
            lanes = [self._lanes[name] for name in distinct(queues) if name in self._lanes]
            due = [at for lane in lanes if (at := lane.due_at()) is not None]
            return span(max(0, min(due) - now)) if due else None

    # -- looking

    def get(self, id: str, /) -> Record | None:
        with self._lock:
            self._now()
            row = self._rows.get(id)
            if row is None:
                return None
            return Record(summary=_summary(row), message=row.message, history=row.history)

    def browse(
        self,
        *,
        states: Sequence[State] = (),
        queues: Sequence[str] = (),
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Summary]:
        names = distinct(queues)
        with self._lock:
            self._now()
            rows = (
                row
                for row in self._rows.values()
                if row.id > after
                and (not states or row.standing.state in states)
                and (not names or row.message.queue in names)
            )
            page = heapq.nsmallest(max(0, limit), rows, key=lambda row: row.id)
            return [_summary(row) for row in page]

    def count(self) -> Sequence[QueueCount]:
        with self._lock:
            now = self._now()
            groups: dict[tuple[str, State], list[Standing]] = {}
            for row in self._rows.values():
                groups.setdefault((row.message.queue, row.standing.state), []).append(row.standing)
            return [_counted(queue, state, groups[queue, state], now) for queue, state in sorted(groups)]

    # -- a person's word

    def requeue(self, ids: Sequence[str], /, *, uncertain: bool = False) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.requeue`; ``not_before`` is still honoured."""
        changes = self._command(
            ids, lambda row, now: standings.requeue(row.id, row.standing, now, uncertain=uncertain)
        )
        self._news.tell()
        return changes

    def cancel(self, ids: Sequence[str], /) -> Sequence[Change]:
        return self._command(ids, lambda row, now: standings.cancel(row.id, row.standing, now))

    def purge(self, ids: Sequence[str], /) -> Sequence[Change]:
        """See :meth:`outbox.protocols.SupportsManage.purge`.

        The id stays known, as a delivered one does, where somebody has
        received the message or may have; otherwise it is free again.
        """

        def purged(row: Row, now: int) -> Step:
            change = standings.purge(row.id, row.standing, now)
            if change.status == "done":
                self._remove(row, now, bury=standings.remembered(row.standing))
            return Step(change)

        return self._command(ids, purged)

    # -- upkeep

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
            now = self._now()
            forgotten = self._forgotten(now)[: max(0, limit)]
            unkept = self._unkept(now)[: max(0, limit) - len(forgotten)]
            for name in forgotten:
                del self._tombstones[name]
            for row in unkept:
                self._remove(row, now, bury=True)
            return len(forgotten) + len(unkept)

    # -- under the lock

    def _now(self) -> int:
        if self._closed:
            raise StoreUnavailable("this MemoryStore was closed: its messages are gone, make another one")
        return micros(self._clock.now())

    def _fresh(self, tombstone: _Tombstone, now: int) -> bool:
        return tombstone.settled + width(self._remember) > now

    def _known(self, batch: Iterable[Message], now: int) -> dict[str, bytes]:
        known: dict[str, bytes] = {}
        for message in batch:
            row, tombstone = self._rows.get(message.id), self._tombstones.get(message.id)
            if row is not None:
                known[row.id] = row.message.envelope_digest
            elif tombstone is not None and self._fresh(tombstone, now):
                known[message.id] = tombstone.digest
        return known

    def _forgotten(self, now: int) -> list[str]:
        old = ((t.settled, name) for name, t in self._tombstones.items() if not self._fresh(t, now))
        return [name for _, name in sorted(old)]

    def _unkept(self, now: int) -> list[Row]:
        until = now - width(self._keep_delivered or _ZERO)
        delivered = (row for row in self._rows.values() if row.standing.state is State.DELIVERED)
        old = ((row.standing.settled or 0, row.id, row) for row in delivered)
        return [row for settled, _, row in sorted(old) if settled <= until]

    def _lane(self, row: Row) -> Lane:
        queue = row.message.queue
        if queue not in self._lanes:
            self._lanes[queue] = Lane(self._places)
        return self._lanes[queue]

    def _enqueue(self, row: Row, now: int) -> None:
        if row.standing.due <= now:
            self._lane(row).make_ready(row)
        else:
            self._lane(row).schedule(row)

    def _offer(self, queue: str, now: int, limit: int, promoted: int) -> Offer:
        lane = self._lanes.get(queue)
        if lane is None:
            return Offer(queue, ())
        lane.promote(now, promoted)
        return lane.offer(queue, limit)

    def _lease(self, row: Row, now: int, until: int) -> Claim:
        row.standing = standings.claimed(row.standing, until)
        row.generation = next(self._generations)
        self._lane(row).schedule(row)
        return standings.claim(row.message, row.standing, str(row.generation), now)

    def _held(self, claim: Claim) -> Row | None:
        """The row that *claim* still holds; None where its token is stale."""
        row = self._rows.get(claim.message.id)
        if row is None or row.standing.state is not State.CLAIMED or str(row.generation) != claim.token:
            return None
        return row

    def _stand(self, row: Row, standing: Standing, now: int) -> None:
        row.standing = standing
        row.place = 0
        if standing.queued:
            self._enqueue(row, now)
        elif standing.state is State.DELIVERED and self._keep_delivered is None:
            self._remove(row, now, bury=True)

    def _remove(self, row: Row, now: int, *, bury: bool) -> None:
        del self._rows[row.id]
        row.place = 0
        tombstone = _Tombstone(row.message.envelope_digest, row.standing.settled or now)
        if bury and self._fresh(tombstone, now):
            self._tombstones[row.id] = tombstone

    def _command(self, ids: Sequence[str], command: Callable[[Row, int], Step]) -> Sequence[Change]:
        changes: list[Change] = []
        named = standings.named(ids)
        with self._lock:
            now = self._now()
            for name in named:
                row = self._rows.get(name)
                step = Step(standings.unknown(name)) if row is None else command(row, now)
                if row is not None and step.standing is not None:
                    self._stand(row, step.standing, now)
                changes.append(step.change)
        return changes


def _summary(row: Row) -> Summary:
    message = row.message
    return standings.summary(
        row.standing,
        id=message.id,
        queue=message.queue,
        priority=message.priority,
        sender=message.sender,
        recipients=message.recipients,
        size=len(message.content),
    )


def _counted(queue: str, state: State, group: Sequence[Standing], now: int) -> QueueCount:
    due = [standing.due for standing in group if standing.queued and standing.due <= now]
    return QueueCount(
        queue=queue,
        state=state,
        number=len(group),
        due=len(due),
        oldest_at=moment(min(standing.submitted for standing in group)),
        oldest_due_at=moment(min(due)) if due else None,
    )

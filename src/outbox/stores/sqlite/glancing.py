"""How the store stands, at a glance: exact where there are few, and a bounded number of rows where there are many.

A million messages cannot be counted in less than some tenths of a second, and
counters that every put, claim and settle keep up to date would cost each of
them.  So a number is counted until it is large.  Since when the first is due
the indexes tell at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outbox.lifecycle import State
from outbox.protocols import Glance, QueueCount
from outbox.stores.instants import moment

from . import rows
from .naming import Sql
from .suspending import open_queues

__all__ = ["glance"]

_READY: Final = 4
"""So many times as many are counted of what is ready: along the index, for they are all QUEUED."""

_OF_READY: Final = 2
_FIRST: Final = "SELECT queue FROM outbox_message WHERE stage = {0} AND queue > ? ORDER BY queue LIMIT 1"
_NEXT_QUEUE: Final = {stage: _FIRST.format(stage) for stage in (1, 2, 3)}
_NUMBER: Final = """
    SELECT count(*), sum(due <= :now) FROM (
        SELECT due FROM outbox_message WHERE stage = 2 AND queue = :queue LIMIT :most
    )
"""
_GROUPED: Final = """
    SELECT queue, state, count(*), sum(due <= :now), min(submitted), min(due) FROM (
        SELECT queue, state, due, submitted FROM outbox_message WHERE {0} LIMIT :most
    ) GROUP BY queue, state
"""
_OF_STAGE: Final = {
    stage: _GROUPED.format(f"stage = {stage} AND queue = :queue ORDER BY {order}")
    for stage, order in ((1, "due"), (2, "priority DESC, due"), (3, "priority DESC, due"))
}
_SETTLED: Final = _GROUPED.format("stage = 0 AND state = :state")
_NEXT_STATE: Final = "SELECT state FROM outbox_message WHERE stage = 0 AND state > ? ORDER BY state LIMIT 1"
_NEXT_PRIORITY: Final = """
    SELECT priority, due FROM outbox_message
    WHERE stage = 2 AND queue = ? AND priority < ? ORDER BY priority DESC, due LIMIT 1
"""
_BODIES: Final = "SELECT (SELECT max(number) FROM outbox_body), (SELECT min(number) FROM outbox_body)"
_BEYOND: Final = 1 << 31


def glance(sql: Sql, now: int, most: int) -> Glance:
    """See :meth:`outbox.protocols.SupportsGlance.glance`."""
    found: dict[tuple[str, State], _Count] = {}
    for queue, state, count in (*_waiting(sql, now, most), *_settled(sql, now, most)):
        key = rows.legible(queue), rows.STATES.get(state, State.HELD)
        found[key] = count.joined(found[key]) if key in found else count
    open_ones = set(open_queues(sql, {queue for queue, _ in found}, now))
    last, first = sql.execute(_BODIES).fetchone()
    return Glance(
        counts=[found[key].told(*key, claimable=key[0] in open_ones) for key in sorted(found)],
        at_most=0 if last is None else last - first + 1,
    )


def _waiting(sql: Sql, now: int, most: int) -> Iterator[tuple[str, str, _Count]]:
    for stage, query in _OF_STAGE.items():
        for queue in _queues(sql, stage):
            terms = {"queue": queue, "now": now, "most": most + 1}
            # First, for of many ready ones no more is told.
            many = _many_ready(sql, queue, now, most) if stage == _OF_READY else None
            if many is not None:
                yield queue, State.QUEUED, many
                continue
            groups = sql.execute(query, terms).fetchall()
            if sum(group[2] for group in groups) <= most:
                yield from ((name, state, _Count(*group)) for name, state, *group in groups)
            else:
                for name, state, number, due, _, first in groups:
                    yield name, state, _Count(number, due, None, first, more=state == State.QUEUED)


def _settled(sql: Sql, now: int, most: int) -> Iterator[tuple[str, str, _Count]]:
    state = ""
    while (row := sql.execute(_NEXT_STATE, (state,)).fetchone()) is not None:
        state = row[0]
        groups = sql.execute(_SETTLED, {"state": state, "now": now, "most": most + 1}).fetchall()
        more = sum(group[2] for group in groups) > most
        for queue, _, number, _, submitted, _ in groups:
            yield queue, state, _Count(number, 0, None if more else submitted, None, more=more)


def _queues(sql: Sql, stage: int) -> Iterator[str]:
    name = ""
    while (row := sql.execute(_NEXT_QUEUE[stage], (name,)).fetchone()) is not None:
        name = row[0]
        yield name


def _many_ready(sql: Sql, queue: str, now: int, most: int) -> _Count | None:
    """Those of a queue; None where they are no more than *most*."""
    many = most * _READY
    number, due = sql.execute(_NUMBER, {"queue": queue, "now": now, "most": many + 1}).fetchone()
    if number <= most:
        return None
    first, priority = None, _BEYOND
    while (row := sql.execute(_NEXT_PRIORITY, (queue, priority)).fetchone()) is not None:
        priority = row[0]
        first = row[1] if first is None else min(first, row[1])
    return _Count(min(number, many), min(due, many), None, first, more=number > many)


class _Count:
    """The messages of a queue in a state; an instant that is none is left out."""

    def __init__(
        self, number: int, due: int | None, oldest: object, first: object, *, more: bool = False
    ) -> None:
        self.number, self.due, self.more = number, due or 0, more
        self.oldest = rows.instant_or_none(oldest)
        self.first = rows.instant_or_none(first)

    def joined(self, other: _Count) -> _Count:
        more = self.more or other.more
        return _Count(
            self.number + other.number,
            self.due + other.due,
            None if more else _least(self.oldest, other.oldest),
            _least(self.first, other.first),
            more=more,
        )

    def told(self, queue: str, state: State, *, claimable: bool) -> QueueCount:
        due = self.due if claimable else 0
        since = self.first if due else None
        return QueueCount(
            queue=queue,
            state=state,
            number=self.number,
            due=due,
            oldest_at=None if self.oldest is None else moment(self.oldest),
            oldest_due_at=None if since is None else moment(since),
            more=self.more,
        )


def _least(*instants: int | None) -> int | None:
    return min((at for at in instants if at is not None), default=None)

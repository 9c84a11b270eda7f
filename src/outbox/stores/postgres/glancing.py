"""How the store stands, at a glance: exact where there are few, and a bounded number of rows where there are many."""

from __future__ import annotations

from typing import Final

import attrs

from outbox.lifecycle import State
from outbox.protocols import Glance, QueueCount
from outbox.stores.instants import moment

from . import rows
from .naming import Sql
from .suspending import OPEN

__all__ = ["glance"]

# From queue to queue along the index, however many rows each has.
_QUEUES: Final = """
    {0} AS (
        (SELECT queue FROM outbox_message WHERE stage = {1} ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT m.queue FROM outbox_message AS m WHERE m.stage = {1} AND m.queue > q.queue ORDER BY m.queue LIMIT 1)
        FROM {0} AS q WHERE q.queue IS NOT NULL
    )
"""
_OF_STAGE: Final = """
    SELECT q.queue, g.state, g.number, g.due, g.oldest, g.oldest_due, sum(g.number) OVER (PARTITION BY q.queue)
    FROM {0} AS q, t, LATERAL (
        SELECT s.state, count(*) AS number, count(*) FILTER (WHERE s.due <= t.now) AS due, min(s.submitted) AS oldest,
            min(s.due) AS oldest_due
        FROM (
            SELECT m.state, m.due, m.submitted FROM outbox_message AS m
            WHERE m.stage = {1} AND m.queue = q.queue ORDER BY {2} LIMIT %(most)s + 1
        ) AS s GROUP BY s.state
    ) AS g WHERE q.queue IS NOT NULL
"""
_STATES: Final = """
    states AS (
        (SELECT state FROM outbox_message WHERE stage = 0 ORDER BY state LIMIT 1)
        UNION ALL
        SELECT (SELECT m.state FROM outbox_message AS m WHERE m.stage = 0 AND m.state > q.state ORDER BY m.state LIMIT 1)
        FROM states AS q WHERE q.state IS NOT NULL
    )
"""
_SETTLED: Final = """
    SELECT g.queue, q.state, g.number, 0::bigint, g.oldest, NULL::bigint, sum(g.number) OVER (PARTITION BY q.state)
    FROM states AS q, LATERAL (
        SELECT s.queue, count(*) AS number, min(s.submitted) AS oldest FROM (
            SELECT m.queue, m.submitted FROM outbox_message AS m
            WHERE m.stage = 0 AND m.state = q.state ORDER BY m.id LIMIT %(most)s + 1
        ) AS s GROUP BY s.queue
    ) AS g WHERE q.state IS NOT NULL
"""
_STAGES: Final = (
    ("scheduled", 1, "m.due"),
    ("ready", 2, "m.priority DESC, m.due"),
    ("suspect", 3, "m.priority DESC, m.due"),
)
_GLANCE: Final = f"""
    WITH RECURSIVE t AS MATERIALIZED (SELECT {rows.NOW} AS now),
    {", ".join(_QUEUES.format(name, stage) for name, stage, _ in _STAGES)}, {_STATES}
    SELECT g.*, {OPEN} FROM (
        {" UNION ALL ".join(_OF_STAGE.format(*each) for each in _STAGES)} UNION ALL {_SETTLED}
    ) AS g (queue, state, number, due, oldest, oldest_due, seen)
"""  # noqa: S608 - statements of our own


@attrs.frozen
class _Count:
    """The messages of a queue in a state; an instant that is none is left out."""

    number: int
    due: int
    oldest: int | None
    oldest_due: int | None
    more: bool

    def joined(self, other: _Count | None) -> _Count:
        if other is None:
            return self
        more = self.more or other.more
        return _Count(
            self.number + other.number,
            self.due + other.due,
            None if more else _least(self.oldest, other.oldest),
            _least(self.oldest_due, other.oldest_due),
            more,
        )


def glance(sql: Sql, most: int, now: int | None) -> Glance:
    """See :meth:`outbox.protocols.SupportsGlance.glance`; since when the first is due is exact but for many priorities."""
    found: dict[tuple[str, State], _Count] = {}
    for queue, state, number, due, oldest, oldest_due, seen, is_open in sql.execute(
        _GLANCE, {"most": most, "now": now}
    ).fetchall():
        more = seen > most
        first = oldest_due if is_open and due else None
        count = _Count(number, due if is_open else 0, None if more else oldest, first, more)
        key = queue, rows.state(state)
        found[key] = count.joined(found.get(key))
    counts = [_told(*key, found[key]) for key in sorted(found)]
    return Glance(
        counts=counts,
        at_most=None if any(each.more for each in counts) else sum(each.number for each in counts),
    )


def _told(queue: str, state: State, count: _Count) -> QueueCount:
    return QueueCount(
        queue=queue,
        state=state,
        number=count.number,
        due=count.due,
        oldest_at=None if count.oldest is None else moment(rows.legible(count.oldest)),
        oldest_due_at=None if count.oldest_due is None else moment(rows.legible(count.oldest_due)),
        more=count.more,
    )


def _least(*instants: int | None) -> int | None:
    return min((at for at in instants if at is not None), default=None)

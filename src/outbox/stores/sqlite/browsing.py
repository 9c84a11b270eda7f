"""What a person is shown.  Lists never decode a message, so that a damaged one breaks no list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from outbox.errors import CorruptRecord
from outbox.lifecycle import Record, State, Summary
from outbox.protocols import QueueCount
from outbox.stores import standing as standings
from outbox.stores.content import Codings
from outbox.stores.instants import moment

from . import rows
from .claiming import read
from .naming import Sql
from .suspending import open_queues

__all__ = ["browse", "count", "get"]

_SUMMARY: Final = f"""
    SELECT m.id, m.queue, m.priority, coalesce(b.sender, ''), coalesce(b.recipients, '[]'), m.size, {rows.STANDING}
    FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body
"""  # noqa: S608 - column names of our own
_QUEUES: Final = "(:queues = '[]' OR m.queue IN (SELECT value FROM json_each(:queues)))"
_PAGE: Final = f"{_SUMMARY} WHERE m.stage < 4 AND m.id > :after AND {_QUEUES} ORDER BY m.id LIMIT :limit"
_OF_STATE: Final = f"""
    {_SUMMARY} WHERE m.stage = 0 AND m.state = :state AND m.id > :after AND {_QUEUES} ORDER BY m.id LIMIT :limit
"""
_OF_QUEUED_STATE: Final = f"""
    {_SUMMARY} WHERE m.stage IN (1, 2, 3) AND m.state = :state AND m.id > :after AND {_QUEUES} ORDER BY m.id LIMIT :limit
"""
_ONE: Final = f"{_SUMMARY} WHERE m.id = ? AND m.stage < 4"
_BODY: Final = """
    SELECT length(m.fates), m.digest, b.envelope, b.content, b.coding
    FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body WHERE m.id = ?
"""
_COUNT: Final = """
    SELECT queue, state, count(*), sum(due <= :now), min(submitted), min(CASE WHEN due <= :now THEN due END)
    FROM (
        SELECT queue, state, due, submitted FROM outbox_message WHERE stage = 1
        UNION ALL SELECT queue, state, due, submitted FROM outbox_message WHERE stage = 2
        UNION ALL SELECT queue, state, due, submitted FROM outbox_message WHERE stage = 3
        UNION ALL SELECT queue, state, NULL, submitted FROM outbox_message WHERE stage = 0
    )
    GROUP BY queue, state ORDER BY queue, state
"""


def get(sql: Sql, id: str, codings: Codings) -> Record | None:
    """See :meth:`outbox.protocols.SupportsBrowse.get`."""
    row = sql.execute(_ONE, (id,)).fetchone()
    if row is None:
        return None
    recipients, digest, *body = sql.execute(_BODY, (id,)).fetchone()
    message = read(id, digest, body, recipients, codings)
    return Record(summary=_summary(row), message=message, history=rows.attempts(sql, id))


def browse(
    sql: Sql,
    *,
    states: Sequence[State],
    queues: Sequence[str],
    after: str,
    limit: int,
) -> list[Summary]:
    """See :meth:`outbox.protocols.SupportsBrowse.browse`."""
    page = {"queues": rows.listed(queues), "after": after, "limit": limit}
    if not states:
        return [_summary(row) for row in sql.execute(_PAGE, page)]
    found = []
    # One state at a time: each is a walk along an index, and together they are seldom more than a page each.
    for state in set(states):
        query = _OF_QUEUED_STATE if state in (State.QUEUED, State.CLAIMED) else _OF_STATE
        found += sql.execute(query, {**page, "state": state.value}).fetchall()
    return [_summary(row) for row in sorted(found)[:limit]]


def _summary(row: rows.Row) -> Summary:
    name, queue, priority, sender, recipients, size, *columns = row
    try:
        standing = rows.standing(tuple(columns))
    except CorruptRecord:
        standing = rows.unreadable(tuple(columns))
    return standings.summary(
        standing,
        id=name,
        queue=queue,
        priority=priority,
        sender=sender,
        recipients=_recipients(recipients),
        size=size,
    )


def _recipients(text: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(text)))
    except (ValueError, TypeError):
        return ()


def count(sql: Sql, now: int) -> list[QueueCount]:
    """See :meth:`outbox.protocols.SupportsBrowse.count`; nothing of a suspended queue is due."""
    counted = sql.execute(_COUNT, {"now": now}).fetchall()
    open_ones = set(open_queues(sql, {queue for queue, *_ in counted}, now))
    return [_counted(row, row[0] in open_ones) for row in counted]


def _counted(row: rows.Row, claimable: bool) -> QueueCount:
    queue, state, number, due, oldest, oldest_due = row
    return QueueCount(
        queue=queue,
        state=State(state),
        number=number,
        due=(due or 0) if claimable else 0,
        oldest_at=moment(oldest),
        oldest_due_at=moment(oldest_due) if claimable and oldest_due is not None else None,
    )

"""What a person is shown.  Lists never decode a message, so that a damaged one breaks no list."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from outbox.lifecycle import Record, State, Summary
from outbox.protocols import QueueCount
from outbox.stores import standing as standings
from outbox.stores.instants import moment

from . import rows
from .claiming import read

__all__ = ["browse", "count", "get"]

_SUMMARY: Final = f"""
    SELECT m.id, m.queue, m.priority, coalesce(b.sender, ''), coalesce(b.recipients, '[]'), m.size, {rows.STANDING}
    FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body
"""  # noqa: S608 - column names of our own
_QUEUES: Final = "(:queues = '[]' OR m.queue IN (SELECT value FROM json_each(:queues)))"
_PAGE: Final = f"{_SUMMARY} WHERE m.id > :after AND {_QUEUES} ORDER BY m.id LIMIT :limit"
_OF_STATE: Final = f"""
    {_SUMMARY} WHERE m.stage = 0 AND m.state = :state AND m.id > :after AND {_QUEUES} ORDER BY m.id LIMIT :limit
"""
_OF_QUEUED_STATE: Final = f"""
    {_SUMMARY} WHERE m.stage > 0 AND m.state = :state AND m.id > :after AND {_QUEUES} ORDER BY m.id LIMIT :limit
"""
_ONE: Final = f"{_SUMMARY} WHERE m.id = ?"
_BODY: Final = """
    SELECT length(m.fates), b.digest, b.envelope, b.content
    FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body WHERE m.id = ?
"""
_COUNT: Final = """
    SELECT queue, state, count(*), sum(stage > 0 AND due <= :now), min(submitted),
        min(CASE WHEN stage > 0 AND due <= :now THEN due END)
    FROM outbox_message GROUP BY queue, state ORDER BY queue, state
"""


def get(sql: sqlite3.Connection, id: str) -> Record | None:
    """See :meth:`outbox.protocols.SupportsBrowse.get`."""
    row = sql.execute(_ONE, (id,)).fetchone()
    if row is None:
        return None
    recipients, *body = sql.execute(_BODY, (id,)).fetchone()
    message = read(id, None if None in body else body, recipients)
    return Record(summary=_summary(row), message=message, history=rows.attempts(sql, id))


def browse(
    sql: sqlite3.Connection,
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
    return standings.summary(
        rows.standing(tuple(columns)),
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


def count(sql: sqlite3.Connection, now: int) -> list[QueueCount]:
    """See :meth:`outbox.protocols.SupportsBrowse.count`."""
    return [
        QueueCount(
            queue=queue,
            state=State(state),
            number=number,
            due=due,
            oldest_at=moment(oldest),
            oldest_due_at=None if oldest_due is None else moment(oldest_due),
        )
        for queue, state, number, due, oldest, oldest_due in sql.execute(_COUNT, {"now": now})
    ]

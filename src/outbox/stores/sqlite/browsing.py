"""What a person is shown.  Lists never decode a message, so that a damaged one breaks no list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from outbox.codec import attributes_of
from outbox.errors import CorruptRecord
from outbox.lifecycle import Record, State, Summary
from outbox.protocols import QueueCount
from outbox.stores import standing as standings
from outbox.stores.content import Codings
from outbox.stores.instants import moment
from outbox.stores.standing import Standing

from . import damage, rows
from .claiming import read
from .naming import Sql
from .suspending import open_queues

__all__ = ["FEW", "SUMMARY", "behind", "browse", "count", "few", "get", "summary"]

SUMMARY: Final = f"""
    SELECT typeof(m.id) = 'blob', CAST(m.id AS BLOB), m.queue, m.priority, coalesce(b.sender, ''),
        coalesce(b.recipients, '[]'), m.size, CAST(b.envelope AS BLOB), {rows.STANDING}
    FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body
"""  # noqa: S608 - column names of our own
_QUEUES: Final = "(:queues = '[]' OR m.queue IN (SELECT value FROM json_each(:queues)))"
_PAGE: Final = (
    f"{SUMMARY} WHERE m.stage IS NOT 4 AND m.id > {damage.KEY} AND {_QUEUES} ORDER BY m.id LIMIT :limit"
)
_OF_STATE: Final = f"""
    {SUMMARY} WHERE m.stage = 0 AND m.state = :state AND m.id > {damage.KEY} AND {_QUEUES} ORDER BY m.id LIMIT :limit
"""
_OF_QUEUED_STATE: Final = f"""
    {SUMMARY} WHERE m.stage IN (1, 2, 3) AND m.state = :state AND m.id > {damage.KEY} AND {_QUEUES} ORDER BY m.id LIMIT :limit
"""
FEW: Final = 5000
"""So many are sorted rather than looked for among the ids of all, most of which may be settled or gone."""
_STAGED: Final = "SELECT id FROM outbox_message WHERE stage = {0}"
_MANY: Final = "(SELECT count(*) FROM (SELECT 1 FROM outbox_message WHERE stage = {0} LIMIT :few + 1))"
_FEW_QUEUED: Final = f"SELECT {' + '.join(_MANY.format(stage) for stage in (1, 2, 3))} <= :few"
# A row that no index leads to, as damage leaves them, has its body all the same.
_FEW_OF_ALL: Final = f"""
    SELECT found <= :few AND found = bodies FROM (
        SELECT {" + ".join(_MANY.format(stage) for stage in range(4))} AS found,
            (SELECT count(*) FROM (SELECT 1 FROM outbox_body LIMIT :few + 1)) AS bodies
    )
"""  # noqa: S608 - statements of our own
_QUEUED_IDS: Final = " UNION ALL ".join(_STAGED.format(stage) for stage in (1, 2, 3))
_THESE: Final = f"""
    {SUMMARY} WHERE m.id IN ({{0}})
    AND (:state IS NULL OR m.state = :state) AND m.id > {damage.KEY} AND {_QUEUES} ORDER BY m.id LIMIT :limit
"""
_QUEUED_ONES: Final = _THESE.format(_QUEUED_IDS)
_ALL_OF_THEM: Final = _THESE.format(f"{_QUEUED_IDS} UNION ALL {_STAGED.format(0)}")
_ONE: Final = f"{SUMMARY} WHERE m.id = ? AND m.stage IS NOT 4"
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
    GROUP BY queue, state
"""


def get(sql: Sql, id: str, codings: Codings) -> Record | None:
    """See :meth:`outbox.protocols.SupportsBrowse.get`."""
    row = sql.execute(_ONE, (id,)).fetchone()
    if row is None:
        if damage.find(sql, id) is not None:
            raise CorruptRecord(f"{id}: its row cannot be read")
        return None
    recipients, digest, *body = sql.execute(_BODY, (id,)).fetchone()
    message = read(id, digest, body, recipients, codings)
    return Record(summary=summary(row), message=message, history=rows.attempts(sql, id))


def browse(
    sql: Sql,
    *,
    states: Sequence[State],
    queues: Sequence[str],
    after: str,
    limit: int,
) -> list[Summary]:
    """See :meth:`outbox.protocols.SupportsBrowse.browse`."""
    page = {"queues": rows.listed(queues), "limit": limit, **behind(sql, after).parameters}
    if not states:
        rest = few(sql, page, queued=False)
        # Along the ids: whatever is damaged in a row, it is shown.
        return [summary(row) for row in (sql.execute(_PAGE, page) if rest is None else rest)]
    found = []
    # One state at a time: each is a walk along an index, and together they are seldom more than a page each.
    for state in set(states):
        queued = state in (State.QUEUED, State.CLAIMED)
        rest = few(sql, page, queued=True, state=state) if queued else None
        if rest is None:
            query = _OF_QUEUED_STATE if queued else _OF_STATE
            rest = sql.execute(query, {**page, "state": state.value}).fetchall()
        found += rest
    found.sort(key=lambda row: (row[0], row[1]))
    return [summary(row) for row in found[:limit]]


def few(
    sql: Sql, page: Mapping[str, object], *, queued: bool, state: State | None = None
) -> list[rows.Row] | None:
    """The rows of a page, of QUEUED or CLAIMED ones or of all, where those are few; None where they are many.

    A walk along the ids would wade through all others, of which there may be
    a million more.  Of all it is None, too, where the indexes do not lead to
    as many as there are: then only a walk shows what is damaged.
    """
    if not sql.execute(_FEW_QUEUED if queued else _FEW_OF_ALL, {"few": FEW}).fetchone()[0]:
        return None
    query = _QUEUED_ONES if queued else _ALL_OF_THEM
    return sql.execute(query, {**page, "state": state and state.value}).fetchall()


def behind(sql: Sql, name: str) -> damage.Key:
    """Where a page goes on that ended with this name."""
    shown = damage.Key.shown(name)
    found = None if shown is None else damage.find(sql, name)
    return damage.Key.of(name) if found is None else found.key


def summary(row: rows.Row) -> Summary:
    blob, raw, queue, priority, sender, recipients, size, envelope, *columns = row
    key = damage.Key(raw, bool(blob))
    return standings.summary(
        _standing(key, (queue, priority, size), tuple(columns)),
        id=key.name,
        queue=rows.legible(queue),
        priority=priority if type(priority) is int else 0,
        sender=rows.legible(sender),
        recipients=_recipients(recipients),
        size=size if type(size) is int else 0,
        attributes=attributes_of(envelope or b""),
    )


def _standing(key: damage.Key, others: rows.Row, columns: rows.Row) -> Standing:
    if not key.whole or tuple(map(type, others)) != (str, int, int):
        return rows.unreadable(columns, "its row cannot be read")
    try:
        return rows.standing(columns)
    except CorruptRecord as error:
        return rows.unreadable(columns, str(error))


def _recipients(text: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(text)))
    except (ValueError, TypeError, RecursionError):
        return ()


def count(sql: Sql, now: int) -> list[QueueCount]:
    """See :meth:`outbox.protocols.SupportsBrowse.count`; nothing of a suspended queue is due."""
    groups: dict[tuple[str, State], _Group] = {}
    for queue, state, *group in sql.execute(_COUNT, {"now": now}):
        # What is in no state that there is counts as what it is going to be.
        key = rows.legible(queue), rows.STATES.get(state, State.HELD)
        groups[key] = _Group(*group).joined(groups.get(key))
    open_ones = set(open_queues(sql, {queue for queue, _ in groups}, now))
    return [_counted(*key, groups[key], key[0] in open_ones) for key in sorted(groups)]


@attrs.frozen
class _Group:
    """The messages of a queue in a state; an instant that is none is left out."""

    number: int
    due: int | None
    oldest: int | None = attrs.field(converter=rows.instant_or_none)
    oldest_due: int | None = attrs.field(converter=rows.instant_or_none)

    def joined(self, other: _Group | None) -> _Group:
        if other is None:
            return self
        return _Group(
            self.number + other.number,
            (self.due or 0) + (other.due or 0),
            _first(self.oldest, other.oldest),
            _first(self.oldest_due, other.oldest_due),
        )


def _first(*instants: int | None) -> int | None:
    return min((at for at in instants if at is not None), default=None)


def _counted(queue: str, state: State, group: _Group, claimable: bool) -> QueueCount:
    return QueueCount(
        queue=queue,
        state=state,
        number=group.number,
        due=(group.due or 0) if claimable else 0,
        oldest_at=None if group.oldest is None else moment(group.oldest),
        oldest_due_at=moment(group.oldest_due) if claimable and group.oldest_due is not None else None,
    )

"""What a person is shown.  Lists never decode a message, so that a damaged one breaks no list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from outbox.codec import attributes_of
from outbox.errors import CorruptRecord
from outbox.filters import Filter
from outbox.lifecycle import Record, State, Summary
from outbox.protocols import QueueCount
from outbox.stores import standing as standings
from outbox.stores.content import Codings
from outbox.stores.instants import micros, moment

from . import rows
from .claiming import read
from .links import Links
from .naming import Sql
from .suspending import OPEN

__all__ = ["QUEUED", "browse", "count", "find", "get", "named"]

QUEUED: Final = (State.QUEUED, State.CLAIMED)
_SHOWN: Final = f"m.id, m.queue, m.priority, m.sender, m.recipients, m.size, m.envelope, {rows.STANDING}"
_ONE: Final = f"""
    SELECT m.digest, m.content, m.coding, {_SHOWN} FROM outbox_message AS m WHERE m.id = %(id)s AND m.stage <> 4
"""  # noqa: S608 - columns of our own
# Each state by itself, along the index in which its messages stand in the order of their ids.  No equality: with one the
# order is that of the ids alone, and along all ids the way may be past a million messages of other states.
_OF_SETTLED: Final = f"""
    SELECT p.* FROM unnest(%(states)s::text[]) AS w (state) CROSS JOIN LATERAL (
        SELECT {_SHOWN} FROM outbox_message AS m
        WHERE m.stage = 0 AND (m.state, m.id) > (w.state, %(after)s::text) AND m.state <= w.state{{0}}
        ORDER BY m.state, m.id LIMIT %(limit)s
    ) AS p
"""  # noqa: S608 - columns of our own
# From state to state along the same index.
_STATES: Final = """
    WITH RECURSIVE q AS (
        (SELECT state FROM outbox_message WHERE stage = 0 ORDER BY state LIMIT 1)
        UNION ALL
        SELECT (SELECT m.state FROM outbox_message AS m WHERE m.stage = 0 AND m.state > q.state ORDER BY m.state LIMIT 1)
        FROM q WHERE q.state IS NOT NULL
    )
    SELECT state FROM q WHERE state IS NOT NULL
"""
# What waits has no index of its ids, which each step of a message would have to write to.  A few are sorted; where
# there are many they are met soon on the way along all ids.
_FEW_QUEUED: Final = f"""
    WITH m AS MATERIALIZED (
        {" UNION ALL ".join(f"SELECT * FROM outbox_message AS m WHERE m.stage = {stage}" for stage in (1, 2, 3))}
    )
    SELECT {_SHOWN} FROM m
    WHERE (%(states)s::text[] IS NULL OR m.state = ANY(%(states)s)) AND m.id > %(after)s{{0}} ORDER BY m.id LIMIT %(limit)s
"""  # noqa: S608 - columns of our own
_MANY_QUEUED: Final = f"""
    SELECT {_SHOWN} FROM outbox_message AS m
    WHERE m.stage IN (1, 2, 3) AND (%(states)s::text[] IS NULL OR m.state = ANY(%(states)s)) AND m.id > %(after)s{{0}} ORDER BY m.id LIMIT %(limit)s
"""  # noqa: S608 - columns of our own
FEW: Final = 5_000
"""So many that wait are sorted for a page."""
# In the order of the index, so that it is used also where most of the rows are of that stage.
_OF_STAGE: Final = "(SELECT FROM outbox_message AS m WHERE m.stage = {0} ORDER BY m.queue LIMIT {1})"
_ARE_FEW: Final = f"""
    SELECT count(*) <= {FEW} FROM (
        SELECT FROM (
            {" UNION ALL ".join(_OF_STAGE.format(stage, FEW + 1) for stage in (1, 2, 3))}
        ) AS q LIMIT {FEW + 1}
    ) AS q
"""  # noqa: S608 - numbers of our own
_AT_ONCE: Final = 1000
_COUNT: Final = f"""
    WITH t AS MATERIALIZED (SELECT {rows.NOW} AS now)
    SELECT queue, state, number, CASE WHEN open THEN due ELSE 0 END, oldest, CASE WHEN open THEN oldest_due END FROM (
        SELECT q.*, {OPEN} AS open FROM (
            SELECT m.queue, m.state, count(*) AS number,
                count(*) FILTER (WHERE m.stage <> 0 AND m.due <= t.now) AS due, min(m.submitted) AS oldest,
                min(m.due) FILTER (WHERE m.stage <> 0 AND m.due <= t.now) AS oldest_due
            FROM outbox_message AS m, t WHERE m.stage <> 4 GROUP BY m.queue, m.state
        ) AS q
    ) AS q ORDER BY queue, state
"""  # noqa: S608 - columns of our own


def get(sql: Sql, id: str, codings: Codings) -> Record | None:
    """See :meth:`outbox.protocols.SupportsBrowse.get`."""
    with sql.connection.pipeline():
        one = sql.execute(_ONE, {"id": id})
        history = sql.execute(rows.ATTEMPTS, {"id": id})
    row = one.fetchone()
    if row is None:
        return None
    digest, content, coding, *shown = row
    summary = _summary(shown)
    message = read(id, digest, (shown[6], content, coding), len(shown[8]), codings)
    return Record(summary=summary, message=message, history=rows.attempts(id, history.fetchall()))


def browse(
    sql: Sql, *, states: Sequence[State], queues: Sequence[str], after: str, limit: int
) -> list[Summary]:
    """See :meth:`outbox.protocols.SupportsBrowse.browse`."""
    return _page(sql, Filter(states=tuple(states), queues=tuple(queues)), after, limit)


def find(links: Links, sought: Filter, after: str) -> Iterator[Summary]:
    """See :meth:`outbox.filters.SupportsFind.find`; PostgreSQL leaves out most of what does not fit."""
    while True:
        page = links.use(lambda sql, after=after: _page(sql, sought, after, _AT_ONCE), slowly=True)  # type: ignore[misc]  # mypy infers no default
        yield from filter(sought.fits, page)
        if len(page) < _AT_ONCE:
            return
        after = page[-1].id


def _page(sql: Sql, sought: Filter, after: str, limit: int) -> list[Summary]:
    conditions, terms = _asked(sought)
    # No id has a NUL, and whatever stands behind one is behind what stands before it.
    parameters = {"after": after.partition("\0")[0], "limit": limit, **terms}
    settled = [state.value for state in sought.states if state not in QUEUED]
    queued = [state.value for state in sought.states if state in QUEUED]
    if not sought.states:
        # Also what somebody else's hand has put into no state that there is.
        settled = [state for (state,) in sql.execute(_STATES).fetchall()]
    found: list[rows.Row] = []
    if settled:
        found += sql.execute(_OF_SETTLED.format(conditions), {**parameters, "states": settled}).fetchall()
    if queued or not sought.states:
        ((few,),) = sql.execute(_ARE_FEW).fetchall()
        page = _FEW_QUEUED if few else _MANY_QUEUED
        found += sql.execute(page.format(conditions), {**parameters, "states": queued or None}).fetchall()
    found.sort(key=lambda row: str(row[0]))
    return [_summary(row) for row in found[:limit]]


_TERMS: Final[Mapping[str, str]] = {
    "queues": "m.queue = ANY(%(queues)s)",
    "senders": "lower(m.sender) = ANY(%(senders)s)",
    "reasons": "EXISTS (SELECT FROM unnest(%(reasons)s::text[]) AS w (text) WHERE strpos(lower(m.reason), w.text) > 0)",
    "recipients": "EXISTS (SELECT FROM unnest(%(recipients)s::text[]) AS w (text) WHERE strpos(lower(m.recipients), w.text) > 0)",
    "domains": "EXISTS (SELECT FROM unnest(%(domains)s::text[]) AS w (text) WHERE strpos(lower(m.recipients), w.text) > 0)",
}


def _asked(sought: Filter) -> tuple[str, dict[str, Any]]:
    """What PostgreSQL is to look for, and nothing else: whatever it leaves out would not fit."""
    looked_for: dict[str, Sequence[str]] = {
        "queues": sought.queues,
        "senders": sought.senders,
        "reasons": [max(text.split() or [""], key=len) for text in sought.reasons],
        "recipients": [json.dumps(each, ensure_ascii=False) for each in sought.recipients],
        "domains": [f"@{json.dumps(each, ensure_ascii=False)[1:]}" for each in sought.domains],
    }
    # What is no plain ASCII is not asked for here: what is a small letter depends on the database.
    terms: dict[str, Any] = {
        name: list(values) for name, values in looked_for.items() if values and _plain(values)
    }
    conditions = [_TERMS[name] for name in terms]
    if sought.submitted_before is not None:
        conditions.append("m.submitted <= %(before)s")
        terms["before"] = micros(sought.submitted_before)
    if sought.settled_since is not None:
        conditions.append("m.settled >= %(since)s")
        terms["since"] = micros(sought.settled_since)
    if sought.by_hand is not None:
        conditions.append("(m.resumes IS NOT NULL) = %(by_hand)s")
        terms["by_hand"] = sought.by_hand
    return "".join(f" AND {condition}" for condition in conditions), terms


def _plain(values: Sequence[str]) -> bool:
    return all(value.isascii() and "\0" not in value for value in values)


def _summary(row: Sequence[Any]) -> Summary:
    id, queue, priority, sender, recipients, size, envelope, *columns = row
    try:
        standing = rows.standing(tuple(columns))
    except CorruptRecord as error:
        standing = standings.Standing(
            state=State.HELD, fates=(), due=0, since=0, submitted=0, settled=0, reason=str(error)
        )
    return standings.summary(
        standing,
        id=id,
        queue=queue,
        priority=priority,
        sender=sender,
        recipients=named(recipients),
        size=size,
        attributes=attributes_of(envelope),
    )


def named(recipients: str) -> tuple[str, ...]:
    """The recipients that are kept as this text; none where it was damaged."""
    try:
        return tuple(map(str, json.loads(recipients)))
    except (ValueError, TypeError, RecursionError):
        return ()


def count(sql: Sql, now: int | None) -> list[QueueCount]:
    """See :meth:`outbox.protocols.SupportsBrowse.count`; nothing of a suspended queue is due."""
    groups: dict[tuple[str, State], list[rows.Row]] = {}
    for queue, state, *group in sql.execute(_COUNT, {"now": now}):
        # What is in no state that there is counts as what it is going to be.
        groups.setdefault((queue, rows.state(state)), []).append(tuple(group))
    return [_counted(*key, groups[key]) for key in sorted(groups)]


def _counted(queue: str, state: State, groups: Sequence[rows.Row]) -> QueueCount:
    numbers, due, oldest, oldest_due = zip(*groups, strict=True)
    first = min((at for at in oldest_due if at is not None), default=None)
    return QueueCount(
        queue=queue,
        state=state,
        number=sum(numbers),
        due=sum(due),
        oldest_at=moment(rows.legible(min(oldest))),
        oldest_due_at=None if first is None else moment(rows.legible(first)),
    )

"""Messages that leave for another store, or come from one.

What is under way is a row of ``outbox_meta``, with what the messages' own
rows were; these are claimed until the end of time meanwhile, which also a
program of an earlier release respects.  What was given last from each other
store is a row there, too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, TypeAlias

import attrs

from outbox.errors import CorruptRecord, FormatError
from outbox.lifecycle import Record
from outbox.moving import ON_ITS_WAY, Abandoned, Batch, Remembered
from outbox.protocols import Finding
from outbox.stores import carrying, standing as standings
from outbox.stores.carrying import LEFT, Given
from outbox.stores.content import Codings
from outbox.stores.instants import FOREVER, micros, moment
from outbox.stores.limits import Load
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import putting, rows, schema
from .claiming import BODIES, read
from .crowding import Crowd
from .naming import Sql

__all__ = [
    "abandon",
    "check",
    "conclude",
    "give",
    "given",
    "has_left",
    "last_given",
    "remember",
    "remembered",
    "take",
]

_Arrival: TypeAlias = "carrying.Arrival[putting.Draft]"

_GONE: Final = 4
_LEAVING: Final = "leaving"
_GIVEN: Final = "given:"
_VALUE: Final = "SELECT value FROM outbox_meta WHERE name = ?"
_KEEP: Final = """
    INSERT INTO outbox_meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
# In the order in which they are to be at the other end; of the scheduled ones those under a lease stay.
_THERE: Final = (
    "INDEXED BY outbox_ready WHERE stage = 2",
    "INDEXED BY outbox_suspect WHERE stage = 3",
    "INDEXED BY outbox_scheduled WHERE stage = 1 AND NOT (state IS 'claimed' AND due > :now)",
    "INDEXED BY outbox_settled WHERE stage = 0",
)
_NEXT: Final = """
    SELECT id, size FROM outbox_message {} AND id NOT IN (SELECT value FROM json_each(:leave)) LIMIT :limit
"""
_ROWS: Final = f"""
    SELECT m.id, m.size, m.digest, m.body, {rows.STANDING}
    FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
"""  # noqa: S608 - column names of our own
_FREEZE: Final = """
    UPDATE outbox_message
    SET stage = 1, state = 'claimed', due = ?, settled = NULL, resumes = NULL, reason = ?, generation = generation + 1
    WHERE id IN (SELECT value FROM json_each(?))
"""
_BY_BODY: Final = """
    SELECT id, number, at, event, relay, results, reason, dialogue FROM outbox_attempt
    WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id, row
"""
_FROZEN: Final = f"""
    SELECT m.id FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
    WHERE m.state = 'claimed' AND m.due = {FOREVER} AND m.reason = ?
"""  # noqa: S608 - a number of our own
_DETAINED: Final = f"""
    SELECT m.id, {rows.STANDING} FROM outbox_message AS m INDEXED BY outbox_scheduled
    WHERE m.stage = 1 AND m.state = 'claimed' AND m.due = {FOREVER} AND m.reason = ?
"""  # noqa: S608 - column names of our own
_LEAVE: Final = (
    "UPDATE outbox_message SET reason = ? WHERE stage = 4 AND id IN (SELECT value FROM json_each(?))"
)
_HAS_LEFT: Final = "SELECT 1 FROM outbox_message WHERE id = ? AND stage = 4 AND reason = ?"
_HERE: Final = """
    SELECT m.id, m.stage FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
"""
_REMEMBERED: Final = """
    SELECT id, CAST(digest AS BLOB), settled FROM outbox_message INDEXED BY outbox_gone
    WHERE stage = 4 AND settled > :since AND (settled > :settled OR settled = :settled AND id > :id) AND reason <> :left
    ORDER BY settled, id LIMIT :limit
"""
# Of a message that has left: it came to its end in another store, and that is known from now on.
_REMEMBER: Final = f"""
    INSERT INTO outbox_message (id, queue, priority, generation, size, digest, body, stage, {rows.STANDING})
    VALUES (?, '', 0, 0, 0, ?, -1, 4, 'delivered', 'a', ?, ?, ?, ?, 0, 0, '', NULL)
    ON CONFLICT (id) DO UPDATE SET settled = max(settled, excluded.settled), reason = ''
    WHERE stage = 4 AND reason = '{LEFT}'
"""  # noqa: S608 - column names of our own


# -- out


@attrs.frozen
class _Leaving:
    """What is under way; after it was concluded only its name is left, which the next one's is greater than."""

    name: str = ""
    to: str = ""
    stood: tuple[rows.Row, ...] = ()
    """Of each message its id, the size of its content as it was put, and the columns of its standing."""

    @property
    def ids(self) -> list[str]:
        return [row[0] for row in self.stood]

    def encode(self) -> str:
        return json.dumps([self.name, self.to, *self.stood])


def _leaving(sql: Sql) -> _Leaving:
    row = sql.execute(_VALUE, (_LEAVING,)).fetchone()
    if row is None:
        return _Leaving()
    try:
        name, to, *stood = json.loads(rows.text(row[0]))
        return _Leaving(rows.text(name), rows.text(to), tuple(map(tuple, stood)))
    except (ValueError, TypeError) as error:
        raise carrying.damaged(error) from error


def take(
    sql: Sql,
    codings: Codings,
    now: int,
    *,
    to: str,
    limit: int,
    max_bytes: int,
    leave: Collection[str],
    after: str,
) -> Batch | None:
    """See :meth:`outbox.moving.SupportsMove.take`."""
    leaving, source = _leaving(sql), schema.identity(sql)
    if leaving.stood:
        carrying.require_partner(leaving.to, to)
        stood = {row[0]: (row[1], _standing(row[0], row[2:])) for row in leaving.stood}
        records, unreadable = _records(sql, leaving.ids, codings, stood)
        return Batch(name=leaving.name, source=source, records=records, unreadable=unreadable)
    ids = _next(sql, now, limit=limit, max_bytes=max_bytes, leave=leave)
    if not ids:
        return None
    records, unreadable = _records(sql, ids, codings, {})
    if not records:
        return Batch(name="", source=source, unreadable=unreadable)
    name = carrying.next_name(leaving.name, now, after)
    taken = rows.listed(record.message.id for record in records)
    stood_as = tuple((name, size, *columns) for name, size, _, _, *columns in sql.execute(_ROWS, (taken,)))
    sql.execute(_KEEP, (_LEAVING, _Leaving(name, to, stood_as).encode()))
    sql.execute(_FREEZE, (FOREVER, ON_ITS_WAY, taken))
    return Batch(name=name, source=source, records=records, unreadable=unreadable)


def _next(sql: Sql, now: int, *, limit: int, max_bytes: int, leave: Collection[str]) -> list[str]:
    ids: list[str] = []
    room = max_bytes
    for there in _THERE:
        # A statement each: every one is a walk along an index, and ends with the limit.
        asked = {"now": now, "leave": rows.listed(leave), "limit": limit - len(ids)}
        names = {"now", "leave", "limit"} if ":now" in there else {"leave", "limit"}
        for name, size in sql.execute(_NEXT.format(there), {k: asked[k] for k in names}).fetchall():
            room -= size if type(size) is int else 0
            if ids and room < 0:
                return ids
            ids.append(name)
        if len(ids) >= limit:
            break
    return ids


def _records(
    sql: Sql, ids: Sequence[str], codings: Codings, stood: dict[str, tuple[int, Standing]]
) -> tuple[list[Record], list[str]]:
    """The records of these, as they stand or as they *stood*; and the ids of those that cannot be read."""
    found = {name: row for name, *row in sql.execute(_ROWS, (rows.listed(ids),))}
    numbers = rows.listed(row[2] for row in found.values() if type(row[2]) is int)
    bodies = {number: body for number, *body in sql.execute(BODIES, (numbers,))}
    history: dict[str, list[rows.Row]] = {}
    for name, *attempt in sql.execute(_BY_BODY, (rows.listed(ids),)):
        history.setdefault(name, []).append(tuple(attempt))
    records: list[Record] = []
    unreadable: list[str] = []
    for name in ids:
        try:
            size, digest, body, *columns = found[name]
            size, standing = stood.get(name) or (rows.count(size), rows.standing(tuple(columns)))
            message = read(name, digest, bodies.get(body, (None, None, "")), len(standing.fates), codings)
            attempts = [rows.attempt(name, row) for row in history.get(name, ())]
        except (CorruptRecord, FormatError, ValueError, KeyError):
            unreadable.append(name)
        else:
            summary = standings.summary(
                standing,
                id=name,
                queue=message.queue,
                priority=message.priority,
                sender=message.sender,
                recipients=message.recipients,
                size=size,
                attributes=message.attributes,
            )
            records.append(Record(summary=summary, message=message, history=attempts))
    return records, unreadable


def _standing(name: str, columns: Sequence[Any]) -> Standing:
    try:
        return rows.standing(tuple(columns))
    except CorruptRecord as error:
        raise CorruptRecord(f"{name}, which is on its way to another store: {error}") from error


def conclude(sql: Sql, retention: Retention, now: int, name: str, back: Collection[str]) -> None:
    """See :meth:`outbox.moving.SupportsMove.conclude`."""
    leaving = _leaving(sql)
    if name != leaving.name or not leaving.stood:
        return
    frozen = {row[0] for row in sql.execute(_FROZEN, (rows.listed(leaving.ids), ON_ITS_WAY))}
    returned = frozenset(back) & frozen
    rows.write(
        sql,
        [(row[0], _standing(row[0], row[2:])) for row in leaving.stood if row[0] in returned],
        now,
    )
    gone = [id for id in leaving.ids if id in frozen - returned]
    rows.discard(sql, gone, gone if retention.remembers else [], now)
    sql.execute(_LEAVE, (LEFT, rows.listed(gone)))
    sql.execute(_KEEP, (_LEAVING, attrs.evolve(leaving, stood=()).encode()))


def abandon(sql: Sql, retention: Retention, now: int) -> Abandoned:
    """See :meth:`outbox.moving.SupportsMove.abandon`."""
    try:
        leaving = _leaving(sql)
        conclude(sql, retention, now, leaving.name, leaving.ids)
        return Abandoned(given_back=len(leaving.stood))
    except (CorruptRecord, IndexError):
        frozen = sql.execute(_DETAINED, (ON_ITS_WAY,)).fetchall()
        rows.write(
            sql, [(name, carrying.untold(_standing(name, columns), now)) for name, *columns in frozen], now
        )
        sql.execute(_KEEP, (_LEAVING, _Leaving().encode()))
        return Abandoned(held=len(frozen))


def check(sql: Sql, now: int) -> Iterator[Finding]:
    """What ``check`` says of what is under way."""
    return carrying.findings(lambda: _leaving(sql), now)


def has_left(sql: Sql, id: str) -> bool:
    """See :meth:`outbox.moving.SupportsMove.has_left`."""
    return sql.execute(_HAS_LEFT, (id, LEFT)).fetchone() is not None


def remembered(
    sql: Sql, retention: Retention, now: int, after: Remembered | None, limit: int
) -> list[Remembered]:
    """See :meth:`outbox.moving.SupportsMove.remembered`."""
    asked = carrying.page(retention.known_since(now), after, limit)
    found = sql.execute(_REMEMBERED, asked)
    return [Remembered(id, digest, moment(settled)) for id, digest, settled in found]


# -- in


def arrivals(batch: Batch, codings: Codings) -> list[_Arrival]:
    return carrying.arrivals(batch, putting.drafts([record.message for record in batch.records], codings))


def given(sql: Sql, source: str) -> Given:
    """What was given last from the store of this identity."""
    row = sql.execute(_VALUE, (_GIVEN + source,)).fetchone()
    return Given() if row is None else Given.decode(rows.text(row[0]))


def last_given(sql: Sql, source: str) -> str:
    """See :meth:`outbox.moving.SupportsMove.last_given`."""
    return given(sql, source).name


def give(sql: Sql, batch: Batch, made: Sequence[_Arrival], crowd: Crowd, now: int) -> Sequence[str]:
    """Store a batch that is no repeat; *made* are its arrivals.  See :meth:`outbox.moving.SupportsMove.give`."""
    stages = dict(sql.execute(_HERE, (rows.listed(each.id for each in made),)).fetchall())
    refused = (*(each.id for each in made if stages.get(each.id, _GONE) != _GONE), *batch.unreadable)
    new = [each for each in made if each.id not in refused]
    if crowd.limited and new:
        load = Load.of(each.record.summary.size for each in new if each.standing.queued)
        crowd.admit(sql, load, now, unwritten=Load())
    # Of a message that was here before only the id is left, and it stands again.
    rows.forget(sql, [each.id for each in new if each.id in stages])
    _store(sql, new, now)
    sql.execute(_KEEP, (_GIVEN + batch.source, Given(batch.name, refused).encode()))
    return refused


def _store(sql: Sql, new: Sequence[_Arrival], now: int) -> None:
    if not new:
        return
    bodies = putting.store_bodies(sql, [each.draft for each in new])
    hot = [
        putting.hot(number, each.draft, each.standing, now, size=each.record.summary.size)
        for number, each in zip(bodies, new, strict=True)
    ]
    putting.store_rows(sql, hot)
    rows.record(sql, [(each.id, attempt) for each in new for attempt in each.record.history])


def remember(sql: Sql, known: Sequence[Remembered], retention: Retention, now: int) -> None:
    """See :meth:`outbox.moving.SupportsMove.remember`."""
    since = retention.known_since(now)
    fresh = [(each.id, each.digest, micros(each.settled_at)) for each in known]
    sql.executemany(
        _REMEMBER,
        [
            (id, digest, *[settled] * 4)
            for id, digest, settled in fresh
            if retention.remembers and settled > since
        ],
    )

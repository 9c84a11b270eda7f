"""Messages that leave for another store.

What is under way is a row of ``outbox_meta``, with what the messages' own rows
were; these are claimed until the end of time meanwhile, which also a program
of an earlier release respects.  One program at a time takes, concludes or
gives, by a lock that its transaction holds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.errors import CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import Record
from outbox.moving import ON_ITS_WAY, Abandoned, Batch, Remembered
from outbox.protocols import Finding
from outbox.stores import carrying, standing as standings
from outbox.stores.carrying import LEFT
from outbox.stores.content import Codings
from outbox.stores.instants import FOREVER, moment
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import migrations, rows, steering
from .claiming import read
from .durability import lasting
from .links import transaction
from .naming import Sql
from .settling import BURIED

__all__ = [
    "abandon",
    "alone",
    "check",
    "conclude",
    "has_left",
    "keep",
    "kept",
    "now_of",
    "remembered",
    "take",
]

_TRIES: Final = 10
_LEAVING: Final = "leaving"
# The name gets the schema put before it, as those of the tables do.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('outbox_move'))"
# Of a connection that says nothing of it itself.
_PATIENT: Final = """
    SELECT set_config('lock_timeout', %(longest)s, true) WHERE current_setting('lock_timeout') = '0'
"""
_LONGEST: Final = "10s"
_NOW: Final = f"SELECT {rows.NOW}"
_VALUE: Final = "SELECT value FROM outbox_meta WHERE name = %(name)s"
_KEEP: Final = """
    INSERT INTO outbox_meta (name, value) VALUES (%(name)s, %(value)s)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
# In the order in which they are to be at the other end; of the scheduled ones those under a lease stay.
_OF_SCHEDULED: Final = "stage = 1 AND NOT (state = 'claimed' AND due > %(now)s::int8)"
_THERE: Final = (
    ("stage = 2", "queue, priority DESC, due, id"),
    ("stage = 3", "queue, priority DESC, due, id"),
    (_OF_SCHEDULED, "queue, due, id"),
    ("stage = 0", "state, id"),
)
_NEXT: Final = """
    SELECT id, size FROM outbox_message WHERE {0} AND id <> ALL(%(leave)s::text[]) ORDER BY {1} LIMIT %(limit)s
"""
# In the order of the ids: who locks several rows waits for nobody who waits for him.  What a claim has in hand at this
# moment is waited for, and is found as it stands thereafter.
_STILL: Final = f"""
    SELECT id FROM outbox_message WHERE id = ANY(%(ids)s) AND (stage IN (0, 2, 3) OR {_OF_SCHEDULED})
    ORDER BY id FOR UPDATE
"""  # noqa: S608 - a condition of our own
_ROWS: Final = f"""
    SELECT m.id, m.queue, m.priority, m.size, m.digest, m.envelope, m.content, m.coding, {rows.STANDING}
    FROM outbox_message AS m WHERE m.id = ANY(%(ids)s)
"""  # noqa: S608 - columns of our own
_HISTORY: Final = """
    SELECT id, number, at, event, relay, results, reason, dialogue FROM outbox_attempt
    WHERE id = ANY(%(ids)s) ORDER BY row
"""
_FREEZE: Final = f"""
    UPDATE outbox_message
    SET stage = 1, state = 'claimed', due = {FOREVER}, settled = NULL, resumes = NULL, reason = %(reason)s,
        generation = greatest(generation + 1, {rows.GENERATION})
    WHERE id = ANY(%(ids)s)
"""  # noqa: S608 - a number of our own
_FROZEN: Final = f"""
    SELECT id FROM outbox_message
    WHERE id = ANY(%(ids)s) AND state = 'claimed' AND due = {FOREVER} AND reason = %(reason)s ORDER BY id FOR UPDATE
"""  # noqa: S608 - a number of our own
_DETAINED: Final = f"""
    SELECT m.id, {rows.STANDING} FROM outbox_message AS m
    WHERE m.stage = 1 AND m.state = 'claimed' AND m.due = {FOREVER} AND m.reason = %(reason)s ORDER BY m.id FOR UPDATE
"""  # noqa: S608 - columns of our own
_CLEAR: Final = "DELETE FROM outbox_attempt WHERE id = ANY(%(ids)s)"
_FORGET: Final = "DELETE FROM outbox_message WHERE id = ANY(%(ids)s)"
_BURY: Final = f"UPDATE outbox_message SET settled = %(now)s::int8, {BURIED} WHERE id = ANY(%(ids)s)"  # noqa: S608 - columns of our own
_LEAVE: Final = "UPDATE outbox_message SET reason = %(reason)s WHERE id = ANY(%(ids)s)"
_HAS_LEFT: Final = "SELECT 1 FROM outbox_message WHERE id = %(id)s AND stage = 4 AND reason = %(left)s"
_REMEMBERED: Final = """
    SELECT id, digest, settled FROM outbox_message
    WHERE stage = 4 AND settled > %(since)s::int8 AND (settled, id) > (%(settled)s::int8, %(id)s) AND reason <> %(left)s
    ORDER BY settled, id LIMIT %(limit)s
"""


def alone(sql: Sql) -> None:
    """Nobody else takes, concludes or gives until this transaction ends, and its commit waits for the disk.

    For the one store forgets what the other would have lost.  What others have
    locked for long ends it, so that who moves can say so, and be ended.
    """
    sql.execute(_PATIENT, {"longest": _LONGEST})
    sql.execute(_LOCK)
    lasting(sql)


def now_of(sql: Sql, now: int | None) -> int:
    """*now*, or what the server's clock says."""
    ((at,),) = sql.execute(_NOW, {"now": now}).fetchall()
    return int(at)


def kept(sql: Sql, name: str) -> str | None:
    """What is kept under this name in the table that tells of the store."""
    row = sql.execute(_VALUE, {"name": name}).fetchone()
    return None if row is None else str(row[0])


def keep(sql: Sql, name: str, value: str) -> None:
    """Keep it there, in the place of what was."""
    sql.execute(_KEEP, {"name": name, "value": value})


@attrs.frozen
class _Leaving:
    """What is under way; after it was concluded only its name is left, which the next one's is greater than."""

    name: str = ""
    to: str = ""
    stood: Mapping[str, Sequence[Any]] = attrs.field(factory=dict)
    """Of each message the columns of its standing."""

    def keep(self, sql: Sql) -> None:
        keep(sql, _LEAVING, json.dumps([self.name, self.to, self.stood]))

    @classmethod
    def read(cls, sql: Sql) -> _Leaving:
        found = kept(sql, _LEAVING)
        if found is None:
            return cls()
        try:
            name, to, stood = json.loads(found)
            return cls(str(name), str(to), dict(stood))
        except (ValueError, TypeError) as error:
            raise carrying.damaged(error) from error

    def standing(self, id: str) -> Standing:
        try:
            return rows.standing(tuple(self.stood[id]))
        except CorruptRecord as error:
            raise CorruptRecord(f"{id}, which is on its way to another store: {error}") from error


def take(
    sql: Sql,
    codings: Codings,
    now: int | None,
    *,
    to: str,
    limit: int,
    max_bytes: int,
    leave: Collection[str],
    after: str,
) -> Batch | None:
    """See :meth:`outbox.moving.SupportsMove.take`."""
    with transaction(sql):
        alone(sql)
        leaving, source, at = _Leaving.read(sql), migrations.identity(sql), now_of(sql, now)
        if leaving.stood:
            carrying.require_partner(leaving.to, to)
            stood = {id: leaving.standing(id) for id in leaving.stood}
            records, unreadable = _records(sql, list(leaving.stood), codings, stood)
            return Batch(name=leaving.name, source=source, records=records, unreadable=unreadable)
        ids = _held(sql, at, limit=limit, max_bytes=max_bytes, leave=list(leave)) if limit else []
        if not ids:
            return None
        records, unreadable = _records(sql, ids, codings, {})
        if not records:
            return Batch(name="", source=source, unreadable=unreadable)
        name = carrying.next_name(leaving.name, at, after)
        stood_as = {record.message.id: rows.columns(carrying.arrived(record)) for record in records}
        _Leaving(name, to, stood_as).keep(sql)
        sql.execute(_FREEZE, {"ids": list(stood_as), "reason": ON_ITS_WAY})
        return Batch(name=name, source=source, records=records, unreadable=unreadable)


def _held(sql: Sql, now: int, *, limit: int, max_bytes: int, leave: list[str]) -> list[str]:
    """What may leave, in order; nobody changes it until the transaction ends."""
    for _ in range(_TRIES):
        chosen = _next(sql, now, limit=limit, max_bytes=max_bytes, leave=leave)
        if not chosen:
            return []
        still = {id for (id,) in sql.execute(_STILL, {"ids": chosen, "now": now})}
        if still:
            return [id for id in chosen if id in still]
    raise StoreUnavailable("its messages move faster than they can be taken: try again")


def _next(sql: Sql, now: int, *, limit: int, max_bytes: int, leave: list[str]) -> list[str]:
    ids: list[str] = []
    room = max_bytes
    for condition, order in _THERE:
        # A statement each: every one is a walk along an index, and ends with the limit.
        asked = {"now": now, "leave": leave, "limit": limit - len(ids)}
        for id, size in sql.execute(_NEXT.format(condition, order), asked).fetchall():
            room -= size
            if ids and room < 0:
                return ids
            ids.append(id)
        if len(ids) >= limit:
            break
    return ids


def _records(
    sql: Sql, ids: Sequence[str], codings: Codings, stood: Mapping[str, Standing]
) -> tuple[list[Record], list[str]]:
    """The records of these, as they stand or as they *stood*; and the ids of those that cannot be read."""
    asked = {"ids": list(ids)}
    found = {id: columns for id, *columns in sql.execute(_ROWS, asked)}
    history: dict[str, list[rows.Row]] = {}
    for id, *attempt in sql.execute(_HISTORY, asked):
        history.setdefault(id, []).append(tuple(attempt))
    records: list[Record] = []
    unreadable: list[str] = []
    for id in ids:
        try:
            records.append(_record(id, found[id], history.get(id, ()), codings, stood.get(id)))
        except (CorruptRecord, FormatError, KeyError):
            unreadable.append(id)
    return records, unreadable


def _record(
    id: str, row: Sequence[Any], history: Iterable[rows.Row], codings: Codings, stood: Standing | None
) -> Record:
    queue, priority, size, digest, envelope, content, coding, *columns = row
    standing = rows.standing(tuple(columns)) if stood is None else stood
    message = read(id, digest, (envelope, content, coding), len(standing.fates), codings)
    summary = standings.summary(
        standing,
        id=id,
        queue=queue,
        priority=priority,
        sender=message.sender,
        recipients=message.recipients,
        size=size,
        attributes=message.attributes,
    )
    return Record(summary=summary, message=message, history=rows.attempts(id, list(history)))


def conclude(sql: Sql, retention: Retention, now: int | None, name: str, back: Collection[str]) -> None:
    """See :meth:`outbox.moving.SupportsMove.conclude`."""
    with transaction(sql):
        alone(sql)
        leaving = _Leaving.read(sql)
        if name == leaving.name:
            _concluded(sql, leaving, back, retention, now_of(sql, now))


def _concluded(sql: Sql, leaving: _Leaving, back: Collection[str], retention: Retention, now: int) -> None:
    if leaving.stood:
        found = sql.execute(_FROZEN, {"ids": list(leaving.stood), "reason": ON_ITS_WAY}).fetchall()
        frozen = [id for (id,) in found]
        returned = set(back)
        steering.write(sql, [(id, leaving.standing(id)) for id in frozen if id in returned], now)
        _part(sql, [id for id in frozen if id not in returned], retention, now)
        attrs.evolve(leaving, stood={}).keep(sql)


def abandon(sql: Sql, retention: Retention, now: int | None) -> Abandoned:
    """See :meth:`outbox.moving.SupportsMove.abandon`."""
    with transaction(sql):
        alone(sql)
        at = now_of(sql, now)
        try:
            leaving = _Leaving.read(sql)
            _concluded(sql, leaving, list(leaving.stood), retention, at)
            return Abandoned(given_back=len(leaving.stood))
        except (CorruptRecord, ValueError):
            frozen = sql.execute(_DETAINED, {"reason": ON_ITS_WAY}).fetchall()
            held = [(id, carrying.untold(rows.standing(tuple(columns)), at)) for id, *columns in frozen]
            steering.write(sql, held, at)
            _Leaving().keep(sql)
            return Abandoned(held=len(held))


def check(sql: Sql, now: int | None) -> Iterator[Finding]:
    """What ``check`` says of what is under way."""
    return carrying.findings(lambda: _Leaving.read(sql), now_of(sql, now))


def _part(sql: Sql, gone: list[str], retention: Retention, now: int) -> None:
    """Forget these, but for their ids."""
    asked = {"ids": gone}
    sql.execute(_CLEAR, asked)
    if retention.remembers:
        sql.execute(_BURY, {**asked, "now": now})
        sql.execute(_LEAVE, {**asked, "reason": LEFT})
    else:
        sql.execute(_FORGET, asked)


def has_left(sql: Sql, id: str) -> bool:
    """See :meth:`outbox.moving.SupportsMove.has_left`."""
    return sql.execute(_HAS_LEFT, {"id": id, "left": LEFT}).fetchone() is not None


def remembered(
    sql: Sql, retention: Retention, now: int | None, after: Remembered | None, limit: int
) -> list[Remembered]:
    """See :meth:`outbox.moving.SupportsMove.remembered`."""
    asked = carrying.page(retention.known_since(now_of(sql, now)), after, limit)
    found = sql.execute(_REMEMBERED, asked)
    return [Remembered(id, bytes(digest), moment(settled)) for id, digest, settled in found]

"""Leases: which messages a claim takes, and how long it holds them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.codec import join
from outbox.errors import CorruptRecord, FormatError
from outbox.lifecycle import Claim, Fate, Held
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import Codings, intact
from outbox.stores.instants import FOREVER, later
from outbox.stores.selection import PROMOTED, Candidate, Offer, Turns, choose

from . import damage, rows
from .naming import Sql
from .suspending import OPEN

__all__ = ["BODIES", "Order", "claim", "due_at", "extend", "promoted", "read", "take"]

# INDEXED BY: whatever statistics SQLite may have, a claim walks along these.
_PROMOTE: Final = """
    UPDATE outbox_message
    SET stage = CASE WHEN lost > 0 OR state <> 'queued' THEN 3 ELSE 2 END
    WHERE id IN (
        SELECT id FROM outbox_message INDEXED BY outbox_scheduled
        WHERE stage = 1 AND queue = ? AND due <= ? ORDER BY due, id LIMIT ?
    )
"""
# What is first in a queue: of the ready, of the suspects, and of what is scheduled and has become due.
_FIRST: Final = f"""
    SELECT * FROM (
        SELECT 2, -priority, due, id, size FROM outbox_message INDEXED BY outbox_ready
        WHERE stage = 2 AND queue = :queue AND {OPEN} ORDER BY priority DESC, due, id LIMIT :limit
    )
    UNION ALL SELECT * FROM (
        SELECT 3, -priority, due, id, size FROM outbox_message INDEXED BY outbox_suspect
        WHERE stage = 3 AND queue = :queue AND {OPEN} ORDER BY priority DESC, due, id LIMIT 1
    )
    UNION ALL SELECT * FROM (
        SELECT 1, 0, due, id, size FROM outbox_message INDEXED BY outbox_scheduled
        WHERE stage = 1 AND queue = :queue AND due <= :now AND {OPEN} ORDER BY due LIMIT 1
    )
"""  # noqa: S608 - a condition of our own
_WAITING: Final = f"'{rows.letters([Fate.WAITING])}'"
_DOUBTFUL: Final = f"'{rows.letters([Fate.DOUBTFUL])}'"
_TAKE: Final = f"""
    UPDATE outbox_message
    SET stage = 1, state = 'claimed', due = ?, generation = generation + 1, attempts = attempts + 1,
        lost = lost + (state = 'claimed'),
        fates = CASE WHEN state = 'claimed' THEN replace(fates, {_WAITING}, {_DOUBTFUL}) ELSE fates END
    WHERE id IN (SELECT value FROM json_each(?))
    AND state IN ('queued', 'claimed') AND typeof(attempts) = 'integer' AND typeof(lost) = 'integer'
    RETURNING id, generation, body, digest, {rows.STANDING}
"""  # noqa: S608 - column names of our own
BODIES: Final = """
    SELECT number, envelope, content, coding FROM outbox_body
    WHERE number IN (SELECT value FROM json_each(?))
"""
_NOTHING: Final = (None, None, "")
_EXTEND: Final = """
    UPDATE outbox_message SET due = ?, stage = 1
    WHERE id = ? AND state = 'claimed' AND CAST(generation AS TEXT) = ?
"""
_DUE: Final = f"""
    SELECT min(
        CASE
            WHEN EXISTS (SELECT 1 FROM outbox_message WHERE stage = 2 AND queue = w.value) THEN :now
            WHEN EXISTS (SELECT 1 FROM outbox_message WHERE stage = 3 AND queue = w.value) THEN :now
            ELSE (
                SELECT due FROM outbox_message WHERE stage = 1 AND queue = w.value ORDER BY due LIMIT 1
            )
        END
    )
    FROM json_each(:queues) AS w WHERE {OPEN.replace(":queue", "w.value")}
"""  # noqa: S608 - a condition of our own


def due_at(sql: Sql, queues: Sequence[str], now: int) -> int | None:
    """When the first message of *queues* can be claimed: *now* where one is ready, None where there is none."""
    (at,) = sql.execute(_DUE, {"queues": rows.listed(queues), "now": now}).fetchone()
    # What is due at no time that there is comes after all that is: then nothing is due.
    return at if type(at) is int and at <= FOREVER else None


@attrs.frozen(kw_only=True)
class Order:
    """What a claim asks for."""

    queues: Sequence[str]
    limit: int
    lease: dt.timedelta
    max_bytes: int


def claim(sql: Sql, order: Order, turns: Turns, codings: Codings, now: int) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.claim`; what cannot be read is held, and others are taken for it."""
    if order.limit < 1:
        return []
    share = promoted(order.queues)
    while True:
        offers = [_offer(sql, queue, now, order.limit, share) for queue in order.queues]
        chosen = choose(turns.sort(offers), limit=order.limit, max_bytes=order.max_bytes)
        claims = take(sql, chosen, codings, now, later(now, order.lease))
        if claims or not chosen:
            return claims


def promoted(queues: Sequence[str]) -> int:
    """How many messages of each of *queues* that have become due one claim makes ready."""
    return PROMOTED // (len(queues) or 1) or 1


def _offer(sql: Sql, queue: str, now: int, limit: int, promoted: int) -> Offer:
    found = _first(sql, queue, now, limit)
    if 1 in found:
        sql.execute(_PROMOTE, (queue, now, promoted))
        found = _first(sql, queue, now, limit)
    return Offer(queue, found.get(2, ()), next(iter(found.get(3, ())), None))


def _first(sql: Sql, queue: str, now: int, limit: int) -> dict[int, list[Candidate]]:
    """The candidates of each stage, in their order."""
    found: dict[int, list[Candidate]] = {}
    for stage, *row in sql.execute(_FIRST, {"queue": queue, "limit": limit, "now": now}):
        found.setdefault(stage, []).append(_candidate(row))
    return found


def _candidate(row: Sequence[Any]) -> Candidate:
    priority, due, name, size = row
    if type(name) is not str or type(due) is not int or type(size) is not int or size not in rows.SIZES:
        raise CorruptRecord(f"{name}: its row cannot be read: its due is {due!r}, and its size {size!r}")
    return Candidate((priority, due, name), size)


def take(sql: Sql, ids: Sequence[str], codings: Codings, now: int, until: int) -> list[Claim]:
    """Claims on these; one whose body cannot be read is held instead."""
    taken = {row[0]: row for row in sql.execute(_TAKE, (until, rows.listed(ids)))}
    if len(taken) < len(ids):
        raise CorruptRecord("a row cannot be read: its state or one of its counts is none")
    numbers = rows.listed(row[2] for row in taken.values() if type(row[2]) is int)
    bodies = {number: body for number, *body in sql.execute(BODIES, (numbers,))}
    claims: list[Claim] = []
    for name in ids:
        _, generation, number, digest, *columns = taken[name]
        try:
            token = _token(generation)
            standing = rows.standing(tuple(columns))
            message = read(name, digest, bodies.get(number, _NOTHING), len(standing.fates), codings)
        except (CorruptRecord, FormatError) as error:
            _hold(sql, name, tuple(columns), str(error), now)
        else:
            claims.append(standings.claim(message, standing, token, now))
    return claims


def _token(generation: Any) -> str:
    if type(generation) is int:
        return str(generation)
    raise CorruptRecord(f"its row cannot be read: its generation is {generation!r}")


def read(id: str, digest: bytes, body: Sequence[Any], recipients: int, codings: Codings) -> Message:
    """The message as it was put, or not at all; *body* is its envelope, content and coding.

    Raises:
        CorruptRecord: it is not what was put.
        FormatError: a newer release put it.
        ConfigurationError: its content is in a coding that this store was opened without.
        StoreUnavailable: the coding cannot be undone now.
    """
    envelope, content, coding = body
    if envelope is None or content is None:
        raise CorruptRecord(f"{id}: its content and envelope are missing")
    if type(coding) is not str:
        raise CorruptRecord(f"{id}: the name of its coding is no text")
    message = intact(id, lambda: join(envelope, codings.decode(content, coding, id)))
    if message.id != id or len(message.recipients) != recipients or not _proven(envelope, message, digest):
        raise CorruptRecord(f"{id}: the envelope is not the one that was stored")
    return message


def _proven(envelope: bytes, message: Message, digest: bytes) -> bool:
    """Whether the envelope is what was stored: that of the first format has no digest of its own."""
    return not envelope.startswith(b'{"outbox":1,') or message.envelope_digest == digest


def _hold(sql: Sql, id: str, row: rows.Row, reason: str, now: int) -> None:
    """Hold what has just been taken: nobody was given it."""
    likely = rows.unreadable(row, reason)
    damage.hold(sql, damage.Key.of(id), reason, now, fates=likely.fates)
    attempt = standings.attempt(likely.attempts, Held(fates={}, reason=reason), now)
    rows.record(sql, [] if attempt is None else [(id, attempt)])


def extend(sql: Sql, claims: Sequence[Claim], until: int) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.extend`."""
    return [
        claim for claim in claims if not sql.execute(_EXTEND, (until, claim.message.id, claim.token)).rowcount
    ]

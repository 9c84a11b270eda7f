"""Leases: which messages a claim takes, and how long it holds them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from outbox.codec import join
from outbox.errors import CorruptRecord, FormatError
from outbox.lifecycle import Claim, Fate, Held
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.selection import PROMOTED, Candidate, Offer, Turns, choose

from . import rows

__all__ = ["claim", "due_at", "extend"]

# INDEXED BY: whatever statistics SQLite may have, a claim walks along these.
_PROMOTE: Final = """
    UPDATE outbox_message
    SET stage = CASE WHEN lost > 0 OR state = 'claimed' THEN 3 ELSE 2 END
    WHERE id IN (
        SELECT id FROM outbox_message INDEXED BY outbox_scheduled
        WHERE stage = 1 AND queue = ? AND due <= ? ORDER BY due, id LIMIT ?
    )
"""
_READY: Final = """
    SELECT -priority, due, id, size FROM outbox_message INDEXED BY outbox_ready
    WHERE stage = 2 AND queue = ? ORDER BY priority DESC, due, id LIMIT ?
"""
_SUSPECT: Final = """
    SELECT -priority, due, id, size FROM outbox_message INDEXED BY outbox_suspect
    WHERE stage = 3 AND queue = ? ORDER BY priority DESC, due, id LIMIT 1
"""
_WAITING: Final = f"'{rows.letters([Fate.WAITING])}'"
_DOUBTFUL: Final = f"'{rows.letters([Fate.DOUBTFUL])}'"
_TAKE: Final = f"""
    UPDATE outbox_message
    SET stage = 1, state = 'claimed', due = ?, generation = generation + 1, attempts = attempts + 1,
        lost = lost + (state = 'claimed'),
        fates = CASE WHEN state = 'claimed' THEN replace(fates, {_WAITING}, {_DOUBTFUL}) ELSE fates END
    WHERE id IN (SELECT value FROM json_each(?))
    RETURNING id, generation, body, {rows.STANDING}
"""  # noqa: S608 - column names and letters of our own
_BODIES: Final = """
    SELECT number, digest, envelope, content FROM outbox_body
    WHERE number IN (SELECT value FROM json_each(?))
"""
_EXTEND: Final = """
    UPDATE outbox_message SET due = ?, stage = 1
    WHERE id = ? AND state = 'claimed' AND CAST(generation AS TEXT) = ?
"""
_DUE: Final = """
    SELECT min(
        CASE
            WHEN EXISTS (SELECT 1 FROM outbox_message WHERE stage = 2 AND queue = w.value) THEN 0
            WHEN EXISTS (SELECT 1 FROM outbox_message WHERE stage = 3 AND queue = w.value) THEN 0
            ELSE (
                SELECT due FROM outbox_message WHERE stage = 1 AND queue = w.value ORDER BY due LIMIT 1
            )
        END
    )
    FROM json_each(?) AS w
"""


def due_at(sql: sqlite3.Connection, queues: Sequence[str]) -> int | None:
    """When the first message of *queues* can be claimed: 0 where one is ready, None where there is none."""
    at: int | None = sql.execute(_DUE, (rows.listed(queues),)).fetchone()[0]
    return at


def claim(
    sql: sqlite3.Connection,
    queues: Sequence[str],
    turns: Turns,
    *,
    limit: int,
    max_bytes: int,
    now: int,
    until: int,
) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.claim`; what cannot be read is held, and others are taken for it."""
    while True:
        offers = [_offer(sql, queue, now, limit, PROMOTED // len(queues) or 1) for queue in queues]
        chosen = choose(turns.sort(offers), limit=limit, max_bytes=max_bytes)
        claims = _take(sql, chosen, now, until)
        if claims or not chosen:
            return claims


def _offer(sql: sqlite3.Connection, queue: str, now: int, limit: int, promoted: int) -> Offer:
    sql.execute(_PROMOTE, (queue, now, promoted))
    ready = [_candidate(row) for row in sql.execute(_READY, (queue, limit))]
    suspects = [_candidate(row) for row in sql.execute(_SUSPECT, (queue,))]
    return Offer(queue, ready, suspects[0] if suspects else None)


def _candidate(row: rows.Row) -> Candidate:
    *key, size = row
    return Candidate((key[0], key[1], key[2]), size)


def _take(sql: sqlite3.Connection, ids: Sequence[str], now: int, until: int) -> list[Claim]:
    taken = {row[0]: row for row in sql.execute(_TAKE, (until, rows.listed(ids)))}
    numbers = rows.listed(row[2] for row in taken.values())
    bodies = {number: body for number, *body in sql.execute(_BODIES, (numbers,))}
    claims: list[Claim] = []
    for name in ids:
        _, generation, number, *columns = taken[name]
        standing = rows.standing(tuple(columns))
        try:
            message = read(name, bodies.get(number), len(standing.fates))
        except (CorruptRecord, FormatError) as error:
            _hold(sql, name, standing, str(error), now)
        else:
            claims.append(standings.claim(message, standing, str(generation), now))
    return claims


def read(id: str, body: Sequence[bytes] | None, recipients: int) -> Message:
    """The message as it was put, or not at all.

    Raises:
        CorruptRecord: it is not what was put.
        FormatError: a newer release put it.
    """
    if body is None:
        raise CorruptRecord(f"{id}: its content and envelope are missing")
    digest, envelope, content = body
    try:
        message = join(envelope, content)
    except FormatError as error:
        raise FormatError(f"{id}: {error}") from error
    except Exception as error:  # whatever else a damaged record makes the decoder raise: it stops no other
        raise CorruptRecord(f"{id}: {error}") from error
    if message.id != id or message.envelope_digest != digest or len(message.recipients) != recipients:
        raise CorruptRecord(f"{id}: the envelope is not the one that was stored")
    return message


def _hold(sql: sqlite3.Connection, id: str, standing: standings.Standing, reason: str, now: int) -> None:
    verdict = Held(fates={}, reason=reason)
    rows.write(sql, [(id, standings.settled(standing, standing.fates, verdict, now))], now)
    attempt = standings.attempt(standing.attempts, verdict, now)
    rows.record(sql, [] if attempt is None else [(id, attempt)])


def extend(sql: sqlite3.Connection, claims: Sequence[Claim], until: int) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.extend`."""
    return [
        claim for claim in claims if not sql.execute(_EXTEND, (until, claim.message.id, claim.token)).rowcount
    ]

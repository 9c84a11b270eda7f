"""Leases: which messages a claim takes, and how long it holds them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

import attrs

from outbox.codec import join
from outbox.errors import CorruptRecord, FormatError
from outbox.lifecycle import Claim, Fate
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import Codings, intact
from outbox.stores.instants import FOREVER, width
from outbox.stores.selection import PROMOTED, Candidate, Offer, Turns, choose

from . import contending, rows
from .driver import Cursor
from .naming import Sql
from .suspending import OPEN

__all__ = [
    "Chosen",
    "Order",
    "Taken",
    "Unreadable",
    "choose_from",
    "due_at",
    "extend",
    "number",
    "read",
    "take",
    "taken",
]

_T: Final = f"t AS MATERIALIZED (SELECT {rows.NOW} AS now)"
_CANDIDATE: Final = "-m.priority::int8 AS rank, m.due, m.id, m.size, m.coding"
_OF_STAGE: Final = f"""
    SELECT {{0}} AS stage, {_CANDIDATE} FROM outbox_message AS m
    WHERE m.stage = {{0}} AND m.queue = q.queue ORDER BY m.priority DESC, m.due, m.id LIMIT {{1}}
    FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - columns of our own
# What is first in each queue: of the ready, of the suspects, and of what is scheduled and has become due.  What another
# claim has in hand is passed over.
_FIRST: Final = f"""
    WITH {_T}, q AS (
        SELECT queue FROM unnest(%(queues)s::text[]) AS q (queue) WHERE {OPEN}
    )
    SELECT q.queue, c.stage, c.rank, c.due, c.id, c.size, c.coding FROM q CROSS JOIN LATERAL (
        SELECT * FROM ({_OF_STAGE.format(2, "%(limit)s")}) AS ready
        UNION ALL SELECT * FROM ({_OF_STAGE.format(3, 1)}) AS suspect
        UNION ALL SELECT * FROM (
            SELECT 1, 0::int8, m.due, m.id, m.size, m.coding FROM outbox_message AS m
            WHERE m.stage = 1 AND m.queue = q.queue AND m.due <= (SELECT now FROM t) ORDER BY m.due, m.id LIMIT 1
        ) AS scheduled
    ) AS c
"""  # noqa: S608 - columns of our own
_PROMOTE: Final = f"""
    WITH {_T}
    UPDATE outbox_message AS m SET stage = CASE WHEN m.lost > 0 OR m.state <> 'queued' THEN 3 ELSE 2 END
    WHERE m.stage = 1 AND m.id = ANY(ARRAY(
        SELECT d.id FROM unnest(%(queues)s::text[]) AS q (queue) CROSS JOIN LATERAL (
            SELECT m.id FROM outbox_message AS m
            WHERE m.stage = 1 AND m.queue = q.queue AND m.due <= (SELECT now FROM t)
            ORDER BY m.due, m.id LIMIT %(share)s FOR UPDATE SKIP LOCKED
        ) AS d
    ))
"""  # noqa: S608 - columns of our own
_WAITING: Final = rows.letters([Fate.WAITING])
_DOUBTFUL: Final = rows.letters([Fate.DOUBTFUL])
_TAKE: Final = f"""
    WITH {_T}
    UPDATE outbox_message AS m
    SET stage = 1, state = 'claimed', due = least(t.now + %(lease)s::int8, {FOREVER}),
        generation = greatest(m.generation + 1, {rows.GENERATION}), attempts = m.attempts + 1,
        lost = m.lost + CASE WHEN m.state = 'claimed' THEN 1 ELSE 0 END,
        fates = CASE WHEN m.state = 'claimed' THEN replace(m.fates, '{_WAITING}', '{_DOUBTFUL}') ELSE m.fates END
    FROM t, unnest(%(ids)s::text[]) AS w (id)
    WHERE m.id = w.id AND m.stage IN (1, 2, 3)
    RETURNING t.now, m.id, m.generation, m.digest, m.envelope, m.content, m.coding, {rows.STANDING}
"""  # noqa: S608 - columns of our own
_EXTEND: Final = f"""
    WITH t AS MATERIALIZED (SELECT {rows.NOW} AS now, {contending.BRIEFLY})
    UPDATE outbox_message AS m SET due = least(t.now + %(lease)s::int8, {FOREVER}), stage = 1
    FROM t, unnest(%(ids)s::text[], %(tokens)s::int8[]) AS w (id, token)
    WHERE m.id = w.id AND m.state = 'claimed' AND m.generation = w.token
    RETURNING m.id, m.generation
"""  # noqa: S608 - columns of our own
# No EXISTS: PostgreSQL may make that a table of all the queues that have any, and read every row for it.
_ONE: Final = """
    SELECT t.now FROM outbox_message AS m WHERE m.stage = {0} AND m.queue = q.queue
    ORDER BY m.priority DESC, m.due, m.id LIMIT 1
"""
_DUE: Final = f"""
    WITH {_T}
    SELECT t.now, (
        SELECT min(
            coalesce(
                ({_ONE.format(2)}), ({_ONE.format(3)}),
                (
                    SELECT m.due FROM outbox_message AS m WHERE m.stage = 1 AND m.queue = q.queue
                    ORDER BY m.due, m.id LIMIT 1
                )
            )
        ) FROM unnest(%(queues)s::text[]) AS q (queue) WHERE {OPEN}
    ) FROM t
"""  # noqa: S608 - columns of our own


@attrs.frozen(kw_only=True)
class Order:
    """What a claim asks for."""

    queues: Sequence[str]
    limit: int
    lease: dt.timedelta
    max_bytes: int


def due_at(sql: Sql, queues: Sequence[str], now: int | None) -> tuple[int, int | None]:
    """Now, and when the first message of *queues* can be claimed: now where one is ready, None where there is none."""
    row = sql.execute(_DUE, {"queues": list(queues), "now": now}).fetchone() or (0, None)
    return row[0], row[1]


@attrs.frozen
class Chosen:
    """The ids to take, in order, and whether the content of one of them is coded at rest."""

    ids: Sequence[str]
    coded: bool


def choose_from(sql: Sql, order: Order, turns: Turns, now: int | None) -> Chosen:
    """What to claim; its rows are locked until the transaction ends."""
    found = _first(sql, order, now)
    if any(row[1] == 1 for row in found):
        share = PROMOTED // (len(order.queues) or 1) or 1
        sql.execute(_PROMOTE, {"queues": list(order.queues), "share": share, "now": now})
        found = _first(sql, order, now)
    chosen = choose(turns.sort(_offers(order.queues, found)), limit=order.limit, max_bytes=order.max_bytes)
    names = {row[4]: row[6] for row in found}
    return Chosen(chosen, any(names[id] for id in chosen))


def _first(sql: Sql, order: Order, now: int | None) -> list[rows.Row]:
    return sql.execute(_FIRST, {"queues": list(order.queues), "limit": order.limit, "now": now}).fetchall()


def _offers(queues: Sequence[str], found: Sequence[rows.Row]) -> list[Offer]:
    ready: dict[str, list[Candidate]] = {queue: [] for queue in queues}
    suspects: dict[str, Candidate] = {}
    for queue, stage, rank, due, id, size, _ in found:
        candidate = Candidate((rank, due, id), size)
        if stage == 2:  # noqa: PLR2004 - the stages are named in schema.py
            ready[queue].append(candidate)
        elif stage == 3:  # noqa: PLR2004 - the same
            suspects[queue] = candidate
    return [
        Offer(queue, sorted(ready[queue], key=lambda each: each.key), suspects.get(queue)) for queue in queues
    ]


@attrs.frozen
class Unreadable:
    """What was taken and cannot be read."""

    id: str
    token: int
    attempt: int
    reason: str


@attrs.frozen
class Taken:
    """What a claim took."""

    claims: Sequence[Claim]
    unreadable: Sequence[Unreadable]


def take(sql: Sql, ids: Sequence[str], lease: dt.timedelta, now: int | None) -> Cursor:
    """Lease these; a cursor for :func:`taken`."""
    return sql.execute(_TAKE, {"ids": list(ids), "lease": width(lease), "now": now})


def taken(found: Sequence[rows.Row], ids: Sequence[str], codings: Codings) -> Taken:
    """Claims in the order of *ids*."""
    claims: dict[str, Claim] = {}
    unreadable = []
    for now, name, generation, digest, envelope, content, coding, *columns in found:
        try:
            standing = rows.standing(tuple(columns))
            message = read(name, digest, (envelope, content, coding), len(standing.fates), codings)
        except (CorruptRecord, FormatError) as error:
            unreadable.append(Unreadable(name, generation, columns[6], str(error)))
        else:
            claims[name] = standings.claim(message, standing, str(generation), now)
    return Taken([claims[id] for id in ids if id in claims], unreadable)


def read(
    id: str, digest: bytes, body: tuple[bytes, bytes, str], recipients: int, codings: Codings
) -> Message:
    """The message as it was put, or not at all; *body* is its envelope, content and coding.

    Raises:
        CorruptRecord: it is not what was put.
        FormatError: a newer release put it.
        ConfigurationError: its content is in a coding that this store was opened without.
        StoreUnavailable: the coding cannot be undone now.
    """
    envelope, content, coding = body
    message = intact(id, lambda: join(envelope, codings.decode(content, coding, id)))
    if message.id != id or len(message.recipients) != recipients or message.envelope_digest != digest:
        raise CorruptRecord(f"{id}: the envelope is not the one that was stored")
    return message


def number(token: str) -> int:
    """The generation that *token* stands for; one that none has where it stands for none."""
    fits = token.isascii() and token.lstrip("-").isdigit() and len(token) < 19  # noqa: PLR2004 - of 64 bits
    return int(token) if fits else -1


def extend(sql: Sql, claims: Sequence[Claim], lease: dt.timedelta, now: int | None) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.extend`; what stays locked by somebody counts as lost, for its lease runs out."""
    # In the order of the ids, as everywhere: who locks several rows waits for nobody who waits for him.
    keys = sorted((claim.message.id, number(claim.token)) for claim in claims)
    extended: set[contending.Key] = set()

    def act(sql: Sql, keys: Sequence[contending.Key]) -> list[Cursor]:
        parameters = {"ids": [id for id, _ in keys], "tokens": [token for _, token in keys]}
        return [sql.execute(_EXTEND, {**parameters, "lease": width(lease), "now": now})]

    try:
        extended.update(act(sql, keys)[0].fetchall())
    except contending.Locked:
        contending.write(sql, keys, act, extended.update, attempts=False)
    return [claim for claim in claims if (claim.message.id, number(claim.token)) not in extended]

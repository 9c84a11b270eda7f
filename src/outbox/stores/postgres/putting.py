"""Messages into their rows, all or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.codec import encode_envelope, encode_texts
from outbox.errors import InvalidMessage, UnsupportedError
from outbox.lifecycle import Fate
from outbox.message import Message
from outbox.stores import intake
from outbox.stores.content import Codings
from outbox.stores.instants import micros

from . import rows
from .driver import Cursor, array, errors
from .listening import LISTENED
from .naming import Sql
from .suspending import OPEN

__all__ = ["Draft", "drafts", "insert", "known", "store"]

_MOST_CONTENT: Final = 500_000_000
"""A row has 1 GB at most."""
_MOST_AT_ONCE: Final = 1_000_000_000
"""So has what is said to the server at once: it ends a connection that says more."""
_BESIDE: Final = 500
"""The bytes, at most, of a message's other columns and of the lengths of all."""
_WAITING: Final = rows.letters([Fate.WAITING])
_COLUMNS: Final = (
    "id text, queue text, priority int8, digest bytea, sender text, recipients text, number int8, size int8, "
    "not_before int8, envelope bytea, content bytea"
)
_NAMES: Final = [column.split()[0] for column in _COLUMNS.split(", ")]
_KINDS: Final = [column.split()[1] for column in _COLUMNS.split(", ")]
_ARRAYS: Final = ", ".join(f"%({name})b::{kind}[]" for name, kind in zip(_NAMES, _KINDS, strict=True))
_VALUES: Final = ", ".join(f"%({name})b::{kind} AS {name}" for name, kind in zip(_NAMES, _KINDS, strict=True))
# As `standings.fresh` has it; the generation begins with the clock: a token of an earlier message of this id never fits.
_FRESH: Final = f"""
    INSERT INTO outbox_message (
        id, queue, priority, stage, state, fates, due, since, submitted, settled, generation, attempts, lost, reason,
        resumes, size, digest, coding, sender, recipients, envelope, content
    )
    SELECT id, queue, priority, CASE WHEN first > now THEN 1 ELSE 2 END, 'queued', repeat('{_WAITING}', number::int),
        first, first, now, NULL, {rows.GENERATION}, 0, 0, '', NULL, size, digest, %(coding)s, sender, recipients, envelope,
        content
"""
_T: Final = f"t AS MATERIALIZED (SELECT {rows.NOW} AS now)"
_W: Final = f"""
    w AS (
        SELECT w.*, t.now, greatest(t.now, coalesce(w.not_before, t.now)) AS first
        FROM unnest({_ARRAYS}) AS w ({", ".join(_NAMES)}), t
    )
"""  # noqa: S608 - columns of our own
# In the order of the ids, so that two who put the same ones wait for each other in turn.
_INSERT: Final = f"""
    WITH {_T}, {_W} {_FRESH} FROM w ORDER BY id ON CONFLICT (id) DO NOTHING
    RETURNING id, stage = 2 AND (%(attempted)s OR {OPEN})
"""
_ONE: Final = f"""
    WITH {_T}, w AS (
        SELECT w.*, t.now, greatest(t.now, coalesce(w.not_before, t.now)) AS first FROM (SELECT {_VALUES}) AS w, t
    )
    {_FRESH} FROM w ON CONFLICT (id) DO NOTHING RETURNING {LISTENED}
"""  # noqa: S608 - columns of our own
# All or none: where one is there nothing is written, and where one came in meanwhile it fails.
_ALL: Final = f"""
    WITH {_T}, {_W},
    known AS MATERIALIZED (
        SELECT count(*) AS number FROM unnest(%(id)b::text[]) AS w (id)
        CROSS JOIN LATERAL (SELECT FROM outbox_message AS m WHERE m.id = w.id LIMIT 1) AS m
    ),
    new AS ({_FRESH} FROM w WHERE (SELECT number FROM known) = 0 ORDER BY id RETURNING 1)
    SELECT {LISTENED} FROM known WHERE number = 0 AND (SELECT count(*) FROM new) > 0
"""  # noqa: S608 - columns of our own
_KNOWN: Final = f"""
    SELECT id, digest, stage = 4 AND settled <= {rows.NOW} - %(remember)s::bigint FROM outbox_message
    WHERE id = ANY(%(ids)s)
"""  # noqa: S608 - a condition of our own
# Looked at once more: whoever was put and settled since the look is not forgotten.
_FORGET: Final = f"""
    DELETE FROM outbox_message
    WHERE id = ANY(%(ids)s) AND stage = 4 AND settled <= {rows.NOW} - %(remember)s::bigint
"""  # noqa: S608 - a condition of our own


@attrs.frozen
class Draft(intake.Draft):
    """With all that can be made ready before the store is asked."""

    recipients: str
    envelope: bytes
    content: bytes


def drafts(messages: Sequence[Message], codings: Codings) -> list[Draft]:
    """Raise InvalidMessage for one, and UnsupportedError for all together, that are larger than the server takes."""
    made = [_draft(message, codings) for message in messages]
    size = sum(len(each.content) + len(each.envelope) + len(each.recipients) + _BESIDE for each in made)
    if size > _MOST_AT_ONCE and len(made) > 1:
        raise UnsupportedError(
            f"{len(made):,} messages with {size:,} bytes are too much for one put: PostgreSQL takes {_MOST_AT_ONCE:,} "
            "at once; put them in several parts"
        )
    if size > _MOST_AT_ONCE:
        raise InvalidMessage(
            f"{made[0].id} has {size:,} bytes as it is kept, and PostgreSQL takes {_MOST_AT_ONCE:,} at most"
        )
    return made


def _draft(message: Message, codings: Codings) -> Draft:
    if len(message.content) > _MOST_CONTENT:
        raise InvalidMessage(
            f"the content of {message.id} has {len(message.content)} bytes, and a PostgresStore keeps {_MOST_CONTENT} at most"
        )
    return Draft(
        message,
        message.envelope_digest,
        rows.text(encode_texts(message.recipients)),
        encode_envelope(message),
        codings.encode(message.content, message.id),
    )


def insert(sql: Sql, new: Sequence[Draft], codings: Codings, now: int | None, *, attempted: bool) -> Cursor:
    """Write those whose ids are not there; a cursor of their ids, and whether each is due and its queue goes on."""
    return sql.execute(_INSERT, {**_parameters(new, codings, now), "attempted": attempted})


def store(sql: Sql, new: Sequence[Draft], codings: Codings, now: int | None) -> bool | None:
    """Write them by one statement, all or none: whether somebody listens; None where nothing was, for some are there."""
    if len(new) == 1:
        values = {**dict(zip(_NAMES, _row(new[0]), strict=True)), "coding": codings.name, "now": now}
        found = sql.execute(_ONE, values).fetchone()
    else:
        try:
            found = sql.execute(_ALL, _parameters(new, codings, now)).fetchone()
        except errors.UniqueViolation:
            found = None
    return None if found is None else bool(found[0])


def _parameters(new: Sequence[Draft], codings: Codings, now: int | None) -> dict[str, Any]:
    table = zip(*(_row(draft) for draft in new), strict=True)
    arrays = {name: array(kind, values) for name, kind, values in zip(_NAMES, _KINDS, table, strict=True)}
    return {**arrays, "coding": codings.name, "now": now}


def _row(draft: Draft) -> rows.Row:
    message = draft.message
    return (
        message.id,
        message.queue,
        message.priority,
        draft.envelope_digest,
        rows.text(message.sender),
        draft.recipients,
        len(message.recipients),
        len(message.content),
        None if message.not_before is None else micros(message.not_before),
        draft.envelope,
        draft.content,
    )


def known(sql: Sql, ids: Sequence[str], remember: int, now: int | None) -> dict[str, bytes]:
    """The digests of those that are known; those known for long enough are forgotten here.  It waits for the answer."""
    found = sql.execute(_KNOWN, {"ids": list(ids), "remember": remember, "now": now}).fetchall()
    over = [id for id, _, forgotten in found if forgotten]
    if over:
        sql.execute(_FORGET, {"ids": over, "remember": remember, "now": now})
    return {id: digest for id, digest, forgotten in found if not forgotten}

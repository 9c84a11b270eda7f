"""Messages that come from another store, each batch once.

What was given last from each other store is a row of ``outbox_meta``, written
in the transaction that stores the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from outbox.errors import InvalidMessage
from outbox.moving import Batch, Remembered
from outbox.stores import carrying
from outbox.stores.carrying import LEFT, Given
from outbox.stores.content import Codings
from outbox.stores.instants import micros, width
from outbox.stores.limits import Load
from outbox.stores.retention import Retention
from outbox.values import printable

from . import putting, rows, steering
from .crowding import Crowd
from .driver import errors
from .durability import lasting
from .links import transaction
from .moving import alone, keep, kept, now_of
from .naming import Sql

__all__ = ["Arrival", "arrivals", "give", "last_given", "remember"]

Arrival: TypeAlias = "carrying.Arrival[putting.Draft]"

_GIVEN: Final = "given:"
_HERE: Final = "SELECT id, stage FROM outbox_message WHERE id = ANY(%(ids)s) ORDER BY id"
_FORGET: Final = "DELETE FROM outbox_message WHERE id = ANY(%(ids)s) AND stage = 4"
_COLUMNS: Final = (
    "id text, queue text, priority int8, size int8, digest bytea, sender text, recipients text, envelope bytea, "
    "content bytea, stage int8, state text, fates text, due int8, since int8, submitted int8, settled int8, attempts int8, "
    "lost int8, reason text, resumes int8"
)
_NAMES: Final = [column.split()[0] for column in _COLUMNS.split(", ")]


def _arrays(columns: str) -> str:
    return ", ".join(f"%({name})b::{kind}[]" for name, kind in map(str.split, columns.split(", ")))


# The generation begins with the clock: a token of an earlier message of this id never fits.
_STORE: Final = f"""
    INSERT INTO outbox_message ({", ".join(_NAMES)}, generation, coding)
    SELECT {", ".join(_NAMES)}, {rows.GENERATION}, %(coding)s
    FROM unnest({_arrays(_COLUMNS)}) AS w ({", ".join(_NAMES)}) ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
"""  # noqa: S608 - columns of our own
_ATTEMPT: Final = (
    "id text, at int8, number int8, event text, relay text, results text, reason text, dialogue text"
)
_TOLD: Final = [column.split()[0] for column in _ATTEMPT.split(", ")]
_TELL: Final = f"""
    INSERT INTO outbox_attempt ({", ".join(_TOLD)})
    SELECT {", ".join(_TOLD)} FROM unnest({_arrays(_ATTEMPT)}) WITH ORDINALITY AS w ({", ".join(_TOLD)}, place) ORDER BY place
    RETURNING row
"""  # noqa: S608 - columns of our own
# Of a message that has left: it came to its end in another store, and that is known from now on.
_REMEMBER: Final = f"""
    INSERT INTO outbox_message AS m (
        id, queue, priority, stage, state, fates, due, since, submitted, settled, generation, attempts, lost, reason,
        resumes, size, digest, coding, sender, recipients, envelope, content
    )
    SELECT id, '', 0, 4, 'delivered', '', settled, settled, settled, settled, 0, 0, 0, '', NULL, 0, digest, '', '', '', '', ''
    FROM unnest(%(ids)s::text[], %(digests)s::bytea[], %(settled)s::int8[]) AS w (id, digest, settled)
    WHERE settled > {rows.NOW} - %(remember)s::int8 ORDER BY id
    ON CONFLICT (id) DO UPDATE SET settled = greatest(m.settled, excluded.settled), reason = ''
    WHERE m.stage = 4 AND m.reason = %(left)s
"""  # noqa: S608 - columns of our own
_GONE: Final = 4


def arrivals(batch: Batch, codings: Codings) -> list[Arrival]:
    """Raise InvalidMessage where one of them is more than PostgreSQL can hold."""
    return carrying.arrivals(batch, putting.drafts([record.message for record in batch.records], codings))


def _given(sql: Sql, source: str) -> Given:
    found = kept(sql, _GIVEN + source)
    return Given() if found is None else Given.decode(found)


def last_given(sql: Sql, source: str) -> str:
    """See :meth:`outbox.moving.SupportsMove.last_given`."""
    return _given(sql, source).name


def give(
    sql: Sql, batch: Batch, made: Sequence[Arrival], *, codings: Codings, crowd: Crowd, now: int | None
) -> Sequence[str]:
    """See :meth:`outbox.moving.SupportsMove.give`; *made* are the arrivals of *batch*.  Within a transaction."""
    alone(sql)
    last = _given(sql, batch.source)
    if last.repeats(batch):
        return last.refused
    stages: dict[str, int] = dict(sql.execute(_HERE, {"ids": [each.id for each in made]}).fetchall())
    new = [each for each in made if stages.get(each.id, _GONE) == _GONE]
    if crowd.limited and new:
        crowd.admit(sql, Load.of(each.record.summary.size for each in new if each.standing.queued))
    # Of a message that was here before only the id is left, and it stands again.
    remembered = [each.id for each in new if each.id in stages]
    if remembered:
        sql.execute(_FORGET, {"ids": remembered})
    try:
        stored = _stored(sql, new, codings, now)
    except errors.DataError as error:
        raise InvalidMessage(f"PostgreSQL cannot hold one of these: {printable(str(error))[:200]}") from error
    refused = (*(each.id for each in made if each.id not in stored), *batch.unreadable)
    keep(sql, _GIVEN + batch.source, Given(batch.name, refused).encode())
    return refused


def _stored(sql: Sql, new: Sequence[Arrival], codings: Codings, now: int | None) -> set[str]:
    """Write them; the ids of those that nobody has put in the meantime."""
    if not new:
        return set()
    at = now_of(sql, now)
    table = _columns(_NAMES, [_row(each, at) for each in new])
    stored = {id for (id,) in sql.execute(_STORE, {**table, "coding": codings.name})}
    told = [
        (each.id, micros(made.at), *rows.attempt(made))
        for each in new
        if each.id in stored
        for made in each.record.history
    ]
    if told:
        sql.execute(_TELL, _columns(_TOLD, told)).fetchall()
    return stored


def _columns(names: Sequence[str], table: Iterable[rows.Row]) -> dict[str, Any]:
    return dict(zip(names, map(list, zip(*table, strict=True)), strict=True))


def _row(arrival: Arrival, now: int) -> rows.Row:
    message, draft = arrival.record.message, arrival.draft
    return (
        message.id,
        message.queue,
        message.priority,
        arrival.record.summary.size,
        draft.envelope_digest,
        rows.text(message.sender),
        draft.recipients,
        draft.envelope,
        draft.content,
        steering.stage(arrival.standing, now),
        *rows.columns(arrival.standing),
    )


def remember(sql: Sql, known: Sequence[Remembered], retention: Retention, now: int | None) -> None:
    """See :meth:`outbox.moving.SupportsMove.remember`."""
    if not known or not retention.remembers:
        return
    with transaction(sql):
        lasting(sql)
        sql.execute(
            _REMEMBER,
            {
                "ids": [each.id for each in known],
                "digests": [each.digest for each in known],
                "settled": [micros(each.settled_at) for each in known],
                "remember": width(retention.remember),
                "left": LEFT,
                "now": now,
            },
        )

"""Messages into their rows, all or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import attrs

from outbox.codec import encode_envelope, encode_texts
from outbox.errors import InvalidMessage, StoreError
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.stores import intake, standing as standings
from outbox.stores.content import Codings
from outbox.stores.limits import Load
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import rows
from .crowding import Crowd
from .naming import Sql

__all__ = ["Draft", "Stored", "drafts", "hot", "put", "store_bodies", "store_rows"]

# By their places in the list and not by id, and a digest that is an expression: the caller's connection may make
# anything of text, and of what it knows the declared type of.
_KNOWN: Final = """
    SELECT w.key, CAST(m.digest AS BLOB), m.stage = 4 AND m.settled <= :since
    FROM json_each(:ids) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
"""
_KNOWN_ONE: Final = (
    "SELECT 0, CAST(digest AS BLOB), stage = 4 AND settled <= ? FROM outbox_message WHERE id = ?"
)
_FORGET: Final = "DELETE FROM outbox_message WHERE id = ?"
_MOST_CONTENT: Final = 999_000_000
"""SQLite's own limit is 1,000,000,000 bytes a row."""
_STAGE: Final = 7
_READY: Final = 2
_LAST_NUMBER: Final = (1 << 63) - 1
_LAST_BODY: Final = "SELECT coalesce(max(number), 0) FROM outbox_body"
_BODY: Final = "INSERT INTO outbox_body (number, sender, recipients, envelope, content, coding) VALUES "
_MESSAGE: Final = f"""
    INSERT INTO outbox_message (id, queue, priority, generation, size, digest, body, stage, {rows.STANDING})
    VALUES """  # noqa: S608 - column names of our own
_AT_ONCE: Final = (64, 32, 16, 8, 4, 2, 1)
"""How many rows a statement stores: few numbers, so that SQLite's cache of statements keeps them all."""


@attrs.frozen
class Draft(intake.Draft):
    """With all that can be made ready before the turn to write has come."""

    body: rows.Row


@attrs.frozen
class Stored:
    """What a put answers, and the ids of what is new and due."""

    results: Sequence[PutResult]
    due: Sequence[str]


def drafts(messages: Sequence[Message], codings: Codings) -> list[Draft]:
    return [Draft(message, message.envelope_digest, _body(message, codings)) for message in messages]


def _body(message: Message, codings: Codings) -> rows.Row:
    if len(message.content) > _MOST_CONTENT:
        raise InvalidMessage(
            f"the content of {message.id} has {len(message.content)} bytes, and SQLite keeps {_MOST_CONTENT} at most"
        )
    recipients = encode_texts(message.recipients)
    content = codings.encode(message.content, message.id)
    return message.sender, recipients, encode_envelope(message), content, codings.name


def put(
    sql: Sql, puts: Sequence[Sequence[Draft]], retention: Retention, crowd: Crowd, now: int
) -> list[Stored | Exception]:
    """What each of several puts comes to, in order; see :meth:`outbox.protocols.Intake.put`.

    One that conflicts, or finds no room, stores nothing, and harms no other.
    """
    known = _known(sql, [draft for made in puts for draft in made], retention.known_since(now))
    sifted: list[_Sifted | Exception] = []
    unwritten = Load()
    for made in puts:
        each = _sifted(sql, made, known, crowd, now=now, unwritten=unwritten)
        sifted.append(each)
        if crowd.limited and not isinstance(each, Exception):
            unwritten += each.load
    new = [draft for each in sifted if not isinstance(each, Exception) for draft in each.new]
    due = _store(sql, new, now)
    return [
        each if isinstance(each, Exception) else Stored(each.results, [d.id for d in each.new if d.id in due])
        for each in sifted
    ]


@attrs.frozen
class _Sifted:
    """What is to be stored of a put, and its answer."""

    new: Sequence[Draft]
    results: Sequence[PutResult]

    @property
    def load(self) -> Load:
        return Load.of(len(draft.message.content) for draft in self.new)


def _sifted(
    sql: Sql, made: Sequence[Draft], known: dict[str, bytes], crowd: Crowd, *, now: int, unwritten: Load
) -> _Sifted | Exception:
    """One put sifted; *known* grows by what is new."""
    try:
        each = _Sifted(*intake.sift(made, known))
        if each.new and crowd.limited:
            crowd.admit(sql, each.load, now, unwritten=unwritten)
    except StoreError as error:
        return error
    known.update((draft.id, draft.envelope_digest) for draft in each.new)
    return each


def _store(sql: Sql, new: Sequence[Draft], now: int) -> set[str]:
    """Write them; return the ids of those that are due."""
    if not new:
        return set()
    bodies = store_bodies(sql, new)
    fresh = [
        hot(number, draft, standings.fresh(draft.message, now), now)
        for number, draft in zip(bodies, new, strict=True)
    ]
    store_rows(sql, fresh)
    return {row[0] for row in fresh if row[_STAGE] == _READY}


def store_rows(sql: Sql, made: Sequence[rows.Row]) -> None:
    """Write the hot rows that :func:`hot` has made."""
    _insert(sql, _MESSAGE, made)


def store_bodies(sql: Sql, new: Sequence[Draft]) -> Sequence[int]:
    """Write them; return their numbers."""
    if len(new) > 1:
        (last,) = sql.execute(_LAST_BODY).fetchone()
        numbers = range(last + 1, last + 1 + len(new))
        if numbers[-1] <= _LAST_NUMBER:
            _insert(sql, _BODY, [(number, *draft.body) for number, draft in zip(numbers, new, strict=True)])
            return numbers
    # One by one SQLite chooses the number, also where damage made the last one the last there is.
    return [sql.execute(_BODY + _values(_BODY, 1), (None, *draft.body)).lastrowid or 0 for draft in new]


def _insert(sql: Sql, statement: str, made: Sequence[rows.Row]) -> None:
    """Many rows a statement: each statement is a moment in which other threads may take over."""
    start = 0
    for number in _AT_ONCE:
        while len(made) - start >= number:
            flat = [value for row in made[start : start + number] for value in row]
            sql.execute(statement + _values(statement, number), flat)
            start += number


def _values(statement: str, number: int) -> str:
    row = f"({', '.join('?' * (statement.count(',') + 1))})"
    return ", ".join([row] * number)


def _known(sql: Sql, made: Sequence[Draft], remembered_since: int) -> dict[str, bytes]:
    """The digests of those that are known; those known for long enough are forgotten here."""
    ids = [draft.id for draft in made]
    if len(ids) == 1:
        found = sql.execute(_KNOWN_ONE, (remembered_since, ids[0])).fetchall()
    else:
        found = sql.execute(_KNOWN, {"ids": rows.listed(ids), "since": remembered_since}).fetchall()
    if not found:
        return {}
    sql.executemany(_FORGET, [(ids[place],) for place, _, forgotten in found if forgotten])
    return {ids[place]: digest for place, digest, forgotten in found if not forgotten}


def hot(body: int, draft: Draft, standing: Standing, now: int, *, size: int | None = None) -> rows.Row:
    """The hot row of a message that stands so; *size* is that of its content, where that is not there any more."""
    message = draft.message
    return (
        message.id,
        message.queue,
        message.priority,
        # The generation starts anywhere: a token of an earlier message of this id, purged since, never fits.
        int.from_bytes(os.urandom(6)),
        len(message.content) if size is None else size,
        draft.envelope_digest,
        body,
        rows.stage(standing, now),
        *rows.columns(standing),
    )

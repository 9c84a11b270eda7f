"""Rows and what they stand for: the hot row of a message, and its attempts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from outbox.codec import decode_results, encode_envelope, encode_results
from outbox.errors import CorruptRecord
from outbox.lifecycle import Attempt, Event, Fate, State
from outbox.message import Message
from outbox.stores.instants import micros, moment
from outbox.stores.standing import Standing

from .naming import Sql

__all__ = [
    "STANDING",
    "Row",
    "attempts",
    "columns",
    "discard",
    "fates",
    "forget",
    "letters",
    "listed",
    "record",
    "redact",
    "stage",
    "standing",
    "unreadable",
    "write",
]

Row: TypeAlias = tuple[Any, ...]

STANDING: Final = "state, fates, due, since, submitted, settled, attempts, lost, reason"
"""The columns that :func:`standing` takes, in its order."""

_STATES: Final = {state.value: state for state in State}
_LETTERS: Final = {fate: fate.value[0] for fate in Fate}
_FATES: Final = {letter: fate for fate, letter in _LETTERS.items()}

_WRITE: Final = """
    UPDATE outbox_message
    SET stage = ?, state = ?, fates = ?, due = ?, since = ?, submitted = ?, settled = ?, attempts = ?, lost = ?,
        reason = ?
    WHERE id = ?
"""
_RECORD: Final = """
    INSERT INTO outbox_attempt (id, number, at, event, relay, results, reason) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_ATTEMPTS: Final = """
    SELECT number, at, event, relay, results, reason FROM outbox_attempt WHERE id = ? ORDER BY row
"""
_REDACT: Final = """
    UPDATE outbox_body SET envelope = ?, content = x'', coding = ''
    WHERE number = (SELECT body FROM outbox_message WHERE id = ?)
"""
_REMOVE_BODIES: Final = """
    DELETE FROM outbox_body WHERE number IN (
        SELECT m.body FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
    )
"""
_REMOVE_ATTEMPTS: Final = "DELETE FROM outbox_attempt WHERE id IN (SELECT value FROM json_each(?))"
_REMOVE_MESSAGES: Final = "DELETE FROM outbox_message WHERE id IN (SELECT value FROM json_each(?))"
_BURY: Final = """
    UPDATE outbox_message SET stage = 4, state = 'delivered', settled = coalesce(settled, ?), reason = ''
    WHERE id IN (SELECT value FROM json_each(?))
"""


def listed(values: Iterable[str | int]) -> str:
    """Any number of values as the one parameter of ``json_each(?)``."""
    return json.dumps(list(values))


def letters(fates: Sequence[Fate]) -> str:
    return "".join(_LETTERS[fate] for fate in fates)


def stage(standing: Standing, now: int) -> int:
    """Where the row belongs; see :mod:`.schema`."""
    if not standing.queued:
        return 0
    if standing.due > now:
        return 1
    return 3 if standing.suspect else 2


def fates(text: str, *, lenient: bool = False) -> tuple[Fate, ...]:
    """One for each letter; a letter that is none is an error, or a fate that nobody knows."""
    if lenient:
        return tuple(_FATES.get(letter, Fate.UNCERTAIN) for letter in text)
    return tuple([_FATES[letter] for letter in text])


def standing(row: Row) -> Standing:
    """How a message stands, from its columns.

    Raises:
        CorruptRecord: they are not what was written.
    """
    state, letters, due, since, submitted, settled, attempts, lost, reason = row
    try:
        return Standing(
            state=_STATES[state],
            fates=fates(letters),
            # Adding 0 tells a number from what is none.
            due=due + 0,
            since=since + 0,
            submitted=submitted + 0,
            settled=settled,
            attempts=attempts + 0,
            lost=lost + 0,
            reason=reason,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRecord(f"its row cannot be read: {error!r}") from error


def unreadable(row: Row) -> Standing:
    """What can be shown of columns that are not what was written."""
    _, letters, *numbers, _ = row
    due, since, submitted, settled, attempts, lost = (
        number if isinstance(number, int) else 0 for number in numbers
    )
    return Standing(
        state=State.HELD,
        fates=fates(str(letters), lenient=True),
        due=due,
        since=since,
        submitted=submitted,
        settled=settled,
        attempts=attempts,
        lost=lost,
        reason="its row cannot be read",
    )


def columns(standing: Standing) -> Row:
    """The inverse of :func:`standing`."""
    return (
        standing.state.value,
        letters(standing.fates),
        standing.due,
        standing.since,
        standing.submitted,
        standing.settled,
        standing.attempts,
        standing.lost,
        standing.reason,
    )


def write(sql: Sql, news: Iterable[tuple[str, Standing]], now: int) -> None:
    """Let the messages of these ids stand so."""
    sql.executemany(_WRITE, [(stage(new, now), *columns(new), name) for name, new in news])


def record(sql: Sql, made: Iterable[tuple[str, Attempt]]) -> None:
    """Add to the history of the messages of these ids."""
    sql.executemany(
        _RECORD,
        [
            (
                name,
                attempt.number,
                micros(attempt.at),
                attempt.event.value,
                attempt.relay,
                encode_results(attempt.results),
                attempt.reason,
            )
            for name, attempt in made
        ],
    )


def attempts(sql: Sql, id: str) -> list[Attempt]:
    """The history of a message; raises CorruptRecord where it cannot be read."""
    return [
        Attempt(
            number=number,
            at=moment(at),
            event=Event(event),
            relay=relay,
            results=decode_results(results),
            reason=reason,
        )
        for number, at, event, relay, results, reason in sql.execute(_ATTEMPTS, (id,))
    ]


def redact(sql: Sql, messages: Iterable[Message]) -> None:
    """Of these messages keep all but the content."""
    sql.executemany(
        _REDACT,
        [(encode_envelope(attrs.evolve(message, content=b"")), message.id) for message in messages],
    )


def discard(sql: Sql, gone: Sequence[str], buried: Sequence[str], now: int) -> None:
    """Delete all that is kept of these messages, but for the ids of those that are *buried*."""
    if not gone:
        return
    these = listed(gone)
    sql.execute(_REMOVE_BODIES, (these,))
    sql.execute(_REMOVE_ATTEMPTS, (these,))
    if buried:
        sql.execute(_BURY, (now, listed(buried)))
    if len(buried) < len(gone):
        forget(sql, set(gone) - set(buried))


def forget(sql: Sql, ids: Iterable[str]) -> None:
    """Delete the rows of messages that have nothing else."""
    sql.execute(_REMOVE_MESSAGES, (listed(ids),))

"""Rows and what they stand for: the hot row of a message, and its attempts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from outbox.codec import decode_results, encode_envelope, encode_results
from outbox.errors import CorruptRecord
from outbox.lifecycle import Attempt, Event, Fate, State
from outbox.message import Message
from outbox.stores.instants import EARLIEST, FOREVER, micros, moment
from outbox.stores.standing import Standing

from .naming import Sql

__all__ = [
    "SIZES",
    "STANDING",
    "STATES",
    "Row",
    "attempt",
    "attempts",
    "columns",
    "count",
    "discard",
    "fates",
    "forget",
    "instant",
    "instant_or_none",
    "legible",
    "letters",
    "listed",
    "record",
    "redact",
    "stage",
    "standing",
    "text",
    "unreadable",
    "write",
]

Row: TypeAlias = tuple[Any, ...]
D = TypeVar("D")

STANDING: Final = "state, fates, due, since, submitted, settled, attempts, lost, reason, resumes"
"""The columns that :func:`standing` takes, in its order."""

_MOST: Final = (1 << 31) - 1
"""More than there ever was of anything that a row counts."""
SIZES: Final = range(1 << 31)
"""How large content can be."""
STATES: Final[Mapping[Any, State]] = {state.value: state for state in State}
_LETTERS: Final = {fate: fate.value[0] for fate in Fate}
_FATES: Final = {letter: fate for fate, letter in _LETTERS.items()}

_WRITE: Final = """
    UPDATE outbox_message
    SET stage = ?, state = ?, fates = ?, due = ?, since = ?, submitted = ?, settled = ?, attempts = ?, lost = ?,
        reason = ?, resumes = ?
    WHERE id = ?
"""
_RECORD: Final = """
    INSERT INTO outbox_attempt (id, number, at, event, relay, results, reason, dialogue)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_HUSH: Final = """
    UPDATE outbox_attempt SET dialogue = ''
    WHERE id IN (SELECT value FROM json_each(?)) AND dialogue <> ''
"""
_ATTEMPTS: Final = """
    SELECT number, at, event, relay, results, reason, dialogue FROM outbox_attempt WHERE id = ? ORDER BY row
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
    if not text:
        raise ValueError("it has no fates")
    return tuple([_FATES[letter] for letter in text])


def instant(value: Any) -> int:
    """The same where it is an instant that a datetime can name; ValueError where it is anything else."""
    if type(value) is int and EARLIEST <= value <= FOREVER:
        return value
    raise ValueError(f"{value!r} is no instant")


def instant_or_none(value: Any) -> int | None:
    """The same; None where it is anything else."""
    return _or(None, instant, value)


def count(value: Any) -> int:
    """The same where it counts something; ValueError where it is anything else."""
    if type(value) is int and 0 <= value <= _MOST:
        return value
    raise ValueError(f"{value!r} counts nothing")


def standing(row: Row) -> Standing:
    """How a message stands, from its columns.

    Raises:
        CorruptRecord: they are not what was written, whatever else they are.
    """
    state, letters, due, since, submitted, settled, attempts, lost, reason, resumes = row
    try:
        return Standing(
            state=STATES[state],
            fates=fates(letters),
            due=instant(due),
            since=instant(since),
            submitted=instant(submitted),
            settled=settled if settled is None else instant(settled),
            attempts=count(attempts),
            lost=count(lost),
            reason=text(reason),
            resumes=resumes if resumes is None else instant(resumes),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRecord(f"its row cannot be read: {error!r}") from error


def text(value: Any) -> str:
    """The same where it is text; ValueError where it is anything else."""
    if type(value) is str:
        return value
    raise ValueError(f"{value!r} is no text")


def unreadable(row: Row, reason: str) -> Standing:
    """What can be shown of columns that are not what was written: each as it is, or nothing."""
    state, letters, due, since, submitted, settled, attempts, lost, *_ = row
    return Standing(
        state=STATES.get(state, State.HELD),
        fates=fates(legible(letters), lenient=True),
        due=_or(0, instant, due),
        since=_or(0, instant, since),
        submitted=_or(0, instant, submitted),
        settled=instant_or_none(settled),
        attempts=_or(0, count, attempts),
        lost=_or(0, count, lost),
        reason=reason,
    )


def legible(value: Any) -> str:
    """Whatever was found where a text should be, as a text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else str(value)


def _or(otherwise: D, read: Callable[[Any], int], value: Any) -> int | D:
    try:
        return read(value)
    except ValueError:
        return otherwise


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
        standing.resumes,
    )


def write(sql: Sql, news: Iterable[tuple[str, Standing]], now: int) -> None:
    """Let the messages of these ids stand so."""
    sql.executemany(_WRITE, [(stage(new, now), *columns(new), name) for name, new in news])


def record(sql: Sql, made: Sequence[tuple[str, Attempt]]) -> None:
    """Add to the history of the messages of these ids; only the latest dialogue of each is kept."""
    talked = [name for name, attempt in made if attempt.dialogue]
    if talked:
        sql.execute(_HUSH, (listed(talked),))
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
                attempt.dialogue,
            )
            for name, attempt in made
        ],
    )


def attempts(sql: Sql, id: str) -> list[Attempt]:
    """The history of a message; raises CorruptRecord where it cannot be read."""
    return [attempt(id, row) for row in sql.execute(_ATTEMPTS, (id,))]


def attempt(id: str, row: Row) -> Attempt:
    """One of its history; raises CorruptRecord where it cannot be read."""
    number, at, event, relay, results, reason, dialogue = row
    try:
        return Attempt(
            number=count(number),
            at=moment(instant(at)),
            event=Event(event),
            relay=text(relay),
            results=decode_results(results),
            reason=text(reason),
            dialogue=text(dialogue),
        )
    except (ValueError, CorruptRecord) as error:
        raise CorruptRecord(f"{id}: an attempt in its history cannot be read: {error}") from error


def redact(sql: Sql, messages: Iterable[Message]) -> None:
    """Of these messages keep all but the content."""
    sql.executemany(
        _REDACT,
        [(encode_envelope(attrs.evolve(message, content=b"")), message.id) for message in messages],
    )


def discard(sql: Sql, gone: Sequence[str], buried: Sequence[str], now: int, *, whole: bool = True) -> None:
    """Delete all that is kept of these messages, but for the ids of those that are *buried*.

    Args:
        whole: False leaves what damage keeps from being deleted: bodies and attempts.
    """
    if not gone:
        return
    these = listed(gone)
    if whole:
        sql.execute(_REMOVE_BODIES, (these,))
        sql.execute(_REMOVE_ATTEMPTS, (these,))
    if buried:
        sql.execute(_BURY, (now, listed(buried)))
    if len(buried) < len(gone):
        forget(sql, set(gone) - set(buried))


def forget(sql: Sql, ids: Iterable[str]) -> None:
    """Delete the rows of messages that have nothing else."""
    sql.execute(_REMOVE_MESSAGES, (listed(ids),))

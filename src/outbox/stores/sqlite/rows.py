"""Rows and what they stand for: the hot row of a message, and its attempts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from outbox.codec import decode_results, encode_results
from outbox.lifecycle import Attempt, Event, Fate, State
from outbox.stores.instants import micros, moment
from outbox.stores.standing import Standing

__all__ = [
    "STANDING",
    "Row",
    "attempts",
    "letters",
    "listed",
    "record",
    "remove",
    "stage",
    "standing",
    "write",
]

Row: TypeAlias = tuple[Any, ...]

STANDING: Final = "state, fates, due, since, submitted, settled, attempts, lost, reason"
"""The columns that :func:`standing` takes, in its order."""

_LETTERS: Final = {fate: fate.value[0] for fate in Fate}
_FATES: Final = {letter: fate for fate, letter in _LETTERS.items()}

_WRITE: Final = """
    UPDATE outbox_message
    SET stage = ?, state = ?, fates = ?, due = ?, since = ?, settled = ?, attempts = ?, lost = ?, reason = ?
    WHERE id = ?
"""
_RECORD: Final = """
    INSERT INTO outbox_attempt (id, number, at, event, relay, results, reason) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_ATTEMPTS: Final = """
    SELECT number, at, event, relay, results, reason FROM outbox_attempt WHERE id = ? ORDER BY row
"""
_BURY: Final = """
    INSERT OR REPLACE INTO outbox_tombstone (id, digest, settled)
    SELECT m.id, b.digest, coalesce(m.settled, :now)
    FROM json_each(:ids) AS w
    CROSS JOIN outbox_message AS m ON m.id = w.value
    CROSS JOIN outbox_body AS b ON b.number = m.body
    WHERE coalesce(m.settled, :now) > :since
"""
_REMOVE_BODIES: Final = """
    DELETE FROM outbox_body WHERE number IN (
        SELECT m.body FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
    )
"""
_REMOVE_ATTEMPTS: Final = "DELETE FROM outbox_attempt WHERE id IN (SELECT value FROM json_each(?))"
_REMOVE_MESSAGES: Final = "DELETE FROM outbox_message WHERE id IN (SELECT value FROM json_each(?))"


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


def standing(row: Row) -> Standing:
    state, fates, due, since, submitted, settled, attempts, lost, reason = row
    return Standing(
        state=State(state),
        fates=tuple(_FATES[letter] for letter in fates),
        due=due,
        since=since,
        submitted=submitted,
        settled=settled,
        attempts=attempts,
        lost=lost,
        reason=reason,
    )


def write(sql: sqlite3.Connection, news: Iterable[tuple[str, Standing]], now: int) -> None:
    """Let the messages of these ids stand so."""
    sql.executemany(
        _WRITE,
        [
            (
                stage(new, now),
                new.state.value,
                letters(new.fates),
                new.due,
                new.since,
                new.settled,
                new.attempts,
                new.lost,
                new.reason,
                name,
            )
            for name, new in news
        ],
    )


def record(sql: sqlite3.Connection, made: Iterable[tuple[str, Attempt]]) -> None:
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


def attempts(sql: sqlite3.Connection, id: str) -> list[Attempt]:
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


def remove(sql: sqlite3.Connection, ids: Sequence[str], *, now: int, remembered_since: int | None) -> None:
    """Delete all that is kept of these messages.

    Args:
        remembered_since: The ids of those that settled later than this stay
            known; None forgets all.
    """
    these = listed(ids)
    if remembered_since is not None:
        sql.execute(_BURY, {"ids": these, "now": now, "since": remembered_since})
    sql.execute(_REMOVE_BODIES, (these,))
    sql.execute(_REMOVE_ATTEMPTS, (these,))
    sql.execute(_REMOVE_MESSAGES, (these,))

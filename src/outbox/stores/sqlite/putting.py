"""Messages into their rows, all or none."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Sequence
from typing import Final

from outbox.codec import encode_envelope
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.intake import sift

from . import rows

__all__ = ["put"]

# A message comes after a tombstone of the same id, for the later row stands.
_KNOWN: Final = """
    SELECT t.id, t.digest
    FROM json_each(:ids) AS w CROSS JOIN outbox_tombstone AS t ON t.id = w.value
    WHERE t.settled > :since
    UNION ALL
    SELECT m.id, coalesce(b.digest, x'')
    FROM json_each(:ids) AS w
    CROSS JOIN outbox_message AS m ON m.id = w.value
    LEFT JOIN outbox_body AS b ON b.number = m.body
"""
_LAST_BODY: Final = "SELECT coalesce(max(number), 0) FROM outbox_body"
_BODY: Final = "INSERT INTO outbox_body VALUES (?, ?, ?, ?, ?, ?)"
_MESSAGE: Final = f"""
    INSERT INTO outbox_message (id, queue, priority, generation, size, body, stage, {rows.STANDING})
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - column names of our own


def put(
    sql: sqlite3.Connection, messages: Sequence[Message], *, now: int, remembered_since: int
) -> list[PutResult]:
    """See :meth:`outbox.protocols.Intake.put`."""
    wanted = {"ids": rows.listed(message.id for message in messages), "since": remembered_since}
    known = dict(sql.execute(_KNOWN, wanted))
    new, results = sift(messages, known)
    if new:
        (last,) = sql.execute(_LAST_BODY).fetchone()
        numbered = list(enumerate(new, last + 1))
        sql.executemany(_BODY, [_body(number, message) for number, message in numbered])
        sql.executemany(_MESSAGE, [_hot(number, message, now) for number, message in numbered])
    return results


def _body(number: int, message: Message) -> rows.Row:
    return (
        number,
        message.envelope_digest,
        message.sender,
        json.dumps(message.recipients, ensure_ascii=False),
        encode_envelope(message),
        message.content,
    )


def _hot(body: int, message: Message, now: int) -> rows.Row:
    standing = standings.fresh(message, now)
    return (
        message.id,
        message.queue,
        message.priority,
        # The generation starts anywhere: a token of an earlier message of this id, purged since, never fits.
        secrets.randbits(47),
        len(message.content),
        body,
        rows.stage(standing, now),
        standing.state.value,
        rows.letters(standing.fates),
        standing.due,
        standing.since,
        standing.submitted,
        standing.settled,
        standing.attempts,
        standing.lost,
        standing.reason,
    )

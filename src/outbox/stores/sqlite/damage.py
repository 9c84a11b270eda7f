"""Rows that cannot be read: each is held with the reason, and none of them stops the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from outbox.errors import CorruptRecord

from . import claiming, rows
from .naming import Sql

__all__ = ["hold", "read", "suspects"]

_FIRST: Final = """
    SELECT id FROM outbox_message WHERE stage = ? AND queue = ? ORDER BY priority DESC, due, id LIMIT ?
"""
_WHOLE: Final = "integer" * 3
_ROW: Final = f"""
    SELECT typeof(priority) || typeof(due) || typeof(size), body, {rows.STANDING} FROM outbox_message WHERE id = ?
"""  # noqa: S608 - column names of our own
_FATES: Final = "SELECT CAST(fates AS BLOB) FROM outbox_message WHERE id = ?"
# What is of the wrong kind is replaced, so that from now on it can be looked at.
_CONDEMN: Final = """
    UPDATE outbox_message
    SET stage = 0, state = 'held', fates = :fates, settled = :now, due = :now, since = :now, reason = :reason,
        priority = CASE typeof(priority) WHEN 'integer' THEN priority ELSE 0 END,
        submitted = CASE typeof(submitted) WHEN 'integer' THEN submitted ELSE :now END,
        attempts = CASE typeof(attempts) WHEN 'integer' THEN attempts ELSE 0 END,
        lost = CASE typeof(lost) WHEN 'integer' THEN lost ELSE 0 END,
        size = CASE typeof(size) WHEN 'integer' THEN size ELSE 0 END
    WHERE id = :id
"""


def suspects(sql: Sql, order: claiming.Order) -> list[str]:
    """Those that a claim would come upon next."""
    return [
        name
        for queue in order.queues
        for stage in (2, 3)
        for (name,) in sql.execute(_FIRST, (stage, queue, order.limit + 1))
    ]


def read(sql: Sql, id: str) -> None:
    """Read all that a claim reads of it.

    Raises:
        CorruptRecord: it cannot be read.
    """
    (kinds, body, *columns) = sql.execute(_ROW, (id,)).fetchone()
    if kinds != _WHOLE:
        raise CorruptRecord("a number in its row is none")
    rows.standing(tuple(columns))
    sql.execute(claiming.BODIES, (rows.listed([body]),)).fetchall()


def hold(sql: Sql, damaged: Mapping[str, str], now: int) -> None:
    """Hold these, each with what is wrong with it."""
    for name, reason in damaged.items():
        (fates,) = sql.execute(_FATES, (name,)).fetchone()
        sql.execute(_CONDEMN, {"id": name, "fates": _readable(fates), "now": now, "reason": reason})


def _readable(fates: bytes | None) -> str:
    """The fates as they are, or, where they cannot be read, that nobody knows."""
    text = (fates or b"?").decode("ascii", "replace")
    return rows.letters(rows.fates(text, lenient=True))

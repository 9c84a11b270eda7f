"""What is suspended: rows that every process sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from outbox.errors import ConfigurationError
from outbox.protocols import Suspension
from outbox.stores.instants import micros, moment

from . import rows
from .naming import Sql

__all__ = ["OPEN", "of_open_queues", "open_queues", "prune", "suspend", "suspensions", "unsuspend"]

_SUSPEND: Final = "INSERT OR REPLACE INTO outbox_suspension (kind, value, until, reason) VALUES (?, ?, ?, ?)"
_UNSUSPEND: Final = "DELETE FROM outbox_suspension WHERE kind = ? AND value = ? RETURNING until"
_OVER: Final = "DELETE FROM outbox_suspension WHERE until <= ?"
_MONTH: Final = 30 * 24 * 3600 * 1_000_000
_ALL: Final = """
    SELECT kind, value, until, reason FROM outbox_suspension
    WHERE until IS NULL OR until > ? ORDER BY kind, value
"""
_QUEUES: Final = """
    SELECT CAST(value AS BLOB) FROM outbox_suspension WHERE kind = 'queue' AND (until IS NULL OR until > ?)
"""

_QUEUE_OF: Final = "SELECT id, queue FROM outbox_message WHERE id IN (SELECT value FROM json_each(?))"

OPEN: Final = """
    NOT EXISTS (
        SELECT 1 FROM outbox_suspension WHERE kind = 'queue' AND value = :queue AND (until IS NULL OR until > :now)
    )
"""
"""The condition of a statement: that the queue ``:queue`` is not suspended at ``:now``."""


def suspend(sql: Sql, suspension: Suspension) -> None:
    """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
    until = None if suspension.until is None else micros(suspension.until)
    sql.execute(_SUSPEND, (suspension.kind, suspension.value, until, suspension.reason))


def prune(sql: Sql, now: int) -> None:
    """Forget those that have been over for long: a clock that is set back a little brings one back."""
    sql.execute(_OVER, (now - _MONTH,))


def unsuspend(sql: Sql, kind: str, value: str, now: int) -> bool:
    """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
    row = sql.execute(_UNSUSPEND, (kind, value)).fetchone()
    # An end that is none has not come, as it has not for the queue.
    return row is not None and (type(row[0]) is not int or row[0] > now)


def suspensions(sql: Sql, now: int) -> list[Suspension]:
    """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
    found = (_suspension(row) for row in sql.execute(_ALL, (now,)))
    return [each for each in found if each is not None]


def _suspension(row: rows.Row) -> Suspension | None:
    """None where it is of no kind, and so suspends nothing; one that says no end has none."""
    kind, value, until, reason = row
    end = rows.instant_or_none(until)
    said = rows.legible(reason)
    try:
        return Suspension(
            kind=kind,
            value=rows.legible(value),
            until=None if end is None else moment(end),
            reason=said if end == until else f"its end cannot be read, and it has none; {said}",
        )
    except ConfigurationError:
        return None


def of_open_queues(sql: Sql, ids: Sequence[str], now: int) -> list[str]:
    """Those of these messages whose queue is not suspended, in their order."""
    shut = _shut(sql, now)
    if not shut:
        return list(ids)
    queues = dict(sql.execute(_QUEUE_OF, (rows.listed(ids),)).fetchall())
    return [name for name in ids if queues[name] not in shut]


def open_queues(sql: Sql, queues: Iterable[str], now: int) -> list[str]:
    """Those of *queues* that are not suspended."""
    shut = _shut(sql, now)
    return [queue for queue in queues if queue not in shut]


def _shut(sql: Sql, now: int) -> set[str]:
    return {rows.legible(value) for (value,) in sql.execute(_QUEUES, (now,))}

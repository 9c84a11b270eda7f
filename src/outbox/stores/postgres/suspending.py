"""What is suspended: rows that every process sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from outbox.protocols import Suspension
from outbox.stores.instants import micros, moment

from . import rows
from .durability import lasting
from .links import transaction
from .naming import Sql

__all__ = ["OPEN", "prune", "suspend", "suspensions", "unsuspend"]

_SUSPEND: Final = """
    INSERT INTO outbox_suspension (kind, value, until, reason)
    VALUES (%(kind)s, %(value)s, %(until)s::bigint, %(reason)s)
    ON CONFLICT (kind, value) DO UPDATE SET until = excluded.until, reason = excluded.reason
"""
_UNSUSPEND: Final = f"""
    DELETE FROM outbox_suspension WHERE kind = %(kind)s AND value = %(value)s
    RETURNING until IS NULL OR until > {rows.NOW}
"""  # noqa: S608 - a condition of our own
_OVER: Final = f"DELETE FROM outbox_suspension WHERE until <= {rows.NOW} - %(month)s::bigint"  # noqa: S608 - as above
_MONTH: Final = 30 * 24 * 3600 * 1_000_000
_ALL: Final = f"""
    SELECT kind, value, until, reason FROM outbox_suspension
    WHERE until IS NULL OR until > {rows.NOW} ORDER BY kind, value
"""  # noqa: S608 - as above

OPEN: Final = f"""
    NOT EXISTS (
        SELECT FROM outbox_suspension AS s
        WHERE s.kind = 'queue' AND s.value = queue AND (s.until IS NULL OR s.until > {rows.NOW})
    )
"""
"""The condition that the queue of the row at hand, its column ``queue``, is not suspended."""


def suspend(sql: Sql, suspension: Suspension) -> None:
    """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
    until = None if suspension.until is None else micros(suspension.until)
    asked = {
        "kind": suspension.kind,
        "value": suspension.value,
        "until": until,
        "reason": suspension.reason,
    }
    with transaction(sql):
        lasting(sql)
        sql.execute(_SUSPEND, asked)


def unsuspend(sql: Sql, kind: str, value: str, now: int | None) -> bool:
    """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
    row = sql.execute(_UNSUSPEND, {"kind": kind, "value": value, "now": now}).fetchone()
    return row is not None and bool(row[0])


def suspensions(sql: Sql, now: int | None) -> Sequence[Suspension]:
    """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
    return [
        Suspension(
            kind=cast("str", kind),  # type: ignore[arg-type]  # it is its own check
            value=value,
            until=None if until is None else moment(until),
            reason=reason,
        )
        for kind, value, until, reason in sql.execute(_ALL, {"now": now})
    ]


def prune(sql: Sql, now: int | None) -> None:
    """Forget those that have been over for long: a clock that is set back a little brings one back."""
    sql.execute(_OVER, {"now": now, "month": _MONTH})

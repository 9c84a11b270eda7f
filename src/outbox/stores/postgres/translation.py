"""From what psycopg raises to what a store raises: the thing, the cause and what to do."""

from __future__ import annotations

from typing import Final

from outbox.errors import StoreError, StoreFull, StoreUnavailable
from outbox.values import printable

from .driver import Connection, Error, errors

__all__ = ["Lost", "is_passing", "translated"]

_SHUTTING_DOWN: Final = "57P0"
_CONNECTION: Final = "08"
_ADVICE: Final = {
    "25006": "it takes no writes: it is a standby, or was made read-only; "
    "name the primary, or all of them with target_session_attrs=read-write",
    "42P01": "its tables are not there: outbox migrate makes them",
    "42501": "its user may not do this: GRANT it what docs/postgres.md says",
    "53300": "it has no connection left: lower max_connections of the stores, or put PgBouncer before it",
    "57014": "it was told to give up: raise statement_timeout",
    "55P03": "another transaction has it locked: raise lock_timeout, or end what holds the lock",
}


class Lost(StoreUnavailable):
    """The connection was lost; whether what was sent last was committed only the server knows."""


def is_passing(error: Error) -> bool:
    """Whether the same may go well at once: two transactions were in each other's way, and this one was undone."""
    return isinstance(error, errors.DeadlockDetected | errors.SerializationFailure)


def translated(error: Error, name: str, connection: Connection | None = None) -> StoreError:
    """The store's error for one of the driver's.

    Args:
        name: Of the database, as it may be shown.
        connection: What it came over; None where there was none yet.
    """
    state = error.sqlstate or ""
    said = printable(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)[:500]
    if connection is None:
        return StoreUnavailable(f"{name} cannot be reached: {said}")
    if connection.closed or state.startswith((_CONNECTION, _SHUTTING_DOWN)):
        return Lost(f"the connection to {name} was lost: {said}")
    if isinstance(error, errors.DiskFull):
        return StoreFull(f"{name}: the disk of the server is full ({said}): make room; deliveries go on")
    advice = _ADVICE.get(state)
    return StoreUnavailable(f"{name}: {advice} ({said})" if advice else f"{name}: {said}")

"""psycopg, as the store uses it; nothing else of it is used anywhere."""

from __future__ import annotations

try:
    from psycopg import errors
except ImportError as error:
    raise ModuleNotFoundError(
        f'PostgresStore needs psycopg 3 and libpq ({error}): pip install "durable-outbox[postgres]"',
        name=error.name,
    ) from error

from .connecting import (
    Connection,
    Cursor,
    Error,
    begin,
    catch_up,
    connect,
    cursor,
    distrust,
    forgets_prepared,
    gave_up,
    is_active,
    is_connection,
    is_idle,
    is_in_transaction,
    is_usable,
    let_go,
    parameters,
    says_utf8,
)
from .origins import interruption, is_foreign, is_from_driver
from .wire import array

__all__ = [
    "Connection",
    "Cursor",
    "Error",
    "array",
    "begin",
    "catch_up",
    "connect",
    "cursor",
    "distrust",
    "errors",
    "forgets_prepared",
    "gave_up",
    "interruption",
    "is_active",
    "is_connection",
    "is_foreign",
    "is_from_driver",
    "is_idle",
    "is_in_transaction",
    "is_usable",
    "let_go",
    "parameters",
    "says_utf8",
]

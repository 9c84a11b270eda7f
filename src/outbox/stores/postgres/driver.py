"""psycopg, as this package uses it: how it connects, what goes over the wire, and what it raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

try:
    import psycopg
    from psycopg import conninfo, errors
    from psycopg.rows import tuple_row
    from psycopg.types.numeric import Int8BinaryDumper
    from psycopg.types.string import BytesBinaryDumper, BytesDumper, StrBinaryDumper, StrDumper
except ImportError as error:
    raise ModuleNotFoundError(
        f'PostgresStore needs psycopg 3 and libpq ({error}): pip install "durable-outbox[postgres]"',
        name=error.name,
    ) from error

__all__ = [
    "Connection",
    "Cursor",
    "Error",
    "catch_up",
    "connect",
    "cursor",
    "errors",
    "is_active",
    "is_connection",
    "is_idle",
    "is_in_transaction",
    "parameters",
]

Connection: TypeAlias = "psycopg.Connection[Any]"
Cursor: TypeAlias = "psycopg.Cursor[tuple[Any, ...]]"
Error = psycopg.Error

_DEFAULTS: Final = {
    "application_name": "outbox",
    "connect_timeout": "10",
    # What was sent and never confirmed: a server that is gone without a word is noticed within a minute.
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "40000",
}
_SAYS: Final = "postgresql://user@host:5432/database, or host=... dbname=... as libpq takes it"


def parameters(dsn: str) -> dict[str, str]:
    """What a connection string says, by libpq's names.

    Raises:
        ValueError: it is none.  The driver's own text would show it, with its password.
    """
    try:
        return {name: str(value) for name, value in conninfo.conninfo_to_dict(dsn).items()}
    except psycopg.Error:
        raise ValueError(f"it is no connection string: write {_SAYS}") from None


def connect(dsn: Mapping[str, str], *, prepare: bool) -> Connection:
    """A connection each of whose statements, or pipelines, is a transaction of its own.

    Args:
        prepare: Whether statements that are often used are prepared on the server.
    """
    connection = psycopg.connect(
        # What relays say has characters that a database of another encoding would not take from its own client.
        **{**_DEFAULTS, **dsn, "client_encoding": "UTF8"},  # type: ignore[arg-type]  # each is one of libpq's parameters
        autocommit=True,
        prepare_threshold=2 if prepare else None,
    )
    _adapt(connection.adapters)
    return connection


def cursor(connection: Connection) -> Cursor:
    """One that gives tuples and takes our values, whatever the caller has set on his connection."""
    made = psycopg.Cursor(connection, row_factory=tuple_row)
    made.format = psycopg.pq.Format.BINARY
    _adapt(made.adapters)
    return made


def _adapt(adapters: Any) -> None:
    # In both formats, for lists may go by the one that the caller has changed.
    adapters.register_dumper(str, StrDumper)
    adapters.register_dumper(bytes, BytesDumper)
    # A number is int8 however small it is: each of its types would make another prepared statement.
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(str, StrBinaryDumper)
    adapters.register_dumper(bytes, BytesBinaryDumper)


def is_connection(thing: object) -> bool:
    return isinstance(thing, psycopg.Connection)


def catch_up(connection: Connection) -> None:
    """Wait for what is on its way in a pipeline of the caller's: only then it is known where its transaction stands."""
    if connection.info.pipeline_status:
        with connection.pipeline():
            pass


def is_idle(connection: Connection) -> bool:
    """Whether it is between two transactions."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def is_active(connection: Connection) -> bool:
    """Whether it waits for the answer to a query, or for the rest of it."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE


def is_in_transaction(connection: Connection) -> bool:
    """Whether a transaction is open on it that can still be used."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS

"""From what psycopg raises to what a store raises: the thing, the cause and what to do."""

from __future__ import annotations

import re
from typing import Final, overload

from outbox.errors import ConfigurationError, StoreError, StoreFull, StoreUnavailable
from outbox.values import printable

from .driver import Connection, Error, errors, gave_up, is_foreign, is_from_driver

__all__ = ["Lost", "is_lost", "is_passing", "is_spoiled", "translated"]

_CONNECTION: Final = "08"
_ENDING: Final = ("FATAL", "PANIC")
_PREPARED: Final = (
    "a pooler has mixed up prepared statements: give it max_prepared_statements (PgBouncer 1.22 or newer), "
    "or say prepare=no"
)
_PROTOCOL: Final = "08P01"
"""What PgBouncer says is of this state, whatever it is."""
_WAITED: Final = ("query_wait_timeout", "server login has been failing")
_WAITING: Final = (
    "PgBouncer had no connection to the server for it, and nothing was done: see whether the server is there, "
    "or raise default_pool_size, or query_wait_timeout"
)
_STARTUP: Final = (
    "PgBouncer takes no such setting from a connection: say it with ALTER ROLE ... SET, "
    "or connect to the server itself (outbox migrate may); ignore_startup_parameters leaves it out"
)
_SILENT: Final = (
    "the server said nothing for {:g} s, and was told to give up, which it did: end what has the tables locked "
    "(pg_stat_activity, pg_blocking_pids), or raise timeout"
)
_CROWDED: Final = "it has no connection left: lower max_connections of the stores, or put PgBouncer before it"
_ADVICE: Final = {
    "26000": _PREPARED,
    "42P05": _PREPARED,
    "25006": "it takes no writes: it is a standby, or was made read-only; "
    "name the primary, or all of them with target_session_attrs=read-write",
    "42P01": "its tables are not there: outbox migrate makes them",
    "42501": "its user may not do this: GRANT it what docs/postgres.md says",
    "53300": _CROWDED,
    "57014": "it was told to give up: raise statement_timeout",
    "55P03": "another transaction has it locked: raise lock_timeout, or end what holds the lock",
}
_AT_THE_DOOR: Final = (
    ("unsupported startup parameter", _STARTUP),
    (r"too many (clients|connections)|connection slots are reserved|no more connections allowed", _CROWDED),
    (
        r"password authentication failed|no password supplied|SASL authentication failed",
        "look at the user and the password (in the URL, ~/.pgpass or PGPASSWORD)",
    ),
    (r'database ".*" does not exist', "look at its name, or make it (createdb)"),
    (r'role ".*" does not exist', "look at the user of the URL, or make it (createuser)"),
    ("no pg_hba.conf entry", "let the server's pg_hba.conf take this user from here, or say sslmode=require"),
    ("definition of service .* not found", "look at the service of the URL, and at pg_service.conf"),
    (
        r"certificate verify failed|root certificate file",
        "sslrootcert names who has signed the server's certificate",
    ),
    ("server does not support SSL", "switch ssl on there, or say sslmode=disable where nobody can listen"),
    ("(?i)name or service not known|failed to resolve|could not translate host", "look at the host's name"),
)
"""What is said before there is a connection, of which the driver gives the words alone."""
_UNUSABLE: Final = re.compile(
    r'invalid (?:"?\w+"? value|integer value|port number)|bad value for |could not match \d+ '
)
"""What libpq says of settings that it can use nowhere."""
_HINT: Final = re.compile(r"Multiple connection attempts|\s")
_PREFIX: Final = re.compile(r"(?:- host: .*?: )?connection (?:failed|is bad): ")


class Lost(StoreUnavailable):
    """The connection was lost; whether what was sent last was committed only the server knows."""


def is_passing(error: Exception) -> bool:
    """Whether the same may go well at once: it was undone, for others were in its way, or had changed the tables."""
    return isinstance(
        error, errors.DeadlockDetected | errors.SerializationFailure | errors.FeatureNotSupported
    )


def is_spoiled(error: Exception) -> bool:
    """Whether what came over this connection may come over it again and again, and over another may not.

    It leads to what is the primary no more; or what was prepared on it is not
    what the server knows, or is of tables that have changed since.
    """
    return isinstance(
        error,
        errors.ReadOnlySqlTransaction
        | errors.InvalidSqlStatementName
        | errors.DuplicatePreparedStatement
        | errors.FeatureNotSupported,
    )


def is_lost(error: BaseException, connection: Connection) -> bool:
    """Whether it leaves open what the server has done: the connection broke, or is about to end.

    psycopg leaves its pipeline with an error of its own where the server's
    comes between two answers, and with whatever Python raises where answers
    come that nobody asked for; the connection need not be closed by then.
    """
    if not isinstance(error, Error):
        return not (isinstance(error, UnicodeError) or is_foreign(error)) and is_from_driver(error)
    if error.sqlstate is None:
        # These two tell of a value that never went, or of one that came whole.
        return connection.closed or not isinstance(error, errors.DataError | errors.ProgrammingError)
    ending = error.diag.severity_nonlocalized in _ENDING
    return connection.closed or ending or error.sqlstate.startswith(_CONNECTION)


def _has_waited(error: Exception) -> bool:
    """Whether it only waited for a connection of a pooler's to the server: nothing of it has come there."""
    said = getattr(error, "diag", None)
    message = (said and said.message_primary) or ""
    return getattr(error, "sqlstate", None) == _PROTOCOL and message.startswith(_WAITED)


def _unreached(error: Exception, name: str) -> StoreUnavailable | ConfigurationError:
    """What is to be said where there is no connection: of several hosts, why each gave none."""
    lines = [_PREFIX.sub("", line) for line in str(error).splitlines() if line and not _HINT.match(line)]
    # Of several the last is said before all of them.
    said = "; ".join(dict.fromkeys(lines[1:] if len(lines) > 1 and lines[0] in lines[1:] else lines))
    said = printable(said or type(error).__name__)[:500]
    if _UNUSABLE.search(said):
        return ConfigurationError(f"the dsn cannot be used: {said}")
    advice = next((f": {advice}" for words, advice in _AT_THE_DOOR if re.search(words, said)), "")
    return StoreUnavailable(f"{name} cannot be reached: {said}{advice}")


@overload
def translated(error: Exception, name: str) -> StoreUnavailable | ConfigurationError: ...


@overload
def translated(error: Exception, name: str, connection: Connection) -> StoreError: ...


def translated(
    error: Exception, name: str, connection: Connection | None = None
) -> StoreError | ConfigurationError:
    """The store's error for one of the driver's; a ConfigurationError where libpq can use what it was told nowhere.

    Args:
        name: Of the database, as it may be shown.
        connection: What it came over; None where there was none yet.
    """
    if connection is None:
        return _unreached(error, name)
    state = getattr(error, "sqlstate", None) or ""
    said = printable(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)[:500]
    if _has_waited(error):
        return StoreUnavailable(f"{name}: {_WAITING} ({said})")
    if is_lost(error, connection):
        return Lost(f"the connection to {name} was lost: {said}")
    if isinstance(error, errors.DiskFull):
        return StoreFull(
            f"{name}: the disk of the server is full ({said}): make room; deliveries go on as soon as they can be written"
        )
    silent = gave_up(connection) if isinstance(error, errors.QueryCanceled) else 0.0
    if silent:
        return StoreUnavailable(f"{name}: {_SILENT.format(silent)} ({said})")
    advice = _ADVICE.get(state)
    return StoreUnavailable(f"{name}: {advice} ({said})" if advice else f"{name}: {said}")

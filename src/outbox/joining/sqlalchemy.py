"""SQLAlchemy's Session and Connection, from 2.0 on: the transaction that they are in, or begin here."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

try:
    from sqlalchemy import exc
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session, scoped_session
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'a Session needs SQLAlchemy: pip install "durable-outbox[sqlalchemy]"', name=error.name
    ) from error

from outbox.errors import ConfigurationError, StoreUnavailable

__all__ = ["finder"]


def finder(given: Any) -> Callable[[], Any]:
    """What finds the driver's connection behind a Session, a Connection, or what a pool gave out.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(given, Session | scoped_session):
        # Its flush is not waited for: the rows that belong to the message need not be written yet.
        return lambda: _found(lambda: _behind(given.connection()))
    if isinstance(given, Connection):
        return lambda: _found(lambda: _behind(given))
    if hasattr(type(given), "driver_connection"):
        return lambda: _found(lambda: _open(given.driver_connection))
    raise ConfigurationError(
        f"within() takes SQLAlchemy's Session or Connection, in whose transaction it is to be, not {type(given).__name__}"
    )


def _behind(connection: Connection) -> Any:
    _begin(connection)
    driver = _open(connection.connection.driver_connection)
    if getattr(driver, "autocommit", None) is True or _commits_each(driver):
        raise ConfigurationError(
            'the isolation level of this connection is "AUTOCOMMIT", so that each statement is committed by itself: '
            "use one that begins a transaction"
        )
    if connection.in_nested_transaction() and _begins_late(driver):
        raise ConfigurationError(
            "a SAVEPOINT is open on a connection to SQLite that begins no transaction before it, so that its end "
            "would commit, whatever becomes of the Session: let SQLAlchemy begin them (docs/within.md shows how)"
        )
    return driver


def _begin(connection: Connection) -> None:
    """What the driver begins by itself SQLAlchemy would not know of, and its commit() would do nothing."""
    if connection.in_transaction():
        return
    connection.begin()


def _open(driver: Any) -> Any:
    if driver is None:
        raise ConfigurationError("the connection was closed, or given back to its pool: submit before that")
    return driver


def _commits_each(driver: Any) -> bool:
    return (
        isinstance(driver, sqlite3.Connection)
        and driver.isolation_level is None
        and not driver.in_transaction
    )


def _begins_late(driver: Any) -> bool:
    """Whether Python's module begins the transaction, and not before the first statement that writes a row."""
    # Python 3.12 and newer: autocommit is False where each statement is within one.
    legacy = getattr(driver, "autocommit", -1) == -1
    return isinstance(driver, sqlite3.Connection) and legacy and driver.isolation_level is not None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as error:
        raise StoreUnavailable(f"SQLAlchemy gives no connection: {error}") from error
    except exc.SQLAlchemyError as error:
        raise ConfigurationError(f"within() cannot use it: {error}") from error


def _found(find: Callable[[], Any]) -> Any:
    with _translated():
        return find()

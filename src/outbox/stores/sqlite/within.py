"""Messages put within a transaction of the caller's, on the caller's own connection.

Nothing here commits, rolls back more than its own statements, or fails on a
message that is known: the caller's transaction goes on as it was.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.lifecycle import PutResult
from outbox.message import Message

from .connection import Database
from .naming import Sql

__all__ = ["Within"]

# A statement that writes nothing, and takes the lock for writing all the same: what is read
# afterwards cannot be overtaken, and Python's implicit transaction has begun.
_LOCK: Final = "UPDATE outbox_meta SET value = value WHERE name = ''"


class Within:
    """See :meth:`outbox.protocols.SupportsTransaction.within`.

    Args:
        put: Stores messages with what executes statements.

    Raises:
        ConfigurationError: the connection is none of sqlite3's, or leads to
            another file.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        put: Callable[[Sql, Sequence[Message]], Sequence[PutResult]],
        database: Database,
    ) -> None:
        if not isinstance(connection, sqlite3.Connection):
            raise ConfigurationError(
                f"within() takes a sqlite3.Connection, not {type(connection).__name__}: pass the driver's own"
            )
        self._connection = connection
        self._put = put
        self._database = database
        with self._translated():
            self._require_same_file()

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; there if and only if the caller's transaction commits.

        Raises:
            ConfigurationError: the connection commits each statement by itself,
                and no transaction was begun.
        """
        self._require_transaction()
        with self._translated(), contextlib.closing(self._connection.cursor()) as cursor:
            # Whatever the caller has his rows made into.
            cursor.row_factory = None
            sql = self._database.names.apply(cursor)
            sql.execute(_LOCK)
            with self._undone_on_error(cursor):
                return self._put(sql, messages)

    @contextlib.contextmanager
    def _undone_on_error(self, cursor: sqlite3.Cursor) -> Iterator[None]:
        cursor.execute("SAVEPOINT outbox")
        try:
            yield
        except BaseException:
            # After some errors (a full disk) SQLite has ended the whole transaction by itself.
            if self._connection.in_transaction:
                cursor.execute("ROLLBACK TO outbox")
                cursor.execute("RELEASE outbox")
            raise
        cursor.execute("RELEASE outbox")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._database.translated(error) from error

    def _require_transaction(self) -> None:
        connection: Any = self._connection
        if connection.in_transaction:
            return
        # Python 3.12 and newer: autocommit is True, False (always within one) or the legacy way (-1).
        autocommit = getattr(connection, "autocommit", -1)
        if autocommit is True or (autocommit == -1 and connection.isolation_level is None):
            raise ConfigurationError(
                "the connection commits each statement by itself: begin a transaction first "
                '(connection.execute("BEGIN IMMEDIATE"))'
            )

    def _require_same_file(self) -> None:
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.row_factory = None
            rows = cursor.execute("SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'")
            name = os.fsdecode(rows.fetchone()[0])
        if not name or not self._database.path.samefile(name):
            raise ConfigurationError(
                f"the connection leads to {name or 'a database in memory'}, and the store is in {self._database.path}: "
                "both must be one file"
            )

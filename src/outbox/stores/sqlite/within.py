"""Messages put within a transaction of the caller's, on the caller's own connection.

Nothing here commits, rolls back more than its own statements, or fails on a
message that is known: the caller's transaction goes on as it was.

*The same file.*  A connection keeps the file that it opened, whatever has
come under that name since; what is written there would be acknowledged, and
read by nobody.  So three things are looked at in each put, while the caller's
transaction has the lock for writing: the name still leads to what the store
has open; the store's identity, and the mark that it drew when it was opened,
are the same through the caller's connection, so that it is no copy of an
earlier day; and the store's own connection is locked out.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.stores.alone import alone_on
from outbox.values import type_name

from . import schema
from .connection import Database
from .naming import Sql
from .translation import translated

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
                f"within() takes a sqlite3.Connection, not {type_name(connection)}: "
                "pass the driver's own, "
                "or SQLAlchemy's or Django's that leads to it"
            )
        self._connection = connection
        self._put = put
        self._database = database
        with self._translated():
            database.require_same_file()
            self._require_same_name()

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; there if and only if the caller's transaction commits.

        Raises:
            ConfigurationError: the connection commits each statement by itself,
                and no transaction was begun; it is closed; or it has another
                file open than the store.
        """
        with alone_on(self._connection), self._translated():
            self._require_transaction()
            with self._cursor() as cursor:
                return self._put_through(cursor, messages)

    def _put_through(self, cursor: sqlite3.Cursor, messages: Sequence[Message]) -> Sequence[PutResult]:
        sql = self._database.names.in_main(cursor)
        sql.execute(_LOCK)
        self._require_same_file(sql)
        with self._undone_on_error(cursor):
            return self._put(sql, messages)

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[sqlite3.Cursor]:
        """One that returns tuples, whatever the caller has his rows made into."""
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.row_factory = None
            yield cursor

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
        except sqlite3.ProgrammingError as error:
            raise ConfigurationError(f"the connection cannot be used here: {error}") from error
        except sqlite3.Error as error:
            raise translated(error, self._database.path, None) from error

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

    def _require_same_name(self) -> None:
        name = self._name()
        if not name or not _leads_to(name, self._database.path):
            raise ConfigurationError(
                f"the connection leads to {name or 'a database in memory'}, and the store is in {self._database.path}: "
                "both must be one file"
            )
        if _is_second_name(name, self._database.path):
            raise ConfigurationError(
                f"the connection has the database open as {name}, another name (a hard link) of {self._database.path}: SQLite "
                f"keeps what was written last beside each name, so open it as {self._database.path}"
            )

    def _name(self) -> str:
        """What the connection was opened by; ``""`` where it is no file."""
        # Before all else: another thread's connection gives none, and is left as it is.
        with self._cursor() as cursor:
            text_factory = self._connection.text_factory
            # A file name need not be text, and only as bytes does it not depend on the encoding of the database.
            self._connection.text_factory = bytes
            try:
                row = cursor.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
            finally:
                self._connection.text_factory = text_factory
        return os.fsdecode(row[0])

    def _require_same_file(self, sql: Sql) -> None:
        """See the module; *sql* has the lock for writing."""
        self._database.require_same_file()
        proven = self._database.read(lambda own: schema.bears(sql, schema.marks(own)) and _locked_out(own))
        if not proven:
            raise ConfigurationError(
                f"the connection has another file open than the one that is now {self._database.path}: that was "
                "replaced since; close the connection, and open it again"
            )


def _leads_to(name: str, path: Path) -> bool:
    try:
        return path.samefile(name)
    except FileNotFoundError:
        return False


def _is_second_name(name: str, path: Path) -> bool:
    """Whether the two are names of one file that are not led to one another by symbolic links."""
    # Where case makes no difference one name is written in several ways, and the file has one all the same.
    try:
        several = path.stat().st_nlink > 1
    except FileNotFoundError:
        return False  # gone since, which each put looks for
    return several and os.path.realpath(name) != os.path.realpath(path)


def _locked_out(own: Sql) -> bool:
    """Whether another connection keeps this one from writing."""
    try:
        own.execute(_LOCK)
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", "")
        if not name.startswith("SQLITE_BUSY"):
            raise
        # SQLITE_BUSY_SNAPSHOT is another matter: somebody has committed who did not have to wait for the caller.
        return name == "SQLITE_BUSY"
    return False

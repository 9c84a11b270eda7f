"""Messages put within a transaction of the caller's, on the caller's own connection.

Nothing here commits, rolls back more than its own statements, or fails on a
message that is known: the caller's transaction goes on as it was.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from outbox.errors import ConfigurationError, StoreError, StoreUnavailable
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.stores.alone import alone_on
from outbox.values import type_name

from .driver import (
    Connection,
    Error,
    catch_up,
    errors,
    forgets_prepared,
    interruption,
    is_active,
    is_connection,
    is_idle,
    is_in_transaction,
    let_go,
    says_utf8,
)
from .links import Links
from .naming import Names, Sql
from .translation import Lost, translated

__all__ = ["Home", "Within"]

# A copy has its identity from the original, be it of the database (CREATE DATABASE ... TEMPLATE) or of the whole server.
_PLACE: Final = """
    SELECT value, (SELECT oid::int8 FROM pg_database WHERE datname = current_database()),
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8
    FROM outbox_meta WHERE name = 'store'
"""
_PRIMARY: Final = "SELECT NOT pg_is_in_recovery()"


class Home:
    """Which store, database and running server the store's own connections lead to."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._found = links.use(_place)

    def is_at(self, found: tuple[Any, ...] | None) -> bool:
        """Whether the same was found over another connection."""
        if found != self._found:
            # The server was started again, or another has taken its place.
            self._found = self._links.use(_place)
        return found is not None and found == self._found


def _place(sql: Sql) -> tuple[Any, ...] | None:
    return sql.execute(_PLACE).fetchone()


class Within:
    """See :meth:`outbox.protocols.SupportsTransaction.within`.

    Args:
        put: Stores messages with what executes statements.
        home: Where the store is.

    Raises:
        ConfigurationError: the connection is none of psycopg's.
    """

    def __init__(
        self,
        connection: Connection,
        put: Callable[[Sql, Sequence[Message]], Sequence[PutResult]],
        names: Names,
        *,
        name: str,
        home: Home,
    ) -> None:
        if not is_connection(connection):
            raise ConfigurationError(
                f"within() takes a psycopg.Connection, not {type_name(connection)}: pass the driver's own"
            )
        self._connection = connection
        self._put = put
        self._names = names
        self._name = name
        self._home = home
        self._proven = False

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; there if and only if the caller's transaction commits.

        Raises:
            ConfigurationError: the connection commits each statement by itself,
                and no transaction was begun; or it leads to another database than the store;
                or a query is under way on it, or its client_encoding is not UTF8.
            StoreUnavailable: as of every store; or the connection is closed, or the transaction
                cannot go on: roll it back, and begin it anew.
            psycopg.Error: a statement of the caller's has failed, in a pipeline of his.
        """
        with alone_on(self._connection):
            self._require_transaction()
            with self._translated():
                return self._put_through(messages)

    def _put_through(self, messages: Sequence[Message]) -> Sequence[PutResult]:
        prepare = False if forgets_prepared(self._connection) else None
        sql = Sql(self._connection, self._names, prepare=prepare)
        with self._undone_on_error(sql):
            if not self._proven:
                self._require_same_store(sql)
            return self._put(sql, messages)

    def _require_transaction(self) -> None:
        if self._connection.closed:
            raise StoreUnavailable(
                "the connection is closed, and what was in its transaction is undone: begin it anew, over another"
            )
        if not says_utf8(self._connection):
            raise ConfigurationError(
                f"the connection says its text in {self._connection.info.encoding}, in which not every message can be said: "
                "set its client_encoding to UTF8"
            )
        # What it raises is the caller's own: it tells of a statement of his.
        catch_up(self._connection)
        if is_in_transaction(self._connection) or (
            is_idle(self._connection) and not self._connection.autocommit
        ):
            return
        if is_idle(self._connection):
            raise ConfigurationError(
                "the connection commits each statement by itself: put within `with connection.transaction():`"
            )
        if is_active(self._connection):
            raise ConfigurationError(
                "a query is under way on the connection (a stream or a COPY that is not at its end, or another thread's): "
                "put when it is over"
            )
        raise ConfigurationError("the connection's transaction has failed: roll it back, and begin it anew")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        before = sys.exception()
        try:
            yield
        except Error as error:
            if interrupted := interruption(error, before):
                raise interrupted from None
            raise self._said(error) from error

    def _said(self, error: Error) -> StoreError:
        failure = translated(error, self._name, self._connection)
        if isinstance(failure, Lost):
            return StoreUnavailable(f"{failure}; what was in your transaction is undone: begin it anew")
        if isinstance(error, errors.SerializationFailure | errors.DeadlockDetected):
            return StoreUnavailable(f"{failure}: roll your transaction back, and begin it anew")
        if isinstance(error, errors.ReadOnlySqlTransaction) and self._may_be_written():
            return StoreUnavailable(
                f"{self._name}: your transaction is READ ONLY: submit within one that may write"
            )
        return failure

    def _may_be_written(self) -> bool:
        """Whether it is the transaction that is read-only, and not the server."""
        with contextlib.suppress(Error):
            return Sql(self._connection, self._names).execute(_PRIMARY).fetchone() == (True,)
        return False

    @contextlib.contextmanager
    def _undone_on_error(self, sql: Sql) -> Iterator[None]:
        try:
            sql.execute("SAVEPOINT within_outbox")
            yield
            sql.execute("RELEASE SAVEPOINT within_outbox")
        except BaseException:
            if not self._connection.closed:
                self._undo(sql)
            raise

    def _undo(self, sql: Sql) -> None:
        try:
            # Whatever ended it came in the midst of a statement, be it a signal handler's.
            let_go(self._connection)
            # Until then a pipeline in which a statement failed takes no other, and says nothing of it.
            with contextlib.suppress(Error):
                catch_up(self._connection)
            sql.execute("ROLLBACK TO SAVEPOINT within_outbox")
            sql.execute("RELEASE SAVEPOINT within_outbox")
        except BaseException as error:
            # Nobody may commit the half of it.
            self._connection.close()
            if not isinstance(error, Error):
                raise

    def _require_same_store(self, sql: Sql) -> None:
        try:
            found = _place(sql)
        except errors.UndefinedTable as error:
            raise ConfigurationError(
                f"the connection leads to another database than the store, which is in {self._name}: there is no outbox in "
                f"schema {self._names.schema}; connect it to that one, or, where its tables were removed, outbox migrate "
                "makes them"
            ) from error
        if not self._home.is_at(found):
            raise ConfigurationError(
                f"the connection leads to another database than the store, which is in {self._name}, "
                f"schema {self._names.schema}: both must be one, and a copy is another"
            )
        self._proven = True

"""psycopg, as this package uses it: how it connects, how long it waits, and where a connection stands."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Generator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import capabilities, conninfo, generators
from psycopg.rows import tuple_row

from outbox.clock import SystemClock

from .origins import is_foreign
from .wire import adapt

__all__ = [
    "Connection",
    "Cursor",
    "Error",
    "begin",
    "catch_up",
    "connect",
    "cursor",
    "distrust",
    "forgets_prepared",
    "gave_up",
    "is_active",
    "is_connection",
    "is_idle",
    "is_in_transaction",
    "is_usable",
    "let_go",
    "parameters",
    "says_utf8",
]

Connection: TypeAlias = "psycopg.Connection[Any]"
Cursor: TypeAlias = "psycopg.Cursor[tuple[Any, ...]]"
Error = psycopg.Error

T = TypeVar("T")

_DEFAULTS: Final = {
    "application_name": "outbox",
    "connect_timeout": "10",
    # What was sent and never confirmed: a server that is gone without a word is noticed within a minute.
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "40000",
}
_LETS_GO: Final = 5.0
_GRACE: Final = 10.0
"""Seconds, at most, that a server has for giving up."""
_SAYS: Final = "postgresql://user@host:5432/database, or host=... dbname=... as libpq takes it"


def parameters(dsn: str, settings: Collection[str] = ()) -> dict[str, str]:
    """What a connection string says, by libpq's names.

    Args:
        settings: Of the store, which somebody may have written among them.

    Raises:
        ValueError: it is none.  The driver's own text would show it, with its password.
    """
    try:
        return {name: str(value) for name, value in conninfo.conninfo_to_dict(dsn).items()}
    except psycopg.Error as error:
        for name in settings:
            if f'"{name}"' in str(error):
                raise ValueError(
                    f"{name}= is no word of libpq's, but a setting of the store: pass it as an argument, "
                    f"PostgresStore(dsn, {name}=...); only the URL that the outbox command is given says it behind the ?"
                ) from None
        raise ValueError(f"it is no connection string: write {_SAYS}") from None


class Own(psycopg.Connection[Any]):
    """One of this package's: nobody else sets anything on it, and it waits for no server for ever.

    A table that somebody has locked, a server whose disk hangs or that was
    stopped: the kernel goes on acknowledging what is sent, so no timeout of
    TCP's ends the wait.  Who has heard nothing for long tells the server to
    give up, and does not trust it where it answers all the same: what waits for
    a synchronous standby is then committed, and on that standby not.

    Attributes:
        longest: The seconds that the server may say nothing over a statement; None is for ever.
        gave_up: Whether it was told to give up since somebody last set this to False.
        distrusted: Whether psycopg may take something for prepared on it that is not.
    """

    longest: float | None = None
    gave_up: bool = False
    distrusted: bool = False

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """See ``psycopg.Connection.wait``, which everything goes through that waits for an answer."""
        heard = gen if self.longest is None else self._heard(gen, self.longest)
        try:
            return super().wait(heard, *args, **options)
        except BaseException as error:
            if is_foreign(error):
                # Whoever is interrupted waits for nothing more, and neither does the server for him.
                if is_active(self):
                    self._tell_to_give_up(_LETS_GO)
                self.pgconn.finish()
                # Left to the garbage collector it would try to go on, and say on stderr that it cannot.
                with contextlib.suppress(Exception):
                    gen.close()
            raise

    def _heard(self, gen: Generator[Any, Any, T], longest: float) -> Generator[Any, Any, T]:
        """The same, with an end: whoever waits sends it something falsy every now and then while nothing comes."""
        clock = SystemClock()
        until, told = clock.monotonic() + longest, False
        ready: Any = None
        while True:
            try:
                wants = gen.send(ready)
            except StopIteration as end:
                if told:
                    self._end(longest)
                return end.value  # type: ignore[no-any-return]  # what StopIteration carries has no type
            ready = yield wants
            if ready and not told:
                until = clock.monotonic() + longest
            elif clock.monotonic() >= until:
                if told:
                    self._end(longest)
                grace = min(_GRACE, longest)
                self._tell_to_give_up(grace)
                until, told = clock.monotonic() + grace, True

    def _tell_to_give_up(self, patience: float) -> None:
        self.gave_up = True
        # An older libpq asks without an end of its own.
        if capabilities.has_cancel_safe():
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=patience)

    def _end(self, longest: float) -> None:
        self.pgconn.finish()
        raise psycopg.OperationalError(
            f"the server said nothing for {longest:g} s, over a connection that stands"
        )


def _is_news(record: logging.LogRecord) -> bool:
    """Whether it tells of something that is not raised, too: of a pipeline of ours that broke all is."""
    told = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not isinstance(getattr(told, "_conn", None), Own)


# Where a pipeline breaks, psycopg says so in its log, with the user's name, and on stderr where no log is set up.
logging.getLogger("psycopg").addFilter(_is_news)


def connect(dsn: Mapping[str, str], *, prepare: bool, hears: bool = False) -> Connection:
    """A connection each of whose statements, or pipelines, is a transaction of its own.

    Args:
        prepare: Whether statements that are often used are prepared on the server.
        hears: Whether somebody asks it for notifications.
    """
    connection = Own.connect(
        # What relays say has characters that a database of another encoding would not take from its own client.
        **{**_DEFAULTS, **dsn, "client_encoding": "UTF8"},  # type: ignore[arg-type]  # each is one of libpq's parameters
        autocommit=True,
        prepare_threshold=2 if prepare else None,
    )
    adapt(connection.adapters)
    if not hears:
        # In a session that a pooler hands on somebody else may have listened, and psycopg keeps all that nobody asks for.
        connection.add_notify_handler(_forget)
    return connection


def _forget(_: psycopg.Notify) -> None:
    pass


def cursor(connection: Connection) -> Cursor:
    """One that gives tuples, and takes and gives our values, whatever the caller has set on his connection."""
    made = psycopg.Cursor(connection, row_factory=tuple_row)
    made.format = psycopg.pq.Format.BINARY
    if not isinstance(connection, Own):
        adapt(made.adapters)
    return made


def is_connection(thing: object) -> bool:
    return isinstance(thing, psycopg.Connection)


def _bounded(gen: Generator[Any, Any, object], seconds: float) -> Generator[Any, Any, None]:
    """The same for so many seconds at most."""
    clock = SystemClock()
    until, ready = clock.monotonic() + seconds, None
    while ready or clock.monotonic() < until:
        try:
            wants = gen.send(ready)
        except StopIteration:
            return
        ready = yield wants


def let_go(connection: Connection) -> None:
    """Leave what is under way on somebody's connection, so that it can be asked something else; close it where it cannot be left."""
    if not is_active(connection):
        return
    if not connection.info.pipeline_status and capabilities.has_cancel_safe():
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=_LETS_GO)
            connection.wait(_bounded(generators.execute(connection.pgconn), _LETS_GO))
    if is_active(connection):
        connection.close()


def catch_up(connection: Connection) -> None:
    """Wait for what is on its way in a pipeline of the caller's: only then it is known where its transaction stands."""
    if connection.info.pipeline_status:
        with connection.pipeline():
            pass


def gave_up(connection: Connection) -> float:
    """For how many seconds nothing had come when the server was told to give up; 0 where it was not since :func:`begin`."""
    return connection.longest or 0.0 if isinstance(connection, Own) and connection.gave_up else 0.0


def begin(connection: Connection, longest: float | None) -> None:
    """Somebody new uses it, for whom the server may say nothing for *longest* seconds over a statement."""
    if isinstance(connection, Own):
        connection.longest, connection.gave_up = longest, False


def forgets_prepared(connection: Connection) -> bool:
    """Whether what is prepared now may be gone when it is used.

    Where a pipeline has undone something, psycopg has all deallocated behind the
    statement that comes next, and where it prepares at once that one with it.
    """
    return connection.prepare_threshold == 0 and bool(connection.info.pipeline_status)


def distrust(connection: Connection) -> None:
    """Prepare nothing more on it, and use nothing that was, for a pipeline on it may have failed; nobody uses it after this one.

    What was to be prepared behind what failed psycopg takes for prepared where
    it had counted the statement before.
    """
    if isinstance(connection, Own) and connection.prepare_threshold is not None:
        connection.prepare_threshold, connection.distrusted = None, True


def is_idle(connection: Connection) -> bool:
    """Whether it is between two transactions."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def says_utf8(connection: Connection) -> bool:
    """Whether bytes are UTF-8 text to the server, and text to psycopg: of what SQL_ASCII says it makes none."""
    return connection.info.encoding == "utf-8"


def is_usable(connection: Connection) -> bool:
    """Whether it is between two transactions, in no pipeline that could not be left, and not distrusted."""
    if isinstance(connection, Own) and connection.distrusted:
        return False
    return not connection.closed and not connection.info.pipeline_status and is_idle(connection)


def is_active(connection: Connection) -> bool:
    """Whether it waits for the answer to a query, or for the rest of it."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE


def is_in_transaction(connection: Connection) -> bool:
    """Whether a transaction is open on it that can still be used."""
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS

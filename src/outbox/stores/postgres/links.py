"""The connections of a process: the one that was used last is used next, and none is shared over a fork.

A connection is opened by the thread that needs it, so that whoever cannot be
served is told why, and at once.  No lock is held while one is used; a signal
handler that interrupts a verb has a connection of its own.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import select
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.stores.forking import Hooks, watch_forks
from outbox.waiting import Waiting

from .driver import (
    Connection,
    Error,
    begin,
    connect,
    distrust,
    interruption,
    is_foreign,
    is_idle,
    is_usable,
    parameters,
)
from .naming import Names, Sql
from .translation import Lost, is_lost, is_passing, is_spoiled, translated

__all__ = ["SETTINGS", "Links", "linked", "transaction"]

T = TypeVar("T")

_Held: TypeAlias = "list[Connection | None]"
"""A place, with its connection if it has one; empty before it is taken, and when it was given back."""
_TRIES: Final = 5
_SLOWLY: Final = 10
_TOUCH: Final = "SELECT FROM outbox_message LIMIT 0"
_NOWHERE: Final = object()
SETTINGS: Final = frozenset(
    {
        *("remember", "remember_at_most", "keep_delivered", "keep_content", "discard_after"),
        *("max_messages", "max_bytes", "poll", "schema", "max_connections", "patience", "timeout"),
        *("notify", "listen", "prepare"),
    }
)
"""What the command's URL says of the store itself, and a program as arguments of it; libpq knows none of them."""
_PORTS: Final = re.compile(r"[\d,]*")
# One that begins with it is a socket that is no file.
_NO_PLACE: Final = re.compile(r"[^,]@")


class Links:
    """See the module.

    Args:
        dsn: libpq's parameters.
        name: Of the database, as it may be shown.
        most: How many connections are open at once.
        patience: How many seconds a verb waits for one of them.
        longest: For how many seconds the server may say nothing over a statement; None is for ever.
    """

    def __init__(
        self,
        dsn: Mapping[str, str],
        names: Names,
        *,
        name: str,
        most: int,
        patience: float,
        longest: float | None,
        prepare: bool,
    ) -> None:
        self._dsn = dict(dsn)
        self._names = names
        self.name = name
        self._most = most
        self._patience = patience
        self._longest = longest
        self._prepare = prepare
        self._closed = False
        self._abandoned: list[object] = []
        self._begin()
        watch_forks(self, _FORKS)

    def _begin(self) -> None:
        """What belongs to one process: its places, those with a connection on the right."""
        self._places: deque[Connection | None] = deque([None] * self._most)
        self._open: set[Connection] = set()
        self._waiting = Waiting()
        closing = weakref.finalize(self, _close_all, self._open)
        closing.atexit = False
        self._closing = closing

    def use(self, act: Callable[[Sql], T], *, slowly: bool = False) -> T:
        """What *act* returns for a connection; it is called again where another transaction was in its way.

        Args:
            slowly: It may have to read whole tables, and has ten times as long
                where nobody has them locked.

        Raises:
            StoreError: the driver's error, translated; what a signal handler raises goes on as it is.
        """
        before, answer = sys.exception(), list[T]()

        def ask(held: _Held, *, again: bool) -> None:
            sql = Sql(self._connected(held), self._names)
            try:
                begin(sql.connection, self._longest)
                if slowly and self._longest is not None:
                    sql.execute(_TOUCH)
                    begin(sql.connection, self._longest * _SLOWLY)
                answer.append(act(sql))
            except Exception as error:
                if interrupted := interruption(error, before):
                    raise interrupted from None
                if not (isinstance(error, Error) or is_lost(error, sql.connection)):
                    raise
                failure = self._failed(error, sql.connection)
                if isinstance(failure, Lost) or not (is_passing(error) and again):
                    raise failure from error

        for left in reversed(range(_TRIES)):
            self._holding(functools.partial(ask, again=left > 0))
            if answer:
                break
        return answer[0]

    def _failed(self, error: Exception, connection: Connection) -> Exception:
        failure = translated(error, self.name, connection)
        distrust(connection)
        if is_spoiled(error) or isinstance(failure, Lost):
            self._drop(connection)
        if connection.closed:
            # Whatever ended this one may have ended those that wait: each of them would cost a verb.
            self._drop_idle()
        return failure

    def connect(self, *, hears: bool = False) -> Connection:
        """One that is nobody else's, and keeps for its owner what is notified where he *hears*; whoever asks closes it."""
        self.require_open()
        try:
            connection = connect(self._dsn, prepare=self._prepare, hears=hears)
        except Error as error:
            raise translated(error, self.name) from error
        begin(connection, self._longest)
        return connection

    def require_open(self) -> None:
        """Raise StoreUnavailable where it was closed."""
        if self._closed:
            raise StoreUnavailable(f"the store in {self.name} was closed: make a new PostgresStore")

    # -- places

    def _holding(self, act: Callable[[_Held], None]) -> None:
        """Have *act* take a place, if it wants one, which is given back whatever a signal handler interrupts."""
        held: _Held = []
        try:
            act(held)
        finally:
            try:
                self._give_back(held)
            except BaseException:
                # A place that is not given back is gone for ever; what was left in the midst is worth less.
                self._give_back(held, spoiled=True)
                raise

    def _connected(self, held: _Held) -> Connection:
        """A connection that can be used, in a place that nobody had."""
        self._take(held)
        connection = held[0]
        if connection is not None:
            if _alive(connection):
                return connection
            self._drop(connection)
            held[0] = None
        connection = held[0] = self.connect()
        self._open.add(connection)
        return connection

    def _take(self, held: _Held) -> None:
        while True:
            try:
                held.extend(_last(self._places))
            except IndexError:
                if not self._waiting.wait_for(lambda: bool(self._places), self._patience):
                    raise StoreUnavailable(
                        f"all {self._most} connections to {self.name} have been in use for {self._patience:g} s: "
                        "raise max_connections, or ask with fewer threads"
                    ) from None
            else:
                return

    def _give_back(self, held: _Held, *, spoiled: bool = False) -> None:
        if held:
            connection = held[0]
            if connection is not None and (spoiled or self._closed or not self._is_usable(connection)):
                self._drop(connection)
                held[0] = None
            if held[0] is None:
                self._places.extendleft(_last(held))
            else:
                self._places.extend(_last(held))
        self._waiting.wake()

    def _is_usable(self, connection: Connection) -> bool:
        """Whether it is, once what was left open on it is undone."""
        try:
            if not connection.closed and not is_idle(connection):
                connection.rollback()
            return is_usable(connection)
        except Exception as error:
            if is_foreign(error):
                raise
            return False

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(Error):
            connection.close()

    def _drop_idle(self) -> None:
        for _ in range(len(self._places)):
            self._holding(self._empty)

    def _empty(self, held: _Held) -> None:
        with contextlib.suppress(IndexError):
            held.extend(_last(self._places))
        if held and held[0] is not None:
            self._drop(held[0])
            held[0] = None

    def close(self) -> None:
        """Close what nobody uses, and the others when they are given back."""
        self._closed = True
        self._drop_idle()

    # -- forks

    def _after_in_child(self) -> None:
        # Not even closed: what is said on them would be said in the parent's conversation.
        self._closing.detach()
        self._abandoned.append((self._open, self._places))
        self._begin()


_FORKS: Final[Hooks[Links]] = Hooks(
    before=lambda _: None,
    in_parent=lambda _: None,
    in_child=Links._after_in_child,  # noqa: SLF001 - its own
)


def _close_all(connections: set[Connection]) -> None:
    for connection in list(connections):
        with contextlib.suppress(Error):
            connection.close()


def _last(places: deque[Connection | None] | _Held) -> Iterator[Connection | None]:
    """The last of them, which has gone when the caller's ``extend`` has it.

    One step, between whose halves no signal handler comes: what ``pop`` returns
    to Python code is nowhere for a moment.
    """
    return itertools.islice(iter(places.pop, _NOWHERE), 1)


def _alive(connection: Connection) -> bool:
    """Whether it can be used, as far as is known here: of one that nobody asks anything the server says only its end."""
    if connection.closed:
        return False
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)
    except (Error, OSError, ValueError):
        return False


@contextlib.contextmanager
def transaction(sql: Sql) -> Iterator[None]:
    """The statements of the block in one transaction, undone where it raises.

    It begins with the first of them, and commits in one message with those
    whose answers nobody has waited for.
    """
    with sql.connection.pipeline():
        sql.execute("BEGIN")
        try:
            yield
        except BaseException:
            # What ended the block is what there is to tell: a connection that is not rolled back is closed.
            with contextlib.suppress(Error):
                sql.execute("ROLLBACK")
            raise
        sql.execute("COMMIT")


def linked(
    dsn: str,
    names: Names,
    *,
    most: int = 1,
    patience: float = 30.0,
    longest: float | None = None,
    prepare: bool = False,
) -> Links:
    """The connections to the database of *dsn*; none is opened yet.

    Raises:
        ConfigurationError: it is none that libpq understands.
    """
    said = _said(dsn)
    return Links(
        said, names, name=_shown(said), most=most, patience=patience, longest=longest, prepare=prepare
    )


def _said(dsn: str) -> dict[str, str]:
    if not isinstance(dsn, str) or not dsn:
        raise ConfigurationError(
            "PostgresStore keeps its messages in a database: say which, such as postgresql://user@host/database"
        )
    try:
        said = parameters(dsn, SETTINGS)
    except ValueError as error:
        raise ConfigurationError(f"the dsn cannot be used: {error}") from None
    if any("=" in said.get(name, "") and " " in said.get(name, "") for name in ("host", "dbname")):
        raise ConfigurationError(
            "the dsn cannot be used: its host or database holds other words of it: quote a value as 'a b', and end each quote"
        )
    # Of a password with a / in it libpq makes a host, a port and a database, and each of them would be shown.
    places = (said.get(name, "") for name in ("host", "hostaddr", "service"))
    split = not _PORTS.fullmatch(said.get("port", "")) or any(map(_NO_PLACE.search, places))
    if split or ("@" in (name := said.get("dbname", "")) and ("://" in dsn or ":" in name)):
        raise ConfigurationError(
            "the dsn cannot be used: its host, port, service or database is none; in a URL write a / or @ of the password as "
            "%2F or %40, and otherwise the password as password='...'"
        )
    return said


def _shown(dsn: dict[str, str]) -> str:
    """The database as it may be shown: of who comes and with what password not a word."""
    host = dsn.get("host") or dsn.get("hostaddr") or dsn.get("service") or "localhost"
    port = f":{dsn['port']}" if dsn.get("port") else ""
    return f"postgresql://{host}{port}/{dsn.get('dbname', '')}"

"""The connections of a process: opened, used by one at a time, and closed, also over a fork.

One connection writes for all threads; a thread that reads has one of its own,
closed when the thread ends.  Locks are reentrant, for a signal handler may
look at the store in the middle of what its thread was doing: then it has a
connection to itself.

*Forks.*  SQLite's locks belong to a process, and what it remembers of them
survives ``fork`` in the child, where it is no longer true: a child that opens
its own connection while its parent has one open takes no lock at all, and
what it commits can be lost when the parent closes.  So every connection is
closed before a fork, and parent and child open new ones.  A connection of
the program's own, which the child inherits open, does the same harm: a child
that has one is refused.
"""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from outbox.errors import StoreUnavailable

from . import files
from .naming import Names, Sql
from .opening import connect
from .translation import translated

__all__ = ["Commit", "Link", "Links"]

T = TypeVar("T")

_FORK_PATIENCE: Final = 5.0
_TORN: Final = (
    "this process was forked in the middle of a transaction of its parent, and cannot use the file safely: "
    "fork earlier, or start it anew"
)
_INHERITED: Final = (
    "this process was forked while its parent had a connection of its own open to the file, and SQLite's locks do "
    "not hold in here: open such connections after the fork, or close them before it"
)
_LOST_WAL: Final = "its -wal was deleted or replaced while it was in use: stop all programs that use it, and start them again"


class Commit:
    """Whether a transaction was committed, as far as anybody can say who was interrupted in it."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False


class Link:
    """A connection.  Its lock is held while it is used, so that others may close it.

    Attributes:
        busy: Whether it is in use, by the thread that has the lock.
        commit: What its latest transaction came to.
        wal: Which file its WAL was when it first wrote.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_full",
        "busy",
        "commit",
        "connection",
        "lock",
        "number",
        "sql",
        "wal",
    )

    def __init__(self, connection: sqlite3.Connection, number: int, sql: Sql) -> None:
        self.connection = connection
        self.sql = sql
        self.number = number
        self.busy = False
        self.commit = Commit()
        self.wal: files.Identity | None = None
        self._full = True
        self.lock = threading.RLock()
        self._closing = weakref.finalize(self, connection.close)
        # At exit a daemon thread may still be using it.
        self._closing.atexit = False

    @property
    def closed(self) -> bool:
        return not self._closing.alive

    def close(self) -> None:
        self._closing()

    def sync(self, full: bool) -> None:
        """Let the next commit be on the disk when it returns, or only in the order of commits.

        What is committed without is lost at a power failure, unless a later
        commit with it came through.
        """
        if full is not self._full:
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full = full

    def undo(self) -> None:
        """Roll back what is open; a connection that cannot is closed, which does it too."""
        if self.closed or not self.connection.in_transaction:
            return
        self.commit.done = False
        try:
            self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()


class Links:
    """See the module.

    Args:
        identity: Of the file that was opened first: no other is ever opened.
    """

    def __init__(
        self, path: Path, patience: dt.timedelta, names: Names, identity: files.Identity | None
    ) -> None:
        self._path = path
        self._wal = f"{files.behind(path)}-wal"
        self._patience = patience
        self._names = names
        self._identity = identity
        self._closed = False
        self._numbers = itertools.count(1)
        self._held_for_fork: list[Any] = []
        self._abandoned: list[object] = []
        self._torn = False
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process."""
        self.opening = threading.RLock()
        self._threads = threading.local()
        self._open: weakref.WeakSet[Link] = weakref.WeakSet()
        self._writer: Link | None = None
        self._unusable = ""

    def __iter__(self) -> Iterator[Link]:
        """Those that are open."""
        return iter([link for link in list(self._open) if not link.closed])

    # -- which

    def reads(self) -> Link:
        """This thread's own."""
        link: Link | None = getattr(self._threads, "link", None)
        if link is None or link.closed:
            link = self._threads.link = self._opened()
        return link

    def writes(self) -> Link:
        """The one for all threads; whoever has the lock of the writers uses it."""
        if self._writer is None or self._writer.closed:
            self._writer = self._opened()
        return self._writer

    def use(self, which: Callable[[], Link], act: Callable[[Link], T]) -> T:
        """What *act* returns for the connection that *which* finds; after an error of SQLite the next use opens a new one.

        It is handed in, and not out by a context manager: one that is
        interrupted on its way out would keep the lock for as long as anybody
        keeps the exception.
        """
        while True:
            link = which()
            with link.lock:
                if link.busy:
                    # This thread's, in the middle of something that a signal handler interrupted.
                    return self.use(self._opened, act)
                if link.closed:
                    # By close() or before a fork, while this thread waited for the lock.
                    continue
                try:
                    link.busy = True
                    return act(link)
                except BaseException as error:
                    self._failed(link, error)
                    raise
                finally:
                    link.busy = False

    def _failed(self, link: Link, error: BaseException) -> None:
        """Undo what was open.

        Raises:
            StoreError: *error* is SQLite's.
        """
        # A cursor in one of its frames would keep the transaction, and so the lock.
        traceback.clear_frames(error.__traceback__)
        link.undo()
        if isinstance(error, sqlite3.Error):
            link.close()
            raise translated(error, self._path, self._patience) from error

    # -- opening and closing

    def _opened(self) -> Link:
        with self.opening:
            self._require_usable()
            self.require_same_file()
            try:
                connection = connect(self._path, self._patience)
            except sqlite3.Error as error:
                raise translated(error, self._path, self._patience) from error
            # From here on the waiting is ours.
            connection.execute("PRAGMA busy_timeout = 0")
            link = Link(connection, next(self._numbers), self._names.apply(connection))
            self._open.add(link)
            return link

    def _require_usable(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} was closed: make a new SQLiteStore")
        if self._unusable == _INHERITED and not files.is_open_here(self._identity):
            # Closed since: nothing of the parent's is left.
            self._unusable = ""
        if self._unusable:
            raise StoreUnavailable(f"{self._path}: {self._unusable}")

    def require_same_file(self) -> None:
        """Raise StoreUnavailable where the path no longer leads to the file that was opened.

        What is written to a deleted file is gone when the last program closes it.
        """
        found = files.identity(self._path)
        if found != self._identity:
            event = "deleted" if found is None else "replaced by another file"
            raise StoreUnavailable(
                f"{self._path} was {event} while it was in use: stop all programs that use it, put the right "
                "file in its place, and start them again"
            )

    def require_same_wal(self, link: Link) -> None:
        """Raise StoreUnavailable where the file that *link* commits to is no longer the database's WAL.

        What is committed to a deleted one is seen by nobody, and gone with
        the last connection.
        """
        found = files.identity(self._wal)
        if link.wal is None:
            link.wal = found
        elif found != link.wal:
            self._unusable = _LOST_WAL
            self._require_usable()

    def close(self) -> None:
        """Close every connection for good, each when what it is doing is done."""
        self._closed = True
        with self.opening:
            links = list(self)
        for link in links:
            with link.lock:
                link.close()

    # -- forks

    def before_fork(self, writers: Any) -> None:
        """Close them all; *writers* is the lock of those who write.  May be called again where it was interrupted."""
        # Until all is done: whoever is interrupted here forks all the same.
        self._torn = True
        # The order in which every other user takes them.
        held = [self._hold(lock) for lock in (writers, self.opening)]
        for link in list(self._open):
            # One that is busy all the same is this very thread's, which forks in the middle of a transaction.
            held.append(self._hold(link.lock) and not link.busy)
            if held[-1]:
                link.close()
        self._torn = not all(held)

    def _hold(self, lock: Any) -> bool:
        held: bool = lock.acquire(timeout=_FORK_PATIENCE)
        if held:
            self._held_for_fork.append(lock)
        return held

    def after_in_parent(self) -> None:
        self._torn = False
        while self._held_for_fork:
            self._held_for_fork.pop().release()

    def after_in_child(self) -> None:
        torn = self._torn
        if torn:
            # Not even closed, where they could not be before the fork: they are the parent's.
            self._abandoned.append((self._threads, self._writer))
        self._held_for_fork.clear()
        self._begin()
        if torn:
            self._unusable = _TORN
        elif files.is_open_here(self._identity):
            self._unusable = _INHERITED

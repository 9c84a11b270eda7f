"""The connections of a process: opened, used by one at a time, and closed, also over a fork.

One connection writes for all threads; a thread that reads has one of its own,
closed when the thread ends.  Locks are reentrant, for a signal handler may
look at the store in the middle of what its thread was doing: then it has a
connection to itself.

*Forks.*  SQLite's locks belong to a process, and what it remembers of them
survives ``fork`` in the child, where it is no longer true: a child that opens
its own connection while its parent has one open takes no lock at all, and
what it commits can be lost when the parent closes.  So every connection is
closed before a fork, and parent and child open new ones.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import sqlite3
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from outbox.errors import StoreError, StoreUnavailable

from . import files
from .naming import Names, Sql
from .opening import connect
from .translation import translated

__all__ = ["Link", "Links"]

_FORK_PATIENCE: Final = 5.0


class Link:
    """A connection.  Its lock is held while it is used, so that others may close it.

    Attributes:
        busy: Whether it is in use, by the thread that has the lock.
        committing: Whether its last transaction was committed, as far as
            anybody can say who was interrupted in it.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_full",
        "busy",
        "committing",
        "connection",
        "lock",
        "number",
        "sql",
    )

    def __init__(self, connection: sqlite3.Connection, number: int, sql: Sql) -> None:
        self.connection = connection
        self.sql = sql
        self.number = number
        self.busy = False
        self.committing = False
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
        self.committing = False
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
        self._patience = patience
        self._names = names
        self._identity = identity
        self._closed = False
        self._numbers = itertools.count(1)
        self._held_for_fork: list[Any] = []
        self._abandoned: list[object] = []
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process."""
        self.opening = threading.RLock()
        self._threads = threading.local()
        self._open: weakref.WeakSet[Link] = weakref.WeakSet()
        self._writer: Link | None = None
        self._torn = False

    def __iter__(self) -> Iterator[Link]:
        """Those that are open."""
        return iter([link for link in list(self._open) if not link.closed])

    @property
    def committed(self) -> bool:
        """Whether the last transaction for writing was committed, whatever came between that and its caller."""
        return self._writer is not None and self._writer.committing

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

    @contextlib.contextmanager
    def using(self, which: Callable[[], Link]) -> Iterator[Link]:
        """The connection that *which* finds; after an error of SQLite the next use opens a new one."""
        while True:
            link = which()
            with link.lock:
                if link.busy:
                    # This thread's, in the middle of something that a signal handler interrupted.
                    with self.using(self._opened) as another:
                        yield another
                    return
                if link.closed:
                    # By close() or before a fork, while this thread waited for the lock.
                    continue
                try:
                    link.busy = True
                    yield link
                except sqlite3.Error as error:
                    raise self._failed(link, error) from error
                except BaseException:
                    link.undo()
                    raise
                finally:
                    link.busy = False
                return

    def _failed(self, link: Link, error: sqlite3.Error) -> StoreError:
        # A cursor that a frame of the traceback still holds would keep the transaction, and so the lock.
        traceback.clear_frames(error.__traceback__)
        link.undo()
        link.close()
        return translated(error, self._path, self._patience)

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
        if self._torn:
            raise StoreUnavailable(
                f"{self._path}: this process was forked in the middle of a transaction of its parent, and "
                "cannot use the file safely: fork earlier, or start it anew"
            )

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
        """Close them all; *writers* is the lock of those who write."""
        # The order in which every other user takes them.
        for lock in (writers, self.opening):
            self._hold(lock)
        for link in list(self._open):
            self._hold(link.lock)
            # One that is busy all the same is this very thread's, which forks in the middle of a transaction.
            self._torn = self._torn or link.busy
            if not self._torn:
                link.close()

    def _hold(self, lock: Any) -> None:
        if lock.acquire(timeout=_FORK_PATIENCE):
            self._held_for_fork.append(lock)
        else:
            self._torn = True

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
        self._torn = torn

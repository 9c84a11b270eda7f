"""One database file for all threads of a process: its connections, transactions and checkpoints.

*Threads.*  Each has its own connection, closed when the thread ends.  Their
writes go one after the other through a lock of this process, for SQLite's
own waiting is by sleeping, and lets some sleep for long.

*Processes.*  SQLite's locks belong to a process, and what it remembers of
them survives ``fork`` in the child, where it is no longer true: a child that
opens its own connection while its parent has one open takes no lock at all,
and what it commits can be lost when the parent closes.  So every connection
is closed before a fork, and parent and child open new ones.

*Checkpoints.*  A checkpoint of SQLite before 3.51.3 can damage the database
where a commit of another connection resets the WAL under it.  So nothing
here checkpoints by itself: now and then one thread holds the write lock of
the database, and with it keeps every commit of every process out, while a
second connection does the checkpoint.  That never waits for a reader.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from outbox.errors import StoreError, StoreUnavailable, UnsupportedError
from outbox.stores.news import News

from . import files
from .opening import connect, prepare
from .translation import commit_failed, translated

__all__ = ["Database"]

_OLDEST: Final = (3, 35, 0)
_CHECKPOINT_EVERY: Final = 1000
"""Rows changed, and pages of content, until a checkpoint: a WAL of some 10 MB."""
_CHECKPOINT_AGAIN: Final = 100
_PAGE: Final = 4096
_FORK_PATIENCE: Final = 5.0
_ZERO: Final = dt.timedelta(0)


class _Link:
    """One thread's connection.  Its lock is held while it is used, so that others may close it."""

    __slots__ = ("__weakref__", "_closing", "connection", "lock", "number")

    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.lock = threading.Lock()
        self._closing = weakref.finalize(self, connection.close)
        # At exit a daemon thread may still be using it.
        self._closing.atexit = False

    @property
    def closed(self) -> bool:
        return not self._closing.alive

    def close(self) -> None:
        self._closing()

    def undo(self) -> None:
        """Roll back what is open; a connection that cannot is closed, which does it too."""
        if self.closed or not self.connection.in_transaction:
            return
        try:
            self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()


class Database:
    """See the module.

    Args:
        patience: How long a write waits for others before it gives up.

    Raises:
        ConfigurationError: the path is no place for a database, or the file is none of ours.
        FormatError: a newer release wrote it.
        StoreUnavailable: it cannot be opened.
        UnsupportedError: this SQLite is too old, or the file system cannot do WAL.
    """

    def __init__(self, path: Path, *, patience: dt.timedelta) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise UnsupportedError(
                f"SQLite {sqlite3.sqlite_version} is too old: outbox needs 3.35 or newer; use a newer Python build"
            )
        self.path = path
        self._patience = patience
        self._closed = False
        self._numbers = itertools.count(1)
        self._held_for_fork: list[threading.Lock] = []
        self._abandoned: threading.local | None = None
        self._begin()
        self._watch_forks()
        with self._opening:
            files.create(path)
            self._identity = files.identity(path)
            prepare(path, patience)

    def _begin(self) -> None:
        """What belongs to one process, and is made anew in a forked child."""
        self.news = News()
        self._writers = threading.Lock()
        self._opening = threading.Lock()
        self._threads = threading.local()
        self._links: weakref.WeakSet[_Link] = weakref.WeakSet()
        self._torn = False
        self._unmoved = 0

    # -- transactions

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot of the database for all that is read within."""
        with self._link() as link:
            link.connection.execute("BEGIN")
            yield link.connection
            link.connection.execute("COMMIT")

    @contextlib.contextmanager
    def writing(self, content: int = 0) -> Iterator[sqlite3.Connection]:
        """One transaction, durable on leaving; an exception within leaves nothing of it.

        Args:
            content: How many bytes of content it writes.

        Raises:
            CommitFailed: it was undone, unless a crash now brings it back.
        """
        with self._turn():
            with self._link() as link:
                before = link.connection.total_changes
                link.connection.execute("BEGIN IMMEDIATE")
                yield link.connection
                self._commit(link)
                self._unmoved += link.connection.total_changes - before + content // _PAGE
            if self._unmoved >= _CHECKPOINT_EVERY:
                self._checkpoint()

    def _commit(self, link: _Link) -> None:
        try:
            link.connection.execute("COMMIT")
        except sqlite3.Error as error:
            link.close()
            raise commit_failed(error, self.path, self._patience) from error

    def version(self) -> tuple[int, int]:
        """Changes whenever a connection other than this thread's has committed."""
        with self._link() as link:
            (version,) = link.connection.execute("PRAGMA data_version").fetchone()
            return link.number, version

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._writers.acquire(timeout=self._patience.total_seconds()):
            raise StoreUnavailable(
                f"{self.path}: other threads of this process have been writing for longer than "
                f"{self._patience.total_seconds():g} s"
            )
        try:
            yield
        finally:
            self._writers.release()

    @contextlib.contextmanager
    def _link(self) -> Iterator[_Link]:
        """This thread's connection; after an error of SQLite the next use opens a new one."""
        link = self._take()
        try:
            yield link
        except sqlite3.Error as error:
            link.close()
            raise translated(error, self.path, self._patience) from error
        except BaseException:
            link.undo()
            raise
        finally:
            link.lock.release()

    # -- connections

    def _take(self) -> _Link:
        while True:
            link = self._own()
            link.lock.acquire()
            if not link.closed:
                return link
            # Closed by close() or before a fork, while this thread waited for the lock.
            link.lock.release()

    def _own(self) -> _Link:
        link: _Link | None = getattr(self._threads, "link", None)
        if link is None or link.closed:
            with self._opening:
                link = self._threads.link = self._open()
        return link

    def _open(self) -> _Link:
        if self._closed:
            raise StoreUnavailable(f"the store {self.path} was closed: make a new SQLiteStore")
        if self._torn:
            raise StoreUnavailable(
                f"{self.path}: this process was forked in the middle of a transaction of its parent, and "
                "cannot use the file safely: fork earlier, or start it anew"
            )
        self.require_same_file()
        try:
            connection = connect(self.path, self._patience)
        except sqlite3.Error as error:
            raise translated(error, self.path, self._patience) from error
        link = _Link(connection, next(self._numbers))
        self._links.add(link)
        return link

    def require_same_file(self) -> None:
        """Raise StoreUnavailable where the path no longer leads to the file that was opened.

        What is written to a deleted file is gone when the last program closes it.
        """
        found = files.identity(self.path)
        if found != self._identity:
            event = "deleted" if found is None else "replaced by another file"
            raise StoreUnavailable(
                f"{self.path} was {event} while it was in use: stop all programs that use it, put the right "
                "file in its place, and start them again"
            )

    def close(self) -> None:
        """Close every thread's connection, each when what it is doing is done."""
        self._closed = True
        with self._opening:
            links = list(self._links)
        for link in links:
            with link.lock:
                link.close()
        self.news.tell()

    # -- checkpoints

    def _checkpoint(self) -> None:
        """Move what was committed from the WAL into the database.

        Where another process is writing, or it fails, a later commit tries
        again: whoever waits here waits for the answer to a commit that is done.
        """
        self._unmoved = _CHECKPOINT_EVERY - _CHECKPOINT_AGAIN
        with contextlib.suppress(sqlite3.Error, StoreError), contextlib.ExitStack() as stack:
            first, second = (stack.enter_context(closing(connect(self.path, _ZERO))) for _ in range(2))
            first.execute("BEGIN IMMEDIATE")
            second.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._unmoved = 0

    # -- fork

    def _watch_forks(self) -> None:
        if not hasattr(os, "register_at_fork"):
            return  # a platform that cannot fork
        me = weakref.ref(self)

        def told(step: Callable[[Database], None]) -> Callable[[], None]:
            def tell() -> None:
                database = me()
                if database is not None:
                    step(database)

            return tell

        os.register_at_fork(
            before=told(Database._before_fork),
            after_in_parent=told(Database._after_fork),
            after_in_child=told(Database._born),
        )

    def _before_fork(self) -> None:
        # The order in which every other user takes them.
        for lock in (self._writers, self._opening):
            self._hold(lock)
        for link in list(self._links):
            self._hold(link.lock)
            if not self._torn:
                link.close()

    def _hold(self, lock: threading.Lock) -> None:
        if lock.acquire(timeout=_FORK_PATIENCE):
            self._held_for_fork.append(lock)
        else:
            self._torn = True

    def _after_fork(self) -> None:
        self._torn = False
        while self._held_for_fork:
            self._held_for_fork.pop().release()

    def _born(self) -> None:
        torn = self._torn
        # Not even closed, where they could not be before the fork: they are the parent's.
        self._abandoned = self._threads
        self._held_for_fork.clear()
        self._begin()
        self._torn = torn

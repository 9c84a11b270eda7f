"""One database file for all threads of a process: its connections, transactions and checkpoints.

*Threads.*  One connection writes for all of them: their writes queue up in
this process and share commits (see :mod:`.grouping`), for SQLite's own
waiting is by sleeping, and lets some sleep for long; and what one connection
has read of the file it need not read again, where of many each would.  A
thread that reads has a connection of its own, closed when the thread ends.

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
import random
import sqlite3
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from outbox.errors import StoreError, StoreFull, StoreUnavailable, UnsupportedError
from outbox.stores.news import News

from . import files
from .grouping import Group, Share, Write
from .naming import Names, Sql
from .opening import connect, prepare
from .translation import CommitFailed, commit_failed, translated

__all__ = ["Database"]

T = TypeVar("T")

_OLDEST: Final = (3, 35, 0)
_CHECKPOINT_EVERY: Final = 1000
"""Rows changed, and pages of content, until a checkpoint: a WAL of some 10 MB."""
_CHECKPOINT_AGAIN: Final = 100
_TOUCH: Final = """
    INSERT INTO outbox_meta VALUES ('synced', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1
"""
"""A change that means nothing, so that there is something to commit: the fsync is of all that is in the WAL."""
_VERSION: Final = "PRAGMA data_version"
_LOOK: Final = "SELECT 1 FROM outbox_meta LIMIT 1"
_PAUSES: Final = (0.0002, 0.001)
"""Seconds between two looks whether another process has done: about what a commit takes."""
_PAGE: Final = 4096
_FORK_PATIENCE: Final = 5.0
_ZERO: Final = dt.timedelta(0)


class _Link:
    """A connection.  Its lock is held while it is used, so that others may close it."""

    __slots__ = ("__weakref__", "_closing", "_full", "connection", "lock", "number", "sql")

    def __init__(self, connection: sqlite3.Connection, number: int, sql: Sql) -> None:
        self.connection = connection
        self.sql = sql
        self.number = number
        self._full = True
        self.lock = threading.Lock()
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
        try:
            self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()


class _Undone(Exception):
    """A write of several failed after it had written: none may be kept."""


def _attempted(writes: Sequence[Write[Any]], link: _Link) -> list[tuple[Any, Exception | None]]:
    """The result or the error of each; those that share are performed as one, where the first of them stands."""
    outcomes: dict[int, tuple[Any, Exception | None]] = {}
    for number, write in enumerate(writes):
        if number in outcomes:
            continue
        if write.share is None:
            outcomes[number] = _attempt(write, link)
            continue
        perform = write.share.perform
        sharing = [n for n, other in enumerate(writes) if other.share and other.share.perform == perform]
        answers = perform(link.sql, [share.part for n in sharing if (share := writes[n].share)])
        for n, answer in zip(sharing, answers, strict=True):
            outcomes[n] = (None, answer) if isinstance(answer, Exception) else (answer, None)
    return [outcomes[number] for number in range(len(writes))]


def _attempt(write: Write[T], link: _Link) -> tuple[T | None, Exception | None]:
    before = link.connection.total_changes
    try:
        return write.perform(link.sql), None
    except sqlite3.Error:
        raise
    except Exception as error:  # it is raised again, in the thread whose write it is
        if link.connection.total_changes != before:
            raise _Undone from error
        return None, error


def _legible(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _out_of_room(write: Write[Any]) -> bool:
    """Whether SQLite itself found no room; a limit of the user's is another matter."""
    return isinstance(write.error, StoreFull) and isinstance(write.error.__cause__, sqlite3.Error)


class Database:
    """See the module.

    Args:
        patience: How long a write waits for others before it gives up.
        prefix: What our tables begin with in a database of something else;
            None is a file of our own.

    Raises:
        ConfigurationError: the path is no place for a database, or the file is none of ours.
        FormatError: a newer release wrote it.
        StoreUnavailable: it cannot be opened.
        UnsupportedError: this SQLite is too old, or the file system cannot do WAL.
    """

    def __init__(self, path: Path, *, patience: dt.timedelta, prefix: str | None = None) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise UnsupportedError(
                f"SQLite {sqlite3.sqlite_version} is too old: outbox needs 3.35 or newer; use a newer Python build"
            )
        self.path = path
        self.names = Names(prefix)
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
            prepare(path, patience, self.names)

    def _begin(self) -> None:
        """What belongs to one process, and is made anew in a forked child."""
        self.news = News()
        self._writers = threading.Lock()
        self._group = Group(self._perform, self._tidy)
        self._opening = threading.Lock()
        self._threads = threading.local()
        self._links: weakref.WeakSet[_Link] = weakref.WeakSet()
        self._writer: _Link | None = None
        self._version = (0, 0)
        self._torn = False
        self._unmoved = 0

    # -- transactions

    @contextlib.contextmanager
    def reading(self, *, legible: bool = True) -> Iterator[Sql]:
        """One snapshot of the database for all that is read within.

        Args:
            legible: Whether text that is none is read all the same.
        """
        with self._link(self._reads) as link:
            link.connection.text_factory = _legible if legible else str
            try:
                link.connection.execute("BEGIN")
                # The first look takes the snapshot, and is the only one that may have to wait.
                self._patiently(lambda: link.sql.execute(_LOOK).fetchone())
                yield link.sql
                link.connection.execute("COMMIT")
            finally:
                link.connection.text_factory = str

    def write(
        self,
        perform: Callable[[Sql], T],
        *,
        durable: bool = True,
        content: int = 0,
        share: Share[T] | None = None,
    ) -> T:
        """What *perform* returns, when the transaction it wrote in is committed.

        Writes of other threads may share the transaction; an exception of
        *perform* leaves nothing of its own, and harms no other.

        Args:
            perform: Does all it has to within the transaction; after a
                rollback it may be called again.
            durable: Whether the commit must be on the disk on return.
            content: How many bytes of content it writes.
            share: How it is performed as one with others like it.

        Raises:
            CommitFailed: it was undone, unless a crash now brings it back.
        """
        write = Write(perform, durable=durable, content=content, share=share)
        try:
            return self._group.run(write, self._patience.total_seconds())
        except TimeoutError:
            raise StoreUnavailable(
                f"{self.path}: other threads of this process have been writing for longer than "
                f"{self._patience.total_seconds():g} s"
            ) from None

    def require_writable(self) -> None:
        """Raise StoreUnavailable where nothing could be written now; nothing is."""
        with self._link(self._reads) as link:
            self._patiently(lambda: link.connection.execute("BEGIN IMMEDIATE"))
            link.connection.execute("ROLLBACK")

    def _patiently(self, act: Callable[[], T]) -> T:
        """What *act* returns, asked again for as long as other processes keep SQLite from it.

        SQLite's own waiting doubles its pauses up to a tenth of a second, so
        that of many processes those that wait longest look least often.
        """
        left = self._patience.total_seconds()
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                if left <= 0 or not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                    raise
            pause = random.uniform(*_PAUSES)  # noqa: S311 - so that those who wait do not go in step
            threading.Event().wait(pause)
            left -= pause

    def sync(self) -> None:
        """Put on the disk whatever was committed without."""
        self.write(lambda sql: sql.execute(_TOUCH))

    def _perform(self, writes: Sequence[Write[Any]]) -> None:
        with self._writers:
            if len(writes) == 1 or not self._together(writes):
                for write in writes:
                    self._alone(write)
                    if _out_of_room(write) and self._unmoved:
                        # The WAL may be what fills the disk: once it has moved, it is written from its start.
                        self._checkpoint()
                        self._alone(write)

    def _tidy(self) -> None:
        if self._unmoved >= _CHECKPOINT_EVERY:
            with self._writers:
                self._checkpoint()

    def _together(self, writes: Sequence[Write[Any]]) -> bool:
        """One transaction for all; False where one of them has to be undone, and so all were."""
        outcomes: Sequence[tuple[Any, Exception | None]]
        try:
            outcomes = self._transact(
                lambda link: _attempted(writes, link),
                durable=any(write.durable for write in writes),
            )
        except CommitFailed as failure:
            outcomes = [(None, failure)] * len(writes)
        except (_Undone, StoreError):
            return False
        for write, (result, error) in zip(writes, outcomes, strict=True):
            write.result, write.error, write.answered = result, error, True
        self._unmoved += sum(write.content for write in writes) // _PAGE
        return True

    def _alone(self, write: Write[Any]) -> None:
        write.error = None
        try:
            write.result = self._transact(lambda link: write.perform(link.sql), durable=write.durable)
        except Exception as error:  # noqa: BLE001 - it is raised again, in the thread whose write it is
            write.error = error
        write.answered = True
        self._unmoved += write.content // _PAGE

    def _transact(self, act: Callable[[_Link], T], *, durable: bool) -> T:
        """What *act* returns, in one transaction; an exception leaves nothing of it."""
        self.require_same_file()
        with self._link(self._writes) as link:
            link.sync(durable)
            connection = link.connection
            before = connection.total_changes
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            result = act(link)
            self._commit(link)
            self._unmoved += connection.total_changes - before
            return result

    def _commit(self, link: _Link) -> None:
        try:
            link.connection.execute("COMMIT")
        except sqlite3.Error as error:
            link.close()
            raise commit_failed(error, self.path, self._patience) from error

    def translated(self, error: sqlite3.Error) -> StoreError:
        """The store's error for one of SQLite's."""
        return translated(error, self.path, self._patience)

    def version(self, patience: float = 0.0) -> tuple[int, int]:
        """Changes when another process has committed, or a connection of the caller's own.

        Where this process is writing for longer than *patience* seconds, it
        is what was last seen: an older one, never a newer.
        """
        if self._writers.acquire(timeout=min(patience, threading.TIMEOUT_MAX)):
            try:
                with self._link(self._writes) as link:
                    (version,) = self._patiently(lambda: link.connection.execute(_VERSION).fetchone())
                    self._version = link.number, version
            finally:
                self._writers.release()
        return self._version

    @contextlib.contextmanager
    def _link(self, which: Callable[[], _Link]) -> Iterator[_Link]:
        """The connection that *which* finds; after an error of SQLite the next use opens a new one."""
        link = self._take(which)
        try:
            yield link
        except sqlite3.Error as error:
            # A cursor that a frame of the traceback still holds would keep the transaction, and so the lock.
            traceback.clear_frames(error.__traceback__)
            link.undo()
            link.close()
            raise self.translated(error) from error
        except BaseException:
            link.undo()
            raise
        finally:
            link.lock.release()

    # -- connections

    def _take(self, which: Callable[[], _Link]) -> _Link:
        while True:
            link = which()
            link.lock.acquire()
            if not link.closed:
                return link
            # Closed by close() or before a fork, while this thread waited for the lock.
            link.lock.release()

    def _reads(self) -> _Link:
        """This thread's own."""
        link: _Link | None = getattr(self._threads, "link", None)
        if link is None or link.closed:
            with self._opening:
                link = self._threads.link = self._open()
        return link

    def _writes(self) -> _Link:
        """The one for all threads; whoever has the lock of the writers uses it."""
        if self._writer is None or self._writer.closed:
            with self._opening:
                self._writer = self._open()
        return self._writer

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
            raise self.translated(error) from error
        # From here on the waiting is ours.
        connection.execute("PRAGMA busy_timeout = 0")
        link = _Link(connection, next(self._numbers), self.names.apply(connection))
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

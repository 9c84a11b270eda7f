"""One database file for all threads of a process: its connections and transactions.

*Threads.*  One connection writes for all of them: their writes queue up in
this process and share commits (see :mod:`.grouping`), for SQLite's own
waiting is by sleeping, and lets some sleep for long; and what one connection
has read of the file it need not read again, where of many each would.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from outbox.clock import SystemClock
from outbox.errors import StoreError, StoreFull, UnsupportedError
from outbox.stores.forking import Hooks, watch_forks
from outbox.stores.news import News
from outbox.stores.watching import Watching

from . import files, schema
from .grouping import Group, Share, Write
from .links import Commit, Link, Links
from .naming import Names, Sql
from .opening import prepare
from .translation import CommitFailed, Locked, commit_failed, translated
from .wal import Wal

__all__ = ["Database"]

T = TypeVar("T")

_OLDEST: Final = (3, 35, 0)
_VERSION: Final = "PRAGMA data_version"
_LOOK: Final = "SELECT 1 FROM outbox_meta LIMIT 1"
_NO_CHANGE: Final = "UPDATE outbox_meta SET value = value WHERE name = ''"
_PAUSES: Final = (0.0002, 0.001)
"""Seconds between two looks whether another process has done: about what a commit takes."""


class _Undone(Exception):
    """A write of several failed after it had written: none may be kept."""


def _attempted(writes: Sequence[Write[Any]], link: Link) -> list[tuple[Any, Exception | None]]:
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


def _attempt(write: Write[T], link: Link) -> tuple[T | None, Exception | None]:
    before = link.connection.total_changes
    try:
        return write.perform(link.sql), None
    except sqlite3.Error:
        raise
    except Exception as error:  # it is raised again, in the thread whose write it is
        if link.connection.total_changes != before:
            raise _Undone from error
        return None, error


def _answer(writes: Sequence[Write[Any]], outcomes: Sequence[tuple[Any, Exception | None]]) -> None:
    for write, (result, error) in zip(writes, outcomes, strict=True):
        write.result, write.error, write.answered = result, error, True


def _legible(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _out_of_room(write: Write[Any]) -> bool:
    """Whether SQLite itself found no room; a limit of the user's is another matter."""
    return isinstance(write.error, StoreFull) and isinstance(write.error.__cause__, sqlite3.Error)


class Database:
    """See the module.

    Attributes:
        path: The file as it was named, and is looked for.
        file: The same behind any links: where the disk is, and the WAL.

    Args:
        patience: How long a write waits for others before it gives up.
        prefix: What our tables begin with in a database of something else;
            None is a file of our own.
        migrate_at: See :func:`.schema.verify`.

    Raises:
        ConfigurationError: the path is no place for a database, or the file is none of ours.
        FormatError: a newer release wrote it.
        StoreUnavailable: it cannot be opened.
        UnsupportedError: this SQLite is too old, or the file system cannot do WAL.
    """

    def __init__(
        self, path: Path, *, patience: dt.timedelta, prefix: str | None, migrate_at: int | None
    ) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise UnsupportedError(
                f"SQLite {sqlite3.sqlite_version} is too old: outbox needs 3.35 or newer; use a newer Python build"
            )
        self.path = path
        self.names = Names(prefix)
        self.file = files.behind(path)
        self._patience = patience
        self._clock = SystemClock()
        files.create(path)
        self._links = Links(path, patience, self.names, files.identity(path))
        self._begin()
        watch_forks(self, _FORKS)
        with self._links.opening:
            prepare(path, patience, self.names, migrate_at=migrate_at)
        self.wal.look()
        self._mark()

    def _begin(self) -> None:
        """What belongs to one process, and is made anew in a forked child."""
        self.news = News()
        self.watching = Watching(self.news, f"{self.file}-wal")
        # Reentrant, for a signal handler may interrupt who has it.
        self._writers = threading.RLock()
        self._group = Group(self._perform, self._tidy)
        self._writing = False
        self._version = (0, 0)
        self.wal = Wal(self.path, self.file)

    # -- transactions

    def read(self, look: Callable[[Sql], T], *, legible: bool = True) -> T:
        """What *look* returns for one snapshot of the database; it finishes its reading before it returns.

        Args:
            legible: Whether text that is none is read all the same.
        """

        def act(link: Link) -> T:
            link.connection.text_factory = _legible if legible else str
            try:
                link.connection.execute("BEGIN")
                # The first look takes the snapshot, and is the only one that may have to wait.
                self._patiently(lambda: link.sql.execute(_LOOK).fetchone(), self._deadline())
                seen = look(link.sql)
                # Nothing was written.  Who met an error may have gone on without, and some end the transaction.
                if link.connection.in_transaction:
                    link.connection.execute("ROLLBACK")
                return seen
            finally:
                link.connection.text_factory = str

        return self._links.use(self._links.reads, act)

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
            StoreUnavailable: other processes have been writing for too long,
                or this thread is in the middle of another write.
        """
        return self._group.run(
            Write(
                perform,
                durable=durable,
                content=content,
                share=share,
                deadline=self._deadline(),
                patience=self._patience.total_seconds(),
            )
        )

    def require_writable(self) -> None:
        """Raise StoreUnavailable where nothing could be written now; nothing is."""

        def look(link: Link) -> None:
            self._patiently(lambda: link.connection.execute("BEGIN IMMEDIATE"), self._deadline())
            # Where the file may only be read SQLite begins all the same, and refuses the first change.
            link.sql.execute(_NO_CHANGE)
            link.connection.execute("ROLLBACK")

        self._links.use(self._links.reads, look)

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._patience.total_seconds()

    def _patiently(self, act: Callable[[], T], deadline: float) -> T:
        """What *act* returns, asked again for as long as other processes keep SQLite from it.

        SQLite's own waiting doubles its pauses up to a tenth of a second, so
        that of many processes those that wait longest look least often.
        """
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
                if not busy or self._clock.monotonic() >= deadline:
                    raise
            threading.Event().wait(random.uniform(*_PAUSES))  # noqa: S311 - so that those who wait do not go in step

    def _mark(self) -> None:
        """Tell this file from the copies that were made of it, unless nothing can be written now: see :mod:`.within`."""

        def draw(link: Link) -> None:
            # On no disk: a connection that could hold an earlier file is gone with the power, too.
            link.sync(False)
            link.connection.execute("BEGIN IMMEDIATE")
            schema.mark(link.sql)
            link.connection.execute("COMMIT")

        with contextlib.suppress(StoreError):
            self._links.use(self._links.writes, draw)

    def _perform(self, writes: Sequence[Write[Any]]) -> None:
        try:
            self._writing = True
            with self._writers:
                if len(writes) == 1 or not self._together(writes):
                    self._one_by_one(writes)
        finally:
            self._writing = False

    def _one_by_one(self, writes: Sequence[Write[Any]]) -> None:
        for write in writes:
            self._alone(write)
            if _out_of_room(write) and self.wal.unmoved:
                # The WAL may be what fills the disk: once it has moved, it is written from its start.
                self.wal.move()
                self._alone(write)

    def _tidy(self) -> None:
        if self.wal.due:
            with self._writers:
                self.wal.move()

    def _together(self, writes: Sequence[Write[Any]]) -> bool:
        """One transaction for all; False where one of them has to be undone, and so all were."""
        outcomes: list[tuple[Any, Exception | None]] = []

        def perform(link: Link) -> None:
            outcomes[:] = _attempted(writes, link)

        commit = Commit()
        try:
            durable = any(write.durable for write in writes)
            self._transact(perform, commit, durable=durable, deadline=writes[0].deadline)
            _answer(writes, outcomes)
        except Locked as error:
            self._refuse(writes, error)
        except CommitFailed as failure:
            _answer(writes, [(None, failure)] * len(writes))
        except (_Undone, StoreError):
            return False
        except BaseException:
            # An interrupt of this thread's, which may have come when all was done.
            if commit.done:
                _answer(writes, outcomes)
            raise
        self.wal.note(sum(write.content for write in writes))
        return True

    def _refuse(self, writes: Sequence[Write[Any]], error: Locked) -> None:
        """Nobody could write for as long as the first was to wait; those who came later wait on."""
        now = self._clock.monotonic()
        for number, write in enumerate(writes):
            if number == 0 or write.deadline <= now:
                write.error, write.answered = error, True

    def _alone(self, write: Write[Any]) -> None:
        write.error = None

        def perform(link: Link) -> None:
            write.result = write.perform(link.sql)

        commit = Commit()
        try:
            self._transact(perform, commit, durable=write.durable, deadline=write.deadline)
        except Exception as error:  # noqa: BLE001 - it is raised again, in the thread whose write it is
            write.error = error
        except BaseException:
            write.answered = commit.done
            raise
        write.answered = True
        self.wal.note(write.content)

    def _transact(
        self, act: Callable[[Link], None], commit: Commit, *, durable: bool, deadline: float
    ) -> None:
        """Do it in one transaction; an exception leaves nothing of it, unless *commit* says so."""

        def perform(link: Link) -> None:
            link.commit = commit
            link.sync(durable)
            connection = link.connection
            before = connection.total_changes
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            self._links.require_same_wal(link)
            act(link)
            self._commit(link)
            self.wal.unmoved += connection.total_changes - before

        self.require_same_file()
        self._links.use(self._links.writes, perform)

    def _commit(self, link: Link) -> None:
        try:
            link.commit.done = True
            link.connection.execute("COMMIT")
        except sqlite3.Error as error:
            link.commit.done = False
            link.close()
            raise commit_failed(error, self.path, self._patience) from error

    def translated(self, error: sqlite3.Error) -> StoreError:
        """The store's error for one of SQLite's."""
        return translated(error, self.path, self._patience)

    def version(self) -> tuple[int, int]:
        """Changes when another process has committed, or a connection of the caller's own.

        While this process is writing it is what was last seen: an older one,
        never a newer.
        """
        if not self._writing:
            with self._writers:
                self._version = self._links.use(self._links.writes, self._look)
        return self._version

    def _look(self, link: Link) -> tuple[int, int]:
        look = link.connection.execute
        (version,) = self._patiently(lambda: look(_VERSION).fetchone(), self._deadline())
        return link.number, version

    def require_same_file(self) -> None:
        """Raise StoreUnavailable where the path no longer leads to the file that was opened."""
        self._links.require_same_file()

    def close(self) -> None:
        """Close every connection, each when what it is doing is done."""
        self._links.close()
        self.watching.close()
        self.news.tell()

    # -- forks

    def _before_fork(self) -> None:
        self._links.before_fork(self._writers)

    def _after_in_parent(self) -> None:
        self._links.after_in_parent()

    def _after_in_child(self) -> None:
        self._links.after_in_child()
        self.watching.abandon()
        self._begin()


_FORKS: Final = Hooks(
    before=Database._before_fork,  # noqa: SLF001 - of this very class
    in_parent=Database._after_in_parent,  # noqa: SLF001 - of this very class
    in_child=Database._after_in_child,  # noqa: SLF001 - of this very class
)

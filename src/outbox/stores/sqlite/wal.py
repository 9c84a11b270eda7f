"""The WAL: how much of it is to be moved into the database, when that is done, and how.

A checkpoint of SQLite before 3.51.3 can damage the database where a commit of
another connection resets the WAL under it.  So nothing here checkpoints by
itself: now and then one thread holds the write lock of the database, and with
it keeps every commit of every process out, while a second connection does the
checkpoint.  That never waits for a reader.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from outbox.errors import StoreError

from . import files
from .opening import WAL_SIZE, connect

__all__ = ["Wal"]

_MOVE_EVERY: Final = 1000
"""Rows changed, and pages of content, until it is moved: a WAL of some 10 MB."""
_MOVE_AGAIN: Final = 100
_PAGE: Final = 4096
_PAGES: Final = 16 * _PAGE
_LOOK_EVERY: Final = 4 << 20
_ZERO: Final = dt.timedelta(0)


class Wal:
    """See the module.

    Args:
        path: What the database is opened by.
        file: Where that leads to.

    Attributes:
        unmoved: Rows changed, and pages of content, since it was moved.
    """

    def __init__(self, path: Path, file: Path) -> None:
        self.unmoved = 0
        self._path = path
        self._name = f"{file}-wal"
        self._size = 0
        self._written = _LOOK_EVERY + 1

    @property
    def due(self) -> bool:
        """Whether it is time to move it."""
        return self.unmoved >= _MOVE_EVERY

    def note(self, content: int) -> None:
        """So many bytes of content may have been written, and some pages."""
        self.unmoved += content // _PAGE
        self._written += 2 * content + _PAGES

    def reserve(self, *, exactly: bool = False) -> int:
        """Bytes by which the database may yet have to grow: at most what the WAL's file has.

        The file is looked at now and then, and otherwise what was written
        since is added: after each look its timestamp has to be exact, which
        makes the next fsync dearer by a fifth.
        """
        if exactly or self._written > _LOOK_EVERY:
            self._size = files.size(self._name)
            self._written = 0
        return self._size + self._written

    def look(self) -> None:
        """Where others have made it long, who leave it to us, the next write moves it."""
        if self.reserve(exactly=True) > WAL_SIZE:
            self.unmoved = max(self.unmoved, _MOVE_EVERY)

    def move(self) -> None:
        """Move what was committed into the database; whoever calls this keeps the other threads from writing.

        Where another process is writing, or it fails, a later commit tries
        again: whoever waits here waits for the answer to a commit that is done.
        """
        self.unmoved = _MOVE_EVERY - _MOVE_AGAIN
        with contextlib.suppress(sqlite3.Error, StoreError), contextlib.ExitStack() as stack:
            first, second = (stack.enter_context(closing(connect(self._path, _ZERO))) for _ in range(2))
            first.execute("BEGIN IMMEDIATE")
            second.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self.unmoved = 0

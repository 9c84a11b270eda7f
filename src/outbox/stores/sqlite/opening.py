"""How the file is opened: made ours once, and every connection to it durable."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final

from outbox.errors import ConfigurationError, StoreUnavailable, UnsupportedError

from . import schema
from .naming import Names
from .translation import translated

__all__ = ["WAL_SIZE", "connect", "prepare"]

WAL_SIZE: Final = 16 << 20
"""To so many bytes the WAL's file is cut when it begins anew: more than it ever needs where checkpoints are made."""

_SETTINGS: Final = (
    "synchronous = FULL",
    # Checkpoints are made by Database, in its own way.
    "wal_autocheckpoint = 0",
    f"journal_size_limit = {WAL_SIZE}",
    "mmap_size = 0",
    # What is deleted, and what is redacted, is overwritten: some builds of SQLite leave it to be found.
    "secure_delete = ON",
    # Where fsync does not reach the platter (macOS) they make SQLite ask for more; elsewhere they are nothing.
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
)
_FULL: Final = 2
_PAUSE: Final = 0.02


def prepare(path: Path, patience: dt.timedelta, names: Names, *, migrate_at: int | None) -> None:
    """See that the file is ours, or make it so; other processes may be doing the same.

    Args:
        migrate_at: See :func:`.schema.verify`.

    Raises:
        ConfigurationError: it is another kind of file, or the database of something else.
        FormatError: another release wrote it.
        StoreUnavailable: it cannot be opened.
        UnsupportedError: the file system cannot do WAL.
    """
    try:
        with closing(_connection(path, patience)) as sql:
            there = schema.verify(sql, path, names, migrate_at=migrate_at)
            _make_wal(sql, path, patience)
            if not there:
                schema.create(sql, path, names, migrate_at=migrate_at)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
            raise ConfigurationError(
                f"{path} is not an SQLite database: name another file; nothing was touched"
            ) from error
        raise translated(error, path, patience) from error


def connect(path: Path, patience: dt.timedelta) -> sqlite3.Connection:
    """A connection with every setting that the store relies on; it is there already."""
    connection = _connection(path, patience)
    try:
        _require_durable(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_durable(connection: sqlite3.Connection, path: Path) -> None:
    (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if journal != "wal" or synchronous != _FULL:
        raise StoreUnavailable(
            f"{path}: journal_mode is {journal} and synchronous is {synchronous}, not WAL and FULL: "
            "another program changed it; start the programs that use it again"
        )


def _connection(path: Path, patience: dt.timedelta) -> sqlite3.Connection:
    connection = sqlite3.connect(
        # mode=rw: SQLite creates no file by itself, for it would be readable by others.
        path.absolute().as_uri() + "?mode=rw",
        uri=True,
        timeout=patience.total_seconds(),
        isolation_level=None,
        # Used by one thread, and closed by another.
        check_same_thread=False,
    )
    try:
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_wal(sql: sqlite3.Connection, path: Path, patience: dt.timedelta) -> None:
    """Switch the file to WAL, once for all; SQLite does not wait for others at that, so it is done here."""
    pause = threading.Event()
    for remaining in range(max(1, int(patience.total_seconds() / _PAUSE)), -1, -1):
        try:
            (mode,) = sql.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if not remaining or not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                raise
            pause.wait(_PAUSE)
        else:
            if mode != "wal":
                raise UnsupportedError(
                    f"{path}: this file system cannot do SQLite's WAL (journal_mode stays {mode}): "
                    "use a local disk"
                )
            return

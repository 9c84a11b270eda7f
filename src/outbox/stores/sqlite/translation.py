"""From what SQLite raises to what a store raises: the thing, the cause and what to do."""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
from pathlib import Path
from typing import Final

from outbox.errors import CorruptRecord, StoreError, StoreFull, StoreUnavailable

from . import files

__all__ = ["CommitFailed", "Locked", "commit_failed", "translated"]

_NO_TEXT: Final = "Could not decode to UTF-8"
"""How Python's module says, without a code, that a text in the file is none."""
_NO_TABLE: Final = "no such table"
_ROOM: Final = 1 << 20
"""With less than this left on the disk, an I/O error is taken for a full disk."""


class CommitFailed(StoreUnavailable):
    """A commit failed: SQLite has undone it here, but a crash now could still bring it back."""


class Locked(StoreUnavailable):
    """Another process would not let this one write, or read."""


def commit_failed(error: sqlite3.Error, path: Path, patience: dt.timedelta) -> StoreError:
    """What a failed COMMIT means; only SQLITE_FULL says for certain that nothing was written."""
    meaning = translated(error, path, patience)
    # An I/O error on a full disk may be that of the fsync, and all before it is in the WAL.
    certain = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
    return meaning if certain else CommitFailed(str(meaning))


def translated(error: sqlite3.Error, path: Path, patience: dt.timedelta | None) -> StoreError:
    """The store's error for one of SQLite's; *patience* is how long it was waited, None where a caller decides it."""
    # Errors that Python's module raises by itself carry no name.
    name = getattr(error, "sqlite_errorname", "")
    code = "_".join(name.split("_")[:2])
    if name == "SQLITE_BUSY_SNAPSHOT":
        return StoreUnavailable(
            f"{path} was written to since this transaction first read it, and from there it cannot write any more: "
            "roll it back and begin it anew, with BEGIN IMMEDIATE so that nobody comes between"
        )
    if code in ("SQLITE_BUSY", "SQLITE_LOCKED"):
        waited, wait_longer = _patience(patience)
        return Locked(
            f"{path} is locked by another program for longer than {waited}: "
            f"end what writes to it for so long, or {wait_longer}"
        )
    if code == "SQLITE_FULL" or (code == "SQLITE_IOERR" and _full(path)):
        return StoreFull(
            f"{path}: the disk is full: make room; deliveries go on as soon as they can be written"
        )
    if code in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or str(error).startswith(_NO_TEXT):
        return CorruptRecord(
            f"{path} is damaged ({error}): stop its writers, keep a copy of the file with its -wal, "
            "and see what `check` says"
        )
    if str(error).startswith(_NO_TABLE):
        return StoreUnavailable(
            f"{path}: its tables are not there ({error}): open the store again, which makes them"
        )
    known = _UNAVAILABLE.get(code)
    return StoreUnavailable(
        f"{path}: {known} ({error})" if known else f"{path}: {name or 'sqlite3'}: {error}"
    )


def _patience(waited: dt.timedelta | None) -> tuple[str, str]:
    if waited is None:
        return "the connection waits", "open it with a longer timeout"
    return f"{waited.total_seconds():g} s", "raise busy_timeout"


_UNAVAILABLE: Final = {
    "SQLITE_READONLY": "it cannot be written: look at the permissions of the file and its directory",
    "SQLITE_CANTOPEN": "it cannot be opened: look at the file, its directory and the limit of open files",
    "SQLITE_PERM": "it may not be opened: look at its permissions",
    "SQLITE_IOERR": "reading or writing failed: look at the disk",
}


def _full(path: Path) -> bool:
    try:
        return shutil.disk_usage(files.behind(path).parent).free < _ROOM
    except OSError:
        return False

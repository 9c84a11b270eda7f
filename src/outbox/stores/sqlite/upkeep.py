"""Looking after the file: what is past its retention, and whether all is well."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outbox.protocols import Finding

from . import files, rows, schema

__all__ = ["check", "prune"]

_FORGOTTEN: Final = "SELECT id FROM outbox_tombstone WHERE settled <= ? ORDER BY settled, id LIMIT ?"
_FORGET: Final = "DELETE FROM outbox_tombstone WHERE id IN (SELECT value FROM json_each(?))"
_UNKEPT: Final = """
    SELECT id FROM outbox_message INDEXED BY outbox_kept
    WHERE stage = 0 AND state = 'delivered' AND settled <= ? ORDER BY settled, id LIMIT ?
"""
_STRAYS: Final = """
    SELECT count(*) FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body
    WHERE b.number IS NULL
"""
_DAMAGE_SHOWN: Final = 5


def prune(sql: sqlite3.Connection, *, limit: int, now: int, kept_since: int, remembered_since: int) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`."""
    forgotten = [name for (name,) in sql.execute(_FORGOTTEN, (remembered_since, limit))]
    sql.execute(_FORGET, (rows.listed(forgotten),))
    unkept = [name for (name,) in sql.execute(_UNKEPT, (kept_since, limit - len(forgotten)))]
    rows.remove(sql, unkept, now=now, remembered_since=remembered_since)
    return len(forgotten) + len(unkept)


def check(sql: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`."""
    yield Finding("ok", f"{path} is a store of version {schema.VERSION}, WAL, synchronous=FULL")
    yield _sqlite()
    yield _permissions(path)
    yield from _damage(sql, path)
    (strays,) = sql.execute(_STRAYS).fetchone()
    if strays:
        yield Finding(
            "error",
            f"{strays} messages have lost their content and envelope",
            "they end HELD when they are claimed; look for a backup of the file",
        )


def _sqlite() -> Finding:
    if sound(sqlite3.sqlite_version_info):
        return Finding("ok", f"SQLite {sqlite3.sqlite_version}")
    return Finding(
        "ok",
        f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (mended in 3.51.3, 3.50.7 and 3.44.6); "
        "outbox's own checkpoints keep clear of it",
        "let no other program write to the file or checkpoint it",
    )


def sound(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite is without the WAL-reset bug, by its release notes."""
    mended = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
    return version >= (3, 52, 0) or version[2] >= mended.get(version[:2], version[2] + 1)


def _permissions(path: Path) -> Finding:
    if files.open_to_others(path):
        return Finding(
            "warning",
            f"{path} can be read or written by others (mode {path.stat().st_mode & 0o777:04o})",
            f"chmod 600 {path} {path}-wal {path}-shm",
        )
    return Finding("ok", f"{path} is open to its owner alone")


def _damage(sql: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    found = [text for (text,) in sql.execute(f"PRAGMA quick_check({_DAMAGE_SHOWN})")]
    if found == ["ok"]:
        yield Finding("ok", "SQLite's quick_check finds no damage")
        return
    advice = f"stop its writers, keep a copy with its -wal, then `sqlite3 {path} .recover` into a new file"
    yield from (Finding("error", text, advice) for text in found)

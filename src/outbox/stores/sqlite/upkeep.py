"""Looking after the file: what is past its retention, and whether all is well."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outbox.lifecycle import State
from outbox.protocols import Finding
from outbox.stores.instants import FOREVER
from outbox.stores.retention import FAILED, Retention

from . import files, rows, schema, suspending
from .naming import Sql

__all__ = ["check", "prune"]

_AGED: Final = f"""
    SELECT id, {rows.STANDING} FROM outbox_message INDEXED BY outbox_aged
    WHERE stage = 0 AND state = ? AND settled <= ? ORDER BY settled, id LIMIT ?
"""  # noqa: S608 - column names of our own
_GONE: Final = """
    SELECT id FROM outbox_message INDEXED BY outbox_gone
    WHERE stage = 4 AND settled <= ? ORDER BY settled, id LIMIT ?
"""
_GONE_IN_ALL: Final = """
    SELECT count(*) FROM (SELECT 1 FROM outbox_message INDEXED BY outbox_gone WHERE stage = 4 LIMIT ?)
"""
_STRAYS: Final = """
    SELECT count(*) FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body
    WHERE m.stage < 4 AND b.number IS NULL
"""
_DAMAGE_SHOWN: Final = 5


def prune(sql: Sql, retention: Retention, *, limit: int, now: int) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`."""
    gone = _forgotten(sql, retention, limit, now)
    rows.forget(sql, gone)
    suspending.prune(sql, now)
    left = limit - len(gone)
    for state in (State.DELIVERED, *FAILED):
        left -= _discard(sql, state, retention, left, now)
    return limit - left


def _forgotten(sql: Sql, retention: Retention, limit: int, now: int) -> list[str]:
    """The oldest of the ids that are known for long enough, or are too many."""
    aged = [name for (name,) in sql.execute(_GONE, (retention.known_since(now), limit))]
    (known,) = sql.execute(_GONE_IN_ALL, (retention.remember_at_most + limit,)).fetchone()
    spare = min(limit, known - retention.remember_at_most)
    if spare <= len(aged):
        return aged
    return [name for (name,) in sql.execute(_GONE, (FOREVER, spare))]


def _discard(sql: Sql, state: State, retention: Retention, limit: int, now: int) -> int:
    since = retention.kept_since(now, state)
    if since is None or limit < 1:
        return 0
    found = sql.execute(_AGED, (state.value, since, limit)).fetchall()
    standings = {name: rows.standing(tuple(columns)) for name, *columns in found}
    buried = [name for name, standing in standings.items() if retention.buries(standing, now)]
    rows.discard(sql, list(standings), buried, now)
    return len(found)


def check(sql: Sql, path: Path) -> Iterator[Finding]:
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


def _damage(sql: Sql, path: Path) -> Iterator[Finding]:
    found = [text for (text,) in sql.execute(f"PRAGMA quick_check({_DAMAGE_SHOWN})")]
    if found == ["ok"]:
        yield Finding("ok", "SQLite's quick_check finds no damage")
        return
    advice = f"stop its writers, keep a copy with its -wal, then `sqlite3 {path} .recover` into a new file"
    yield from (Finding("error", text, advice) for text in found)

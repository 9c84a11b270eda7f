"""Looking after the file: what is past its retention, and whether all is well."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outbox.lifecycle import State
from outbox.protocols import Finding
from outbox.stores.content import Codings
from outbox.stores.instants import FOREVER
from outbox.stores.retention import FAILED, Retention
from outbox.stores.standing import Standing
from outbox.values import printable, quoted

from . import damage, files, rows, schema, suspending
from .naming import Sql

__all__ = ["check", "prune"]

# Only what has to be known of them: whatever else of them may be damaged, their time is over.
_AGED: Final = """
    SELECT CAST(id AS BLOB), typeof(id) = 'blob', CAST(fates AS BLOB), settled
    FROM outbox_message INDEXED BY outbox_aged
    WHERE stage = 0 AND state = ? AND settled <= ? ORDER BY settled, id LIMIT ?
"""
_GONE: Final = """
    SELECT id FROM outbox_message INDEXED BY outbox_gone
    WHERE stage = 4 AND settled <= ? ORDER BY settled, id LIMIT ?
"""
_FORGET: Final = f"DELETE FROM outbox_message WHERE id IN ({_GONE})"  # noqa: S608 - a statement of our own
_GONE_IN_ALL: Final = """
    SELECT count(*) FROM (SELECT 1 FROM outbox_message INDEXED BY outbox_gone WHERE stage = 4 LIMIT ?)
"""
_CODINGS: Final = "SELECT coding, count(*) FROM outbox_body WHERE coding != '' GROUP BY coding"
_DAMAGE_SHOWN: Final = 5


def prune(sql: Sql, retention: Retention, *, limit: int, now: int, whole: bool = True) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`; *whole* as in :func:`.rows.discard`."""
    left = limit - _forget(sql, retention, limit, now)
    suspending.prune(sql, now)
    for key in damage.never_due(sql):
        damage.hold(sql, key, "its row cannot be read: it is due at no time that there is", now)
    for state in (State.DELIVERED, *FAILED):
        left -= _discard(sql, state, retention, left, now, whole=whole)
    return limit - left


def _forget(sql: Sql, retention: Retention, limit: int, now: int) -> int:
    """Forget the oldest of the ids that are known for long enough, or are too many; return how many."""
    aged = sql.execute(_FORGET, (retention.known_since(now), limit)).rowcount
    (known,) = sql.execute(_GONE_IN_ALL, (retention.remember_at_most + limit,)).fetchone()
    spare = min(limit - aged, known - retention.remember_at_most)
    if spare <= 0:
        return aged
    return aged + sql.execute(_FORGET, (FOREVER, spare)).rowcount


def _discard(sql: Sql, state: State, retention: Retention, limit: int, now: int, *, whole: bool) -> int:
    since = retention.kept_since(now, state)
    if since is None or limit < 1:
        return 0
    gone: list[str] = []
    buried: list[str] = []
    for raw, blob, letters, settled in sql.execute(_AGED, (state.value, since, limit)).fetchall():
        key = damage.Key(raw, bool(blob))
        fates = rows.fates(rows.legible(letters), lenient=True)
        if not key.whole:
            damage.hold(sql, key, "its row cannot be read: its id is no text", now)
            continue
        gone.append(key.name)
        if retention.buries(Standing(fates=fates, due=0, since=0, submitted=0, settled=settled), now):
            buried.append(key.name)
    if whole:
        damage.detach(sql, gone)
    rows.discard(sql, gone, buried, now, whole=whole)
    return len(gone)


def check(sql: Sql, path: Path, codings: Codings) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`."""
    yield Finding("ok", f"{path} is a store of version {schema.VERSION}, WAL, synchronous=FULL")
    yield _sqlite()
    yield _permissions(path)
    yield from _damage(sql, path)
    yield from _records(sql)
    yield from _unknown_codings(sql, codings)


def _unknown_codings(sql: Sql, codings: Codings) -> Iterator[Finding]:
    with contextlib.suppress(sqlite3.DatabaseError):
        for names, number in sql.execute(_CODINGS):
            if codings.missing(str(names)):
                yield Finding(
                    "error",
                    f"{number} messages have content in the coding {quoted(str(names))}, "
                    "which this store was opened without",
                    "open it with that coding, or cancel them: a claim that comes upon one of them takes nothing",
                )


def _records(sql: Sql) -> Iterator[Finding]:
    strays, damaged = 0, []
    try:
        for facts, bodiless in damage.each(sql):
            strays += bodiless
            if facts.odd:
                damaged.append(f"{printable(facts.key.name)} ({facts.odd})")
    except sqlite3.DatabaseError as error:
        yield Finding("error", f"not every message can be read: {error}", "look for a backup of the file")
    if strays:
        yield Finding(
            "error",
            f"{strays} messages have lost their content and envelope",
            "they end HELD when they are claimed; look for a backup of the file",
        )
    if damaged:
        more = f" and {len(damaged) - _DAMAGE_SHOWN} more" if len(damaged) > _DAMAGE_SHOWN else ""
        yield Finding(
            "error",
            f"{len(damaged)} messages have rows that cannot be read: {', '.join(damaged[:_DAMAGE_SHOWN])}{more}",
            "they end HELD when they are claimed, or when a command names them; purge or requeue them by these names",
        )


def _sqlite() -> Finding:
    if sound(sqlite3.sqlite_version_info):
        return Finding("ok", f"SQLite {sqlite3.sqlite_version}")
    return Finding(
        "ok",
        f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (mended in 3.51.3, 3.50.7 and 3.44.6); "
        "outbox's own checkpoints keep clear of it",
        "let no other program checkpoint the file: each of its connections, also those for within(), "
        "begins with PRAGMA wal_autocheckpoint = 0",
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
    try:
        found = [text for (text,) in sql.execute(f"PRAGMA quick_check({_DAMAGE_SHOWN})")]
    except sqlite3.DatabaseError as error:  # some damage it does not report, but stumbles over
        found = [f"SQLite's quick_check cannot read the file: {error}"]
    if found == ["ok"]:
        yield Finding("ok", "SQLite's quick_check finds no damage")
        return
    advice = f"stop its writers, keep a copy with its -wal, then `sqlite3 {path} .recover` into a new file"
    yield from (Finding("error", text, advice) for text in found)

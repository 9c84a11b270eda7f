"""Whether all is well with the file."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from outbox.protocols import Finding
from outbox.stores import surroundings
from outbox.stores.content import Codings
from outbox.values import printable, quoted

from . import damage, files, schema
from .naming import Sql

__all__ = ["check"]

_CODINGS: Final = "SELECT coding, count(*) FROM outbox_body WHERE coding != '' GROUP BY coding"
_FROM_THE_FUTURE: Final = """
    SELECT count(*), max(latest) FROM (
        SELECT max(m.submitted, coalesce((SELECT max(a.at) FROM outbox_attempt AS a WHERE a.id = m.id), 0)) AS latest
        FROM outbox_message AS m WHERE m.state = 'queued' AND m.due > ?
    ) WHERE latest > ?
"""
_DAMAGE_SHOWN: Final = 5
_LINES_SHOWN: Final = 20


def check(sql: Sql, path: Path, codings: Codings, now: int) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`."""
    yield Finding("ok", f"{path} is a store of version {schema.VERSION}, WAL, synchronous=FULL")
    yield _sqlite()
    yield _permissions(path)
    yield from _damage(sql, path)
    yield from _records(sql)
    yield from _unknown_codings(sql, codings)
    yield from _clock(sql, now)


def _clock(sql: Sql, now: int) -> Iterator[Finding]:
    with contextlib.suppress(sqlite3.DatabaseError):
        ((number, latest),) = sql.execute(_FROM_THE_FUTURE, (now, now + surroundings.AHEAD))
        yield surroundings.clock(number, (latest or now) - now)


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
        # Not the quick one, which does not ask whether the indexes agree with the rows.
        found = [text for (text,) in sql.execute(f"PRAGMA integrity_check({_DAMAGE_SHOWN})")]
    except sqlite3.DatabaseError as error:  # some damage it does not report, but stumbles over
        found = [f"SQLite's integrity_check cannot read the file: {error}"]
    if found == ["ok"]:
        yield Finding("ok", "SQLite's integrity_check finds no damage")
        return
    advice = (
        f"stop its writers, keep a copy with its -wal, then `sqlite3 {path} REINDEX`, which mends what is wrong in "
        f"indexes alone; where this stays, `sqlite3 {path} .recover` into a new file"
    )
    yield from (Finding("error", text, advice) for text in _lines(found))


def _lines(found: Iterable[str]) -> list[str]:
    """What integrity_check says, line by line: its texts hold several, and one that names the database alone."""
    lines = [printable(line) for text in found for line in text.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("*** in database")][:_LINES_SHOWN] or lines[:1]

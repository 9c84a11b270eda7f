"""The tables, their version, and how a file comes by them.

``outbox_message`` holds the hot row of each message, small, for it is
rewritten at every step; ``outbox_body`` what never changes.  *stage* keeps
apart, each in its own partial index, what a claim must not wade through:

====== ==========================================================
stage
====== ==========================================================
0      settled: no claim ever looks at it
1      scheduled: due at *due*, or leased until then
2      ready, in the order in which it is claimed
3      ready and suspect: its last claim never settled
4      gone: only its id is remembered, and it has no body any more
====== ==========================================================

Instants are microseconds since 1970; *fates* is one letter a recipient, in
the order of *recipients*; *resumes* is when a message was due that a person
holds, and null of every other; *coding* says how *content* is coded at rest; *digest* tells whether another message of the same
id has the same envelope.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from outbox.errors import ConfigurationError, FormatError, StoreUnavailable
from outbox.stores.instants import FOREVER, moment

from .migrations import OLDEST, migrate
from .naming import PREFIX, Names, Sql

__all__ = ["VERSION", "bears", "create", "holds_store", "identity", "mark", "marks", "verify"]

VERSION: Final = 4
_KNOWN: Final = {str(version): version for version in range(OLDEST, VERSION + 1)}

_STATEMENTS: Final = (
    "CREATE TABLE outbox_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE outbox_message (
        id TEXT PRIMARY KEY,
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        stage INTEGER NOT NULL,
        state TEXT NOT NULL,
        fates TEXT NOT NULL,
        due INTEGER NOT NULL,
        since INTEGER NOT NULL,
        submitted INTEGER NOT NULL,
        settled INTEGER,
        generation INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        reason TEXT NOT NULL,
        size INTEGER NOT NULL,
        body INTEGER NOT NULL,
        digest BLOB NOT NULL,
        resumes INTEGER
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE outbox_body (
        number INTEGER PRIMARY KEY,
        sender TEXT NOT NULL,
        recipients TEXT NOT NULL,
        envelope BLOB NOT NULL,
        content BLOB NOT NULL,
        coding TEXT NOT NULL DEFAULT ''
    )
    """,
    """
    CREATE TABLE outbox_attempt (
        row INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        number INTEGER NOT NULL,
        at INTEGER NOT NULL,
        event TEXT NOT NULL,
        relay TEXT NOT NULL,
        results TEXT NOT NULL,
        reason TEXT NOT NULL,
        dialogue TEXT NOT NULL DEFAULT ''
    )
    """,
    """
    CREATE TABLE outbox_suspension (
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        until INTEGER,
        reason TEXT NOT NULL,
        PRIMARY KEY (kind, value)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX outbox_scheduled ON outbox_message (queue, due, id, size) WHERE stage = 1",
    "CREATE INDEX outbox_ready ON outbox_message (queue, priority DESC, due, id, size) WHERE stage = 2",
    "CREATE INDEX outbox_suspect ON outbox_message (queue, priority DESC, due, id, size) WHERE stage = 3",
    "CREATE INDEX outbox_settled ON outbox_message (state, id) WHERE stage = 0",
    "CREATE INDEX outbox_aged ON outbox_message (state, settled, id) WHERE stage = 0",
    "CREATE INDEX outbox_gone ON outbox_message (settled, id) WHERE stage = 4",
    "CREATE INDEX outbox_history ON outbox_attempt (id)",
    f"INSERT INTO outbox_meta VALUES ('version', '{VERSION}')",  # noqa: S608 - a constant of this file
)


_NAMES: Final = tuple(
    found[1] for statement in _STATEMENTS if (found := re.search(rf"CREATE \w+ {PREFIX}(\w+)", statement))
)
_OF_EVERY_VERSION: Final = ("meta", "message", "body", "attempt")

_LEASED: Final = (
    "SELECT count(*), max(due) FROM outbox_message WHERE state = 'claimed' AND due > ? AND due <= ?"
)

# Drawn once for a store, also for one that an earlier release made, which knows of none.
_NAME_IT: Final = "INSERT OR IGNORE INTO outbox_meta VALUES ('store', lower(hex(randomblob(16))))"
_IDENTITY: Final = "SELECT value FROM outbox_meta WHERE name = 'store'"
_MARK: Final = """
    INSERT INTO outbox_meta VALUES ('opened', lower(hex(randomblob(16))))
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_MARKS: Final = "SELECT name, value FROM outbox_meta WHERE name IN ('store', 'opened')"
_BEARS: Final = "SELECT 1 FROM outbox_meta WHERE name = ? AND value = ?"


def identity(sql: Sql) -> str:
    """What this store, and its copies, are told from every other by; ``""`` where it was never drawn."""
    row = sql.execute(_IDENTITY).fetchone()
    return "" if row is None else str(row[0])


def mark(sql: Sql) -> None:
    """Draw what this file is told from every copy by that was made of it before."""
    sql.execute(_MARK)


def marks(sql: Sql) -> Sequence[tuple[str, str]]:
    """The identity of the store, and what was drawn when it was opened last."""
    return [(str(name), str(value)) for name, value in sql.execute(_MARKS)]


def bears(sql: Sql, marks: Sequence[tuple[str, str]]) -> bool:
    """Whether what *sql* leads to has these marks, whatever its rows are converted to."""
    return all(sql.execute(_BEARS, mark).fetchone() is not None for mark in marks)


_HOLDS: Final = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND (:table IS NULL OR name = :table)"


def holds_store(path: Path, prefix: str | None) -> bool:
    """Whether the file that is there has tables of this prefix; where it cannot be told, opening it will tell.

    Without a prefix any table will do: that a file is something else's is told by opening it, too.
    """
    table = None if prefix is None else f"{Names(prefix).prefix}meta"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as sql:
            found = sql.execute(_HOLDS, {"table": table}).fetchone()
    except sqlite3.Error:
        return True
    return found is not None


def verify(connection: sqlite3.Connection, path: Path, names: Names, *, migrate_at: int | None) -> bool:
    """Whether the tables are there, in the version that this release writes, and named.  Reads only.

    Args:
        migrate_at: Now; None leaves older ones as they are.

    Raises:
        FormatError: a newer release wrote them; or an older one, and they are to be left.
        ConfigurationError: the file belongs to something else.
        StoreUnavailable: programs of an earlier release are delivering from them.
    """
    sql = names.apply(connection)
    version = _version(connection, path, names)
    if 0 < version < VERSION:
        _require_leisure(sql, path, version, migrate_at)
    return version == VERSION and identity(sql) != ""


def _version(connection: sqlite3.Connection, path: Path, names: Names) -> int:
    """The version of the tables; 0 where there are none."""
    # SQLite takes a name for the same in capitals.
    there = {name.lower(): kind for name, kind in connection.execute("SELECT name, type FROM sqlite_schema")}
    if not all(there.get(names.prefix + name) == "table" for name in _OF_EVERY_VERSION):
        _require_room(there, path, names)
        return 0
    row = names.apply(connection).execute("SELECT value FROM outbox_meta WHERE name = 'version'").fetchone()
    if row is None or row[0] not in _KNOWN:
        found = "of no version" if row is None else f"of version {row[0]!r}"
        raise FormatError(
            f"{path} holds a store {found}, and this release knows versions up to {VERSION}: "
            "use the release that wrote it, or a newer one; nothing was touched"
        )
    return _KNOWN[row[0]]


def _require_room(there: Mapping[str, str], path: Path, names: Names) -> None:
    """Raise ConfigurationError where our tables would meet others."""
    tables = [name for name, kind in there.items() if kind == "table"]
    taken = sorted(name for name in _NAMES if names.prefix + name in there)
    if names.embedded and taken:
        name = names.prefix + taken[0]
        raise ConfigurationError(
            f"{path} has a {there[name]} {name} of something else already: give the outbox another prefix; "
            "nothing was touched"
        )
    if not names.embedded and tables:
        shown = ", ".join(sorted(tables)[:3])
        raise ConfigurationError(
            f"{path} is the database of something else (it has the tables {shown}): give the outbox a file of "
            "its own, or say prefix= to have its tables beside those; nothing was touched"
        )


def create(connection: sqlite3.Connection, path: Path, names: Names, *, migrate_at: int | None) -> None:
    """Make the tables, or bring older ones up to date, unless another process was quicker; raises as :func:`verify`."""
    sql = names.apply(connection)
    sql.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path, names)
        if not version:
            for statement in _STATEMENTS:
                sql.execute(statement)
        elif version < VERSION:
            _require_leisure(sql, path, version, migrate_at)
            migrate(sql, version)
            sql.execute("UPDATE outbox_meta SET value = ? WHERE name = 'version'", (str(VERSION),))
        sql.execute(_NAME_IT)
    except BaseException:
        if connection.in_transaction:
            sql.execute("ROLLBACK")
        raise
    sql.execute("COMMIT")


def _require_leisure(sql: Sql, path: Path, version: int, now: int | None) -> None:
    """Raise where older tables are not to be changed: who has a lease could not settle, and the mail would go twice."""
    if now is None:
        raise FormatError(
            f"{path} holds a store of version {version}, which this release brings to version {VERSION} when it "
            "delivers or submits, and by no other command: use the release that wrote it; nothing was touched"
        )
    number, until = sql.execute(_LEASED, (now, FOREVER)).fetchone()
    if number:
        raise StoreUnavailable(
            f"{path} holds a store of version {version}, and programs of the release that wrote it have {number} "
            f"messages under leases, until {moment(until).isoformat(timespec='seconds')}: stop them, "
            "and open it when they are done, or then at the latest; nothing was touched"
        )

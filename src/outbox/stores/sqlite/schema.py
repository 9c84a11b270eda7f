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
====== ==========================================================

Instants are microseconds since 1970; *fates* is one letter a recipient, in
the order of *recipients*.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from outbox.errors import ConfigurationError, FormatError

__all__ = ["VERSION", "create", "verify"]

VERSION: Final = 1

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
        body INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE outbox_body (
        number INTEGER PRIMARY KEY,
        digest BLOB NOT NULL,
        sender TEXT NOT NULL,
        recipients TEXT NOT NULL,
        envelope BLOB NOT NULL,
        content BLOB NOT NULL
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
        reason TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE outbox_tombstone (
        id TEXT PRIMARY KEY,
        digest BLOB NOT NULL,
        settled INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX outbox_scheduled ON outbox_message (queue, due, id) WHERE stage = 1",
    "CREATE INDEX outbox_ready ON outbox_message (queue, priority DESC, due, id) WHERE stage = 2",
    "CREATE INDEX outbox_suspect ON outbox_message (queue, priority DESC, due, id) WHERE stage = 3",
    "CREATE INDEX outbox_settled ON outbox_message (state, id) WHERE stage = 0",
    "CREATE INDEX outbox_kept ON outbox_message (settled, id) WHERE stage = 0 AND state = 'delivered'",
    "CREATE INDEX outbox_history ON outbox_attempt (id)",
    "CREATE INDEX outbox_forgotten ON outbox_tombstone (settled, id)",
    f"INSERT INTO outbox_meta VALUES ('version', '{VERSION}')",  # noqa: S608 - a constant of this file
)


def verify(sql: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables are there, in the version that this release knows.  Reads only.

    Raises:
        FormatError: they are of another version.
        ConfigurationError: the file belongs to something else.
    """
    tables = {name for (name,) in sql.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "outbox_meta" not in tables:
        _require_empty(tables, path)
        return False
    row = sql.execute("SELECT value FROM outbox_meta WHERE name = 'version'").fetchone()
    if row != (str(VERSION),):
        found = "of no version" if row is None else f"version {row[0]!r}"
        raise FormatError(
            f"{path} holds a store {found}, and this release knows version {VERSION}: "
            "use the release that wrote it, or a newer one; nothing was touched"
        )
    return True


def _require_empty(tables: set[str], path: Path) -> None:
    if tables:
        shown = ", ".join(sorted(tables)[:3])
        raise ConfigurationError(
            f"{path} is the database of something else (it has the tables {shown}): "
            "give the outbox a file of its own; nothing was touched"
        )


def create(sql: sqlite3.Connection, path: Path) -> None:
    """Make the tables, unless another process was quicker."""
    sql.execute("BEGIN IMMEDIATE")
    if not verify(sql, path):
        for statement in _STATEMENTS:
            sql.execute(statement)
    sql.execute("COMMIT")

"""The reference loops: the least that SQLite and the file system ask for the same bytes, synced the same way.

Nobody could use them for anything: no schedule, no priorities, no ids that
are known, no history, no second thread.  A store is measured against them in
the same directory and the same round.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from laps import Lap, lap

__all__ = ["BEFORE", "appended", "exchanged", "files", "rows", "taken"]

BEFORE: Final = {
    "append": 8_100,
    "rows by 1": 8_760,
    "rows by 100": 84_300,
    "claim, ack by 1": 4_900,
    "claim, ack by 10": 27_500,
    "ack and claim by 1": 6_500,
    "ack and claim by 10": 28_300,
    "files": 1_600,
}
"""What such loops reached before (messages a second), on a disk that did so many appends with fsync.

A loop that falls far behind its figure, scaled by today's appends, is a poor
reference, and a ratio to it says nothing.
"""

_ENVELOPE: Final = '{"sender":"billing@example.com","recipients":["ann@example.org"],"queue":"mail"}'
_SCHEMA: Final = """
    CREATE TABLE mail (number INTEGER PRIMARY KEY, id TEXT NOT NULL, envelope TEXT NOT NULL, content BLOB NOT NULL);
    CREATE TABLE waiting (number INTEGER PRIMARY KEY, due INTEGER NOT NULL);
    CREATE INDEX ready ON waiting (due, number);
"""
_CLAIM: Final = """
    UPDATE waiting SET due = 1
    WHERE number IN (SELECT number FROM waiting WHERE due = 0 ORDER BY number LIMIT ?) RETURNING number
"""


def _database(folder: Path) -> sqlite3.Connection:
    sql = sqlite3.connect(folder / "raw.db", isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("PRAGMA synchronous = FULL")
    sql.executescript(_SCHEMA)
    return sql


def _insert(sql: sqlite3.Connection, content: bytes, numbers: Sequence[int]) -> None:
    mails = [(number, f"{number:036x}", _ENVELOPE, content) for number in numbers]
    sql.executemany("INSERT INTO mail VALUES (?, ?, ?, ?)", mails)


def rows(folder: Path, content: bytes, number: int, by: int) -> Lap:
    """Rows of *content* in commits of *by*."""
    sql = _database(folder)

    def put(first: int) -> None:
        sql.execute("BEGIN IMMEDIATE")
        _insert(sql, content, range(first, first + by))
        sql.execute("COMMIT")

    try:
        return lap(put, range(1, number + by + 1, by), size=by)
    finally:
        sql.close()


def _filled(folder: Path, content: bytes, number: int) -> sqlite3.Connection:
    sql = _database(folder)
    sql.execute("BEGIN IMMEDIATE")
    _insert(sql, content, range(number))
    sql.executemany("INSERT INTO waiting VALUES (?, 0)", [(each,) for each in range(number)])
    sql.execute("COMMIT")
    sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sql


def _claim(sql: sqlite3.Connection, by: int) -> list[tuple[int]]:
    taken = sql.execute(_CLAIM, (by,)).fetchall()
    for (number,) in taken:
        sql.execute("SELECT id, envelope, content FROM mail WHERE number = ?", (number,)).fetchone()
    return taken


def _ack(sql: sqlite3.Connection, taken: Sequence[tuple[int]]) -> None:
    sql.executemany("DELETE FROM waiting WHERE number = ?", taken)
    sql.executemany("DELETE FROM mail WHERE number = ?", taken)


def taken(folder: Path, content: bytes, number: int, by: int) -> Lap:
    """Claimed *by* at a time in a commit that is not synced, and acknowledged in one that is."""
    sql = _filled(folder, content, number + by)

    def take(_: int) -> None:
        sql.execute("PRAGMA synchronous = NORMAL")
        sql.execute("BEGIN IMMEDIATE")
        claimed = _claim(sql, by)
        sql.execute("COMMIT")
        sql.execute("PRAGMA synchronous = FULL")
        sql.execute("BEGIN IMMEDIATE")
        _ack(sql, claimed)
        sql.execute("COMMIT")

    try:
        return lap(take, range(number // by + 1), size=by)
    finally:
        sql.close()


def exchanged(folder: Path, content: bytes, number: int, by: int) -> Lap:
    """The last *by* acknowledged and the next claimed, in one synced commit."""
    sql = _filled(folder, content, number + by)
    claimed: list[tuple[int]] = []

    def exchange(_: int) -> None:
        sql.execute("BEGIN IMMEDIATE")
        _ack(sql, claimed)
        claimed[:] = _claim(sql, by)
        sql.execute("COMMIT")

    try:
        return lap(exchange, range(number // by + 1), size=by)
    finally:
        sql.close()


def files(folder: Path, content: bytes, number: int, threads: int) -> Lap:
    """Files of *content*: created, synced, renamed, and the directory synced, each for itself."""
    (folder / "new").mkdir()
    here, there = (os.open(each, os.O_RDONLY) for each in (folder, folder / "new"))

    def put(each: int) -> None:
        name = f"{each:036x}"
        file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=here)
        os.write(file, content)
        os.fsync(file)
        os.close(file)
        os.rename(name, name, src_dir_fd=here, dst_dir_fd=there)
        os.fsync(there)

    try:
        return lap(put, range(number + threads), threads=threads)
    finally:
        os.close(here)
        os.close(there)


def appended(folder: Path, content: bytes, number: int) -> Lap:
    """Appends to one file, each synced: what the disk allows, whatever keeps the mail."""
    file = os.open(folder / "appended", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def append(_: int) -> None:
        os.write(file, content)
        os.fsync(file)

    try:
        return lap(append, range(number + 1))
    finally:
        os.close(file)

"""A transaction of the caller's leads into the store, or it is told that it does not: whatever its connection is like."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest
from shared_connection import require_turns

from outbox import Outbox
from outbox.errors import ConfigurationError, StoreError, StoreFull, StoreUnavailable
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import ids, mail, take

Replace: TypeAlias = Callable[[Path], None]


def embedded(path: Path) -> Outbox:
    return Outbox(SQLiteStore(path, prefix="shop_mail_"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY)")
    with embedded(path) as outbox:
        yield outbox


@pytest.fixture
def connection(path: Path, outbox: Outbox) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def remove(path: Path) -> None:
    """The database with all that SQLite lays beside it."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def by_a_copy(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA wal_checkpoint(FULL)")
    backup = path.with_name("backup")
    shutil.copy(path, backup)
    remove(path)
    backup.rename(path)


def by_a_new_one(path: Path) -> None:
    remove(path)
    with embedded(path):
        pass


# -- the file


@pytest.mark.parametrize("replace", [remove, by_a_copy, by_a_new_one])
def test_nothing_is_acknowledged_where_the_store_s_file_is_gone(
    outbox: Outbox, connection: sqlite3.Connection, path: Path, replace: Replace
) -> None:
    submitter = outbox.within(connection)
    replace(path)

    with pytest.raises(StoreUnavailable, match="while it was in use"):
        submitter.submit(mail("a"))
    with pytest.raises(StoreUnavailable, match="while it was in use"):
        outbox.within(connection)


def test_a_connection_to_the_earlier_file_is_refused_while_another_program_writes_to_the_new_one(
    outbox: Outbox, connection: sqlite3.Connection, path: Path
) -> None:
    assert connection.execute("SELECT count(*) FROM shop_mail_message").fetchone() == (0,)
    outbox.close()
    by_a_copy(path)

    with embedded(path) as renewed, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigurationError, match="has another file open"):
            renewed.within(connection).submit(mail("a"))
        other.execute("ROLLBACK")


def test_a_connection_of_another_thread_is_refused_and_left_as_it_was(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    set_to: list[object] = []

    class Watched(sqlite3.Connection):
        def __setattr__(self, name: str, value: object) -> None:
            set_to.append((name, value))
            super().__setattr__(name, value)

    (name,) = (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
    with contextlib.closing(sqlite3.connect(name, factory=Watched)) as watched, ThreadPoolExecutor(1) as pool:
        refused = pool.submit(outbox.within, watched)
        assert isinstance(refused.exception(10), ConfigurationError)
    assert set_to == []


def test_a_submit_that_fails_takes_back_nothing_that_another_thread_submits_on_the_connection(
    path: Path,
) -> None:
    with (
        contextlib.closing(SQLiteStore(path, prefix="shop_mail_")) as store,
        contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as shared,
    ):
        with shared:
            require_turns(store.within(shared))
        assert sorted(ids(take(store))) == ["beside", "known"]


@pytest.mark.parametrize("replace", [by_a_copy, by_a_new_one])
def test_a_connection_that_still_has_the_earlier_file_open_is_refused(
    outbox: Outbox, connection: sqlite3.Connection, path: Path, replace: Replace
) -> None:
    assert connection.execute("SELECT count(*) FROM shop_mail_message").fetchone() == (0,)
    outbox.close()
    replace(path)

    with embedded(path) as renewed:
        with pytest.raises(ConfigurationError, match="has another file open"):
            renewed.within(connection).submit(mail("a"))
        connection.rollback()
        with contextlib.closing(sqlite3.connect(path)) as new:
            renewed.within(new).submit(mail("b"))
            new.commit()
        assert ids(take(renewed.store)) == ["b"]


def test_a_connection_to_another_store_is_refused_while_others_write(
    outbox: Outbox, connection: sqlite3.Connection, path: Path
) -> None:
    assert connection.execute("SELECT count(*) FROM shop_mail_message").fetchone() == (0,)
    outbox.close()
    by_a_new_one(path)

    with embedded(path) as renewed, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigurationError, match="has another file open"):
            renewed.within(connection).submit(mail("a"))


def test_a_store_of_an_earlier_release_is_told_apart_too(path: Path) -> None:
    embedded(path).close()
    with contextlib.closing(sqlite3.connect(path)) as sql, sql:
        sql.execute("DELETE FROM shop_mail_meta WHERE name = 'store'")

    with embedded(path) as outbox, contextlib.closing(sqlite3.connect(path)) as connection:
        outbox.within(connection).submit(mail("a"))
        connection.commit()
        assert ids(take(outbox.store)) == ["a"]


def test_two_stores_never_have_one_identity(tmp_path: Path) -> None:
    identities = set()
    for name in ("a.db", "b.db"):
        SQLiteStore(tmp_path / name).close()
        SQLiteStore(tmp_path / name).close()
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as sql:
            identities |= set(sql.execute("SELECT value FROM outbox_meta WHERE name = 'store'"))

    assert len(identities) == 2


def test_a_store_that_was_closed_takes_nothing_within_a_transaction(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    submitter = outbox.within(connection)
    outbox.close()

    with pytest.raises(StoreUnavailable, match="was closed"):
        submitter.submit(mail("a"))


# -- the connection


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be", "UTF-8"])
def test_it_does_not_matter_in_which_encoding_the_database_is(path: Path, encoding: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY)")
        with embedded(path) as outbox, connection:
            outbox.within(connection).submit(mail("a"))
            outbox.within(connection).submit(mail("a"))
        with embedded(path) as outbox:
            assert ids(take(outbox.store)) == ["a"]


@pytest.fixture
def odd_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("BLOB", "TEXT", "INTEGER"):
        monkeypatch.setitem(sqlite3.converters, kind, lambda data: f"converted {data!r}")


@pytest.mark.usefixtures("odd_converters")
def test_what_the_caller_has_his_columns_converted_to_changes_nothing(outbox: Outbox, path: Path) -> None:
    outbox.submit_many([mail("a"), mail("b")])
    detect = sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES

    with contextlib.closing(sqlite3.connect(path, detect_types=detect)) as connection, connection:
        assert outbox.within(connection).submit(mail("a")) == "a"
        assert outbox.within(connection).submit_many([mail("a"), mail("b"), mail("c")]) == ["a", "b", "c"]

    assert ids(take(outbox.store)) == ["a", "b", "c"]


@pytest.mark.parametrize("table", ["meta", "message", "body"])
def test_a_temporary_table_of_the_same_name_swallows_nothing(
    outbox: Outbox, connection: sqlite3.Connection, table: str
) -> None:
    connection.execute(f"CREATE TEMP TABLE shop_mail_{table} AS SELECT * FROM main.shop_mail_{table}")

    with connection:
        outbox.within(connection).submit_many([mail("a"), mail("b")])

    assert ids(take(outbox.store)) == ["a", "b"]


def test_a_second_name_of_the_file_is_refused_as_what_it_is(outbox: Outbox, path: Path) -> None:
    """SQLite keeps a log beside each name, and whoever came by the one would not see what came by the other."""
    other = path.with_name("other.db")
    other.hardlink_to(path)
    with (
        contextlib.closing(sqlite3.connect(other)) as connection,
        pytest.raises(ConfigurationError, match=r"other\.db, another name \(a hard link\) of .*shop\.db"),
    ):
        outbox.within(connection).submit(mail("a"))
    link = path.with_name("link.db")
    link.symlink_to(path)
    for name in (path, link):
        with contextlib.closing(sqlite3.connect(name)) as connection, connection:
            outbox.within(connection).submit(mail(name.stem))
    assert sorted(ids(take(outbox.store))) == ["link", "shop"]


def test_the_limits_of_the_store_hold_within_a_transaction_too(
    outbox: Outbox, connection: sqlite3.Connection, path: Path
) -> None:
    with Outbox(SQLiteStore(path, prefix="shop_mail_", max_messages=2)) as limited:
        limited.within(connection).submit_many([mail("a"), mail("b")])
        with pytest.raises(StoreFull):
            limited.within(connection).submit(mail("c"))
        connection.commit()

    assert ids(take(outbox.store)) == ["a", "b"]


def test_a_closed_connection_is_a_mistake_of_the_caller_s_and_is_named(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    submitter = outbox.within(connection)
    connection.close()

    with pytest.raises(ConfigurationError, match="cannot be used here: Cannot operate on a closed"):
        submitter.submit(mail("a"))
    with pytest.raises(ConfigurationError, match="cannot be used here: Cannot operate on a closed"):
        outbox.within(connection)


def test_a_transaction_that_began_too_early_is_told_to_begin_anew_at_once(outbox: Outbox, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM orders").fetchall()
        outbox.submit(mail("a"))

        with pytest.raises(StoreError, match="BEGIN IMMEDIATE") as caught:
            outbox.within(connection).submit(mail("b"))

        assert "locked" not in str(caught.value)
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        outbox.within(connection).submit(mail("b"))
        connection.execute("COMMIT")
    assert ids(take(outbox.store)) == ["a", "b"]


def test_the_advice_of_check_leaves_others_their_writing(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 45, 1))
    assert isinstance(outbox.store, SQLiteStore)

    (advice,) = [finding.advice for finding in outbox.store.check() if "WAL-reset" in finding.text]

    assert "wal_autocheckpoint = 0" in advice
    assert "write" not in advice

"""The outbox inside the user's own database: what is put in a transaction of his is there if and only if it commits."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outbox import Message, Outbox
from outbox.errors import (
    ConfigurationError,
    ConflictError,
    FormatError,
    InvalidMessage,
    StoreUnavailable,
    UnsupportedError,
)
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import ids, mail, states, take

MAIL = b"From: ann@example.org\r\nTo: bob@example.org\r\nSubject: your order\r\n\r\nThank you.\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY)")
    return path


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    with Outbox(SQLiteStore(path, prefix="shop_mail_")) as outbox:
        yield outbox


@pytest.fixture
def connection(path: Path, outbox: Outbox) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def orders(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM orders")]


def test_what_is_submitted_is_there_when_the_transaction_commits(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    connection.execute("INSERT INTO orders VALUES (1)")
    id = outbox.within(connection).submit(MAIL)
    assert ids(take(outbox.store)) == []

    connection.commit()

    assert orders(connection) == [1]
    assert ids(take(outbox.store)) == [id]


def test_what_is_submitted_is_gone_when_the_transaction_rolls_back(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    connection.execute("INSERT INTO orders VALUES (1)")
    outbox.within(connection).submit_many([MAIL, MAIL])

    connection.rollback()

    assert orders(connection) == []
    assert take(outbox.store) == []


def test_it_begins_python_s_implicit_transaction_as_any_insert_does(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    outbox.within(connection).submit(MAIL, id="a")
    assert connection.in_transaction
    connection.rollback()
    assert take(outbox.store) == []


def test_a_known_id_leaves_the_transaction_as_it_was(outbox: Outbox, connection: sqlite3.Connection) -> None:
    outbox.submit(MAIL, id="a")
    connection.execute("INSERT INTO orders VALUES (1)")

    assert outbox.within(connection).submit(MAIL, id="a") == "a"
    connection.commit()

    assert orders(connection) == [1]
    assert ids(take(outbox.store)) == ["a"]


@pytest.mark.parametrize(
    ("submit", "error"),
    [
        ([mail("new"), mail("a", "another@example.org")], ConflictError),
        ([b"no mail at all"], InvalidMessage),
    ],
)
def test_an_error_leaves_nothing_and_the_transaction_goes_on(
    outbox: Outbox, connection: sqlite3.Connection, submit: list[Message | bytes], error: type[Exception]
) -> None:
    outbox.submit(MAIL, id="a")
    connection.execute("INSERT INTO orders VALUES (1)")

    with pytest.raises(error):
        outbox.within(connection).submit_many(submit)
    assert connection.in_transaction
    connection.commit()

    assert orders(connection) == [1]
    assert ids(take(outbox.store)) == ["a"]


def test_a_statement_that_fails_in_the_middle_leaves_nothing_of_the_put(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    connection.execute("INSERT INTO orders VALUES (1)")
    connection.execute(
        "CREATE TEMP TRIGGER fails BEFORE INSERT ON main.shop_mail_message WHEN NEW.id = 'b' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )

    with pytest.raises(StoreUnavailable):
        outbox.within(connection).submit_many([mail("a"), mail("b")])
    connection.commit()

    assert orders(connection) == [1]
    assert take(outbox.store) == []


def test_the_caller_may_have_his_rows_and_texts_as_he_likes(
    outbox: Outbox, connection: sqlite3.Connection
) -> None:
    connection.row_factory = sqlite3.Row
    connection.text_factory = bytes

    with connection:
        outbox.within(connection).submit(MAIL, id="a")
        outbox.within(connection).submit(MAIL, id="a")

    assert ids(take(outbox.store)) == ["a"]


def test_a_connection_that_commits_each_statement_needs_a_transaction_first(
    outbox: Outbox, path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(ConfigurationError, match="begin a transaction first"):
            outbox.within(connection).submit(MAIL)
        assert take(outbox.store) == []

        connection.execute("BEGIN")
        outbox.within(connection).submit(MAIL, id="a")
        connection.execute("COMMIT")
        assert ids(take(outbox.store)) == ["a"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3.connect(autocommit=) came with Python 3.12")
@pytest.mark.parametrize("autocommit", [True, False])
def test_python_s_newer_ways_of_committing_are_told_apart(
    outbox: Outbox, path: Path, autocommit: bool
) -> None:
    options: dict[str, Any] = {"autocommit": autocommit}
    connection = sqlite3.connect(path, **options)
    with contextlib.closing(connection):
        if autocommit:
            with pytest.raises(ConfigurationError, match="begin a transaction first"):
                outbox.within(connection).submit(MAIL)
        else:
            outbox.within(connection).submit(MAIL, id="a")
            connection.commit()
            assert ids(take(outbox.store)) == ["a"]


def test_a_connection_to_another_file_is_refused(outbox: Outbox, tmp_path: Path) -> None:
    for name in (":memory:", str(tmp_path / "other.db")):
        with (
            contextlib.closing(sqlite3.connect(name)) as other,
            pytest.raises(ConfigurationError, match="both must be one file"),
        ):
            outbox.within(other)


def test_what_is_no_connection_is_refused(outbox: Outbox) -> None:
    with pytest.raises(ConfigurationError, match=r"takes a sqlite3\.Connection, not str"):
        outbox.within("shop.db")


def test_a_store_that_cannot_says_so() -> None:
    with pytest.raises(UnsupportedError, match="MemoryStore cannot store within a transaction of yours"):
        Outbox(MemoryStore()).within(None)


def test_a_database_locked_by_another_is_said_to_be(outbox: Outbox, path: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
        contextlib.closing(sqlite3.connect(path, timeout=0)) as connection,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            outbox.within(connection).submit(MAIL)


# -- beside the tables of the user


def test_its_tables_all_bear_the_prefix(outbox: Outbox, connection: sqlite3.Connection) -> None:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")}

    assert {name for name in names if not name.startswith("shop_mail_")} == {"orders"}


def test_two_outboxes_in_one_database_do_not_meet(outbox: Outbox, path: Path) -> None:
    with Outbox(SQLiteStore(path, prefix="other_")) as other:
        outbox.submit(MAIL, id="a")
        other.submit(MAIL, id="b")
        assert (list(states(outbox.store)), list(states(other.store))) == (["a"], ["b"])  # type: ignore[arg-type]  # SQLiteStore has every capability


@pytest.mark.parametrize("prefix", ["", "Mail", "1a", "a-b", "a b", "a" * 41, 'x"; DROP TABLE orders; --'])
def test_a_prefix_that_is_no_name_is_refused(path: Path, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        SQLiteStore(path, prefix=prefix)


def made(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as sql, sql:
        for statement in statements:
            sql.execute(statement)


def refused(path: Path, prefix: str | None) -> str:
    before = sorted(file.read_bytes() for file in path.parent.glob(path.name))
    with pytest.raises(ConfigurationError) as caught:
        SQLiteStore(path, prefix=prefix)
    assert sorted(file.read_bytes() for file in path.parent.glob(path.name)) == before
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["sqlite_", "sqlite_mail_"])
def test_a_prefix_that_sqlite_keeps_for_itself_is_refused(path: Path, prefix: str) -> None:
    assert "SQLite keeps" in refused(path, prefix)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE app_message (a)",
        "CREATE TABLE App_Body (a)",
        "CREATE VIEW app_attempt AS SELECT * FROM orders",
        "CREATE INDEX app_ready ON orders (number)",
        "CREATE TABLE app_meta (k, v)",
        "CREATE TABLE app_meta (name TEXT PRIMARY KEY, value TEXT)",
        "CREATE TABLE app_meta (name TEXT PRIMARY KEY, value INTEGER)",
        "CREATE VIEW app_meta AS SELECT 'version' AS name, '2' AS value",
    ],
)
def test_a_prefix_that_the_user_s_own_tables_bear_is_refused_by_the_name_it_meets(
    path: Path, statement: str
) -> None:
    made(path, statement)
    if "app_meta (name" in statement:
        made(path, "INSERT INTO app_meta VALUES ('version', 2)")

    said = refused(path, "app_")
    assert statement.split()[2].lower() in said.lower()
    assert "another prefix" in said


def test_tables_of_a_like_name_are_no_hindrance(path: Path) -> None:
    made(path, "CREATE TABLE app_metadata (a)", "CREATE TABLE appmeta (a)", "CREATE TABLE the_app_meta (a)")

    SQLiteStore(path, prefix="app_").close()
    SQLiteStore(path, prefix="app_").close()


@pytest.mark.parametrize("version", ["x'32'", "x'ff'", "2.5", "'two'", "'٢'", "''"])
def test_a_version_that_is_none_is_of_a_format_that_this_release_does_not_know(
    path: Path, version: str
) -> None:
    SQLiteStore(path, prefix="app_").close()
    made(path, f"UPDATE app_meta SET value = {version} WHERE name = 'version'")

    with pytest.raises(FormatError, match="nothing was touched"):
        SQLiteStore(path, prefix="app_")

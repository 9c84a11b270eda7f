"""Who hands over what no message can be put within is told what is wrong with it, and what to do; nothing is stored."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection as default, connections
from shops import SHOPS, Shop, SQLite, prepare
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from werkzeug.local import LocalProxy

from outbox import FilesystemStore, MemoryStore, Outbox
from outbox.errors import ConfigurationError, StoreUnavailable, UnsupportedError
from outbox.testing.clauses.scene import ids, mail, take


@pytest.fixture
def database(tmp_path: Path) -> SQLite:
    database = SQLite(tmp_path / "shop.db")
    prepare(database)
    return database


@pytest.fixture
def outbox(database: SQLite) -> Iterator[Outbox]:
    with Outbox(database.store()) as outbox:
        yield outbox
        assert take(outbox.store) == [], "what was refused is there"


@pytest.fixture
def engine(database: SQLite) -> Iterator[Any]:
    """As a program makes it that knows nothing of savepoints."""
    engine = create_engine(f"sqlite:///{database.path}")
    yield engine
    engine.dispose()


# -- what is no connection


@pytest.mark.parametrize(
    "make",
    [
        lambda engine: engine,
        sessionmaker,
        lambda engine: engine.dialect,
    ],
)
def test_what_begins_no_transaction_by_itself_is_refused(
    outbox: Outbox, engine: Any, make: Callable[[Any], Any]
) -> None:
    with pytest.raises(ConfigurationError, match="takes SQLAlchemy's Session or Connection"):
        outbox.within(make(engine))


@pytest.mark.parametrize("thing", [None, "shop.db", object()])
def test_what_is_no_connection_at_all_is_refused(outbox: Outbox, thing: object) -> None:
    with pytest.raises(ConfigurationError, match=r"takes a sqlite3\.Connection"):
        outbox.within(thing)


def test_something_else_of_django_s_is_refused(outbox: Outbox) -> None:
    with pytest.raises(ConfigurationError, match=r"takes django\.db\.connection"):
        outbox.within(connections)


class AsyncDriver:
    """As aiosqlite's, asyncpg's and psycopg's asynchronous connections are."""

    async def execute(self, statement: str) -> None: ...


@pytest.mark.parametrize(
    "make",
    [
        AsyncSession,
        lambda: AsyncConnection.__new__(AsyncConnection),
        AsyncDriver,
    ],
)
def test_an_asynchronous_connection_is_refused_with_what_to_do(
    outbox: Outbox, make: Callable[[], Any]
) -> None:
    with pytest.raises(ConfigurationError, match=r"is asynchronous.*to_thread.*stage"):
        outbox.within(make())


class AsyncPool:
    """A Session over an asynchronous driver looks like any other; what it leads to does not."""

    driver_connection = AsyncDriver()


AsyncPool.__module__ = "sqlalchemy.pool"


def test_an_asynchronous_driver_behind_a_synchronous_session_is_refused(outbox: Outbox) -> None:
    with pytest.raises(ConfigurationError, match="is asynchronous"):
        outbox.within(AsyncPool()).submit(mail("a"))


def test_a_proxy_is_taken_for_what_it_stands_for(outbox: Outbox, engine: Any) -> None:
    with Session(engine) as session:
        outbox.within(LocalProxy(lambda: session)).submit(mail("a"))
        session.commit()

    assert ids(take(outbox.store)) == ["a"]


# -- no transaction


@pytest.mark.parametrize("library", ["session", "connection", "connection as you go"])
def test_a_connection_that_commits_each_statement_is_refused(
    outbox: Outbox, database: SQLite, library: str
) -> None:
    class Committing(SQLite):
        def sqlalchemy(self) -> Any:
            return create_engine(f"sqlite:///{database.path}", isolation_level="AUTOCOMMIT")

    shop = SHOPS[library](Committing(database.path))
    with (
        contextlib.closing(shop),
        shop.transaction() as deal,
        pytest.raises(ConfigurationError, match='"AUTOCOMMIT"'),
    ):
        outbox.within(deal.connection).submit(mail("a"))


@pytest.fixture
def django(database: SQLite, outbox: Outbox) -> Iterator[Shop]:
    shop = SHOPS["django"](database)
    yield shop
    shop.close()


def test_django_s_connection_outside_of_atomic_is_refused(outbox: Outbox, django: Shop) -> None:
    with pytest.raises(ConfigurationError, match=r"'default'.*transaction\.atomic"):
        outbox.within(default).submit(mail("a"))


def test_django_s_connection_in_an_event_loop_is_refused(outbox: Outbox, django: Shop) -> None:
    async def submit() -> None:
        outbox.within(default).submit(mail("a"))

    with pytest.raises(ConfigurationError, match="sync_to_async"):
        asyncio.run(submit())


def test_a_savepoint_that_would_commit_is_refused_and_the_transaction_goes_on(
    outbox: Outbox, engine: Any
) -> None:
    """Python's module begins no transaction before a SAVEPOINT, so that its end is a COMMIT."""
    with Session(engine) as session:
        with session.begin_nested():
            session.execute(text("INSERT INTO purchase VALUES (1, 'teapot')"))
            with pytest.raises(ConfigurationError, match="SAVEPOINT"):
                outbox.within(session).submit(mail("a"))
        outbox.within(session).submit(mail("b"))
        session.commit()

    assert ids(take(outbox.store)) == ["b"]


# -- no connection


def test_a_closed_connection_is_refused(outbox: Outbox, engine: Any) -> None:
    with engine.connect() as connection:
        submitter = outbox.within(connection)

    with pytest.raises(ConfigurationError, match="closed"):
        submitter.submit(mail("a"))


def test_a_connection_that_was_given_back_to_its_pool_is_refused(outbox: Outbox, engine: Any) -> None:
    connection = engine.raw_connection()
    submitter = outbox.within(connection)
    connection.close()

    with pytest.raises(ConfigurationError, match="given back"):
        submitter.submit(mail("a"))


def test_a_session_that_has_no_engine_is_refused(outbox: Outbox) -> None:
    with Session() as session, pytest.raises(ConfigurationError, match="bind"):
        outbox.within(session).submit(mail("a"))


def test_a_session_whose_flush_has_failed_is_refused_until_it_is_rolled_back(
    outbox: Outbox, engine: Any
) -> None:
    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "item"
        name: Mapped[str] = mapped_column(primary_key=True)

    with Session(engine) as session:
        session.add(Item(name="teapot"))
        with pytest.raises(IntegrityError):
            session.flush()
        with pytest.raises(ConfigurationError, match="rolled back"):
            outbox.within(session).submit(mail("a"))
        session.rollback()
        outbox.within(session).submit(mail("b"))
        session.commit()

    assert ids(take(outbox.store)) == ["b"]


def test_a_database_that_cannot_be_reached_is_the_store_s_error(outbox: Outbox, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/nowhere/shop.db")

    with Session(engine) as session, pytest.raises(StoreUnavailable, match="unable to open"):
        outbox.within(session).submit(mail("a"))


# -- another database


@pytest.mark.parametrize("library", [name for name in SHOPS if name != "driver"])
def test_a_connection_to_another_database_is_refused(outbox: Outbox, tmp_path: Path, library: str) -> None:
    another = SQLite(tmp_path / "another.db")
    prepare(another)
    shop = SHOPS[library](another)

    with (
        contextlib.closing(shop),
        shop.transaction() as deal,
        pytest.raises(ConfigurationError, match="both must be one file"),
    ):
        outbox.within(deal.connection).submit(mail("a"))


def test_tables_that_are_not_there_are_named_with_what_makes_them(database: SQLite) -> None:
    with Outbox(database.store()) as outbox, contextlib.closing(sqlite3.connect(database.path)) as connection:
        for table in ("meta", "message", "body", "attempt", "suspension"):
            connection.execute(f"DROP TABLE shop_mail_{table}")
        connection.commit()

        with pytest.raises(StoreUnavailable, match="open the store again, which makes them"):
            outbox.within(connection).submit(mail("a"))


@pytest.mark.parametrize("store", [lambda _: MemoryStore(), lambda path: FilesystemStore(path / "spool")])
def test_a_store_in_no_database_says_what_to_do_instead(
    store: Callable[[Path], Any], tmp_path: Path, engine: Any
) -> None:
    with (
        Outbox(store(tmp_path)) as outbox,
        Session(engine) as session,
        pytest.raises(UnsupportedError, match=r"stage.*publish"),
    ):
        outbox.within(session)

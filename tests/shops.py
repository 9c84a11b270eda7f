"""A program with a database of its own, by each library that it may use: it takes orders, and hands over its connection.

Whatever library it is, a shop is the same to a test: ``with shop.transaction() as deal`` commits at its end and rolls
back where it raises; ``deal.connection`` is what a program hands to ``within``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import attrs
import django
import flask as flasks
import psycopg
from django.conf import settings
from django.db import connection as default, connections, transaction
from flask_sqlalchemy import SQLAlchemy
from postgres_places import TOLD, places
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from outbox import SQLiteStore, Store
from outbox.stores.postgres import PostgresStore

__all__ = [
    "ENGINES",
    "SHOPS",
    "Database",
    "Deal",
    "Kind",
    "Postgres",
    "SQLite",
    "Shop",
    "database",
    "found",
    "orders",
    "prepare",
]

ENGINES: Final = ("sqlite", "postgres")

SCHEMA: Final = (
    "DROP TABLE IF EXISTS purchase",
    "DROP TABLE IF EXISTS item",
    "CREATE TABLE item (name VARCHAR(40) PRIMARY KEY)",
    """
    CREATE TABLE purchase (
        number INTEGER PRIMARY KEY,
        item VARCHAR(40) NOT NULL REFERENCES item (name) DEFERRABLE INITIALLY DEFERRED
    )
    """,
    "INSERT INTO item VALUES ('teapot')",
)


class Database(Protocol):
    """Where a shop's tables are, and the outbox with them."""

    def sqlalchemy(self) -> Any:
        """An engine."""

    def django(self) -> dict[str, Any]:
        """One of the settings' DATABASES."""

    def connect(self) -> Any:
        """A connection of the driver's, which begins a transaction by itself."""

    def store(self) -> Store:
        """The store that is in it."""

    def wait(self) -> None:
        """Until nobody is within a transaction any more: a server ends those of who was killed a little later."""

    @property
    def told(self) -> str:
        """What another process finds it by."""


# A machine that is busy makes somebody wait; and checkpoints are left to the store, as its documentation asks.
_PATIENCE: Final = 120
_SETTINGS: Final = ("PRAGMA foreign_keys = ON", "PRAGMA wal_autocheckpoint = 0")


@attrs.frozen
class SQLite:
    path: Path

    def sqlalchemy(self) -> Any:
        engine = create_engine(f"sqlite:///{self.path}", connect_args={"timeout": _PATIENCE})

        def connected(driver: sqlite3.Connection, _: object) -> None:
            driver.isolation_level = None
            _settle(driver)

        event.listen(engine, "connect", connected)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine

    def django(self) -> dict[str, Any]:
        options = {
            "timeout": _PATIENCE,
            "transaction_mode": "IMMEDIATE",
            "init_command": "; ".join(_SETTINGS),
        }
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self.path), "OPTIONS": options}

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE)
        _settle(connection)
        return connection

    def store(self) -> Store:
        return SQLiteStore(self.path, prefix="shop_mail_")

    def wait(self) -> None:
        """Whoever was killed has let go."""

    @property
    def told(self) -> str:
        return os.fspath(self.path)


def _settle(connection: sqlite3.Connection) -> None:
    for setting in _SETTINGS:
        connection.execute(setting)


_POSTGRES: Final = "postgres:"


@attrs.frozen
class Postgres:
    """A schema of the server of this run."""

    schema: str

    @property
    def parameters(self) -> dict[str, Any]:
        """libpq's, with the schema as the one that tables are looked for in."""
        found = psycopg.conninfo.conninfo_to_dict(os.environ[TOLD])
        return {**found, "options": f"-csearch_path={self.schema}"}

    def sqlalchemy(self) -> Any:
        return create_engine("postgresql+psycopg://", creator=self.connect)

    def django(self) -> dict[str, Any]:
        options = self.parameters
        name = options.pop("dbname", "")
        return {"ENGINE": "django.db.backends.postgresql", "NAME": name, "OPTIONS": options}

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.parameters)

    def store(self) -> Store:
        return PostgresStore(os.environ[TOLD], schema=self.schema)

    def wait(self) -> None:
        with self.connect() as connection:
            connection.execute("LOCK TABLE purchase IN ACCESS EXCLUSIVE MODE")

    @property
    def told(self) -> str:
        return f"{_POSTGRES}{self.schema}"


def found(told: str) -> Database:
    """The database that another process told of."""
    if told.startswith(_POSTGRES):
        return Postgres(told.removeprefix(_POSTGRES))
    return SQLite(Path(told))


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[Database]:
    """One for a test that is in this folder, with the shop's tables; *kind* is sqlite, or postgres where a server runs."""
    made: Database = SQLite(folder / "shop.db") if kind == "sqlite" else Postgres(places().schema(folder))
    prepare(made)
    try:
        yield made
    finally:
        if kind == "postgres":
            places().leave(folder)


class Deal(Protocol):
    """One transaction."""

    @property
    def connection(self) -> Any:
        """What the program hands to ``within``."""

    def order(self, number: int, item: str = "teapot") -> None:
        """Take an order; of an *item* that there is not the commit fails."""

    def savepoint(self) -> AbstractContextManager[Any]:
        """Kept at its end, undone where it raises."""


class Shop(Protocol):
    """A program."""

    def transaction(self) -> AbstractContextManager[Deal]:
        """Committed at its end, rolled back where it raises."""

    def close(self) -> None:
        """Give back what is open."""


# -- the driver itself


@attrs.frozen
class Plain:
    """The driver's own connection, of sqlite3's or psycopg's."""

    connection: Any

    def transaction(self) -> AbstractContextManager[Deal]:
        return self._within()

    @contextlib.contextmanager
    def _within(self) -> Iterator[Deal]:
        try:
            yield self
            self.connection.commit()
        except BaseException:
            self.connection.rollback()
            raise

    def order(self, number: int, item: str = "teapot") -> None:
        # Neither driver takes the other's placeholders; these are values of ours.
        self.connection.execute(f"INSERT INTO purchase VALUES ({number}, '{item}')")

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        self.connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK TO SAVEPOINT part")
            self.connection.execute("RELEASE SAVEPOINT part")
            raise
        self.connection.execute("RELEASE SAVEPOINT part")

    def close(self) -> None:
        self.connection.close()


def plain(database: Database) -> Shop:
    return Plain(database.connect())


# -- SQLAlchemy


@attrs.frozen
class _Alchemy:
    """A deal by a Session or a Connection: both execute, and both know savepoints."""

    connection: Any
    handed: Any = None

    def order(self, number: int, item: str = "teapot") -> None:

        statement = text("INSERT INTO purchase VALUES (:number, :item)")
        self.connection.execute(statement, {"number": number, "item": item})

    def savepoint(self) -> AbstractContextManager[Any]:
        nested: AbstractContextManager[Any] = self.connection.begin_nested()
        return nested


@attrs.frozen
class _Handing:
    """Another object of the same transaction is handed over."""

    deal: Any
    connection: Any

    def order(self, number: int, item: str = "teapot") -> None:
        self.deal.order(number, item)

    def savepoint(self) -> AbstractContextManager[Any]:
        nested: AbstractContextManager[Any] = self.deal.savepoint()
        return nested


@attrs.frozen
class Alchemy:
    engine: Any
    begin: Callable[[Any], AbstractContextManager[Deal]]

    def transaction(self) -> AbstractContextManager[Deal]:
        return self.begin(self.engine)

    def close(self) -> None:
        self.engine.dispose()


@contextlib.contextmanager
def _session(engine: Any) -> Iterator[Deal]:

    with Session(engine) as session, session.begin():
        yield _Alchemy(session)


@contextlib.contextmanager
def _session_as_you_go(engine: Any) -> Iterator[Deal]:
    """Nothing is begun: the first statement does, or what is submitted."""

    with Session(engine) as session:
        yield _Alchemy(session)
        session.commit()


@contextlib.contextmanager
def _scoped(engine: Any) -> Iterator[Deal]:

    sessions = scoped_session(sessionmaker(engine))
    try:
        with sessions.begin():
            yield _Alchemy(sessions)
    finally:
        sessions.remove()


@contextlib.contextmanager
def _connection(engine: Any) -> Iterator[Deal]:
    with engine.begin() as connection:
        yield _Alchemy(connection)


@contextlib.contextmanager
def _connection_as_you_go(engine: Any) -> Iterator[Deal]:
    with engine.connect() as connection:
        yield _Alchemy(connection)
        connection.commit()


@contextlib.contextmanager
def _pooled(engine: Any) -> Iterator[Deal]:
    """What the pool gave out, of a Connection that has begun."""
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1")
        yield _Handing(_Alchemy(connection), connection.connection)


def by_sqlalchemy(begin: Callable[[Any], AbstractContextManager[Deal]]) -> Callable[[Database], Shop]:
    return lambda database: Alchemy(database.sqlalchemy(), begin)


@attrs.frozen
class Flask:
    """Flask-SQLAlchemy's ``db.session``."""

    app: Any
    db: Any

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Deal]:
        with self.app.app_context():
            try:
                yield _Alchemy(self.db.session)
                self.db.session.commit()
            except BaseException:
                self.db.session.rollback()
                raise

    def close(self) -> None:
        with self.app.app_context():
            self.db.engine.dispose()


def flask(database: Database) -> Shop:

    # Its own engine is the one of the settings: the listeners of ours are what makes SQLite's savepoints whole.
    engine = database.sqlalchemy()
    app = flasks.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = engine.url
    db = SQLAlchemy(app)
    with app.app_context():
        engines: Any = db.engines
        engines[None] = engine
    return Flask(app, db)


# -- Django


@attrs.frozen
class _DjangoDeal:
    connection: Any

    def order(self, number: int, item: str = "teapot") -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("INSERT INTO purchase VALUES (%s, %s)", [number, item])

    def savepoint(self) -> AbstractContextManager[Any]:

        nested: AbstractContextManager[Any] = transaction.atomic()
        return nested


class Django:
    """Django's ``connection``, within ``atomic()``."""

    def __init__(self, database: Database) -> None:

        if not settings.configured:
            settings.configure(USE_TZ=True)
            django.setup()

        self.close()
        chosen: Mapping[str, Any] = {"default": database.django()}
        connections.databases["default"] = connections.configure_settings(dict(chosen))["default"]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Deal]:

        with transaction.atomic():
            yield _DjangoDeal(default)

    def close(self) -> None:

        if hasattr(connections._connections, "default"):
            connections["default"].close()
            del connections["default"]


Kind: TypeAlias = Callable[[Database], Shop]

SHOPS: Final[Mapping[str, Kind]] = {
    "driver": plain,
    "session": by_sqlalchemy(_session),
    "session as you go": by_sqlalchemy(_session_as_you_go),
    "scoped session": by_sqlalchemy(_scoped),
    "connection": by_sqlalchemy(_connection),
    "connection as you go": by_sqlalchemy(_connection_as_you_go),
    "pooled": by_sqlalchemy(_pooled),
    "flask": flask,
    "django": Django,
}
"""By the library, and what of it is handed over."""


def prepare(database: Database) -> None:
    """Make the shop's tables."""
    with contextlib.closing(database.connect()) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        connection.commit()


def orders(database: Database) -> list[int]:
    """The numbers of those that were committed."""
    with contextlib.closing(database.connect()) as connection:
        found = connection.execute("SELECT number FROM purchase ORDER BY number").fetchall()
        connection.commit()
        return [number for (number,) in found]

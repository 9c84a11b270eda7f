"""A transaction of the caller's on PostgreSQL, whatever his connection is like."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection as default
from postgres_places import Places
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import dict_row
from psycopg.types.string import StrDumper
from shops import SHOPS, Postgres, database, orders
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from outbox import Outbox
from outbox.errors import ConfigurationError
from outbox.testing.clauses.scene import ids, mail, take


@pytest.fixture
def shop(postgres: Places, tmp_path: Path) -> Iterator[Postgres]:
    with database("postgres", tmp_path) as made:
        assert isinstance(made, Postgres)
        yield made


@pytest.fixture
def outbox(shop: Postgres) -> Iterator[Outbox]:
    with Outbox(shop.store()) as outbox:
        yield outbox


# -- no transaction


@pytest.mark.parametrize("library", ["session", "connection", "connection as you go"])
def test_an_engine_that_commits_each_statement_is_refused(
    outbox: Outbox, shop: Postgres, library: str
) -> None:
    class Committing(Postgres):
        def sqlalchemy(self) -> Any:
            return create_engine("postgresql+psycopg://", creator=self.connect, isolation_level="AUTOCOMMIT")

    program = SHOPS[library](Committing(shop.schema))
    with (
        contextlib.closing(program),
        program.transaction() as deal,
        pytest.raises(ConfigurationError, match='"AUTOCOMMIT"'),
    ):
        outbox.within(deal.connection).submit(mail("a"))

    assert take(outbox.store) == []


def test_django_s_connection_outside_of_atomic_is_refused(outbox: Outbox, shop: Postgres) -> None:
    with (
        contextlib.closing(SHOPS["django"](shop)),
        pytest.raises(ConfigurationError, match=r"transaction\.atomic"),
    ):
        outbox.within(default).submit(mail("a"))

    assert take(outbox.store) == []


def test_a_connection_that_commits_each_statement_is_taken_within_its_transaction(
    outbox: Outbox, shop: Postgres
) -> None:
    with contextlib.closing(shop.connect()) as connection:
        connection.autocommit = True
        with pytest.raises(ConfigurationError, match="commits each statement by itself"):
            outbox.within(connection).submit(mail("a"))
        with connection.transaction():
            outbox.within(connection).submit(mail("b"))
            with contextlib.suppress(ZeroDivisionError), connection.transaction():
                outbox.within(connection).submit(mail("c"))
                raise ZeroDivisionError

    assert ids(take(outbox.store)) == ["b"]


def test_a_transaction_that_has_failed_is_told_to_begin_anew(outbox: Outbox, shop: Postgres) -> None:
    engine = shop.sqlalchemy()
    with Session(engine) as session:
        driver = session.connection().connection.driver_connection
        assert driver is not None
        with pytest.raises(psycopg.errors.DivisionByZero):
            driver.execute("SELECT 1/0")
        with pytest.raises(ConfigurationError, match="has failed: roll it back"):
            outbox.within(session).submit(mail("a"))
        session.rollback()
        outbox.within(session).submit(mail("b"))
        session.commit()
    engine.dispose()

    assert ids(take(outbox.store)) == ["b"]


# -- the connection


@pytest.mark.parametrize("isolation", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"])
def test_it_does_not_matter_how_isolated_the_transaction_is(
    outbox: Outbox, shop: Postgres, isolation: str
) -> None:
    engine = create_engine("postgresql+psycopg://", creator=shop.connect, isolation_level=isolation)
    with Session(engine) as session, session.begin():
        outbox.within(session).submit(mail("a"))
        outbox.within(session).submit_many([mail("a"), mail("b")])
    engine.dispose()

    assert ids(take(outbox.store)) == ["a", "b"]


def test_what_the_caller_has_his_values_made_into_changes_nothing(outbox: Outbox, shop: Postgres) -> None:
    class Shouting(StrDumper):
        def dump(self, obj: str) -> bytes:
            return obj.upper().encode()

    outbox.submit(mail("a"))
    with psycopg.connect(**shop.parameters, row_factory=dict_row) as connection:
        connection.cursor_factory = psycopg.ClientCursor
        connection.adapters.register_dumper(str, Shouting)
        outbox.within(connection).submit_many([mail("a"), mail("b")])

    a, b = take(outbox.store)
    assert [a.message, b.message] == [mail("a"), mail("b")]


def test_what_he_has_the_server_s_values_made_into_changes_nothing_either(
    outbox: Outbox, shop: Postgres
) -> None:
    class Shouting(Loader):
        format = psycopg.pq.Format.BINARY

        def load(self, data: Buffer) -> str:
            return f"{bytes(data)!r}!"

    with psycopg.connect(**shop.parameters) as connection:
        for kind in ("text", "bytea", "int4", "int8", "bool"):
            connection.adapters.register_loader(kind, Shouting)
        outbox.within(connection).submit(mail("a"))
        outbox.within(connection).submit_many([mail("a"), mail("b")])

    assert ids(take(outbox.store)) == ["a", "b"]


def test_a_connection_of_which_psycopg_makes_no_text_is_refused_and_goes_on(
    outbox: Outbox, shop: Postgres
) -> None:
    with shop.connect() as connection:
        connection.execute("SET client_encoding = 'SQL_ASCII'")
        with pytest.raises(ConfigurationError, match="client_encoding to UTF8"):
            outbox.within(connection).submit(mail("a"))
        connection.execute("SET client_encoding = 'UTF8'")
        outbox.within(connection).submit(mail("b"))

    assert ids(take(outbox.store)) == ["b"]


def test_a_pipeline_of_the_caller_s_is_taken_along(outbox: Outbox, shop: Postgres) -> None:
    with shop.connect() as connection, connection.pipeline():
        connection.execute("INSERT INTO purchase VALUES (1, 'teapot')")
        outbox.within(connection).submit(mail("a"))
        connection.execute("INSERT INTO purchase VALUES (2, 'teapot')")

    assert orders(shop) == [1, 2]
    assert ids(take(outbox.store)) == ["a"]


def test_an_asynchronous_connection_is_refused(outbox: Outbox, shop: Postgres) -> None:
    async def submit() -> None:
        async with await psycopg.AsyncConnection.connect(**shop.parameters) as connection:
            outbox.within(connection).submit(mail("a"))

    with pytest.raises(ConfigurationError, match="is asynchronous"):
        asyncio.run(submit())


def test_another_driver_s_connection_is_refused_with_the_url_that_names_ours(outbox: Outbox) -> None:
    class Psycopg2:
        """As psycopg2's own is, which many an engine still gives."""

    Psycopg2.__module__ = "psycopg2.extensions"

    with pytest.raises(ConfigurationError, match=r"postgresql\+psycopg://"):
        outbox.within(Psycopg2())


# -- another database


@pytest.mark.parametrize("library", ["driver", "session", "django"])
def test_a_connection_to_another_database_is_refused_and_its_transaction_goes_on(
    outbox: Outbox, shop: Postgres, library: str
) -> None:
    class Elsewhere(Postgres):
        @property
        def parameters(self) -> dict[str, Any]:
            # Every server has it, and nothing is written there.
            return {**super().parameters, "dbname": "template1"}

    program = SHOPS[library](Elsewhere(shop.schema))
    with contextlib.closing(program), program.transaction() as deal:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="leads to another database"):
                outbox.within(deal.connection).submit(mail("a"))

    assert take(outbox.store) == []

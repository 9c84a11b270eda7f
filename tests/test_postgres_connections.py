"""A connection that went bad without being cut is not used again; and what a fork and a database's encoding do."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_places import Places

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.stores.postgres import PostgresStore
from outbox.stores.postgres.migrations import PostgresMigration
from outbox.stores.postgres.naming import Sql
from outbox.testing.clauses.scene import ids, mail, put, statuses, take

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def store(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place)) as store:
        yield store


def warmed(store: PostgresStore) -> None:
    """Have two connections wait, and what is put and cancelled prepared on the one that is used next."""
    store._links.use(lambda _: store._links.use(lambda _: None))
    for n in range(4):
        put(store, f"warm-{n}")
        store.cancel([f"warm-{n}"])


def said(store: PostgresStore, *statements: str) -> None:
    """Behind the back of the driver, on every connection."""
    assert len(store._links._open) == 2
    for connection in store._links._open:
        for statement in statements:
            connection.pgconn.exec_(statement.encode())


def some_verbs(store: PostgresStore) -> None:
    """So often that they are prepared."""
    for n in range(5):
        put(store, f"m{n}")
        store.count()


def test_a_connection_to_what_is_the_primary_no_more_is_given_up_with_all_that_wait(
    store: PostgresStore,
) -> None:
    """Nothing was stored, and nobody is told that it may have been; what comes next goes to whoever is it now."""
    warmed(store)
    said(store, "SET default_transaction_read_only = on")

    with pytest.raises(StoreUnavailable, match="takes no writes"):
        put(store, "a")
    assert store._links._open == set()
    assert statuses(store.put([mail("a")])) == ["stored"]


def test_many_that_are_put_at_once_on_such_a_connection_are_not_stored_for_certain(
    store: PostgresStore,
) -> None:
    warmed(store)
    said(store, "SET default_transaction_read_only = on")

    with pytest.raises(StoreUnavailable, match="takes no writes"):
        store.put([mail("a"), mail("b")])
    assert statuses(store.put([mail("a"), mail("b")])) == ["stored", "stored"]


@pytest.mark.parametrize(
    "statements", [["DEALLOCATE ALL"], [f"PREPARE _pg3_{n} AS SELECT 1" for n in range(50)]]
)
def test_a_connection_on_which_prepared_statements_are_not_what_they_were_is_given_up(
    store: PostgresStore, statements: list[str]
) -> None:
    warmed(store)
    said(store, *statements)

    with pytest.raises(StoreUnavailable, match="prepare=no"):
        some_verbs(store)
    assert store._links._open == set()
    assert statuses(store.put([mail("b")])) == ["stored"]


def test_tables_that_are_changed_under_prepared_statements_cost_no_verb(
    store: PostgresStore, postgres: Places
) -> None:
    """As the migration of the next release may, while this one goes on."""
    put(store, "a")
    for _ in range(4):
        store.hold(["a"], reason="wait")
        store.release(["a"])
    table = f"{store._names.schema}.outbox_message"
    with psycopg.connect(postgres.dsn, autocommit=True) as other:
        other.execute(f"ALTER TABLE {table} ALTER COLUMN reason TYPE varchar".encode())
        try:
            (change,) = store.hold(["a"], reason="wait")
            assert change.status == "done"
        finally:
            other.execute(f"ALTER TABLE {table} ALTER COLUMN reason TYPE text".encode())


# -- forks


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_a_forked_child_puts_is_news_to_its_parent_who_listens(place: Path, postgres: Places) -> None:
    """And the child says nothing on its parent's connections, neither by its verbs nor by its end."""
    with contextlib.closing(postgres.open(place, poll=HOUR)) as store:
        take(store)
        store.wait(dt.timedelta(0))  # it listens from here on
        mine = {connection.info.backend_pid for connection in store._links._open}
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                put(store, "a")
                os._exit(bool(mine & {each.info.backend_pid for each in store._links._open}))
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0

        assert store.wait(dt.timedelta(seconds=20)), "it heard of it, and did not look"
        assert ids(take(store)) == ["a"]
        assert {connection.info.backend_pid for connection in store._links._open} >= mine


# -- what the database can hold


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_which_not_every_text_can_be_kept_is_refused_and_gets_no_tables(
    encoding: str, postgres: Places
) -> None:
    name = f"d{os.getpid()}_{encoding.lower()}"
    dsn = f"{postgres.dsn} dbname={name}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0".encode())
        try:
            for attempt in (lambda: PostgresStore(dsn), PostgresMigration(dsn).run):
                with pytest.raises(ConfigurationError, match=f"{encoding}.*ENCODING 'UTF8'"):
                    attempt()
            with psycopg.connect(dsn) as inside:
                assert inside.execute("SELECT to_regclass('outbox_meta')").fetchone() == (None,)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize("before", range(4))
def test_what_was_to_be_prepared_in_a_pipeline_that_failed_is_not_taken_for_prepared(
    store: PostgresStore, before: int
) -> None:
    def ask(sql: Sql, first: str) -> None:
        with sql.connection.pipeline():
            sql.execute(first)
            sql.execute("SELECT 1 WHERE true")

    for _ in range(before):
        store._links.use(functools.partial(ask, first="SELECT 1"))
    with pytest.raises(StoreUnavailable, match="division by zero"):
        store._links.use(functools.partial(ask, first="SELECT 1 / 0"))
    for _ in range(4):
        store._links.use(functools.partial(ask, first="SELECT 1"))

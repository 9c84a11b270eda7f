"""The PostgreSQL store is held to the contract, on a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from examples import examples
from hypothesis import settings
from listed_skips import ListedSkips, listed_in
from postgres_places import Places, places

from outbox.clock import Clock
from outbox.stores.postgres import PostgresStore
from outbox.testing.clauses.scene import Whole
from outbox.testing.state_machine import StoreStateMachine
from outbox.testing.store_suite import StoreSuite


@pytest.fixture(autouse=True, scope="module")
def _server(postgres: Places) -> None:
    """For the state machine, too, which takes no fixtures."""


@pytest.fixture(autouse=True)
def _swept(tmp_path: Path) -> Iterator[None]:
    yield
    places().leave(tmp_path)


class TestPostgresStore(ListedSkips, StoreSuite):
    skipped = "postgres_skipped.txt"

    def open(self, clock: Clock, path: Path, **settings: Any) -> PostgresStore:
        return places().open(path, clock=clock, **settings)

    def corrupt(self, store: Whole, id: str) -> None:
        assert isinstance(store, PostgresStore)
        with psycopg.connect(places().dsn) as connection:
            connection.execute(
                f"UPDATE {store._names.schema}.outbox_message SET content = decode(repeat('00', length(content)), 'hex') "
                "WHERE id = %s".encode(),
                (id,),
            )

    @contextlib.contextmanager
    def transaction(self, store: Whole, path: Path) -> Iterator[psycopg.Connection]:
        with psycopg.connect(places().dsn) as connection:
            yield connection


def test_it_lacks_nothing_and_skips_nothing() -> None:
    assert PostgresStore.lacks == frozenset()
    assert listed_in(TestPostgresStore.skipped) == frozenset()


class PostgresMachine(StoreStateMachine):
    def open(self, clock: Clock, path: Path, **settings: Any) -> PostgresStore:
        return places().open(path, clock=clock, **settings)


TestPostgresMachine = PostgresMachine.TestCase
TestPostgresMachine.settings = settings(max_examples=examples(30), stateful_step_count=30, deadline=None)

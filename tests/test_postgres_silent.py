"""No verb waits for ever for a PostgreSQL server that says nothing: it is told to give up, and who gave up is told what that means."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest
from postgres_server import Server, own_server

from outbox.errors import AmbiguousPut, StoreUnavailable
from outbox.stores.postgres import PostgresStore
from outbox.testing.clauses.scene import ids, mail, statuses, take

TIMEOUT = dt.timedelta(seconds=2)
LOCAL = "options=-csynchronous_commit=local"
"""Without it each commit waits for a standby that there is not."""
SCHEMAS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server(synchronous_standby_names="nobody") as server:
        yield server


@pytest.fixture
def store(server: Server) -> Iterator[PostgresStore]:
    opened = PostgresStore(f"{server.dsn} {LOCAL}", schema=f"s{next(SCHEMAS)}", timeout=TIMEOUT)
    with contextlib.closing(opened) as store:
        yield store


@pytest.fixture
def others(server: Server) -> Iterator[psycopg.Connection]:
    with psycopg.connect(f"{server.dsn} {LOCAL}", autocommit=True) as connection:
        yield connection


def backends(others: psycopg.Connection) -> list[int]:
    found = others.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox' AND state <> ''"
    )
    return [pid for (pid,) in found]


def test_a_table_that_somebody_has_locked_is_not_waited_for_for_ever(
    store: PostgresStore, others: psycopg.Connection
) -> None:
    with others.transaction():
        others.execute(f"LOCK TABLE {store._names.quoted}.outbox_message".encode())
        with pytest.raises(
            StoreUnavailable, match=r"said nothing for 2 s, .* did: end what has the tables locked"
        ) as put:
            store.put([mail("a")])
        with pytest.raises(StoreUnavailable, match="raise timeout"):
            take(store)
        waiting = others.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone()

    assert not isinstance(put.value, AmbiguousPut)
    assert waiting == (0,), "nobody waits on the server for whom nobody waits here"
    assert statuses(store.put([mail("a")])) == ["stored"]
    assert ids(take(store)) == ["a"]


def test_of_a_put_to_a_server_that_stands_still_nobody_can_tell_and_the_repeat_stores_one(
    store: PostgresStore, others: psycopg.Connection
) -> None:
    stopped = backends(others)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(AmbiguousPut, match=r"said nothing for 2 s, .* again with the same id"):
            store.put([mail("a")])
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    store.put([mail("a")])
    assert ids(take(store)) == ["a"]


def test_what_is_committed_although_its_standby_did_not_answer_is_not_acknowledged(
    store: PostgresStore, server: Server
) -> None:
    schema = store._names.schema
    with (
        contextlib.closing(PostgresStore(server.dsn, schema=schema, timeout=TIMEOUT)) as waiting,
        pytest.raises(AmbiguousPut, match="said nothing for 2 s"),
    ):
        waiting.put([mail("a")])

    assert statuses(store.put([mail("a")])) == ["known"]


def test_where_there_is_a_limit_a_transaction_that_is_left_open_is_not_waited_for_for_ever(
    server: Server, others: psycopg.Connection
) -> None:
    dsn, schema = f"{server.dsn} {LOCAL}", f"s{next(SCHEMAS)}"
    opened = PostgresStore(dsn, schema=schema, timeout=TIMEOUT, max_messages=10)
    with contextlib.closing(opened) as store, others.transaction():
        store.within(others).put([mail("a")])
        with pytest.raises(StoreUnavailable, match="said nothing for 2 s") as put:
            store.put([mail("b")])
        assert not isinstance(put.value, AmbiguousPut)
    with contextlib.closing(PostgresStore(dsn, schema=schema)) as store:
        assert statuses(store.put([mail("a"), mail("b")])) == ["known", "stored"]

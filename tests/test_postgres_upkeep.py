"""Dead rows: what they cost a claim, and that ``check`` names whoever keeps them from being removed."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Final

import psycopg
import pytest
from postgres_plans import explained, settled
from postgres_server import Server, own_server

from outbox.protocols import Finding
from outbox.stores.postgres import PostgresStore, vacuuming
from outbox.testing.clauses.scene import mail, put, take

NUMBER: Final = 1_000
MANY: Final = 100
LIMIT: Final = 10


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that can be asked for what others are told to refuse, and that vacuums when it is told to."""
    with own_server(wal_level="logical", max_prepared_transactions="5", autovacuum_naptime="1d") as server:
        yield server


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStore]:
    monkeypatch.setattr(vacuuming, "_MANY", MANY)
    monkeypatch.setattr(vacuuming, "_BRIEF", 0)
    with contextlib.closing(PostgresStore(server.dsn, notify=False, remember=dt.timedelta(0))) as store:
        yield store
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE outbox_message, outbox_attempt")


def churn(store: PostgresStore, server: Server) -> int:
    """So many put, claimed and settled, and then vacuumed; how many dead rows are left."""
    for first in range(0, NUMBER, 100):
        put(store, *(mail(f"m{n}") for n in range(first, first + 100)))
    settled(store, NUMBER)
    flush(store)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("VACUUM outbox_message")
        ((dead,),) = connection.execute(
            "SELECT n_dead_tup FROM pg_stat_all_tables WHERE relname = 'outbox_message'"
        ).fetchall()
    return int(dead)


def flush(store: PostgresStore) -> None:
    """What its connection did is counted now, and not when it has been idle for a while."""
    store._links.use(lambda sql: sql.execute_raw("SELECT pg_stat_force_next_flush()"))


def warnings(store: PostgresStore) -> list[Finding]:
    return [each for each in store.check() if each.level == "warning"]


@contextlib.contextmanager
def snapshot(server: Server) -> Iterator[str]:
    """Somebody's session that has looked and not ended; what names it."""
    with psycopg.connect(server.dsn, application_name="a forgotten report") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM outbox_message").fetchall()
        yield f"pg_terminate_backend({connection.info.backend_pid})"


@contextlib.contextmanager
def writing(server: Server) -> Iterator[str]:
    """Somebody's session that has written, has no snapshot now, and has not ended."""
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP")
        yield f"pg_terminate_backend({connection.info.backend_pid})"


@contextlib.contextmanager
def prepared(server: Server) -> Iterator[str]:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT pg_current_xact_id()")
        connection.execute("PREPARE TRANSACTION 'half done'")
        try:
            yield "'half done'"
        finally:
            connection.execute("ROLLBACK PREPARED 'half done'")


PINS: Final = [snapshot, writing, prepared]


@pytest.mark.parametrize("pin", PINS)
def test_check_names_who_keeps_dead_rows_from_being_removed_and_how_to_end_him(
    store: PostgresStore, server: Server, pin: Callable[[Server], contextlib.AbstractContextManager[str]]
) -> None:
    with pin(server) as name:
        dead = churn(store, server)
        assert dead > MANY
        (found,) = warnings(store)
        assert name in found.text + found.advice
        assert f"{dead:,}" in found.text
    assert churn(store, server) == 0
    assert warnings(store) == []


def test_check_names_a_replication_slot_that_nobody_uses(store: PostgresStore, server: Server) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('left_over', 'pgoutput')")
        try:
            (found,) = warnings(store)
        finally:
            connection.execute("SELECT pg_drop_replication_slot('left_over')")
    assert "pg_drop_replication_slot('left_over')" in found.advice
    assert warnings(store) == []


def test_check_counts_dead_rows_where_nobody_is_seen_to_hold_them(
    store: PostgresStore, server: Server
) -> None:
    for first in range(0, NUMBER, 100):
        put(store, *(mail(f"m{n}") for n in range(first, first + 100)))
    settled(store, NUMBER)
    flush(store)
    (found,) = warnings(store)
    assert "dead rows" in found.text
    assert "VACUUM" in found.advice


def test_what_dead_rows_cost_a_claim_ends_with_whoever_pinned_them(
    store: PostgresStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pages() -> int:
        put(store, *(mail(f"z{n}") for n in range(LIMIT)))
        return explained(store, monkeypatch, lambda: settled(store, LIMIT, take(store, LIMIT))).blocks

    churn(store, server)
    before = pages()
    with snapshot(server):
        dead = churn(store, server)
        pinned = pages()
    churn(store, server)
    after = pages()

    print(
        f"pages that a claim and a settle of {LIMIT} touch: {before}; {pinned} behind {dead} dead rows; {after} after them"
    )
    # Each version of a row that died leaves a place in an index, which leads whoever passes to its page.
    assert before < pinned <= before + 4 * dead
    assert after <= 2 * before

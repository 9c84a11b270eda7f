"""A message that is put within the caller's transaction on PostgreSQL exists if and only if that commits."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from postgres_places import Places
from psycopg.rows import dict_row
from shared_connection import require_turns

from outbox import Outbox
from outbox.errors import ConfigurationError, ConflictError, StoreUnavailable
from outbox.message import Message
from outbox.stores.postgres import PostgresStore
from outbox.testing.clauses.scene import ids, mail, put, take

ROUNDS = 200


@pytest.fixture
def store(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place)) as store:
        yield store


@pytest.fixture
def connection(postgres: Places) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.dsn) as connection:
        yield connection


def test_submit_within_a_transaction_is_one_line(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    outbox = Outbox(store)
    with connection.transaction():
        id = outbox.within(connection).submit(mail("a"))
        assert store.get(id) is None

    assert store.get(id) is not None


def test_what_a_savepoint_undoes_is_not_sent(store: PostgresStore, connection: psycopg.Connection) -> None:
    intake = store.within(connection)
    with connection.transaction():
        intake.put([mail("a")])
        with connection.transaction(force_rollback=True):
            intake.put([mail("b")])
        with connection.transaction():
            intake.put([mail("c")])

    assert ids(take(store)) == ["a", "c"]


def test_a_conflict_leaves_the_transaction_as_it_was(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    put(store, "a")
    with connection.transaction():
        connection.execute("CREATE TEMPORARY TABLE own (id int) ON COMMIT DROP")
        with pytest.raises(ConflictError):
            store.within(connection).put([mail("b"), mail("a", "other@example.org")])
        connection.execute("INSERT INTO own VALUES (1)")

    assert ids(take(store)) == ["a"]


@pytest.mark.parametrize("threshold", [0, 1, 5])
@pytest.mark.parametrize("how", ["one by one", "in a pipeline"])
def test_what_psycopg_has_prepared_is_there_after_whatever_savepoints_are_undone(
    store: PostgresStore, connection: psycopg.Connection, threshold: int, how: str
) -> None:
    """With each that is undone, the caller's and our own, it forgets all that it has prepared: that costs time, and nothing else."""
    connection.prepare_threshold = threshold
    put(store, "known")
    die = random.Random(threshold)
    committed: set[str] = set()
    # psycopg forgets too much there, with us and without.
    his = False if how == "in a pipeline" and threshold == 0 else None
    connection.execute("CREATE TEMPORARY TABLE own (id text)")
    connection.commit()

    def one(id: str) -> None:
        store.within(connection).put([mail(id)])
        connection.execute("INSERT INTO own VALUES (%s)", (id,), prepare=his)

    for n in range(40):
        with contextlib.ExitStack() as stack:
            if how == "in a pipeline":
                stack.enter_context(connection.pipeline())
            one(f"{n}-a")
            kind = die.choice(["undone", "kept", "known", "conflict", "refused"])
            if kind in ("undone", "kept"):
                with connection.transaction(force_rollback=kind == "undone"):
                    one(f"{n}-b")
            elif kind == "known":
                one("known")
            elif kind == "conflict":
                with pytest.raises(ConflictError):
                    store.within(connection).put([mail(f"{n}-b"), mail("known", "other@example.org")])
            else:
                with (
                    contextlib.suppress(psycopg.errors.DivisionByZero),
                    connection.transaction(),
                ):
                    one(f"{n}-b")
                    connection.execute("SELECT 1 / (%s::int8 - %s::int8)", (n, n), prepare=his).fetchone()
            one(f"{n}-c")
        if die.random() < 0.7:
            connection.commit()
            committed |= {f"{n}-a", f"{n}-c", *([f"{n}-b"] if kind == "kept" else [])}
        else:
            connection.rollback()

    assert {claim.message.id for claim in take(store, 200)} == {"known", *committed}
    found = {id for (id,) in connection.execute("SELECT id FROM own").fetchall()}
    assert found - {"known"} == committed


def test_a_connection_that_commits_by_itself_is_refused(store: PostgresStore, postgres: Places) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        with pytest.raises(ConfigurationError, match=r"connection.transaction\(\)"):
            store.within(connection).put([mail("a")])
        with connection.transaction():
            store.within(connection).put([mail("a")])

    assert ids(take(store)) == ["a"]


def test_a_transaction_that_has_failed_is_told_so(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    with pytest.raises(ConfigurationError, match="roll it back"):
        store.within(connection).put([mail("a")])


def test_a_query_that_is_under_way_is_told_apart_from_a_transaction_that_has_failed(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
        with pytest.raises(ConfigurationError, match="under way"):
            store.within(connection).put([mail("a")])
        list(copy.rows())
    store.within(connection).put([mail("a")])
    connection.commit()

    assert ids(take(store)) == ["a"]


def test_an_error_in_the_caller_s_own_pipeline_is_his_and_not_the_store_s(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    with connection.pipeline():
        connection.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            store.within(connection).put([mail("a")])
    connection.rollback()

    assert take(store) == []


def test_a_connection_that_cannot_say_all_text_is_told_so_and_its_transaction_goes_on(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    connection.execute("SET client_encoding = 'LATIN1'")
    with pytest.raises(ConfigurationError, match="client_encoding to UTF8"):
        store.within(connection).put([mail("a", "\u4f8b@example.org")])
    connection.execute("SET client_encoding = 'UTF8'")
    store.within(connection).put([mail("a", "\u4f8b@example.org")])
    connection.commit()

    (claim,) = take(store)
    assert claim.message == mail("a", "\u4f8b@example.org")
    assert [each.recipients for each in store.browse()] == [("\u4f8b@example.org",)]


def test_what_is_no_connection_of_psycopg_is_refused(store: PostgresStore) -> None:
    with pytest.raises(ConfigurationError, match=r"psycopg\.Connection, not object"):
        store.within(object())


def test_a_connection_to_another_database_is_refused(
    store: PostgresStore, postgres: Places, tmp_path: Path
) -> None:
    other = f"d{postgres.schema(tmp_path)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {other}".encode())
        try:
            dsn = f"{postgres.dsn} dbname={other}"
            # The very tables are there, too.
            PostgresStore(dsn, schema=store._names.schema).close()
            with (
                psycopg.connect(dsn) as elsewhere,
                pytest.raises(ConfigurationError, match="another database"),
            ):
                store.within(elsewhere).put([mail("a")])
        finally:
            connection.execute(f"DROP DATABASE {other} WITH (FORCE)".encode())


def test_a_connection_to_a_copy_of_the_database_is_refused(
    postgres: Places, tmp_path: Path, connection: psycopg.Connection
) -> None:
    """A copy has the same tables and the same identity, and nobody delivers what is put there."""
    original, copy = (f"{name}{postgres.schema(tmp_path)}" for name in ("original", "copy"))
    connection.autocommit = True
    connection.execute(f"CREATE DATABASE {original}".encode())
    try:
        dsn = f"{postgres.dsn} dbname={original}"
        PostgresStore(dsn).close()
        # Its connections are on their way out, and a template may have none.
        with psycopg.connect(postgres.dsn, autocommit=True) as ender:
            ender.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = %s",
                (original,),
            )
        connection.execute(f"CREATE DATABASE {copy} TEMPLATE {original}".encode())
        with contextlib.closing(PostgresStore(dsn)) as store:
            with psycopg.connect(f"{postgres.dsn} dbname={copy}") as elsewhere:
                with pytest.raises(ConfigurationError, match=r"another database.* a copy is another"):
                    store.within(elsewhere).put([mail("a")])
                assert elsewhere.execute("SELECT count(*) FROM outbox_message").fetchone() == (0,)
            with psycopg.connect(dsn) as here:
                store.within(here).put([mail("b")])
            assert ids(take(store)) == ["b"]
    finally:
        for name in (copy, original):
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        postgres.leave(tmp_path)


def test_a_server_that_was_started_again_is_the_same_as_before(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    identity, database, started = store._home._found or ("", 0, 0)
    store._home._found = (identity, database, started - 1)
    store.within(connection).put([mail("a")])
    connection.commit()

    assert ids(take(store)) == ["a"]


def test_the_caller_s_rows_and_search_path_are_his_own(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    connection.row_factory = dict_row  # type: ignore[assignment]  # as callers do
    connection.execute("SET search_path = pg_catalog")
    connection.commit()
    store.within(connection).put([mail("a"), mail("b")])
    connection.commit()

    assert ids(take(store)) == ["a", "b"]


def test_a_repeat_at_a_higher_isolation_harms_nothing_but_itself(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    """Whoever sees the database as it was cannot be told of what is there since; the caller's transaction goes on."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("SELECT 1 FROM pg_class LIMIT 1")
    put(store, "a")
    with pytest.raises(
        StoreUnavailable, match=r"serialize .*: roll your transaction back, and begin it anew"
    ):
        store.within(connection).put([mail("a")])
    store.within(connection).put([mail("b")])
    connection.commit()

    assert ids(take(store)) == ["a", "b"]


def test_so_it_is_in_a_pipeline_of_the_caller_s(store: PostgresStore, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TEMPORARY TABLE own (id int)")
    connection.commit()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("SELECT 1 FROM pg_class LIMIT 1")
    put(store, "a")
    with connection.pipeline():
        connection.execute("INSERT INTO own VALUES (1)")
        with pytest.raises(StoreUnavailable, match="begin it anew"):
            store.within(connection).put([mail("a")])
        connection.execute("INSERT INTO own VALUES (2)")
        store.within(connection).put([mail("b")])
    connection.commit()

    assert connection.execute("SELECT id FROM own").fetchall() == [(1,), (2,)]
    assert ids(take(store)) == ["a", "b"]


def test_two_transactions_that_wait_for_each_other_are_told_to_begin_anew(
    store: PostgresStore, connection: psycopg.Connection, postgres: Places
) -> None:
    refused = []

    def submit(over: psycopg.Connection, name: str) -> None:
        try:
            store.within(over).put([mail(name)])
        except StoreUnavailable as error:
            refused.append(str(error))
        # Whichever it is: the other one waits until this one's transaction is over.
        over.rollback()

    with psycopg.connect(postgres.dsn) as other, ThreadPoolExecutor(2) as threads:
        store.within(connection).put([mail("a")])
        store.within(other).put([mail("b")])
        for each in (threads.submit(submit, other, "a"), threads.submit(submit, connection, "b")):
            each.result(60)

    (said,) = refused
    assert "deadlock" in said
    assert "roll your transaction back, and begin it anew" in said


def test_a_submit_that_fails_takes_back_nothing_that_another_thread_submits_on_the_connection(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    with connection.transaction():
        require_turns(store.within(connection))

    assert store.get("beside") is not None


def test_a_connection_that_is_closed_commits_nothing_and_is_told_so(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    connection.close()
    with pytest.raises(StoreUnavailable, match=r"is closed, .*: begin it anew"):
        store.within(connection).put([mail("a")])


def test_one_that_the_server_has_ended_is_told_so_too(
    store: PostgresStore, connection: psycopg.Connection, postgres: Places
) -> None:
    connection.execute("SELECT 1")
    with psycopg.connect(postgres.dsn, autocommit=True) as killer:
        killer.execute("SELECT pg_terminate_backend(%s, 30000)", (connection.info.backend_pid,))
    with pytest.raises(StoreUnavailable, match=r"was lost.* begin it anew"):
        store.within(connection).put([mail("a")])


def test_a_transaction_that_is_read_only_is_told_so_and_not_of_standbys(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    connection.read_only = True
    with pytest.raises(StoreUnavailable, match="your transaction is READ ONLY") as refused:
        store.within(connection).put([mail("a")])
    assert "standby" not in str(refused.value)


def test_of_many_transactions_that_end_in_every_way_exactly_those_that_committed_are_delivered(
    store: PostgresStore, postgres: Places
) -> None:
    die = random.Random(7)
    committed: set[str] = set()
    connection = psycopg.connect(postgres.dsn)
    for n in range(ROUNDS):
        if connection.closed:
            connection = psycopg.connect(postgres.dsn)
        message: Message = mail(f"m{n}")
        store.within(connection).put([message])
        end = die.choice(("commit", "commit", "rollback", "fail", "cut", "close"))
        if end == "commit":
            connection.commit()
            committed.add(message.id)
        elif end == "rollback":
            connection.rollback()
        elif end == "fail":
            with pytest.raises(psycopg.Error):
                connection.execute("SELECT nothing FROM nowhere")
            connection.commit()  # which PostgreSQL makes a rollback
        elif end == "cut":
            with psycopg.connect(postgres.dsn, autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s, 30000)", (connection.info.backend_pid,))
            with pytest.raises(psycopg.OperationalError):
                connection.commit()
            connection.close()
        else:
            connection.close()
    connection.close()

    assert {claim.message.id for claim in take(store, 2 * ROUNDS)} == committed

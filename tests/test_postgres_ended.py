"""The server ends a connection where it has committed, and has not said that it is ready again: nobody is told that nothing was stored."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from postgres_cutter import Cutter
from postgres_places import Places

from outbox.errors import AmbiguousPut, StoreUnavailable
from outbox.lifecycle import Settlement
from outbox.stores.memory import MemoryStore
from outbox.stores.postgres import PostgresStore
from outbox.stores.postgres.naming import Sql
from outbox.testing.clauses.scene import LEASE, delivered, mail, put, statuses, take

PUTS: Final = 300
PATIENCE: Final = 120.0

Verb = Callable[[PostgresStore, Sequence[str]], object]


@pytest.fixture
def straight(postgres: Places, place: Path) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place)) as store:
        yield store


def opened(cutter: Cutter, postgres: Places, place: Path, **settings: Any) -> PostgresStore:
    return PostgresStore(f"{postgres.dsn} host={cutter.folder}", schema=postgres.schema(place), **settings)


def put_some(store: PostgresStore, names: Sequence[str]) -> object:
    return store.put([mail(name) for name in names])


def put_claimed(store: PostgresStore, names: Sequence[str]) -> object:
    return store.put_claimed([mail(name) for name in names], lease=LEASE)


def give(store: PostgresStore, names: Sequence[str]) -> object:
    source = MemoryStore()
    for name in names:
        put(source, name)
    batch = source.take(to=store.identity(), limit=10)
    assert batch is not None
    return store.give(batch)


@pytest.mark.parametrize(
    "case",
    [
        (put_some, ["the-one"], b"the-one", {}),
        (put_some, ["the-one"], b"COMMIT", {"max_messages": 1000}),
        (put_some, ["the-one", "another"], b"the-one", {}),
        (put_some, ["the-one", "another", "known"], b"COMMIT", {}),
        (put_some, ["the-one", "another"], b"COMMIT", {"max_messages": 1000}),
        (put_claimed, ["the-one", "another"], b"COMMIT", {}),
        (give, ["the-one", "another"], b"COMMIT", {}),
    ],
    ids=["one", "one-limited", "two", "some-known", "two-limited", "claimed", "given"],
)
def test_what_was_committed_by_a_server_that_shuts_down_is_ambiguous_and_its_repeat_stores_one(
    cutter: Cutter,
    postgres: Places,
    place: Path,
    straight: PostgresStore,
    case: tuple[Verb, Sequence[str], bytes, dict[str, Any]],
) -> None:
    verb, names, word, settings = case
    put(straight, "known")
    with contextlib.closing(opened(cutter, postgres, place, **settings)) as store:
        cutter.cut_at(word, "ended")
        with pytest.raises(AmbiguousPut):
            verb(store, names)
        assert cutter.cuts == 1
        assert {each.id for each in straight.browse()} == {*names, "known"}

        assert statuses(store.put([mail(name) for name in names])) == ["known"] * len(names)
    assert {each.id for each in straight.browse()} == {*names, "known"}


def test_a_settle_that_was_committed_by_a_server_that_shuts_down_is_repeated_over_another_connection(
    cutter: Cutter, postgres: Places, place: Path
) -> None:
    with contextlib.closing(opened(cutter, postgres, place, keep_delivered=LEASE)) as store:
        put(store, "the-one")
        (claim,) = take(store)
        cutter.cut_at(b"the-one", "ended")
        with pytest.raises(StoreUnavailable, match="was lost"):
            store.settle([Settlement(claim, delivered(claim))])

        assert list(store.settle([Settlement(claim, delivered(claim))])) == [claim]


def test_an_exchange_that_was_committed_by_a_server_that_shuts_down_says_that_the_connection_was_lost(
    cutter: Cutter, postgres: Places, place: Path
) -> None:
    with contextlib.closing(opened(cutter, postgres, place)) as store:
        put(store, "the-one")
        put(store, "another")
        (claim,) = take(store, 1)
        cutter.cut_at(claim.message.id.encode(), "ended")
        with pytest.raises(StoreUnavailable, match="was lost"):
            store.exchange(
                [Settlement(claim, delivered(claim))], limit=1, lease=LEASE, queues=[claim.message.queue]
            )

        assert list(store.settle([Settlement(claim, delivered(claim))])) == [claim]


def test_what_psycopg_raises_that_is_none_of_its_errors_is_a_lost_connection(straight: PostgresStore) -> None:
    def answered_unasked(sql: Sql) -> None:
        with sql.connection.pipeline():
            sql.execute("SELECT 1")
            pipeline = sql.connection._pipeline
            assert pipeline is not None
            # As where more answers came than anybody waits for.
            pipeline.result_queue.clear()

    with pytest.raises(StoreUnavailable, match="was lost"):
        straight._links.use(answered_unasked)

    assert straight._links._open == set()
    put(straight, "a")


def test_what_others_raise_while_they_use_a_connection_is_theirs(straight: PostgresStore) -> None:
    def mistaken(sql: Sql) -> None:
        with sql.connection.pipeline():
            sql.execute("SELECT 1")
            raise IndexError("mine")

    with pytest.raises(IndexError, match="mine"):
        straight._links.use(mistaken)


def ended_in_a_pipeline(connection: psycopg.Connection[Any], killer: psycopg.Connection) -> None:
    with contextlib.suppress(psycopg.OperationalError), connection.pipeline():
        connection.execute("SELECT 1").fetchall()
        killer.execute("SELECT pg_terminate_backend(%s, 30000)", (connection.info.backend_pid,))
        connection.execute("SELECT 1").fetchall()


def test_a_connection_that_breaks_is_told_by_an_error_and_not_in_psycopg_s_log_too(
    straight: PostgresStore, postgres: Places, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        contextlib.closing(straight._links.connect()) as ours,
        psycopg.connect(postgres.dsn, autocommit=True) as another,
        psycopg.connect(postgres.dsn, autocommit=True) as killer,
    ):
        ended_in_a_pipeline(ours, killer)
        assert caplog.messages == []
        # Of other people's it says what it always says.
        ended_in_a_pipeline(another, killer)
        assert any("psycopg.Pipeline" in each for each in caplog.messages)


def test_of_backends_that_are_ended_at_random_no_put_is_told_that_it_was_not_stored_and_was(
    straight: PostgresStore, postgres: Places, place: Path
) -> None:
    refused: list[str] = []
    over = threading.Event()
    dsn = f"{postgres.dsn} application_name=doomed"
    free = PostgresStore(dsn, schema=postgres.schema(place))
    limited = PostgresStore(dsn, schema=postgres.schema(place), max_messages=10**6)

    def submit(thread: int) -> None:
        for n in range(PUTS):
            names = [f"t{thread}-{n}", f"t{thread}-{n}-too"]
            try:
                if n % 3:
                    (free, limited)[n % 2].put([mail(name) for name in names])
                else:
                    free.put_claimed([mail(name) for name in names], lease=LEASE)
            except AmbiguousPut:
                pass
            except StoreUnavailable:
                refused.extend(names)

    with (
        contextlib.closing(free),
        contextlib.closing(limited),
        psycopg.connect(postgres.dsn, autocommit=True) as killer,
    ):
        threads = [threading.Thread(target=submit, args=(n,)) for n in range(3)]
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doomed'"
            )
            over.wait(0.02)
        for each in threads:
            each.join(PATIENCE)

    assert [name for name in refused if straight.get(name) is not None] == []

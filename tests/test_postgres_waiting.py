"""How one process hears of what another has put: by a notification at once, by looking now and then in any case."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_places import Places

from outbox.stores.postgres import PostgresStore
from outbox.stores.postgres.listening import LISTENS
from outbox.stores.postgres.naming import Names, Sql
from outbox.testing.clauses.scene import LONG, SHORT, mail, put, take

SELDOM = dt.timedelta(hours=1)
OFTEN = dt.timedelta(milliseconds=20)


@contextlib.contextmanager
def stores(
    postgres: Places, place: Path, **settings: object
) -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """One that waits, with these settings, and one that puts."""
    with (
        contextlib.closing(postgres.open(place, **settings)) as waits,
        contextlib.closing(postgres.open(place)) as puts,
    ):
        take(waits)
        waits.wait(SHORT)
        yield waits, puts


@contextlib.contextmanager
def listening(postgres: Places, place: Path) -> Iterator[psycopg.Connection]:
    """A connection that hears all that is told of the store."""
    schema = postgres.schema(place)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        Sql(connection, Names(schema)).execute(LISTENS)
        connection.execute(f'LISTEN "outbox.{schema}"'.encode())
        yield connection


def heard(connection: psycopg.Connection) -> list[str]:
    """The queues that were told of so far."""
    connection.execute("SELECT 1")
    return [each.payload.partition(" ")[2] for each in connection.notifies(timeout=0)]


def test_what_another_puts_is_heard_of_however_seldom_one_looks(postgres: Places, place: Path) -> None:
    with stores(postgres, place, poll=SELDOM) as (waits, puts):
        put(puts, "a")

        assert waits.wait(LONG) is True
        assert [claim.message.id for claim in take(waits)] == ["a"]


def test_what_is_of_another_queue_ends_no_wait(postgres: Places, place: Path) -> None:
    with stores(postgres, place, poll=SELDOM) as (waits, puts):
        put(puts, mail("a", queue="other"))

        assert waits.wait(SHORT) is False


@pytest.mark.parametrize("listen", [True, False])
def test_where_nobody_tells_it_is_seen_by_looking(postgres: Places, place: Path, *, listen: bool) -> None:
    with (
        stores(postgres, place, poll=OFTEN, listen=listen) as (waits, _),
        contextlib.closing(postgres.open(place, notify=False)) as silent,
    ):
        put(silent, "a")

        assert waits.wait(LONG) is True


def test_it_listens_again_when_its_connection_was_cut(
    postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.stores.postgres.listening._AGAIN", 0.0)
    with stores(postgres, place, poll=SELDOM) as (waits, puts):
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            # By what it executed last, for no other of this store listens.
            channel = f'LISTEN "outbox.{postgres.schema(place)}"'
            cut = connection.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE query = %s", (channel,)
            ).fetchall()
            assert cut == [(True,)]
        # It looks when it hears that it hears nothing any more, and then listens again.
        put(puts, "a")
        assert waits.wait(LONG) is True
        take(waits)
        waits.wait(SHORT)
        put(puts, "b")
        assert waits.wait(LONG) is True


def test_a_put_tells_once_of_each_queue(postgres: Places, place: Path) -> None:
    with listening(postgres, place) as ear, contextlib.closing(postgres.open(place)) as store:
        put(store, *(mail(f"m{n}", queue=("mail", "other")[n % 2]) for n in range(10)))
        assert sorted(heard(ear)) == ["mail", "other"]
        put(store, mail("single"))
        assert heard(ear) == ["mail"]


def test_where_nobody_listens_nobody_is_told(postgres: Places, place: Path) -> None:
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as stranger,
        contextlib.closing(postgres.open(place)) as store,
    ):
        stranger.execute(f'LISTEN "outbox.{postgres.schema(place)}"'.encode())
        put(store, "a")
        put(store, "b", "c")
        assert heard(stranger) == []
        with listening(postgres, place):
            put(store, "d")
            put(store, "e", "f")
        assert heard(stranger) == ["mail", "mail"]


def test_what_is_put_within_a_transaction_is_told_of_once_and_at_its_commit(
    postgres: Places, place: Path
) -> None:
    with listening(postgres, place) as ear, contextlib.closing(postgres.open(place)) as store:
        with psycopg.connect(postgres.dsn) as connection:
            for n in range(3):
                store.within(connection).put([mail(f"m{n}")])
            assert heard(ear) == []
            connection.commit()

        assert heard(ear) == ["mail"]


def test_what_was_put_within_a_transaction_is_news_to_this_process_too(postgres: Places, place: Path) -> None:
    with contextlib.closing(postgres.open(place, poll=SELDOM)) as store:
        take(store)
        store.wait(SHORT)
        with psycopg.connect(postgres.dsn) as connection:
            store.within(connection).put([mail("a")])

        assert store.wait(LONG) is True


@pytest.mark.filterwarnings("ignore:.*notifies:RuntimeWarning")
def test_what_is_notified_to_a_session_that_others_have_listened_in_is_not_kept(
    postgres: Places, place: Path
) -> None:
    """As a pooler may hand it on: psycopg would keep it for whoever asks, and nobody does."""
    with contextlib.closing(postgres.open(place)) as store:
        (connection,) = store._links._open
        connection.execute("LISTEN anything")
        connection.execute("NOTIFY anything")
        put(store, "a")

        assert list(connection.notifies(timeout=0)) == []

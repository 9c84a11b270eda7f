"""A move from and to PostgreSQL: what others have in hand, what is durable, and a commit that nobody answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg
import pytest
from moves import moved
from postgres_cutter import Cutter
from postgres_places import Places

from outbox import Outbox
from outbox.errors import AmbiguousPut, StoreUnavailable
from outbox.lifecycle import State
from outbox.moving import Batch, Remembered
from outbox.protocols import Suspension
from outbox.stores.memory import MemoryStore
from outbox.stores.postgres import PostgresStore, moving
from outbox.testing.clauses.scene import ids, mail, put, states, take

PATIENCE: Final = 60.0


@pytest.fixture
def store(place: Path, postgres: Places) -> Iterator[Any]:
    with contextlib.closing(postgres.open(place)) as store:
        yield store


class Taking:
    """A take in a thread of its own."""

    def __init__(self, store: Any) -> None:
        self.batch: Batch | None = None
        self._store = store
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        self.batch = self._store.take(to="another", limit=9)

    def waits_for(self, beside: psycopg.Connection) -> bool:
        """Whether it comes to wait for what this connection has locked; False where it ends without that."""
        until = time.monotonic() + PATIENCE
        pid = beside.info.backend_pid
        with psycopg.connect(beside.info.dsn, autocommit=True) as looking:
            while self._thread.is_alive() and time.monotonic() < until:
                asked = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
                if looking.execute(asked, (pid,)).fetchone():
                    return True
        return False

    def names(self) -> list[str]:
        self._thread.join(PATIENCE)
        assert self.batch is not None
        return sorted(record.message.id for record in self.batch.records)


def table(store: Any) -> str:
    return f"{store._names.schema}.outbox_message"


def test_what_another_has_in_hand_is_waited_for_and_taken_when_he_let_it_be(
    store: Any, postgres: Places
) -> None:
    put(store, "a", "b")
    with psycopg.connect(postgres.dsn) as beside:
        beside.execute(f"SELECT FROM {table(store)} WHERE id = 'a' FOR UPDATE".encode())
        taking = Taking(store)
        assert taking.waits_for(beside)
        beside.rollback()
    assert taking.names() == ["a", "b"]


def test_what_was_claimed_while_it_was_waited_for_is_not_taken(store: Any, postgres: Places) -> None:
    put(store, "a", "b")
    with psycopg.connect(postgres.dsn) as beside:
        beside.execute(
            f"UPDATE {table(store)} SET stage = 1, state = 'claimed', due = due + 3600000000 WHERE id = 'a'".encode()
        )
        taking = Taking(store)
        assert taking.waits_for(beside)
        beside.commit()
    assert taking.names() == ["b"]
    assert states(store) == {"a": State.CLAIMED, "b": State.CLAIMED}


def test_of_two_who_take_at_once_one_waits_and_both_have_the_same_batch(store: Any, postgres: Places) -> None:
    put(store, "a", "b")
    with psycopg.connect(postgres.dsn) as beside:
        beside.execute(f"SELECT FROM {table(store)} WHERE id = 'a' FOR UPDATE".encode())
        one = Taking(store)
        assert one.waits_for(beside)
        other = Taking(store)
        beside.rollback()
    assert one.names() == other.names() == ["a", "b"]
    assert one.batch is not None
    assert other.batch is not None
    assert one.batch.name == other.batch.name


def test_what_somebody_locks_for_long_is_waited_for_only_so_long(
    postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that somebody forgot is no reason to wait for ever: the move ends, and says why."""
    monkeypatch.setattr(moving, "_LONGEST", "50ms", raising=False)
    schema = postgres.schema(place)
    # Where it is not given up for that it ends, and says something else.
    options = "options=-cstatement_timeout=5s"
    with contextlib.closing(PostgresStore(f"{postgres.dsn} {options}", schema=schema)) as opened:
        store: Any = opened
        source: Any = MemoryStore()
        put(store, "a")
        put(source, "b")
        batch = source.take(to=store.identity(), limit=1)
        with psycopg.connect(postgres.dsn) as beside:
            beside.execute(f"SELECT FROM {table(store)} WHERE id = 'a' FOR UPDATE".encode())
            Outbox(store).within(beside).submit(mail("b"))
            with pytest.raises(StoreUnavailable, match="another transaction has it locked"):
                store.take(to="another", limit=9)
            with pytest.raises(StoreUnavailable, match="another transaction has it locked"):
                store.give(batch)
            beside.rollback()
        assert list(store.give(batch)) == []
        assert sorted(states(store)) == ["a", "b"]


@pytest.mark.parametrize(("set_", "commits"), [("off", "on"), ("local", "local")])
def test_a_commit_of_a_move_waits_for_the_disk_where_others_do_not(
    set_: str, commits: str, postgres: Places, place: Path
) -> None:
    schema = postgres.schema(place)
    options = f"-csynchronous_commit={set_}"
    with contextlib.closing(PostgresStore(f"{postgres.dsn} options={options}", schema=schema)) as opened:
        store: Any = opened
        with psycopg.connect(postgres.dsn, autocommit=True) as beside:
            for statement in _WATCH:
                beside.execute(statement.format(schema).encode())
            try:
                batch = _given(store)
                store.suspend(Suspension(kind="queue", value="mail"))
                store.remember([Remembered("known", bytes(32), dt.datetime.now(dt.UTC))])
                moved(store, MemoryStore())
                seen = beside.execute(f"SELECT DISTINCT what, how FROM {schema}.watched".encode()).fetchall()
            finally:
                beside.execute(f"DROP TABLE {schema}.watched; DROP FUNCTION {schema}.watch CASCADE".encode())
    assert sorted(seen) == [(f"outbox_{name}", commits) for name in ("message", "meta", "suspension")]
    assert batch.name


_WATCH: Final = (
    "CREATE TABLE {0}.watched (what text, how text)",
    """
    CREATE FUNCTION {0}.watch() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO {0}.watched VALUES (tg_table_name, current_setting('synchronous_commit'));
        RETURN NULL;
    END $$
    """,
    *(
        f"CREATE TRIGGER watch AFTER INSERT OR UPDATE ON {{0}}.outbox_{name} FOR EACH STATEMENT EXECUTE FUNCTION {{0}}.watch()"
        for name in ("meta", "message", "suspension")
    ),
)


def _given(store: Any) -> Batch:
    source: Any = MemoryStore()
    put(source, "a")
    batch: Batch = source.take(to=store.identity(), limit=1)
    assert list(store.give(batch)) == []
    return batch


def test_a_number_that_no_column_holds_is_a_message_that_is_left(store: Any) -> None:
    source: Any = MemoryStore()
    put(source, "a", "b", "c")
    row = source._shelf.rows["b"]
    row.standing = attrs.evolve(row.standing, attempts=1 << 40)

    move = moved(source, store)
    assert "cannot hold" in move.unfit["b"]
    assert (move.moved, sorted(states(source)), ids(take(store))) == (2, ["b"], ["a", "c"])


@pytest.mark.parametrize("moment", ["unheard", "unanswered"])
def test_a_batch_whose_commit_nobody_answers_is_ambiguous_and_arrives_once(
    moment: Any, cutter: Cutter, postgres: Places, place: Path, store: Any
) -> None:
    source: Any = MemoryStore()
    put(source, "a", "b")
    schema = postgres.schema(place)
    with contextlib.closing(PostgresStore(f"{postgres.dsn} host={cutter.folder}", schema=schema)) as cut:
        batch = source.take(to=store.identity(), limit=9)
        cutter.cut_at(b"COMMIT", moment)
        with pytest.raises(AmbiguousPut, match="same batch again"):
            cut.give(batch)
        assert cutter.cuts == 1
        assert bool(store.last_given(batch.source)) == (moment == "unanswered")

        move = moved(source, cut)
    assert (move.moved, move.refused, states(source)) == (2, [], {})
    assert ids(take(store)) == ["a", "b"]

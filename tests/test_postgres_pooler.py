"""Behind a pooler in transaction mode every verb works, nothing is left in a session, and what goes wrong is told with what to do.

Each promise is held to a stand-in, which every machine can run, and to PgBouncer where there is one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pgbouncer
import psycopg
import pytest
from command_line import CommandLine
from pgbouncer import bouncing
from postgres_places import Places
from postgres_pooler import Pooler, pooling
from started import PATIENCE

from outbox import Runner
from outbox.errors import AmbiguousPut, StoreUnavailable
from outbox.lifecycle import Settlement, State
from outbox.stores.postgres import PostgresStore
from outbox.stores.postgres.listening import LISTENED
from outbox.stores.postgres.migrations import PostgresMigration
from outbox.stores.postgres.naming import Names, Sql
from outbox.testing.clauses.scene import LEASE, LONG, SHORT, delivered, ids, mail, put, settle, statuses, take
from outbox.testing.recording import RecordingTransport

HOUR = dt.timedelta(hours=1)
OFTEN = dt.timedelta(milliseconds=20)
FOLLOWS = (1, 22)
"""The version of PgBouncer since which it keeps track of prepared statements, and of how psycopg drops them."""


@pytest.fixture
def schema(place: Path, postgres: Places) -> str:
    return postgres.schema(place)


@pytest.fixture
def server(postgres: Places) -> str:
    """The dsn of one that something can stand before."""
    if not str(psycopg.conninfo.conninfo_to_dict(postgres.dsn).get("host", "")).startswith("/"):
        pytest.skip("the server is the user's own, and not behind a Unix socket that can be stood before")
    return postgres.dsn


@attrs.frozen
class Pooled:
    """The way through a pooler, and what is to be said there."""

    dsn: str
    prepare: bool = False

    def open(self, schema: str, **settings: object) -> contextlib.closing[PostgresStore]:
        settings = {"prepare": self.prepare, **settings}
        return contextlib.closing(PostgresStore(self.dsn, schema=schema, **settings))  # type: ignore[arg-type]  # typed where it is called


@pytest.fixture
def stand_in(server: str) -> Iterator[Pooler]:
    with pooling(server) as pooler:
        yield pooler


@pytest.fixture
def bouncer_program() -> str:
    program = pgbouncer.program()
    if program is None:
        pytest.skip(pgbouncer.MISSING)
    return program


@pytest.fixture(params=["a stand-in", "PgBouncer", "PgBouncer that follows what is prepared"])
def pooled(request: pytest.FixtureRequest, server: str) -> Iterator[Pooled]:
    if request.param == "a stand-in":
        yield Pooled(request.getfixturevalue("stand_in").dsn)
        return
    program = request.getfixturevalue("bouncer_program")
    follows = "follows" in request.param
    if follows and pgbouncer.version(program) < FOLLOWS:
        pytest.skip("this PgBouncer does not keep track of what is prepared")
    settings = {"max_prepared_statements": "200"} if follows else {}
    # As few sessions as there can be: each transaction is in one that others have used.
    with bouncing(program, server, default_pool_size="2", **settings) as bouncer:
        yield Pooled(bouncer.dsn, prepare=follows)


def somebody_listens(server: str, schema: str) -> bool:
    with psycopg.connect(server) as connection:
        ((answer,),) = Sql(connection, Names(schema)).execute(f"SELECT {LISTENED}").fetchall()
    return bool(answer)


def test_every_verb_works(pooled: Pooled, schema: str) -> None:
    """And with a limit, for which those who put wait for each other."""
    with pooled.open(schema, listen=False, max_messages=1000) as store:
        for n in range(5):
            store.put([mail(f"{n}-{name}") for name in "abcdef"])
            put(store, f"{n}-g")
            first, second, *others = take(store)
            settle(store, first, delivered(first))
            store.extend([second], lease=LEASE)
            exchanged = store.exchange(
                [Settlement(each, delivered(each)) for each in [second, *others]],
                limit=10,
                lease=LEASE,
                queues=["mail"],
            )
            assert list(exchanged.lost) == []
            put(store, "kept")
            store.hold(["kept"], reason="wait")
            store.release(["kept"])
            store.cancel(["kept"])
            assert store.get("kept") is not None
            assert [each.id for each in store.browse(states=[State.CANCELLED])] == ["kept"]
            store.purge(["kept"])
            store.announce("here", "{}", for_=HOUR)
            store.count()
            store.glance()
            store.next_due(["mail"])
            store.prune()
            store.check()
            with psycopg.connect(pooled.dsn, prepare_threshold=5 if pooled.prepare else None) as shop:
                store.within(shop).put([mail(f"{n}-within"), mail(f"{n}-a")])
            (claim,) = take(store)
            settle(store, claim, delivered(claim))
        assert [each.number for each in store.count()] == []


def test_who_would_listen_leaves_no_session_listening_and_finds_what_was_put_by_looking(
    pooled: Pooled, schema: str, server: str
) -> None:
    """Whoever was given that session next would hear what is none of his, and all who put would go on telling."""
    with pooled.open(schema, poll=OFTEN) as waits, pooled.open(schema) as puts:
        take(waits)
        waits.wait(SHORT)
        assert not somebody_listens(server, schema)
        put(puts, "a")

        assert waits.wait(LONG) is True
        assert ids(take(waits)) == ["a"]
    assert not somebody_listens(server, schema)


def test_the_commands_that_make_and_check_the_tables_work(pooled: Pooled, outbox: CommandLine) -> None:
    said = psycopg.conninfo.conninfo_to_dict(pooled.dsn)
    schema, prepare = f"p{secrets.token_hex(6)}", "yes" if pooled.prepare else "no"
    url = (
        f"postgresql://{said['user']}@/{said['dbname']}?host={said['host']}&schema={schema}&prepare={prepare}"
    )
    try:
        assert outbox("migrate", "--sql", "--store", url).out.startswith("BEGIN;")
        assert outbox("migrate", "--store", url).out.startswith("made the tables")
        assert outbox("migrate", "--store", url).out.startswith("there was nothing to do")
        assert "holds a store of version" in outbox("check", "--store", url).out
    finally:
        with psycopg.connect(pooled.dsn, autocommit=True, prepare_threshold=None) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def test_a_setting_for_the_session_is_refused_with_what_to_do(pooled: Pooled, schema: str) -> None:
    dsn = f"{pooled.dsn} options='-clock_timeout=60s'"
    for attempt in (lambda: PostgresStore(dsn, schema=schema), PostgresMigration(dsn, schema=schema).run):
        with pytest.raises(StoreUnavailable, match=r"unsupported startup parameter.*ALTER ROLE"):
            attempt()


# -- where something is prepared that the pooler does not follow


def test_where_something_is_prepared_it_is_told_what_to_do(stand_in: Pooler, schema: str) -> None:
    with Pooled(stand_in.dsn, prepare=True).open(schema, listen=False) as store:

        def often() -> None:
            for n in range(5):
                put(store, f"m{n}")
                store.count()

        with pytest.raises(StoreUnavailable, match="prepare=no"):
            often()


# -- where it has no session left


def test_a_put_that_waited_in_vain_was_not_stored_for_certain(stand_in: Pooler, schema: str) -> None:
    with Pooled(stand_in.dsn).open(schema, listen=False) as store:
        put(store, "known")
        stand_in.exhausted = True
        for attempt in (
            lambda: put(store, "one"),
            lambda: store.put([mail("two"), mail("three")]),
            lambda: take(store),
            store.count,
        ):
            with pytest.raises(StoreUnavailable, match=r"nothing was done.*default_pool_size") as caught:
                attempt()
            assert not isinstance(caught.value, AmbiguousPut)
        with pytest.raises(StoreUnavailable) as caught:
            # psycopg does not always say why a transaction of several statements was cut before its commit.
            store.put_claimed([mail("four")], lease=LEASE)
        assert not isinstance(caught.value, AmbiguousPut)
        stand_in.exhausted = False

        names = ["known", "one", "two", "three", "four"]
        assert statuses(store.put([mail(name) for name in names])) == ["known", *["stored"] * 4]
        assert sorted(ids(take(store))) == sorted(names)


def test_so_it_is_with_pgbouncer(bouncer_program: str, server: str, schema: str) -> None:
    with (
        bouncing(bouncer_program, server, query_wait_timeout="1") as bouncer,
        Pooled(bouncer.dsn).open(schema, listen=False) as store,
        psycopg.connect(f"{bouncer.dsn} dbname=pgbouncer", autocommit=True) as admin,
    ):
        put(store, "known")
        admin.execute("PAUSE")
        with pytest.raises(StoreUnavailable, match=r"nothing was done.*default_pool_size") as caught:
            put(store, "one")
        assert not isinstance(caught.value, AmbiguousPut)
        admin.execute("RESUME")

        assert statuses(store.put([mail("one")])) == ["stored"]
        assert sorted(ids(take(store))) == ["known", "one"]


# -- where it is killed


def test_pgbouncer_that_is_killed_under_a_runner_loses_nothing(
    bouncer_program: str, server: str, schema: str
) -> None:
    names, taken = [f"m{n:03}" for n in range(200)], RecordingTransport()
    with (
        bouncing(bouncer_program, server) as bouncer,
        Pooled(bouncer.dsn).open(schema, keep_delivered=HOUR) as store,
    ):
        runner = Runner(store, taken, lease=dt.timedelta(seconds=3))
        runner.start()
        for n, name in enumerate(names):
            if n % 50 == 49:
                bouncer.kill()
                with pytest.raises(StoreUnavailable, match="cannot be reached"):
                    put(store, name)
                bouncer.start()
            store.put([mail(name)])
        # A claim whose answer was cut off comes when its lease is over.
        until = time.monotonic() + PATIENCE
        while [(each.state, each.number) for each in store.count()] != [(State.DELIVERED, len(names))]:
            assert time.monotonic() < until, list(store.count())
            time.sleep(0.02)
        runner.stop()

        attempts = {each.id: each.attempts for each in store.browse(limit=len(names))}
    copies = Counter(message.id for message in taken.messages)
    assert set(copies) == set(names)
    assert {name: n for name, n in copies.items() if n > attempts[name]} == {}


# -- in session mode


def test_in_session_mode_what_another_puts_is_heard_of(
    bouncer_program: str, server: str, schema: str
) -> None:
    with bouncing(bouncer_program, server, pool_mode="session") as bouncer:
        pooled = Pooled(bouncer.dsn, prepare=True)
        with pooled.open(schema, poll=HOUR) as waits, pooled.open(schema) as puts:
            take(waits)
            waits.wait(SHORT)
            for n in range(5):
                put(puts, f"m{n}")
                assert waits.wait(LONG) is True
                (claim,) = take(waits)
                settle(waits, claim, delivered(claim))

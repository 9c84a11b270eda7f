"""Ctrl-C and other signals' exceptions in the midst of what PostgreSQL is asked: they are raised as they are, and nothing is left half said."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from interrupting import Interrupting
from postgres_places import Places

from outbox import Message, Outbox, waiting
from outbox.errors import StoreUnavailable
from outbox.lifecycle import Settlement
from outbox.stores.postgres import PostgresStore, links
from outbox.stores.postgres.driver import connecting
from outbox.testing.clauses.scene import delivered, ids, mail, put, retry, statuses, take

_BLOCKED = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND pg_backend_pid() <> pid AND %s = ANY(pg_blocking_pids(pid))
"""


class SoftLimit(Exception):
    """What a queue of tasks raises in its worker whose time is over."""


KINDS = pytest.mark.parametrize("kind", [SoftLimit, KeyboardInterrupt, SystemExit])


@pytest.fixture
def store(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place, notify=False)) as store:
        yield store


@pytest.fixture
def limited(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place, notify=False, max_messages=1000)) as store:
        yield store


@pytest.fixture
def others(postgres: Places) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.dsn) as connection:
        yield connection


def raised(
    kind: type[BaseException], act: Callable[[], object], dsn: str, others: psycopg.Connection
) -> BaseException:
    """What *act* raises whom a signal interrupts while he waits on the server for *others*; the handler raises *kind*."""

    def handler(*_: object) -> None:
        raise kind

    main, over = threading.main_thread().ident, threading.Event()
    assert threading.get_ident() == main

    def interrupt() -> None:
        with psycopg.connect(dsn, autocommit=True) as looking:
            while looking.execute(_BLOCKED, (others.info.backend_pid,)).fetchone() == (0,):
                if over.wait(0.01):
                    return
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handler)
    thread = threading.Thread(target=interrupt)
    # What is raised while a collection runs somebody's callback is raised to nobody.
    gc.disable()
    thread.start()
    try:
        act()
    except BaseException as error:  # noqa: BLE001 - what it is is the question
        return error
    finally:
        gc.enable()
        over.set()
        thread.join()
        signal.signal(signal.SIGALRM, before)
    raise AssertionError("nobody interrupted it")


@KINDS
def test_a_submit_within_that_is_interrupted_leaves_the_transaction_as_it_was(
    store: PostgresStore, postgres: Places, others: psycopg.Connection, kind: type[BaseException]
) -> None:
    outbox = Outbox(store)
    with psycopg.connect(postgres.dsn) as ours:
        outbox.within(ours).submit(mail("before"))
        outbox.within(others).submit(mail("a"))
        error = raised(kind, lambda: outbox.within(ours).submit(mail("a")), postgres.dsn, others)
        assert type(error) is kind

        others.rollback()
        outbox.within(ours).submit(mail("after"))
        ours.commit()

    assert sorted(ids(take(store, 5))) == ["after", "before"]


@KINDS
def test_one_in_a_pipeline_of_the_callers_leaves_him_a_connection_that_commits_nothing_of_it(
    store: PostgresStore, postgres: Places, others: psycopg.Connection, kind: type[BaseException]
) -> None:
    outbox = Outbox(store)
    with contextlib.closing(psycopg.connect(postgres.dsn)) as ours:

        def submit() -> None:
            with ours.pipeline():
                outbox.within(ours).submit(mail("a"))

        outbox.within(others).submit(mail("a"))
        assert type(raised(kind, submit, postgres.dsn, others)) is kind
        others.rollback()
        if not ours.closed:
            ours.rollback()

    assert take(store, 5) == []


@KINDS
def test_a_put_that_is_interrupted_raises_what_interrupted_it(
    limited: PostgresStore, postgres: Places, others: psycopg.Connection, kind: type[BaseException]
) -> None:
    Outbox(limited).within(others).submit(mail("a"))
    assert type(raised(kind, lambda: limited.put([mail("b")]), postgres.dsn, others)) is kind

    others.rollback()
    assert statuses(limited.put([mail("c")])) == ["stored"]


@KINDS
def test_and_so_does_a_settle(
    store: PostgresStore, postgres: Places, others: psycopg.Connection, kind: type[BaseException]
) -> None:
    put(store, "a", "b")
    first, second = take(store, 2)
    settlements = [Settlement(first, delivered(first)), Settlement(second, retry(second))]
    others.execute(
        f"SELECT FROM {store._names.quoted}.outbox_message WHERE id = %s FOR UPDATE".encode(),
        (first.message.id,),
    )
    assert type(raised(kind, lambda: store.settle(settlements), postgres.dsn, others)) is kind

    others.rollback()
    assert store.settle(settlements) == []


def test_what_the_caller_was_handling_already_is_not_taken_for_an_interruption(
    store: PostgresStore, postgres: Places, others: psycopg.Connection
) -> None:
    others.execute(f"LOCK TABLE {store._names.quoted}.outbox_message".encode())
    with psycopg.connect(postgres.dsn) as ours:
        ours.execute("SET LOCAL lock_timeout = 10")
        with pytest.raises(StoreUnavailable, match="has it locked"):
            submit_after_another_failure(Outbox(store).within(ours).submit)


def submit_after_another_failure(submit: Callable[[Message], object]) -> None:
    try:
        raise_one()
    except SoftLimit:
        submit(mail("a"))


def raise_one() -> None:
    raise SoftLimit


WATCHED = {links.__file__, connecting.__file__, waiting.__file__, contextlib.__file__}


def interrupted_everywhere(act: Callable[[], object]) -> Iterator[str]:
    """Do it again and again, each time interrupted one call later; yields where, until it comes to its end."""
    for calls in itertools.count(1):
        interrupting = Interrupting(calls, WATCHED, KeyboardInterrupt)
        # What is raised while a collection closes something is raised to nobody.
        gc.disable()
        sys.setprofile(interrupting)
        try:
            act()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
            gc.enable()
        if not interrupting.where:
            return
        yield interrupting.where


def used(store: PostgresStore) -> None:
    store._links.use(lambda sql: sql.execute("SELECT 1").fetchall())


def left_open(store: PostgresStore) -> None:
    """A transaction that is undone when the connection is given back."""
    store._links.use(lambda sql: sql.execute("BEGIN"))


def opened(store: PostgresStore) -> None:
    """By whoever finds that those which wait have ended."""
    for connection in list(store._links._open):
        connection.close()
    used(store)


def ended(store: PostgresStore) -> None:
    """In the midst: those that wait are closed, too."""
    with contextlib.suppress(StoreUnavailable):
        store._links.use(lambda sql: sql.execute("SELECT pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("act", [used, left_open, opened, ended])
def test_no_place_for_a_connection_is_lost_wherever_a_verb_is_interrupted(
    place: Path, postgres: Places, act: Callable[[PostgresStore], None]
) -> None:
    with contextlib.closing(postgres.open(place, notify=False, max_connections=2)) as store:
        seen = set()
        for where in interrupted_everywhere(lambda: act(store)):
            assert len(store._links._places) == 2, f"after an interrupt at {where}"
            assert len(set(filter(None, store._links._places))) == len(
                list(filter(None, store._links._places))
            )
            used(store)
            seen.add(where)
        assert len(seen) > 5
        gc.collect()

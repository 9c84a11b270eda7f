"""Ctrl-C and signal handlers: whatever they interrupt, nobody waits for ever, and what was done is known."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import itertools
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from interrupting import Interrupting

from outbox.errors import StoreUnavailable
from outbox.lifecycle import Settlement
from outbox.stores.sqlite import SQLiteStore, connection, grouping, links
from outbox.testing.clauses.scene import delivered, mail, put, states, take

PATIENCE = 60
WATCHED = {grouping.__file__, links.__file__, connection.__file__, contextlib.__file__}

# An interrupt between the opening of a connection and whoever was to keep it leaves it to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    store.close()
    # Here, and not in the middle of another test.
    gc.collect()


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupted_everywhere(act: Callable[[], object]) -> Iterator[str]:
    """Do it again and again, each time interrupted one call later; yields where, until it comes to its end."""
    for calls in itertools.count(1):
        interrupting = Interrupting(calls, WATCHED, Interrupt)
        kept: Interrupt | None = None
        # What is raised while a collection closes something is raised to nobody.
        gc.disable()
        sys.setprofile(interrupting)
        try:
            act()
        except Interrupt as error:
            # As a console keeps it, and with it all that its frames hold.
            kept = error
        finally:
            sys.setprofile(None)
            gc.enable()
        if kept is None:
            return
        yield interrupting.where


def in_time(pool: ThreadPoolExecutor, act: Callable[[], object], where: str) -> None:
    served(pool.submit(act), where)


def served(future: Future[Any], where: str) -> None:
    try:
        future.result(PATIENCE)
    except TimeoutError:
        pytest.fail(f"after an interrupt at {where} others wait for ever")


def test_an_interrupt_anywhere_in_a_put_keeps_nobody_waiting(store: SQLiteStore) -> None:
    put(store, "first")
    names = (f"m{number}" for number in itertools.count())
    places = set()
    with ThreadPoolExecutor(1) as pool:
        for where in interrupted_everywhere(lambda: put(store, next(names))):
            in_time(pool, lambda: put(store, next(names)), where)
            put(store, next(names))
            places.add(where)
    assert len(places) > 20


def test_an_interrupt_anywhere_in_a_look_keeps_nobody_waiting(store: SQLiteStore) -> None:
    put(store, "first")
    names = (f"m{number}" for number in itertools.count())
    places = set()
    with ThreadPoolExecutor(1) as pool:
        for where in interrupted_everywhere(lambda: (store.count(), store.wait(dt.timedelta(0)))):
            in_time(pool, lambda: put(store, next(names)), where)
            assert store.count()
            places.add(where)
    assert len(places) > 15


def test_a_leader_that_is_interrupted_anywhere_leaves_its_followers_served(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = threading.Semaphore(0)
    real = grouping.Write.wait

    def wait(write: grouping.Write[Any], seconds: float) -> bool:
        came.release()
        return real(write, seconds)

    monkeypatch.setattr(grouping.Write, "wait", wait)
    names = (f"m{number}" for number in itertools.count())
    behind: list[Future[None]] = []
    with ThreadPoolExecutor(2) as pool:

        def lead() -> None:
            """Two wait behind it before it ends: the next leader, and one of its batch."""

            def perform(_: object) -> None:
                behind.extend(pool.submit(put, store, next(names)) for _ in range(2))
                assert all(came.acquire(timeout=PATIENCE) for _ in range(2))

            store._database.write(perform)

        for where in interrupted_everywhere(lead):
            for future in behind:
                served(future, where)
            behind.clear()
            while came.acquire(blocking=False):
                pass


def test_an_interrupt_before_a_commit_is_not_taken_for_one_after_the_commit_before(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "committed")
    database = store._database

    def interrupted() -> None:
        raise Interrupt

    monkeypatch.setattr(database._links, "require_same_file", interrupted)
    writes = [grouping.Write[None](lambda _: None, deadline=1e9) for _ in range(2)]
    for some in (writes, writes[:1]):
        with pytest.raises(Interrupt):
            database._perform(some)
    assert not any(write.answered for write in writes)


def test_an_interrupt_in_the_middle_of_a_statement_is_nothing_to_the_next_who_commits(
    store: SQLiteStore,
) -> None:
    put(store, "a", "b")

    def interrupted(sql: Any) -> None:
        cursor = sql.execute("UPDATE outbox_message SET lost = lost RETURNING id")
        for _ in cursor:
            raise Interrupt

    with pytest.raises(Interrupt) as kept:
        store._database.write(interrupted)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(put, store, "c").result(PATIENCE)
    assert kept.value.__traceback__ is not None
    assert len(states(store)) == 3


def test_an_interrupt_after_the_commit_leaves_it_done_and_done_once(store: SQLiteStore) -> None:
    """The commit took its time; Ctrl-C came meanwhile, and is raised when it returns."""
    put(store, "a")
    (claim,) = take(store)
    real = store._database._commit

    def commit(link: links.Link) -> None:
        real(link)
        raise Interrupt

    store._database._commit = commit  # type: ignore[method-assign]  # an interrupt at this very moment
    with pytest.raises(Interrupt):
        store.settle([Settlement(claim, delivered(claim))])
    store._database._commit = real  # type: ignore[method-assign]  # as it was

    assert states(store) == {}
    assert store.settle([Settlement(claim, delivered(claim))]) == [claim]


def test_followers_of_an_interrupted_commit_are_told_what_became_of_theirs(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    came, entered = threading.Semaphore(0), threading.Event()
    real_wait, real_commit = grouping.Write.wait, store._database._commit

    def wait(write: grouping.Write[Any], seconds: float) -> bool:
        came.release()
        return real_wait(write, seconds)

    def commit(link: links.Link) -> None:
        real_commit(link)
        if "leads" in threading.current_thread().name and not entered.is_set():
            entered.set()
            raise Interrupt

    monkeypatch.setattr(grouping.Write, "wait", wait)
    with ThreadPoolExecutor(3) as pool:
        held = pool.submit(
            store._database.write, lambda _: [came.acquire(timeout=PATIENCE) for _ in range(3)]
        )
        failures: list[BaseException] = []

        def lead() -> None:
            try:
                put(store, "leads")
            except Interrupt as error:
                failures.append(error)

        leader = threading.Thread(target=lead, name="leads")
        leader.start()
        while not store._database._group._waiting:
            threading.Event().wait(0.001)
        store._database._commit = commit  # type: ignore[method-assign]  # an interrupt at this very moment
        followers = [pool.submit(store.put, [mail(name)]) for name in ("b", "c")]
        held.result(PATIENCE)
        leader.join(PATIENCE)
        results = [result.status for future in followers for result in future.result(PATIENCE)]

    assert (len(failures), results) == (1, ["stored", "stored"])
    assert sorted(states(store)) == ["b", "c", "leads"]


needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this platform has no SIGUSR1")


@contextlib.contextmanager
def handling(handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@needs_signals
def test_a_signal_handler_may_look_at_the_store_in_the_middle_of_anything(store: SQLiteStore) -> None:
    put(store, "a")
    seen: list[int] = []

    with handling(lambda: seen.append(sum(row.number for row in store.count()))):
        store._database.read(lambda _: signal.raise_signal(signal.SIGUSR1))
        store._database.write(lambda _: signal.raise_signal(signal.SIGUSR1))

    assert seen == [1, 1]


@needs_signals
def test_a_signal_handler_may_write_while_its_thread_is_reading(store: SQLiteStore) -> None:
    with handling(lambda: put(store, "a")):
        store._database.read(lambda _: signal.raise_signal(signal.SIGUSR1))
    assert list(states(store)) == ["a"]


@needs_signals
def test_a_signal_handler_that_writes_in_the_middle_of_a_write_is_told_so(store: SQLiteStore) -> None:
    told = pytest.raises(StoreUnavailable, match="a signal handler interrupted a write of this thread")
    with handling(lambda: put(store, "b")), told:
        store._database.write(lambda _: signal.raise_signal(signal.SIGUSR1))
    put(store, "a")
    assert list(states(store)) == ["a"]


@needs_signals
def test_a_signal_handler_may_close_the_store_in_the_middle_of_anything(path: Path) -> None:
    store = SQLiteStore(path)
    put(store, "a")
    with handling(store.close), pytest.raises(StoreUnavailable):
        store._database.read(lambda _: signal.raise_signal(signal.SIGUSR1))

    again = SQLiteStore(path)
    assert list(states(again)) == ["a"]
    again.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is writing, and does not end."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_many_threads_wait_for_another_program_side_by_side(path: Path) -> None:
    """Each for as long as was said since it came, and not one after the other."""
    store = SQLiteStore(path, busy_timeout=dt.timedelta(seconds=1))
    clock = store._database._clock
    waits: list[float] = []

    def attempt(number: int) -> None:
        before = clock.monotonic()
        with pytest.raises(StoreUnavailable, match="locked"):
            put(store, f"m{number}")
        waits.append(clock.monotonic() - before)

    with locked(path), ThreadPoolExecutor(12) as pool:
        list(pool.map(attempt, range(12)))

    # One after the other the last of them would have waited for twelve times as long.
    assert max(waits) < 6
    put(store, "a")
    assert list(states(store)) == ["a"]
    store.close()


def test_threads_that_wait_for_no_other_program_still_wait_for_each_other(path: Path) -> None:
    store = SQLiteStore(path, busy_timeout=dt.timedelta(0))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(store, f"m{number}"), range(80)))
    assert len(states(store)) == 80
    store.close()

"""Many threads share commits; a thread alone waits for nobody, and one's failure is nobody else's."""

from __future__ import annotations

import functools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from outbox.errors import ConflictError, StoreFull
from outbox.lifecycle import PutResult, Settlement
from outbox.stores.sqlite import SQLiteStore, grouping
from outbox.stores.sqlite.grouping import Write
from outbox.testing.clauses.scene import delivered, ids, mail, put, states, take


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "outbox.db")
    yield store
    store.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


class Gate:
    """Holds the first write until as many others wait behind it as were said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self._came = threading.Semaphore(0)
        real = Write.wait

        def wait(write: Write[Any], seconds: float) -> bool:
            self._came.release()
            return real(write, seconds)

        monkeypatch.setattr(Write, "wait", wait)

    def hold(self, sql: object) -> None:
        self.entered.set()
        assert self.open.wait(30)

    def release_after(self, number: int) -> None:
        for _ in range(number):
            assert self._came.acquire(timeout=30)
        self.open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every transaction of this process, as it begins to be committed."""
    made: list[str] = []

    class Counting(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" and self.total_changes:
                made.append(sql)
            return super().execute(sql, *parameters)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **named: real(*args, factory=Counting, **named))
    return made


def together(
    store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate, calls: list[Callable[[], Any]]
) -> list[Future[Any]]:
    """Let these calls come while another write is under way."""
    first = pool.submit(store._database.write, gate.hold)
    assert gate.entered.wait(30)
    futures = [pool.submit(call) for call in calls]
    gate.release_after(len(calls))
    first.result()
    return futures


def test_what_comes_while_another_commits_shares_the_next_commit(
    tmp_path: Path, commits: list[str], pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "counted.db")
    gate = Gate(monkeypatch)
    commits.clear()

    puts = together(
        store,
        pool,
        gate,
        [lambda name=f"m{n}": put(store, name) for n in range(20)],  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    )
    for future in puts:
        future.result()

    # The other is the held write of this test.
    assert len(commits) == 2
    assert len(states(store)) == 20
    store.close()


def test_a_thread_alone_makes_a_commit_a_put(tmp_path: Path, commits: list[str]) -> None:
    store = SQLiteStore(tmp_path / "counted.db")
    commits.clear()
    for n in range(5):
        put(store, f"m{n}")
    assert len(commits) == 5
    store.close()


def test_one_s_conflict_is_nobody_else_s(store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate) -> None:
    put(store, "known")
    calls: list[Callable[[], Any]] = [
        lambda: store.put([mail("a")]),
        lambda: store.put([mail("new"), mail("known", "another@example.org")]),
        lambda: store.put([mail("b")]),
    ]
    a, conflict, b = together(store, pool, gate, calls)

    assert [result.status for future in (a, b) for result in future.result()] == ["stored", "stored"]
    with pytest.raises(ConflictError):
        conflict.result()
    assert sorted(states(store)) == ["a", "b", "known"]


def test_a_failure_after_writing_undoes_its_own_and_nobody_else_s(
    store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate
) -> None:
    def fails(sql: Any) -> None:
        sql.execute("INSERT INTO outbox_meta VALUES ('half', 'done')")
        raise RuntimeError("in the middle")

    calls: list[Callable[[], Any]] = [
        lambda: put(store, "a"),
        lambda: store._database.write(fails),
        lambda: put(store, "b"),
    ]
    a, failed, b = together(store, pool, gate, calls)

    a.result()
    b.result()
    with pytest.raises(RuntimeError, match="in the middle"):
        failed.result()
    half = "SELECT * FROM outbox_meta WHERE name = 'half'"
    assert store._database.read(lambda sql: sql.execute(half).fetchall()) == []
    assert sorted(states(store)) == ["a", "b"]


def test_an_error_of_sqlite_is_that_one_s_alone(
    store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate
) -> None:
    def full(sql: Any) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    calls: list[Callable[[], Any]] = [
        lambda: put(store, "a"),
        lambda: store._database.write(full),
        lambda: put(store, "b"),
    ]
    a, failed, b = together(store, pool, gate, calls)

    a.result()
    b.result()
    with pytest.raises(StoreFull):
        failed.result()
    assert sorted(states(store)) == ["a", "b"]


def test_the_same_id_put_by_many_at_once_is_stored_once(
    store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate
) -> None:
    futures = together(store, pool, gate, [lambda: store.put([mail("a")])] * 10)
    results: list[PutResult] = [result for future in futures for result in future.result()]

    assert sorted(result.status for result in results) == ["known"] * 9 + ["stored"]


def test_puts_that_share_a_commit_pass_no_limit_together(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "limited.db", max_messages=5)
    gate = Gate(monkeypatch)
    put(store, "first")

    futures = together(store, pool, gate, [functools.partial(put, store, f"m{n:02}") for n in range(10)])
    refused = [future for future in futures if isinstance(future.exception(), StoreFull)]

    assert (len(refused), len(states(store))) == (6, 5)
    store.close()


def test_claims_and_settlements_share_commits_too(
    store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate
) -> None:
    put(store, *(f"m{n:02}" for n in range(20)))
    futures = together(store, pool, gate, [lambda: take(store, 2)] * 10)
    claims = [claim for future in futures for claim in future.result()]

    assert sorted(ids(claims)) == [f"m{n:02}" for n in range(20)]
    settled = [pool.submit(store.settle, [Settlement(claim, delivered(claim))]) for claim in claims]
    assert [list(future.result()) for future in settled] == [[]] * 20
    assert states(store) == {}


def test_more_than_fit_into_one_commit_are_all_done(
    store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "_MOST", 3)
    futures = together(
        store,
        pool,
        gate,
        [lambda name=f"m{n:02}": put(store, name) for n in range(20)],  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    )
    for future in futures:
        future.result()
    assert len(states(store)) == 20


def test_an_interrupted_follower_keeps_nobody_waiting(
    store: SQLiteStore, pool: ThreadPoolExecutor, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def wait(write: Write[Any], seconds: float) -> bool:
        if threading.current_thread() is threading.main_thread():
            raise Interrupted
        return real(write, seconds)

    real = Write.wait
    first = pool.submit(store._database.write, gate.hold)
    assert gate.entered.wait(30)
    monkeypatch.setattr(Write, "wait", wait)
    with pytest.raises(Interrupted):
        put(store, "a")
    behind = pool.submit(put, store, "b")
    gate.release_after(1)

    first.result(30)
    behind.result(30)
    assert list(states(store)) == ["b"]

"""The state machine with a disk that fails now and then: what a verb raised, it can be asked again."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from outbox.clock import Clock
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.state_machine import StoreStateMachine


class Failing(sqlite3.Connection):
    """While it is broken, a commit that writes something fails: after it was done, or before."""

    broken: list[bool] = []  # noqa: RUF012 - told to by the test

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql != "COMMIT" or not self.broken or not self.in_transaction:
            return super().execute(sql, *parameters)
        if self.broken[0]:
            super().execute(sql)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error


class FailingMachine(StoreStateMachine):
    breakable = True
    failures = 0

    def open(self, clock: Clock, path: Path, **settings: Any) -> SQLiteStore:
        return SQLiteStore(path / "outbox.db", clock=clock, **settings)

    @contextlib.contextmanager
    def failing_commits(self) -> Iterator[None]:
        self.failures += 1
        Failing.broken.append(bool(self.failures % 2))
        yield
        Failing.broken.clear()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Failing))
    monkeypatch.setattr(Failing, "broken", [])


@pytest.mark.usefixtures("failing")
def test_a_store_whose_commits_fail_is_as_though_they_had_not_once_its_verbs_are_repeated() -> None:
    run_state_machine_as_test(
        FailingMachine,
        settings=settings(max_examples=40, stateful_step_count=30, deadline=None),
    )


class MemoryMachine(StoreStateMachine):
    persistent = False

    def open(self, clock: Clock, path: Path, **settings: Any) -> MemoryStore:
        return MemoryStore(clock=clock, **settings)


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=10, stateful_step_count=30, deadline=None)

"""The state machine: with a disk that fails now and then, and with stores that can do less than the memory store."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import types
import unittest
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from outbox.clock import Clock
from outbox.protocols import Guarantee
from outbox.stores.memory import MemoryStore
from outbox.stores.selection import Offer
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


# -- stores that can do less


VERBS = ("put", "claim", "extend", "settle", "close")
CAPABILITIES = {
    "SupportsBrowse": ("get", "browse", "count"),
    "SupportsManage": ("requeue", "cancel", "purge"),
    "SupportsSuspend": ("suspend", "unsuspend", "suspensions"),
    "SupportsWait": ("wait", "wake", "next_due"),
    "SupportsMaintain": ("migrate", "check", "prune"),
    "SupportsHandOver": ("put_claimed",),
    "SupportsExchange": ("exchange",),
}


class Backwards(MemoryStore):
    """Gives the worst first."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        sound = self._shelf._lanes.offer
        self._shelf._lanes.offer = lambda *told: self.turned(sound(*told))  # type: ignore[method-assign]  # that is the point

    @staticmethod
    def turned(offer: Offer) -> Offer:
        return attrs.evolve(offer, ready=offer.ready[::-1])


class NeverLost(MemoryStore):
    """Does not count a claim that never settled."""

    def claim(self, **order: Any) -> Any:
        return [attrs.evolve(claim, lost=0) for claim in super().claim(**order)]


def play(
    store: type[MemoryStore],
    *methods: str,
    examples: int = 25,
    lacks: Iterable[Guarantee] = (),
    red: bool = False,
) -> None:
    """Let the machine play with a store that has these methods and lacks these guarantees.

    *red*: it is to find something, and that every time: by the same examples.
    """

    class Machine(StoreStateMachine):
        persistent = False

        def open(self, clock: Clock, path: Path, **settings: Any) -> Any:
            whole = store(clock=clock, **settings)
            narrow = {name: getattr(whole, name) for name in methods}
            return types.SimpleNamespace(lacks=frozenset(lacks), **narrow)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=300 if red else examples,
            derandomize=red,
            stateful_step_count=30,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("capability", ["", *CAPABILITIES])
def test_a_store_is_asked_for_what_it_can_do_and_for_nothing_else(capability: str) -> None:
    play(MemoryStore, *VERBS, *CAPABILITIES.get(capability, ()), examples=10)


def test_a_store_that_lacks_the_order_may_choose_any() -> None:
    play(Backwards, *VERBS, lacks=[Guarantee.ORDER])
    with pytest.raises(AssertionError):
        play(Backwards, *VERBS, red=True)


def test_a_store_that_lacks_the_order_keeps_all_else() -> None:
    with pytest.raises(AssertionError):
        play(NeverLost, *VERBS, lacks=[Guarantee.ORDER], red=True)


def test_a_store_that_lacks_another_guarantee_is_skipped_and_told_why() -> None:
    with pytest.raises(unittest.SkipTest, match="lacks the guarantee of fencing"):
        play(MemoryStore, *VERBS, lacks=[Guarantee.ORDER, Guarantee.FENCING])

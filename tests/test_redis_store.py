"""The Redis store is held to the contract, and keeps what it says of its server."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

from examples import examples
from hypothesis import settings
from listed_skips import ListedSkips, listed_in
from redis_places import open_redis

from outbox.cli import check
from outbox.clock import Clock
from outbox.protocols import Guarantee
from outbox.stores.redis import RedisStore
from outbox.testing.clauses.scene import Whole
from outbox.testing.state_machine import StoreStateMachine
from outbox.testing.store_suite import StoreSuite


def open_at(clock: Clock | None, path: Path, **settings: Any) -> RedisStore:
    return open_redis(path, clock=clock, **settings)


def spoil(store: Whole, id: str) -> None:
    assert isinstance(store, RedisStore)
    caller = store._caller
    content = caller.ask("HGET", caller.key("content"), id)
    caller.ask("HSET", caller.key("content"), id, bytes([content[0] ^ 1]) + content[1:])


class TestRedisStore(ListedSkips, StoreSuite):
    skipped = "redis_skipped.txt"

    def open(self, clock: Clock, path: Path, **settings: Any) -> RedisStore:
        return open_at(clock, path, **settings)

    def corrupt(self, store: Whole, id: str) -> None:
        spoil(store, id)


def test_the_clauses_that_it_skips_are_these() -> None:
    """The list does not grow by itself: what is missing is a decision, and stands in the docs."""
    needing = {
        name
        for name, test in inspect.getmembers(StoreSuite, inspect.isfunction)
        if name.startswith("test_")
        for need in getattr(test, "needs", ())
        if not (need not in RedisStore.lacks if isinstance(need, Guarantee) else _has(need))
    }

    assert sorted(needing) == sorted(listed_in(TestRedisStore.skipped))


def test_check_says_why_they_are_skipped(tmp_path: Path) -> None:
    with contextlib.closing(open_at(None, tmp_path)) as store:
        said = [finding.text for finding in check._guaranteed(store)]

    assert ["transaction of yours" in text for text in said] == [True]


def _has(capability: type) -> bool:
    names = [name for name in vars(capability) if not name.startswith("_")]
    return all(hasattr(RedisStore, name) for name in names)


class RedisMachine(StoreStateMachine):
    def open(self, clock: Clock, path: Path, **settings: Any) -> RedisStore:
        return open_at(clock, path, **settings)


TestRedisMachine = RedisMachine.TestCase
TestRedisMachine.settings = settings(max_examples=examples(50), stateful_step_count=30, deadline=None)

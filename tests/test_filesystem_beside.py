"""Looks and commands beside deliveries: a message that moves on meanwhile is shown as it stands, and not as damaged."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from model_disk import ModelDisk

from outbox.lifecycle import Fate
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.memory import MemoryStore
from outbox.testing.clauses.scene import (
    DAY,
    SECOND,
    dead,
    delivered,
    ids,
    mail,
    put,
    retry,
    settle,
    statuses,
    take,
)
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")


class World:
    """A message that was tried once already, one who looks at it, and one who delivers."""

    def __init__(self, **settings: Any) -> None:
        self.disk = ModelDisk(logged=False)
        self.clock = ManualClock()
        self.looker = FilesystemStore("spool", clock=self.clock, disk=self.disk, **settings)
        self.worker = FilesystemStore("spool", clock=self.clock, disk=self.disk, **settings)
        put(self.worker, mail("a", content=b"x" * 2000))
        self.retry()

    def retry(self) -> None:
        self.clock.advance(2 * SECOND)
        for claim in take(self.worker):
            settle(self.worker, claim, retry(claim, SECOND))

    def deliver(self) -> None:
        self.clock.advance(2 * SECOND)
        for claim in take(self.worker):
            settle(self.worker, claim, delivered(claim))

    def at(self, number: int, act: Callable[[], object]) -> list[int]:
        """Do this at the call of that number from now on; when it was done, the number stands in what is returned."""
        came: list[int] = []
        calls = iter(range(1, 100_000))
        me = threading.current_thread()
        before = ""

        def step(name: str) -> None:
            nonlocal before
            # What is read is looked at as well, while the model lets nobody else do anything.
            inner, before = before == "read", name
            if (
                not inner
                and not self.disk.locked
                and threading.current_thread() is me
                and next(calls) == number
            ):
                self.disk.step = lambda _: None
                came.append(number)
                act()

        self.disk.step = step
        return came


def everywhere(deed: Callable[[World], Callable[[], object]], **settings: Any) -> Iterator[World]:
    """A world for each call of a look, in which somebody else does this at that call."""
    for number in range(1, 1000):
        world = World(**settings)
        came = world.at(number, deed(world))
        yield world
        world.disk.step = lambda _: None
        if not came:
            return
    raise AssertionError("it never came to its end")


def retrying(world: World) -> Callable[[], object]:
    return world.retry


def delivering(world: World) -> Callable[[], object]:
    return world.deliver


def test_a_list_shows_a_message_that_is_tried_meanwhile_as_it_stands() -> None:
    shown = 0
    for world in everywhere(retrying):
        # A walk may miss what moves; what it has met it shows.
        for summary in world.looker.browse():
            assert set(summary.fates.values()) == {Fate.WAITING}
            assert "missing" not in summary.reason
            shown += 1
    assert shown


def test_a_command_meets_a_message_that_is_tried_meanwhile_as_it_stands() -> None:
    for world in everywhere(retrying):
        (change,) = world.looker.requeue(["a"])

        assert change.status == "done", change.reason


@pytest.mark.parametrize(
    "settings",
    [{}, {"keep_delivered": DAY, "keep_content": False}],
    ids=["forgotten", "kept without content"],
)
def test_a_message_that_is_delivered_meanwhile_is_shown_or_gone(settings: dict[str, Any]) -> None:
    for world in everywhere(delivering, **settings):
        record = world.looker.get("a")

        assert record is not None or not settings
        assert record is None or len(record.message.content) in (0, 2000)


@pytest.mark.parametrize("kind", [FilesystemStore, MemoryStore])
def test_a_requeue_makes_due_now_what_was_put_by_a_clock_that_was_years_ahead(
    kind: type[FilesystemStore | MemoryStore], tmp_path: Path
) -> None:
    clock = ManualClock()
    clock.advance(3650 * DAY)
    store = (
        MemoryStore(clock=clock) if kind is MemoryStore else FilesystemStore(tmp_path / "spool", clock=clock)
    )
    put(store, "waits", "died")
    (claim,) = take(store, 1)
    settle(store, claim, dead(claim))
    clock.set_back(3650 * DAY)

    assert statuses(store.requeue(["died", "waits"])) == ["done", "done"]
    assert sorted(ids(take(store))) == ["died", "waits"]
    store.close()


def test_what_another_process_delivered_is_not_due_any_more(
    open_spool: Callable[..., FilesystemStore],
) -> None:
    looker, worker = open_spool(), open_spool()
    put(worker, mail("a"), mail("b"))
    assert looker.next_due(["mail"]) == 0 * SECOND
    for claim in take(worker, limit=2):
        settle(worker, claim, delivered(claim))
    assert looker.next_due(["mail"]) is None

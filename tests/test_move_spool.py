"""A spool in a move that is killed, or loses its power, at every call of the file system: nothing lost, nothing doubled."""

from __future__ import annotations

import datetime as dt
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from model_disk import Killed, ModelDisk
from moves import Contents, contents, moved

from outbox.errors import StoreError
from outbox.lifecycle import Fate
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.memory import MemoryStore
from outbox.testing.clauses.scene import (
    LEASE,
    dead,
    delivered,
    mail,
    put,
    retry,
    settle,
    states,
    statuses,
    take,
)
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")

HOUR: Final = dt.timedelta(hours=1)


class Scene:
    """A spool on a model disk, another store, and some messages in one of them."""

    def __init__(self, *, out: bool, leased: bool = True) -> None:
        self.leased = leased
        self.clock = ManualClock()
        self.disk = ModelDisk()
        self.other: Any = MemoryStore(clock=self.clock)
        spool = self.open()
        self.out = out
        self.fill(spool if out else self.other)
        self.before = contents(spool if out else self.other)
        spool.close()

    def open(self) -> Any:
        return FilesystemStore("spool", clock=self.clock, disk=self.disk)

    def fill(self, store: Any) -> None:
        two = ("x@example.org", "y@example.org")
        put(store, "a", mail("b", *two), "gone")
        claims = {claim.message.id: claim for claim in take(store)}
        settle(store, claims["gone"], delivered(claims["gone"]))
        settle(store, claims["a"], dead(claims["a"]))
        fates = dict(zip(two, (Fate.ACCEPTED, Fate.WAITING), strict=True))
        settle(store, claims["b"], attrs.evolve(retry(claims["b"], HOUR), fates=fates))
        put(store, "c", mail("d", not_before=self.clock.now() + HOUR))
        if self.leased:
            take(store, 1)
        self.clock.advance(2 * LEASE)

    def ends(self, spool: Any) -> tuple[Any, Any]:
        return (spool, self.other) if self.out else (self.other, spool)

    def run(self, calls: int) -> bool:
        """Move, and die at the call of this number: whether it came to the end before."""
        left = calls

        def step(_: str) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed

        try:
            spool = self.open()
            self.disk.step = step
            moved(*self.ends(spool), limit=2)
        except Killed:
            return False
        finally:
            self.disk.step = lambda _: None
        return True

    def finish(self) -> Contents:
        """The same again, by another process: what is there then."""
        spool = self.open()
        source, destination = self.ends(spool)
        moved(source, destination, limit=2)
        assert states(source) == {}
        assert statuses(destination.put([mail("gone")])) == ["known"]
        return contents(destination)


def at_every_call(then: Callable[[Scene, int], None] = lambda *_: None, **how: bool) -> int:
    """How many calls there are until the end; each third is tried, unless all are to be."""
    calls, stride = 0, 1 if os.environ.get("OUTBOX_LONG") else 3
    while True:
        calls += stride
        scene = Scene(**how)
        done = scene.run(calls)
        then(scene, calls)
        found = scene.finish()
        assert found == scene.before, calls
        if done:
            return calls


@pytest.mark.parametrize("out", [True, False], ids=["out of it", "into it"])
def test_killed_at_any_call_it_goes_on_where_it_was(out: bool) -> None:
    assert at_every_call(out=out) > 100


@pytest.mark.parametrize("out", [True, False], ids=["out of it", "into it"])
def test_without_power_at_any_call_it_goes_on_where_it_was(out: bool) -> None:
    def lose_power(scene: Scene, calls: int) -> None:
        scene.disk.lose_power(random.Random(calls))

    # Without a claim: a loss of power may take one with it, with or without a move.
    assert at_every_call(lose_power, out=out, leased=False) > 100


def test_a_batch_that_finds_no_room_leaves_nothing_behind() -> None:
    scene = Scene(out=False)
    spool = scene.open()
    created = 0

    def step(name: str) -> None:
        nonlocal created
        created += name == "create"
        if created > 4:
            raise OSError(28, "No space left on device")

    scene.disk.step = step
    with pytest.raises(StoreError):
        moved(scene.other, spool, limit=9)
    scene.disk.step = lambda _: None
    spool.close()
    assert scene.finish() == scene.before


def test_what_is_on_its_way_is_nothing_that_check_complains_of(tmp_path: Path) -> None:
    clock = ManualClock()
    store: Any = FilesystemStore(tmp_path / "spool", clock=clock)
    put(store, "a", "b")
    batch = store.take(to="another", limit=1)
    other: Any = FilesystemStore(tmp_path / "other", clock=clock)
    other.give(batch)

    for each in (store, other):
        assert [found.text for found in each.check() if found.level != "ok"] == []

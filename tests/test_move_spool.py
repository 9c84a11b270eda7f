"""A spool in a move that is killed, or loses its power, at every call of the file system: nothing lost, nothing doubled."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from model_disk import Killed, ModelDisk
from moves import Contents, contents, moved

from outbox.errors import AmbiguousPut, StoreError
from outbox.lifecycle import Fate
from outbox.moving import Batch
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore
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


def test_wherever_the_disk_is_full_what_is_said_to_be_refused_was_not_accepted() -> None:
    ambiguous = 0
    for calls in itertools.count(1):
        scene = Scene(out=False)
        spool = scene.open()
        batch = scene.other.take(to=spool.identity(), limit=9)
        scene.disk.step = _full_from(calls)
        try:
            spool.give(batch)
        except AmbiguousPut as error:
            ambiguous += "same batch again" in str(error)
        except StoreError:
            scene.disk.step = lambda _: None
            assert spool.last_given(batch.source) == "", calls
        else:
            break
        scene.disk.step = lambda _: None
        assert list(spool.give(batch)) == [], calls
        spool.close()
    assert ambiguous > 3


def _full_from(calls: int) -> Callable[[str], None]:
    numbers = itertools.count(1)

    def step(_: str) -> None:
        if next(numbers) >= calls:
            raise OSError(28, "No space left on device")

    return step


@pytest.mark.parametrize("kind", [FilesystemStore, SQLiteStore])
def test_a_batch_that_was_accepted_is_known_where_the_disk_has_no_room(kind: Any, tmp_path: Path) -> None:
    other: Any = MemoryStore()
    put(other, "a")
    store = kind(tmp_path / "store")
    batch = other.take(to=store.identity(), limit=9)
    store.give(batch)
    store.close()
    full = kind(tmp_path / "store", min_free=1 << 60)

    assert list(full.give(batch)) == []
    assert list(full.give(Batch(name=f"{batch.name}x", source=batch.source, unreadable=["b"]))) == ["b"]


def test_what_comes_back_to_a_spool_that_was_killed_while_it_parted_with_it_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = FilesystemStore(tmp_path / "spool")
    other: Any = MemoryStore()
    put(store, "a", "b")
    # Killed before the files are made tombstones: the next start would do it.
    monkeypatch.setattr("outbox.stores.filesystem.transitions.cleared", lambda *_: None)
    moved(store, other)
    monkeypatch.undo()

    back = moved(other, store)
    assert (back.moved, back.refused, sorted(states(store))) == (2, [], ["a", "b"])


def test_a_spool_and_its_copy_are_one_store_from_the_beginning(tmp_path: Path) -> None:
    FilesystemStore(tmp_path / "spool").close()
    shutil.copytree(tmp_path / "spool", tmp_path / "copy")

    one, other = (FilesystemStore(tmp_path / name) for name in ("spool", "copy"))
    assert one.identity() == other.identity()

"""A spool of which a part cannot be entered, or nothing can be written: the rest goes on."""

from __future__ import annotations

import datetime as dt
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.errors import ConfigurationError, StoreError, StoreUnavailable
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.filesystem.disk import Disk, Listing
from outbox.testing.clauses.scene import ids, mail, put, statuses, take
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")

SECOND = dt.timedelta(seconds=1)


class Failing(Disk):
    """One that fails in the folder of this number, and where nothing can be written."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = 0
        self.fault = errno.EIO
        self.readonly = False
        self.starts = 1

    def listing(self, folder: int) -> Listing:
        if os.fstat(folder).st_ino == self.bad:
            raise OSError(self.fault, os.strerror(self.fault))
        return super().listing(folder)

    def boot(self) -> str:
        return f"start {self.starts}"

    def _require_writable(self) -> None:
        if self.readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def create(self, folder: int, name: str, data: bytes) -> None:
        self._require_writable()
        super().create(folder, name, data)

    def link(self, folder: int, name: str, other: int, new: str) -> None:
        self._require_writable()
        super().link(folder, name, other, new)

    def rename(self, folder: int, name: str, other: int, new: str) -> None:
        self._require_writable()
        super().rename(folder, name, other, new)


class World:
    """A spool, and whatever has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.disk = Failing()
        self.stores: list[FilesystemStore] = []

    def open(self) -> FilesystemStore:
        self.stores.append(FilesystemStore(self.path, clock=self.clock, disk=self.disk))
        return self.stores[-1]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "spool")
    yield world
    for store in world.stores:
        store.close()


def claim_all(store: FilesystemStore, claimed: list[str]) -> None:
    while claims := take(store, 1, "mail", "bulk"):
        claimed += ids(claims)


def the_one(path: Path, pattern: str) -> Path:
    (found,) = path.glob(pattern)
    return found


BAD = [
    ("later/*", "EIO"),
    ("claimed/*", "ESTALE"),
    ("ready/+005/*", "EIO"),
    ("ready", "ESTALE"),
    ("later", "EIO"),
]


def filled(store: FilesystemStore, clock: ManualClock) -> None:
    put(store, mail("leased", priority=9))
    take(store, lease=30 * SECOND)
    put(
        store,
        mail("first", priority=5),
        mail("later", not_before=clock.now() + SECOND, priority=-5),
        mail("bulk", queue="bulk"),
    )


@pytest.mark.parametrize(("slot", "fault"), BAD)
def test_a_folder_that_the_disk_cannot_read_keeps_back_nothing_but_what_is_in_it(
    world: World, slot: str, fault: str
) -> None:
    store, disk = world.open(), world.disk
    filled(store, world.clock)
    disk.fault = getattr(errno, fault)
    disk.bad = the_one(world.path, f"queues/mail/{slot}").stat().st_ino
    world.clock.advance(100 * SECOND)
    claimed: list[str] = []

    assert store.next_due(["bulk"]) == dt.timedelta(0)
    with pytest.raises(StoreUnavailable, match=re.escape(f"queues/mail/{slot.strip('*')}")):
        claim_all(store, claimed)
    disk.bad = 0
    claim_all(store, claimed)
    assert sorted(claimed) == ["bulk", "first", "later", "leased"]


def test_a_slot_that_others_can_write_to_stops_neither_claims_nor_a_start(
    world: World,
) -> None:
    filled(world.open(), world.clock)
    slot = the_one(world.path, "queues/mail/ready/+005/*")
    slot.chmod(0o777)
    world.disk.starts += 1
    store = world.open()

    assert ids(take(store, 9, "mail", "bulk")) == ["bulk"]
    with pytest.raises(ConfigurationError, match=r"queues/mail/ready/\+005/2026\d+T\d+: "):
        take(store, 9, "mail", "bulk")
    assert [f.text for f in store.check() if f.level == "error"] == [
        f"1 files are open to others, or another user's: queues/mail/ready/+005/{slot.name}"
    ]
    slot.chmod(0o700)
    assert ids(take(store)) == ["first"]
    assert statuses(store.put([mail("first", priority=5)])) == ["known"]


def test_a_spool_that_cannot_be_written_to_can_be_read_after_a_start(
    world: World,
) -> None:
    disk, path = world.disk, world.path
    put(world.open(), "a")
    the_one(path, "ids/*/a").unlink()
    disk.starts += 1
    disk.readonly = True
    store = world.open()

    assert [summary.id for summary in store.browse()] == ["a"]
    assert [count.number for count in store.count()] == [1]
    with pytest.raises(StoreError, match="read-only"):
        put(store, "b")

    # And whoever writes to it later has put it right before.
    disk.readonly = False
    assert statuses(store.put([mail("a")])) == ["known"]
    assert (path / "boot").read_text() == "start 2"

"""A disk that is full, or fails as a whole: trying again makes it no worse, and no message suffers for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from outbox.errors import StoreFull, StoreUnavailable
from outbox.lifecycle import Settlement, State
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.filesystem.disk import Disk
from outbox.testing.clauses.scene import SECOND, ids, mail, put, retry, statuses, take

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")


class Troubled(Disk):
    """A disk with room for so many more files, which may be unreadable."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 1_000_000
        self.unreadable: Callable[[str], bool] = lambda _: False
        self.unsynced = False

    def create(self, folder: int, name: str, data: bytes) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        super().create(folder, name, data)

    def sync(self, folder: int) -> None:
        if self.unsynced:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().sync(folder)

    def content(self, folder: int, name: str) -> bytes:
        if self.unreadable(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        return super().content(folder, name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def disk() -> Troubled:
    return Troubled()


@pytest.fixture
def store(open_spool: Callable[..., FilesystemStore], disk: Troubled) -> FilesystemStore:
    return open_spool(disk=disk)


def notes(path: Path) -> list[Path]:
    return [note for note in (path / "notes").rglob("*") if note.is_file()]


# -- full


@pytest.mark.parametrize("when", ["written", "synced"])
def test_a_settle_that_there_is_no_room_for_leaves_no_note_and_can_be_made_later(
    store: FilesystemStore, path: Path, disk: Troubled, when: str
) -> None:
    put(store, "a", "b", "c")
    settlements = [Settlement(claim, retry(claim, SECOND)) for claim in take(store)]
    disk.room = 2 if when == "written" else 1_000_000
    disk.unsynced = when == "synced"
    for _ in range(2):
        with pytest.raises(StoreFull):
            store.settle(settlements)
        assert notes(path) == []
        disk.room += 3
    disk.room, disk.unsynced = 1_000_000, False

    assert list(store.settle(settlements)) == []
    assert len(notes(path)) == 3


def test_a_command_that_there_is_no_room_for_leaves_no_note_and_changes_nothing(
    store: FilesystemStore, path: Path, disk: Troubled
) -> None:
    put(store, "a", "b", "c")
    disk.room = 2
    with pytest.raises(StoreFull):
        store.cancel(["a", "b", "c"])
    assert notes(path) == []
    disk.room = 1_000_000

    assert {summary.state for summary in store.browse()} == {State.QUEUED}
    assert statuses(store.cancel(["a", "b", "c"])) == ["done"] * 3


def test_of_a_file_that_there_is_no_room_for_nothing_is_left(
    store: FilesystemStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")
    (claim,) = take(store)
    write = os.write

    def half(file: int, data: memoryview) -> int:
        if bytes(data).startswith(b"{"):
            return write(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(StoreFull):
            store.settle([Settlement(claim, retry(claim, SECOND))])

    assert notes(path) == []


# -- failing


def test_a_claim_while_nothing_can_be_read_holds_nothing_and_says_so(
    store: FilesystemStore, disk: Troubled
) -> None:
    put(store, *(mail(f"m{n}") for n in range(20)))
    disk.unreadable = lambda _: True
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="look at the disk"):
            take(store, 5)
    disk.unreadable = lambda _: False

    assert {(summary.state, summary.attempts) for summary in store.browse()} == {(State.QUEUED, 0)}
    assert len(ids(take(store, 30))) == 20


def test_a_claim_holds_what_cannot_be_read_where_others_can_be(
    store: FilesystemStore, disk: Troubled
) -> None:
    put(store, *(mail(f"m{n}") for n in range(5)))
    disk.unreadable = lambda name: "m4" not in name

    assert ids(take(store, 5)) == ["m4"]
    assert [summary.id for summary in store.browse(states=[State.HELD])] == ["m0", "m1", "m2", "m3"]


def test_what_alone_is_there_and_cannot_be_read_is_held(store: FilesystemStore, disk: Troubled) -> None:
    put(store, "a")
    disk.unreadable = lambda _: True

    assert take(store) == []
    assert [summary.state for summary in store.browse()] == [State.HELD]

"""What a spool keeps beside its messages: suspensions, limits, and what a crash leaves until it is looked after."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outbox.errors import ConfigurationError, StoreFull
from outbox.lifecycle import Record, State
from outbox.protocols import Suspension
from outbox.stores.content import Deflate
from outbox.stores.filesystem import FilesystemStore, walking
from outbox.stores.filesystem.disk import Disk
from outbox.stores.instants import micros
from outbox.stores.limits import Load
from outbox.testing.clauses.scene import (
    LEASE,
    SECOND,
    dead,
    delivered,
    ids,
    mail,
    put,
    retry,
    settle,
    take,
)
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")

DAY = dt.timedelta(days=1)
MAIL = Suspension(kind="queue", value="mail", reason="the relay is moved")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store(open_spool: Callable[..., FilesystemStore]) -> FilesystemStore:
    return open_spool()


def files(folder: Path) -> list[Path]:
    return sorted(found for found in folder.rglob("*") if found.is_file())


def record_of(store: FilesystemStore, id: str) -> Record:
    record = store.get(id)
    assert record is not None
    return record


def warnings(store: FilesystemStore, words: str) -> list[str]:
    return [finding.text for finding in store.check() if finding.level == "warning" and words in finding.text]


# -- what a crash leaves


def draft(store: FilesystemStore, path: Path, name: str) -> Path:
    """As a put leaves it that is killed before it renames its draft."""
    put(store, name)
    (ticket,) = (file for file in files(path / "queues") if f",{name}," in file.name)
    return ticket.rename(path / "tmp" / ticket.name)


def test_drafts_that_were_left_are_named_by_check_and_removed_by_prune_after_a_day(
    store: FilesystemStore, path: Path, clock: ManualClock
) -> None:
    left = draft(store, path, "a")
    clock.advance(DAY)
    assert warnings(store, "drafts") == []
    store.prune()
    assert left.exists()

    clock.advance(SECOND)
    assert warnings(store, "drafts") == [
        f"1 files are drafts of puts that were cut short more than a day ago: {left.name}"
    ]
    assert store.prune() == 0
    assert not left.exists()
    assert warnings(store, "drafts") == []
    assert [result.status for result in store.put([mail("a")])] == ["stored"]


def test_notes_that_no_ticket_names_are_named_by_check_and_removed_by_prune_after_a_day(
    store: FilesystemStore, path: Path, clock: ManualClock
) -> None:
    put(store, "a", "b", "c")
    for claim in take(store):
        settle(store, claim, dead(claim))
    kept = files(path / "notes")
    stamp = kept[0].name.partition(",")[2]
    before = stamp[:-1] + str((int(stamp[-1]) + 1) % 10)
    orphans = [kept[0].with_name(f"{name},{before}") for name in ("a", "gone")]
    for orphan in orphans:
        shutil.copy(kept[0], orphan)
    clock.advance(DAY - SECOND)
    store.prune()
    assert warnings(store, "notes") == []

    clock.advance(DAY + SECOND)
    assert len(warnings(store, "2 files are notes that no ticket has named")) == 1
    assert store.prune() == 0
    assert files(path / "notes") == kept
    assert warnings(store, "notes") == []
    assert record_of(store, "a").history


def test_orphans_are_looked_for_once_a_day(store: FilesystemStore, path: Path, clock: ManualClock) -> None:
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, dead(claim))
    (note,) = files(path / "notes")
    clock.advance(2 * DAY)
    store.prune()
    shutil.copy(note, note.with_name(note.name.replace("a,", "gone,")))

    store.prune()
    assert len(files(path / "notes")) == 2
    clock.advance(DAY)
    store.prune()
    assert files(path / "notes") == [note]


def test_a_note_is_no_orphan_whose_ticket_was_missed_because_it_moved(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemStore(path, clock=clock)
    put(store, "a", "b")
    for claim in take(store):
        settle(store, claim, retry(claim, 9 * DAY))
    notes = files(path / "notes")
    clock.advance(2 * DAY)
    walks = iter(range(10))
    walk = walking.walk
    monkeypatch.setattr(walking, "walk", lambda *a, **k: iter(()) if next(walks) == 0 else walk(*a, **k))

    store.prune()
    assert files(path / "notes") == notes
    store.close()


def test_a_removal_that_was_cut_short_is_finished_by_prune(store: FilesystemStore, path: Path) -> None:
    put(store, "a")
    (ticket,) = files(path / "queues")
    (path / "gone").mkdir(mode=0o700)
    ticket.rename(path / "gone" / "a")
    assert store.get("a") is None

    store.prune()
    assert files(path / "gone") == files(path / "ids") == []


# -- content


def test_the_content_of_what_is_kept_without_it_is_not_on_the_disk(
    open_spool: Callable[..., FilesystemStore], path: Path
) -> None:
    store = open_spool(keep_delivered=DAY, keep_content=False)
    put(store, mail("a", content=b"c4narybody"))
    (claim,) = take(store)
    settle(store, claim, delivered(claim))

    assert not [file for file in files(path) if b"c4narybody" in file.read_bytes()]
    assert record_of(store, "a").summary.size == len(b"c4narybody")


class Dying(Disk):
    """Another machine each time it is opened; one process dies when it cuts a file."""

    cuts = 0

    def cut(self, folder: int, name: str, size: int) -> None:
        self.cuts += 1
        if self.cuts > 1:
            super().cut(folder, name, size)

    def boot(self) -> str:
        return ""


def test_what_a_killed_settle_has_left_of_the_content_the_next_start_takes_out(
    open_spool: Callable[..., FilesystemStore], path: Path
) -> None:
    disk = Dying()
    store = open_spool(keep_delivered=DAY, keep_content=False, disk=disk)
    put(store, mail("a", content=b"c4narybody"))
    (claim,) = take(store)
    settle(store, claim, delivered(claim))
    assert record_of(store, "a").message.content == b""

    open_spool(disk=disk)
    assert not [file for file in files(path) if b"c4narybody" in file.read_bytes()]
    assert record_of(store, "a").message.content == b""


class Killed(BaseException):
    """The process is no more."""


class Dead(Disk):
    """Kills the process before it cuts a file."""

    def cut(self, folder: int, name: str, size: int) -> None:
        raise Killed

    def bury(self, folder: int, name: str, size: int, mtime: int) -> None:
        raise Killed


@pytest.mark.parametrize("kept", [{}, {"keep_delivered": 30 * DAY, "keep_content": False}])
def test_content_that_a_killed_settle_has_left_is_named_by_check_and_taken_out_by_prune(
    open_spool: Callable[..., FilesystemStore], path: Path, clock: ManualClock, kept: dict[str, Any]
) -> None:
    killed = open_spool(disk=Dead(), **kept)
    put(killed, mail("a", content=b"c4narybody"))
    (claim,) = take(killed)
    with pytest.raises(Killed):
        settle(killed, claim, delivered(claim))
    store = open_spool(**kept)
    assert warnings(store, "content that is not to be kept") == []
    clock.advance(DAY)
    assert len(warnings(store, "1 files hold content that is not to be kept")) == 1

    store.prune()
    assert not [file for file in files(path) if b"c4narybody" in file.read_bytes()]
    assert warnings(store, "content that is not to be kept") == []
    assert [result.status for result in store.put([mail("a")])] == ["known"]


def test_check_tells_content_in_an_unknown_coding_from_damage(
    open_spool: Callable[..., FilesystemStore],
) -> None:
    coding = open_spool(coding=[Deflate()])
    put(coding, "a")
    ignorant = open_spool()

    assert (
        len(warnings(ignorant, "1 files have content in a coding that this store was opened without: a")) == 1
    )
    assert [finding.text for finding in ignorant.check() if finding.level == "error"] == []
    assert warnings(coding, "coding") == []


class Wordy:
    """A coding with the longest name there may be."""

    def __init__(self, letter: str) -> None:
        self.name = letter * 64

    def encode(self, content: bytes, /, *, id: str) -> bytes:
        return content

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        return data


def test_many_codings_are_told_of_in_the_first_kilobyte_or_refused(
    open_spool: Callable[..., FilesystemStore],
) -> None:
    message = mail("i" * 64, queue="q" * 64, priority=-100)
    store = open_spool(coding=[Wordy(letter) for letter in "abcdefg"])
    put(store, message)

    assert [result.status for result in store.put([message])] == ["known"]
    assert len(take(store, 1, message.queue)) == 1
    with pytest.raises(ConfigurationError, match="500 at most"):
        open_spool(coding=[Wordy(letter) for letter in "abcdefgh"])


# -- limits


def test_what_other_processes_put_counts_within_a_second(
    open_spool: Callable[..., FilesystemStore], clock: ManualClock
) -> None:
    store, other = open_spool(max_messages=3), open_spool()
    put(store, "a")
    put(other, "b", "c", "d")
    clock.advance(SECOND)

    with pytest.raises(StoreFull, match="max_messages=3"):
        put(store, "e")


def test_what_other_processes_settle_makes_room_at_once(open_spool: Callable[..., FilesystemStore]) -> None:
    store, other = open_spool(max_messages=1), open_spool()
    put(store, "a")
    (claim,) = take(other)
    settle(other, claim, delivered(claim))

    put(store, "b")
    assert [(each.id, each.state) for each in store.browse()] == [("b", State.QUEUED)]


class Waits(Exception):
    """A put waits for those that are under way."""


def test_what_is_being_put_takes_its_room_already(
    open_spool: Callable[..., FilesystemStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(max_messages=3)._spool
    now = micros(clock.now())

    def wait_for(_: Callable[[], bool]) -> bool:
        raise Waits

    monkeypatch.setattr(spool.crowd._turn, "wait_for", wait_for)
    with (
        spool.crowd.admitted(spool.folders, Load(2), now),
        spool.crowd.admitted(spool.folders, Load(1), now + 1_000_000),
        pytest.raises(Waits),
        spool.crowd.admitted(spool.folders, Load(1), now + 2_000_000),
    ):
        pass


def test_a_put_that_has_no_room_beside_one_that_fails_has_it_afterwards(
    open_spool: Callable[..., FilesystemStore], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(max_messages=3)._spool
    now = micros(clock.now())
    failing = contextlib.ExitStack()
    failing.enter_context(spool.crowd.admitted(spool.folders, Load(3), now))

    def wait_for(over: Callable[[], bool]) -> bool:
        assert not over()
        failing.close()
        return over()

    monkeypatch.setattr(spool.crowd._turn, "wait_for", wait_for)
    with spool.crowd.admitted(spool.folders, Load(3), now):
        pass


def test_a_refused_put_leaves_no_file(open_spool: Callable[..., FilesystemStore], path: Path) -> None:
    store = open_spool(max_messages=1)
    put(store, "a")
    before = files(path)
    with pytest.raises(StoreFull):
        put(store, "b", "c")

    assert files(path) == before


def test_a_disk_with_too_little_room_takes_nothing_in_and_deliveries_go_on(
    open_spool: Callable[..., FilesystemStore],
) -> None:
    store = open_spool()
    put(store, "a")
    full = open_spool(min_free=1 << 60)

    with pytest.raises(StoreFull, match="min_free"):
        put(full, "b")
    with pytest.raises(StoreFull, match="min_free"):
        full.put_claimed([mail("b")], lease=LEASE)
    (claim,) = take(full)
    settle(full, claim, delivered(claim))


# -- what is suspended


def test_a_person_can_read_what_is_suspended(store: FilesystemStore, path: Path) -> None:
    store.suspend(MAIL)
    store.suspend(Suspension(kind="attribute", value="tenant=a/b"))

    assert [file.name for file in files(path / "suspended")] == ["attribute,tenant%3Da%2Fb", "queue,mail"]
    assert "the relay is moved" in (path / "suspended" / "queue,mail").read_text()
    assert warnings(store, "none of ours") == []


def test_whatever_can_be_named_can_be_suspended(store: FilesystemStore) -> None:
    values = ["", ".", "..", "a/b\nc\n", "x" * 1000, "x" * 1001, "%~", "ü" * 300]
    for value in values:
        store.suspend(Suspension(kind="domain", value=value))
    assert [each.value for each in store.suspensions()] == sorted(values)

    assert all(store.unsuspend("domain", value) for value in values)
    assert store.suspensions() == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"kind": "queue", "value": "mail"}'])
def test_a_suspension_that_cannot_be_read_stays_in_force(
    store: FilesystemStore, path: Path, content: bytes
) -> None:
    put(store, "a", mail("b", queue="other"))
    store.suspend(MAIL)
    (path / "suspended" / "queue,mail").write_bytes(content)

    store.suspend(Suspension(kind="relay", value="x"))
    (found, _) = store.suspensions()
    assert (found.kind, found.value, found.until) == ("queue", "mail", None)
    assert "cannot be read" in found.reason
    assert ids(take(store, 9, "mail", "other")) == ["b"]
    assert store.unsuspend("queue", "mail") is True
    assert ids(take(store)) == ["a"]


def test_what_another_process_suspends_holds_for_the_next_claim(
    open_spool: Callable[..., FilesystemStore],
) -> None:
    store, other = open_spool(), open_spool()
    put(store, "a", "b", "c")
    assert len(take(store, 1)) == 1
    other.suspend(MAIL)
    assert take(store) == []
    other.unsuspend("queue", "mail")
    assert len(take(store, 1)) == 1


def test_suspensions_that_have_been_over_for_a_month_are_forgotten(
    store: FilesystemStore, path: Path, clock: ManualClock
) -> None:
    store.suspend(Suspension(kind="queue", value="mail", until=clock.now() + SECOND))
    store.suspend(Suspension(kind="queue", value="other"))
    clock.advance(29 * DAY)
    store.prune()
    assert len(files(path / "suspended")) == 2

    clock.advance(2 * DAY)
    store.prune()
    assert [file.name for file in files(path / "suspended")] == ["queue,other"]

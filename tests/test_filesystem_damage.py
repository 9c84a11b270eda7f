"""What is damaged or does not belong in a spool harms itself alone: others are delivered, lists list, check names it."""

from __future__ import annotations

import datetime as dt
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from model_disk import ModelDisk

from outbox.errors import ConfigurationError, CorruptRecord
from outbox.lifecycle import Fate, Record, State
from outbox.protocols import Suspension
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.filesystem.disk import Disk, Status
from outbox.testing.clauses.scene import (
    LEASE,
    SECOND,
    dead,
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

DAY = dt.timedelta(days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store(open_spool: Callable[..., FilesystemStore]) -> FilesystemStore:
    return open_spool()


def ticket(path: Path, name: str) -> Path:
    (found,) = (path / "queues").rglob(f"*,{name},*")
    return found


def states(store: FilesystemStore) -> dict[str, State]:
    return {summary.id: summary.state for summary in store.browse(limit=1000)}


def known(store: FilesystemStore, id: str) -> Record:
    record = store.get(id)
    assert record is not None
    return record


def findings(store: FilesystemStore) -> str:
    return "\n".join(f"{each.level}: {each.text}" for each in store.check() if each.level != "ok")


# -- what stands beside the tickets


@pytest.mark.parametrize(
    ("before", "after"), [(".", ".swp"), ("", "~"), ("", ".bak"), ("20260230T000000", "")]
)
def test_a_file_beside_the_tickets_that_looks_like_one_stops_no_queue(
    store: FilesystemStore, path: Path, clock: ManualClock, before: str, after: str
) -> None:
    put(store, "a", "b")
    beside = ticket(path, "a")
    # A day that is in no calendar, or what an editor makes.
    name = before + beside.name[len(before) if len(before) > 1 else 0 :] + after
    beside.with_name(name).write_text("")

    assert ids(take(store, 1) + take(store, 1)) == ["a", "b"]
    assert take(store, 1) == []
    assert store.next_due(["mail"]) == LEASE
    clock.advance(10 * LEASE)
    assert [count.number for count in store.count()] == [2]
    assert name in findings(store)


def test_files_beside_what_is_scheduled_keep_nothing_back(clock: ManualClock) -> None:
    disk = ModelDisk(logged=False)
    store = FilesystemStore("spool", clock=clock, disk=disk)
    put(store, *(mail(f"m{n}", not_before=clock.now() + n * SECOND) for n in (10, 30, 50)))
    (slot,) = (names for names in disk.state.folders.values() if any(",m10," in name for name in names))
    # They are the one file under many names: what they hold is not looked at.
    slot.update(dict.fromkeys((f"foreign{n}" for n in range(2500)), next(iter(slot.values()))))
    clock.advance(200 * SECOND)

    assert sorted(ids(take(store, 1) + take(store, 1) + take(store, 1))) == ["m10", "m30", "m50"]
    rests = []
    for _ in range(3):
        assert take(store) == []
        rests.append(store.next_due(["mail"]))
    assert LEASE in rests
    store.close()


def test_a_page_is_full_however_much_else_stands_there(store: FilesystemStore, path: Path) -> None:
    put(store, "x", "y")
    beside = ticket(path, "x")
    for day in range(30):
        name = beside.name.replace(",x,", f",a{day:02},")
        beside.with_name(f"20260230T{day:06}.000000{name[22:]}").write_text("")
        beside.with_name(f"x,a{day:02},c").write_text("")

    assert [each.id for each in store.browse(limit=1)] == ["x"]
    assert [each.id for each in store.browse(limit=1, after="x")] == ["y"]


def test_names_that_are_no_text_are_told_and_break_nothing(store: FilesystemStore, path: Path) -> None:
    put(store, "a")
    slot = os.fsencode(ticket(path, "a").parent)
    Path(os.fsdecode(slot + b"/a,\xff,c")).write_text("")

    assert "a,\\udcff,c" in findings(store)
    assert store.prune() == 0
    assert ids(take(store)) == ["a"]


# -- one bad file


def replaced(bad: Path, by: str) -> None:
    """Something else in the place of this file."""
    bad.unlink()
    if by == "fifo":
        os.mkfifo(bad)
    elif by == "symlink":
        bad.symlink_to("/etc/passwd")
    elif by == "folder":
        bad.mkdir()


def learned(store: FilesystemStore, clock: ManualClock, *names: str) -> None:
    put(store, *names)
    for claim in take(store):
        settle(store, claim, retry(claim, SECOND))
    clock.advance(2 * SECOND)


@pytest.mark.parametrize("by", ["fifo", "symlink", "folder"])
def test_a_note_that_was_replaced_holds_its_message_alone(
    store: FilesystemStore, path: Path, clock: ManualClock, by: str
) -> None:
    learned(store, clock, "a", "b")
    (note,) = (path / "notes").rglob("a,*")
    replaced(note, by)
    assert "cannot be read: a: " in findings(store)
    assert list(states(store)) == ["a", "b"]
    with pytest.raises(CorruptRecord, match="a: its note"):
        store.get("a")

    assert ids(take(store)) == ["b"]
    record = known(store, "a")
    assert (record.summary.state, set(record.summary.fates.values())) == (State.HELD, {Fate.UNCERTAIN})
    assert "cannot be read" in record.summary.reason


def test_a_note_that_was_replaced_hinders_no_cancel(
    store: FilesystemStore, path: Path, clock: ManualClock
) -> None:
    learned(store, clock, "a")
    (note,) = (path / "notes").rglob("a,*")
    replaced(note, "fifo")

    assert statuses(store.cancel(["a"])) == ["done"]
    assert states(store) == {"a": State.CANCELLED}


class Bad(Disk):
    """Some files cannot be read, for this reason and so many times."""

    def __init__(self, fault: int, among: str, times: int = 1_000_000) -> None:
        super().__init__()
        self.fault = fault
        self.among = among
        self.times = times
        self.bad = False

    def _look(self, name: str) -> None:
        if self.bad and self.among in f",{name}," and self.times:
            self.times -= 1
            raise OSError(self.fault, os.strerror(self.fault), name)

    def read(self, folder: int, name: str, limit: int | None = None) -> tuple[Status, bytes]:
        self._look(name)
        return super().read(folder, name, limit)

    def content(self, folder: int, name: str) -> bytes:
        self._look(name)
        return super().content(folder, name)


OF_ONE_FILE = [errno.EIO, errno.EACCES, errno.EPERM, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)]


@pytest.mark.parametrize("fault", OF_ONE_FILE, ids=errno.errorcode.get)
@pytest.mark.parametrize("with_note", [False, True], ids=["file", "file and note"])
def test_a_file_that_cannot_be_read_holds_its_message_alone_and_a_requeue_brings_it_back(
    open_spool: Callable[..., FilesystemStore], clock: ManualClock, fault: int, with_note: bool
) -> None:
    disk = Bad(fault, ",a,")
    store = open_spool(disk=disk)
    messages = [mail("a", "x@example.org", "y@example.org"), mail("b")]
    put(store, *messages)
    if with_note:
        for claim in take(store):
            settle(store, claim, retry(claim, SECOND))
        clock.advance(2 * SECOND)
    disk.bad = True

    assert "cannot be read: a: " in findings(store)
    assert ids(take(store)) == ["b"]
    assert states(store) == {"a": State.HELD, "b": State.CLAIMED}
    assert statuses(store.cancel(["nobody"])) == ["unknown"]
    disk.bad = False
    assert "cannot be read" in known(store, "a").summary.reason
    assert statuses(store.requeue(["a"], uncertain=with_note)) == ["done"]
    (claim,) = take(store)
    assert claim.message == messages[0]
    assert set(claim.fates) == {"x@example.org", "y@example.org"}
    assert claim.fates["x@example.org"] is (Fate.DOUBTFUL if with_note else Fate.WAITING)


def test_a_disk_that_fails_once_holds_nothing(open_spool: Callable[..., FilesystemStore]) -> None:
    disk = Bad(errno.EIO, ",a,", times=1)
    store = open_spool(disk=disk)
    put(store, "a")
    disk.bad = True

    assert ids(take(store)) == ["a"]
    assert disk.times == 0


def test_a_command_replaces_no_note_that_a_failing_disk_may_still_give_back(
    open_spool: Callable[..., FilesystemStore], clock: ManualClock
) -> None:
    disk = Bad(errno.EIO, ",a,")
    store = open_spool(disk=disk, discard_after=DAY)
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, dead(claim))
    before = known(store, "a")
    disk.bad = True
    clock.advance(2 * DAY)

    for command in (store.requeue, store.purge):
        (change,) = command(["a"])
        assert change.status == "refused"
        assert "a: its note: its file cannot be read" in change.reason
    assert store.prune() == 0
    disk.bad = False
    assert known(store, "a") == before


def test_a_command_on_many_is_carried_out_on_all_but_the_one_that_a_failing_disk_keeps_back(
    open_spool: Callable[..., FilesystemStore], path: Path
) -> None:
    disk = Bad(errno.EIO, ",b,")
    store = open_spool(disk=disk)
    put(store, "a", "b", "c")
    for claim in take(store):
        settle(store, claim, dead(claim))
    disk.bad = True

    assert statuses(store.requeue(["a", "b", "c"])) == ["done", "refused", "done"]
    assert ids(take(store)) == ["a", "c"]


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_ticket_that_cannot_be_read_and_has_no_name_under_ids_is_held_and_stops_no_other(
    store: FilesystemStore, path: Path, content: bytes
) -> None:
    put(store, "a", "b")
    ticket(path, "a").write_bytes(content)
    (name,) = (path / "ids").rglob("a")
    name.unlink()

    assert ids(take(store)) == ["b"]
    assert states(store)["a"] is State.HELD
    assert "have no name under ids/" in findings(store)


def test_a_put_of_an_id_whose_file_cannot_be_read_says_so(open_spool: Callable[..., FilesystemStore]) -> None:
    disk = Bad(errno.EACCES, ",a,")
    store = open_spool(disk=disk)
    put(store, "a")
    disk.bad = True

    with pytest.raises(CorruptRecord, match="a is known, and its file cannot be read"):
        put(store, "a")


def test_a_claim_that_can_read_nothing_comes_back(path: Path, clock: ManualClock) -> None:
    store = FilesystemStore("spool", clock=clock, disk=ModelDisk(logged=False))
    put(store, *(mail(f"m{n:03}") for n in range(150)))
    disk = store._spool.folders.disk
    assert isinstance(disk, ModelDisk)
    for file in disk.state.files.values():
        file.content = b""

    assert take(store, 1) == []
    assert list(states(store).values()).count(State.HELD) == 100
    store.close()


# -- one bad folder


PLACES = [
    *("tmp", "ids", "notes", "queues", "remembered", "gone", "suspended", "bell", "swept"),
    *(
        "queues/mail",
        "queues/mail/ready",
        "queues/mail/claimed",
        "queues/mail/later",
        "queues/mail/ready/+000",
    ),
    "queues/other",
]


@pytest.mark.parametrize("by", ["symlink", "fifo", "other kind"])
@pytest.mark.parametrize("place", PLACES)
def test_check_names_whatever_stands_in_the_place_of_a_folder_or_a_file_of_the_spool(
    store: FilesystemStore, open_spool: Callable[..., FilesystemStore], path: Path, place: str, by: str
) -> None:
    put(store, "a")
    store.prune()
    where = path / place
    if os.path.lexists(where):
        where.rename(path.with_name("aside"))
    if by == "symlink":
        where.symlink_to(path.parent)
    elif by == "fifo":
        os.mkfifo(where)
    elif place in ("bell", "swept"):
        where.mkdir(mode=0o700)
    else:
        where.write_text("")

    other = open_spool()
    assert f"are none of ours, and are left alone: {place}" in findings(other)


def test_check_names_a_folder_in_the_place_of_a_ticket(store: FilesystemStore, path: Path) -> None:
    put(store, "a", "b")
    replaced(ticket(path, "a"), "folder")

    assert ",a,p+000" in findings(store)
    assert ids(take(store)) == ["b"]


def test_a_folder_that_others_can_write_to_breaks_no_list_of_the_other_queues_and_check_names_it(
    store: FilesystemStore, path: Path
) -> None:
    put(store, "a", "b")
    (path / "queues" / "other").mkdir()
    (path / "queues" / "other").chmod(0o777)

    assert list(states(store)) == ["a", "b"]
    assert [count.number for count in store.count()] == [2]
    assert statuses(store.cancel(["a"])) == ["done"]
    assert store.prune() == 0
    assert "are open to others, or another user's: queues/other" in findings(store)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_check_names_the_files_of_another_user(store: FilesystemStore, path: Path) -> None:
    put(store, "a")
    os.chown(ticket(path, "a"), 65534, 65534)

    assert "error: 1 files are open to others, or another user's: queues/mail/ready" in findings(store)


def test_nothing_is_looked_for_outside_of_the_queues(store: FilesystemStore, path: Path) -> None:
    put(store, "a")

    for queue in ("mail/../mail", "mail\0", "\udcff"):
        with pytest.raises(ConfigurationError, match="queue"):
            take(store, 9, queue)
    assert store.get(None) is None  # type: ignore[arg-type]  # that is the point


# -- the rest


def test_many_leases_that_go_on_make_nothing_due(clock: ManualClock) -> None:
    store = FilesystemStore("spool", clock=clock, disk=ModelDisk(logged=False))
    put(store, *(mail(f"m{n}", content=b"") for n in range(1200)))
    assert len(take(store, 1, lease=LEASE + SECOND)) == 1
    while take(store, 500, lease=LEASE + 2 * SECOND):
        pass

    clock.advance(LEASE)
    assert store.next_due(["mail"]) == SECOND
    store.close()


@pytest.mark.parametrize(
    "content",
    [
        b'{"kind": "queue", "value": 5, "until": null, "reason": ""}',
        b'{"kind": ["a"], "value": "mail", "until": null, "reason": ""}',
        b'{"kind": "queue", "value": "mail", "until": null, "reason": 5}',
        b'{"kind": "queue", "value": "other", "until": null, "reason": ""}',
    ],
)
def test_a_suspension_that_tells_of_something_else_than_its_name_is_in_force_by_its_name(
    store: FilesystemStore, path: Path, content: bytes
) -> None:
    put(store, "a", mail("b", queue="other"))
    (path / "suspended").mkdir(mode=0o700)
    (path / "suspended" / "queue,mail").write_bytes(content)

    assert ids(take(store, 9, "mail", "other")) == ["b"]
    assert [(each.kind, each.value) for each in store.suspensions()] == [("queue", "mail")]


def test_a_suspension_that_is_closed_to_us_stays_in_force(open_spool: Callable[..., FilesystemStore]) -> None:
    disk = Bad(errno.EACCES, "queue,mail")
    store = open_spool(disk=disk)
    put(store, "a")
    open_spool().suspend(Suspension(kind="queue", value="mail"))
    disk.bad = True

    assert take(store) == []


def test_the_draft_of_a_start_that_was_killed_is_gone_after_the_next(
    open_spool: Callable[..., FilesystemStore], path: Path
) -> None:
    left = path / "format.0123456789abcdef"
    path.mkdir(mode=0o700)
    left.write_text("outbox spool 1\n")
    open_spool()

    assert not left.exists()
    assert (path / "format").exists()

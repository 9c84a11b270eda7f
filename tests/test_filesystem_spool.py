"""The spool as others see it: who may read it, what is left alone, what it costs, and many processes at once."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_disk import ModelDisk

import outbox
from outbox.errors import ConfigurationError, FormatError, UnsupportedError
from outbox.filters import Filter
from outbox.lifecycle import Settlement, State
from outbox.locate import store_from_url
from outbox.stores.filesystem import FilesystemStore, walking
from outbox.stores.filesystem.disk import Disk
from outbox.stores.filesystem.folders import Folder
from outbox.testing.clauses.crowding import together
from outbox.testing.clauses.scene import LEASE, SECOND, dead, delivered, ids, mail, put, retry, settle, take
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")


class CountingDisk(Disk):
    def __init__(self) -> None:
        super().__init__()
        self.created = 0
        self.synced = 0

    def create(self, folder: int, name: str, data: bytes) -> None:
        self.created += 1
        super().create(folder, name, data)

    def sync(self, folder: int) -> None:
        self.synced += 1
        super().sync(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store(open_spool: Callable[..., FilesystemStore]) -> FilesystemStore:
    return open_spool()


def tickets(path: Path, state: str) -> list[Path]:
    return sorted(p for p in (path / "queues").rglob("*") if p.is_file() and f"/{state}/" in f"{p}")


# -- what it is like


def test_a_person_can_read_a_message_with_cat(store: FilesystemStore, path: Path) -> None:
    put(store, mail("a", content=b"Subject: hello\r\n\r\nHello.\r\n"))

    (ticket,) = tickets(path, "ready")
    assert ticket.read_bytes().endswith(b"\nSubject: hello\r\n\r\nHello.\r\n")
    assert "a@example.org" in ticket.read_text()
    assert ",a,p+000,a000,l000," in ticket.name


def test_a_person_can_read_what_was_learned(store: FilesystemStore, path: Path) -> None:
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, dead(claim))

    (note,) = (p for p in (path / "notes").rglob("a,*"))
    text = note.read_text()
    assert json.loads(text.rpartition("}")[0] + "}")["reason"] == "550 no such user"


def test_tickets_sort_by_their_names_as_they_are_due(
    store: FilesystemStore, path: Path, clock: ManualClock
) -> None:
    for name in ("c", "a", "b"):
        put(store, name)
        clock.advance(SECOND)

    assert [p.name.split(",")[1] for p in tickets(path, "ready")] == ["c", "a", "b"]


def test_a_small_spool_keeps_the_order_exactly(store: FilesystemStore, clock: ManualClock) -> None:
    put(store, *(mail(f"m{n:03}", priority=n % 7) for n in range(300)))
    clock.advance(90 * SECOND)
    put(store, *(mail(f"n{n:03}", priority=n % 7) for n in range(300)))
    want = [f"{kind}{n:03}" for p in range(6, -1, -1) for kind in "mn" for n in range(300) if n % 7 == p]

    got = []
    while claims := store.claim(limit=50, lease=LEASE, queues=["mail"]):
        got += ids(claims)

    assert got == want


def test_queues_may_be_called_as_folders_must_not_be(store: FilesystemStore, path: Path) -> None:
    put(store, *(mail(f"m{n}", queue=q) for n, q in enumerate([".", "..", ".hidden", "a.b"])))

    assert sorted(c.queue for c in store.count()) == [".", "..", ".hidden", "a.b"]
    assert ids(take(store, 9, "..", ".", ".hidden")) == ["m0", "m1", "m2"]
    assert sorted(p.name for p in (path / "queues").iterdir()) == ["%2e", "%2e.", "%2ehidden", "a.b"]


def test_a_tombstone_keeps_no_content(store: FilesystemStore, path: Path) -> None:
    put(store, mail("a", content=b"x" * 100_000))
    (claim,) = take(store)
    settle(store, claim, delivered(claim))

    (file,) = (path / "remembered").rglob("*,a,*")
    assert file.stat().st_size < 1000
    assert not list((path / "queues").rglob("*,a,*"))


# -- who may do what


def test_everything_is_for_its_owner_alone_whatever_the_umask(path: Path) -> None:
    old = os.umask(0)
    try:
        store = FilesystemStore(path)
        put(store, "a")
        store.close()
    finally:
        os.umask(old)

    for found in (path, *path.rglob("*")):
        assert found.stat().st_mode & 0o077 == 0, found


def test_a_directory_that_others_can_write_to_is_refused(path: Path) -> None:
    FilesystemStore(path).close()
    path.chmod(0o770)

    with pytest.raises(ConfigurationError, match="chmod go-rwx"):
        FilesystemStore(path)


def test_a_directory_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.mkdir(mode=0o700)
    (path / "letters.txt").write_text("mine")

    with pytest.raises(ConfigurationError, match=r"letters\.txt"):
        FilesystemStore(path)
    assert [p.name for p in path.iterdir()] == ["letters.txt"]


def test_a_spool_of_a_newer_release_is_refused(path: Path) -> None:
    FilesystemStore(path).close()
    (path / "format").write_text("outbox spool 2\n")

    with pytest.raises(FormatError, match="upgrade"):
        FilesystemStore(path)


def test_the_directory_above_must_be_there(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="create it first"):
        FilesystemStore(path / "deeper")


def test_on_a_system_without_descriptors_of_folders_it_says_what_to_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.stores.filesystem.disk.os.supports_dir_fd", frozenset())

    with pytest.raises(UnsupportedError, match="SQLiteStore"):
        FilesystemStore("spool")


def test_a_symbolic_link_in_the_place_of_a_folder_is_not_followed(
    store: FilesystemStore, path: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put(store, "a")
    (path / "queues" / "other").symlink_to(elsewhere)

    with pytest.raises(outbox.StoreUnavailable, match="symbolic link"):
        put(store, mail("b", queue="other"))
    assert list(elsewhere.iterdir()) == []
    assert ids(take(store)) == ["a"]


def test_what_is_no_ticket_is_neither_opened_nor_deleted_and_check_names_it(
    store: FilesystemStore, path: Path, tmp_path: Path, clock: ManualClock
) -> None:
    put(store, "a")
    (ticket,) = tickets(path, "ready")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    strange = [ticket.with_name("README"), ticket.with_name(ticket.name.replace(",a,", ",b,"))]
    strange[0].write_text("hello")
    strange[1].symlink_to(secret)
    fifo = ticket.with_name(ticket.name.replace(",a,", ",c,"))
    os.mkfifo(fifo)

    assert ids(take(store)) == ["a"]
    clock.advance(3 * LEASE)
    store.prune()
    findings = [f for f in store.check() if "none of ours" in f.text and f.level != "ok"]

    assert all(os.path.lexists(p) for p in [*strange, fifo])
    assert secret.read_text() == "secret"
    assert len(findings) == 1
    assert findings[0].text.startswith("3 files")


def test_a_file_that_was_replaced_by_a_fifo_is_held_and_blocks_nobody(
    store: FilesystemStore, path: Path
) -> None:
    put(store, "a", "b")
    ticket = tickets(path, "ready")[0]
    name = ticket.name
    ticket.unlink()
    os.mkfifo(ticket)

    assert ids(take(store)) == ["b"]
    assert ticket.name == name


# -- what it costs


def test_a_put_of_a_hundred_syncs_a_hundred_files_and_one_folder(path: Path, clock: ManualClock) -> None:
    disk = CountingDisk()
    store = FilesystemStore(path, clock=clock, disk=disk)
    put(store, "first")
    disk.created = disk.synced = 0

    put(store, *(mail(f"m{n}") for n in range(100)))

    assert (disk.created, disk.synced) == (100, 1)
    store.close()


def test_a_batch_of_delivered_messages_is_settled_with_one_sync(path: Path, clock: ManualClock) -> None:
    disk = CountingDisk()
    store = FilesystemStore(path, clock=clock, disk=disk)
    put(store, "first", *(mail(f"m{n}") for n in range(100)))
    first, *claims = take(store, 101)
    settle(store, first, delivered(first))
    disk.created = disk.synced = 0

    assert store.settle([Settlement(claim, delivered(claim)) for claim in claims]) == []

    assert (disk.created, disk.synced) == (0, 1)
    store.close()


def test_a_batch_is_claimed_and_settled_with_one_rename_and_one_look_at_each_file(clock: ManualClock) -> None:
    disk = ModelDisk(logged=False)
    store = FilesystemStore("spool", clock=clock, disk=disk)
    put(store, "first", *(mail(f"m{n}") for n in range(100)))
    first, *claims = take(store, 51)
    settle(store, first, delivered(first))
    disk.calls.clear()

    assert store.settle([Settlement(claim, delivered(claim)) for claim in claims]) == []
    assert len(take(store, 50)) == 50

    some = {name: disk.calls[name] for name in ("create", "make_folder", "link", "unlink")}
    assert some == dict.fromkeys(some, 0)
    assert (disk.calls["sync"], disk.calls["bury"], disk.calls["read"]) == (1, 50, 50)
    assert disk.calls["rename"] == 100
    store.close()


class Crowd(CountingDisk):
    """Holds up the first sync until all the others have been asked for, and *behind* threads stand before its end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.behind = 0
        self.renamed = 0
        self.all_renamed = threading.Event()

    def rename(self, folder: int, name: str, other: int, new: str) -> None:
        super().rename(folder, name, other, new)
        self.renamed += 1
        if self.renamed == self.number:
            self.all_renamed.set()

    def sync(self, folder: int) -> None:
        assert self.all_renamed.wait(60)
        while (
            sum(frame.f_code is Folder._share.__code__ for frame in sys._current_frames().values())
            < self.behind
        ):
            threading.Event().wait(0.001)
        self.behind = 0
        super().sync(folder)


def test_threads_share_the_syncs_of_folders(path: Path, clock: ManualClock) -> None:
    disk = Crowd(17)
    disk.all_renamed.set()
    store = FilesystemStore(path, clock=clock, disk=disk)
    put(store, "first")
    disk.all_renamed.clear()
    disk.behind = 15
    disk.synced = 0

    together(16, lambda n: put(store, f"m{n}"))

    assert disk.synced <= 3
    store.close()


def entries_of_a_claim(number: int) -> list[int]:
    """How many names each of the first claims reads from a spool with so many scheduled and so many ready."""
    clock, disk = ManualClock(), ModelDisk(logged=False)
    store = FilesystemStore("spool", clock=clock, disk=disk)
    far = clock.now() + dt.timedelta(hours=1)
    store.put([mail(f"r{n}", content=b"") for n in range(number)])
    store.put([mail(f"s{n}", content=b"", not_before=far) for n in range(number)])
    costs = []
    for _ in range(3):
        disk.calls.clear()
        assert len(take(store, 10)) == 10
        costs.append(disk.calls["entry"])
    store.close()
    return costs


def test_a_claim_reads_no_more_names_the_deeper_the_spool() -> None:
    assert entries_of_a_claim(20_000) == pytest.approx(entries_of_a_claim(1_000), abs=5)


def test_what_is_scheduled_far_ahead_lies_in_few_folders(path: Path, clock: ManualClock) -> None:
    store = FilesystemStore(path, clock=clock)
    put(store, *(mail(f"m{n}", not_before=clock.now() + dt.timedelta(days=n * n)) for n in range(1, 80)))

    assert len(list((path / "queues/mail/later").iterdir())) < 70
    got = []
    for _ in range(80):
        due = store.next_due(["mail"])
        while due is not None and not (claims := take(store)):
            clock.advance(due)
            due = store.next_due(["mail"])
        if due is None:
            break
        got += ids(claims)
        for claim in claims:
            settle(store, claim, delivered(claim))
    assert got == [f"m{n}" for n in range(1, 80)]
    store.close()


# -- many processes

WORKER = """
import datetime as dt, json, sys, threading
from outbox.stores.filesystem import FilesystemStore
from outbox.lifecycle import Settlement
from outbox.testing.clauses.scene import delivered, ids
store = FilesystemStore(sys.argv[1])
sys.stdin.readline()
done, lock = [], threading.Lock()
def work():
    while claims := store.claim(limit=7, lease=dt.timedelta(minutes=5), queues=["mail"]):
        assert list(store.settle([Settlement(c, delivered(c)) for c in claims])) == []
        with lock:
            done.extend(ids(claims))
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
store.close()
print(json.dumps(done))
"""


def test_processes_and_threads_settle_each_message_once(path: Path) -> None:
    store = FilesystemStore(path)
    put(store, *(mail(f"m{n:04}") for n in range(2000)))
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(WORKER), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    settled: Counter[str] = Counter()
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert (worker.returncode, err) == (0, "")
        settled.update(json.loads(out))

    assert settled == Counter({f"m{n:04}": 1 for n in range(2000)})
    assert list(store.browse()) == []
    store.close()


def test_a_put_of_another_process_ends_the_wait(store: FilesystemStore, path: Path) -> None:
    take(store)
    other = FilesystemStore(path)
    put(other, "a")
    other.close()

    assert store.wait(dt.timedelta(seconds=30)) is True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings(
    "ignore:.*fork.*:DeprecationWarning"
)  # newer Pythons warn where there are threads
def test_a_forked_child_goes_on_by_itself(store: FilesystemStore) -> None:
    put(store, *(mail(f"m{n}") for n in range(10)))
    first = ids(take(store, 3))
    child = os.fork()
    if child == 0:
        try:
            put(store, "child")
            code = 0 if len(take(store, 4)) == 4 else 1
        except Exception:  # noqa: BLE001 - whatever it is, the parent is told
            code = 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    rest = ids(take(store, 100))
    assert len(rest) == 4
    assert set(first).isdisjoint(rest)


def test_no_descriptor_leaks(path: Path, clock: ManualClock) -> None:
    fds = Path("/proc/self/fd")
    if not fds.is_dir():
        pytest.skip("this system does not show a process's descriptors")
    before = len(list(fds.iterdir()))
    for _ in range(3):
        store = FilesystemStore(path, clock=clock)
        put(store, *(mail(f"q{n}", queue=f"q{n}") for n in range(12)))
        for n in range(12):
            for claim in take(store, 5, f"q{n}"):
                settle(store, claim, retry(claim, SECOND))
        clock.advance(100 * SECOND)
        assert len(list(fds.iterdir())) < before + 350
        store.close()

    assert len(list(fds.iterdir())) == before


def test_a_spool_has_a_url(path: Path) -> None:
    store = store_from_url(f"file://{path}?remember=1d")

    assert isinstance(store, outbox.FilesystemStore)
    assert store.lacks == {outbox.Guarantee.ORDER}
    assert not store.browse(states=[State.DEAD])
    store.close()


# -- what moves while it is looked for


def tried(store: FilesystemStore) -> None:
    """Deliver all in vain, so that each is told of in a note, and is due again."""
    for claim in take(store):
        settle(store, claim, retry(claim))


def test_what_is_tried_again_while_it_is_looked_for_is_found_all_the_same(store: FilesystemStore) -> None:
    put(store, "a", "b", "c")
    tried(store)
    found = store.find(Filter(states=[State.QUEUED]))
    first = next(found)
    tried(store)
    rest = list(found)
    assert sorted([first.id, *(each.id for each in rest)]) == ["a", "b", "c"]
    assert [each.attempts for each in rest] == [2, 2]


def test_what_moves_again_and_again_is_found_as_soon_as_it_rests(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", "b")
    tried(store)
    found = store.find(Filter(states=[State.QUEUED]))
    next(found)
    tried(store)
    search, walks = walking.search, itertools.count(1)

    def moving(*args: Any) -> Any:
        places = search(*args)
        if next(walks) < 3:
            tried(store)
        return places

    monkeypatch.setattr(walking, "search", moving)
    assert [(each.id, each.attempts) for each in found] == [("b", 4)]

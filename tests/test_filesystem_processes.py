"""A spool among processes: others remove its slots, its directory goes away, descriptors run out, children are born."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_disk import ModelDisk

from outbox.errors import StoreUnavailable
from outbox.lifecycle import Settlement, Verdict
from outbox.protocols import Suspension
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.filesystem.disk import Disk, Spares
from outbox.testing.clauses.scene import (
    LEASE,
    dead,
    delivered,
    ids,
    mail,
    put,
    released,
    retry,
    settle,
    take,
)
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")

DESCRIPTORS = Path("/proc/self/fd")
HOUR = dt.timedelta(hours=1)

shows_descriptors = pytest.mark.skipif(
    not DESCRIPTORS.is_dir(), reason="this system does not show a process's descriptors"
)
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
# Newer Pythons warn where there are threads.
ignores_threads = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store(open_spool: Callable[..., FilesystemStore]) -> FilesystemStore:
    return open_spool()


def opened() -> list[str]:
    """What this process has open."""
    found = []
    for each in DESCRIPTORS.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return found


# -- a spool that is begun


class Beginning(Disk):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def anchor_root(self, root: int) -> None:
        self.done.append("anchor")
        super().anchor_root(root)

    def link(self, folder: int, name: str, other: int, new: str) -> None:
        self.done.append(new)
        super().link(folder, name, other, new)


def test_a_directory_whose_maker_was_killed_is_durable_before_anybody_puts_into_it(path: Path) -> None:
    path.mkdir(mode=0o700)
    disk = Beginning()
    store = FilesystemStore(path, disk=disk)
    put(store, "a")

    assert disk.done == ["anchor", "format", "a"]
    store.close()


def test_a_spool_below_a_directory_that_may_not_be_listed_is_made_durable_with_all_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(name: str, *args: Any, **rest: Any) -> int:
        if name == "..":
            raise PermissionError(errno.EACCES, "no", name)
        return opens(name, *args, **rest)

    disk, opens, synced = Disk(), os.open, []
    monkeypatch.setattr(os, "open", refusing)
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))
    for _ in range(2):
        FilesystemStore(path, disk=disk).close()

    assert synced == ["all"]


# -- what another process has to say


class WholeSeconds(Disk):
    """A file system that keeps no parts of a second."""

    def touch(self, folder: int, name: str, mtime: int) -> None:
        super().touch(folder, name, mtime - mtime % 10**9)


def test_what_another_process_suspends_holds_where_files_have_whole_seconds(
    path: Path, clock: ManualClock
) -> None:
    stores = [FilesystemStore(path, clock=clock, disk=WholeSeconds()) for _ in range(2)]
    put(stores[0], "a", "b")
    assert ids(take(stores[1], 1)) == ["a"]
    stores[0].suspend(Suspension(kind="queue", value="mail"))

    assert take(stores[1]) == []
    for store in stores:
        store.close()


# -- slots that others remove


class Unsynced(Disk):
    """So that thousands can be put in a moment."""

    def create(self, folder: int, name: str, data: bytes) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        file = os.open(name, flags, 0o600, dir_fd=folder)
        os.write(file, data)
        os.close(file)


@shows_descriptors
@pytest.mark.parametrize("scheduled", [False, True], ids=["ready", "later"])
def test_a_slot_that_another_process_has_emptied_and_removed_keeps_nothing_open(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, scheduled: bool
) -> None:
    # So few folders are kept open that they are all in use.
    monkeypatch.setattr("outbox.stores.filesystem.folders._OPEN", 4)
    one = FilesystemStore(path, clock=clock, disk=Unsynced())
    other = FilesystemStore(path, clock=clock)
    numbers = []
    for turn in range(5):
        due = clock.now() + HOUR if scheduled else None
        put(one, *(mail(f"m{turn}-{n}", content=b"", not_before=due) for n in range(1300)))
        if scheduled:
            clock.advance(HOUR)
        # It begins to read what the other reads to its end.
        for claim in take(one, 1):
            settle(one, claim, delivered(claim))
        while claims := take(other, 1000):
            other.settle([Settlement(claim, delivered(claim)) for claim in claims])
        clock.advance(2 * HOUR)
        take(other, 1)
        take(one, 1)
        numbers.append(len(opened()))

    assert numbers[1:] == numbers[1:2] * 4
    one.close()
    other.close()


# -- a directory that goes away


def deleted(path: Path) -> None:
    shutil.rmtree(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("old"))


def replaced(path: Path) -> None:
    moved(path)
    FilesystemStore(path).close()


VERBS: dict[str, Callable[[FilesystemStore], object]] = {
    "put": lambda store: store.put([mail("b")]),
    "put_claimed": lambda store: store.put_claimed([mail("b")], lease=LEASE),
    "claim": take,
    "settle": lambda store: store.settle([]),
}


@pytest.mark.parametrize(
    ("event", "words"),
    [(deleted, "moved or deleted"), (moved, "moved or deleted"), (replaced, "replaced by another directory")],
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_directory_that_went_away_while_it_was_in_use_is_told(
    store: FilesystemStore, path: Path, verb: str, event: Callable[[Path], None], words: str
) -> None:
    put(store, "a")
    event(path)

    with pytest.raises(StoreUnavailable, match=f"{words} while it was in use: stop all programs"):
        VERBS[verb](store)


def test_a_spool_that_is_named_through_a_symbolic_link_is_where_it_was(
    path: Path, clock: ManualClock
) -> None:
    FilesystemStore(path).close()
    link = path.with_name("link")
    link.symlink_to(path)
    store = FilesystemStore(link, clock=clock)
    put(store, "a")

    assert ids(take(store)) == ["a"]
    store.close()


# -- descriptors that run out

SCARCE = """
import os, resource, sys
from outbox.lifecycle import Settlement, Verdict
from outbox.protocols import Suspension
from outbox.stores.filesystem import FilesystemStore
from outbox.testing.clauses.scene import delivered, mail, put, settle, take
early, spool = sys.argv[1] == "early", sys.argv[2]
def limit():
    least = max(map(int, os.listdir("/dev/fd"))) + (40 if early else 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, least))
if early:
    limit()
store = FilesystemStore(spool)
put(store, *(mail(f"m{n}") for n in range(300)))
if not early:
    limit()
put(store, *(mail(f"n{n}", queue=f"q{n}") for n in range(100)))
claims = take(store, 1000)
assert len(claims) == 300, len(claims)
for claim in claims:
    settle(store, claim, delivered(claim))
assert len(store.browse(limit=1000)) == 100
print(len(os.listdir("/dev/fd")))
"""


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="this system does not show a process's descriptors")
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_store_works_with_as_many_descriptors_as_there_are(path: Path, when: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCARCE), when, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (done.returncode, done.stderr) == (0, "")


class Forgetful(ModelDisk):
    """Before each call all folders are closed that nobody has, as another thread does that needs others."""

    def __init__(self) -> None:
        super().__init__()
        self.spares: list[Spares] = []
        self.step = self.forget

    def may_ask(self, spares: Spares) -> None:
        self.spares.append(spares)

    def forget(self, _: str) -> None:
        for each in self.spares:
            while each.spare():
                pass


def test_a_folder_stays_open_for_whoever_is_about_to_use_it(clock: ManualClock) -> None:
    """Its descriptor's number would be another folder's by then, and the call would be made there."""
    disk = Forgetful()
    store = FilesystemStore("spool", clock=clock, disk=disk, keep_delivered=HOUR, keep_content=False)
    for _ in range(2):
        put(store, *"abcdefgh", mail("later", not_before=clock.now() + HOUR))
    claims = take(store, 3) + take(store, 3)
    store.extend(claims, lease=2 * LEASE)
    verdicts: list[Verdict] = [
        delivered(claims[0]),
        dead(claims[1]),
        retry(claims[2]),
        released(claims[3]),
    ]
    for claim, verdict in zip(claims, verdicts, strict=False):
        settle(store, claim, verdict)
    store.suspend(Suspension(kind="queue", value="other"))
    assert [each.status for each in store.requeue(["b"])] == ["done"]
    assert [each.status for each in store.cancel(["h", "c"])] == ["done", "done"]
    assert [each.status for each in store.purge(["c"])] == ["done"]
    clock.advance(48 * HOUR)
    store.prune()
    disk.boots += 1
    again = FilesystemStore("spool", clock=clock, disk=disk)
    # The folder is on no disk of this machine.
    odd = [each.text for each in again.check() if each.level != "ok" and "how full" not in each.text]
    assert odd == []
    assert ids(take(again)) == ["b", "d", "g", "later"]
    assert {each.id for each in again.browse() if again.get(each.id)} == {*"bdefgh", "later"}


# -- children


def child(act: Callable[[], bool]) -> int:
    """The exit status of a forked child: 0 where *act* said so."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if act() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def refuses(store: FilesystemStore) -> bool:
    try:
        put(store, "a")
    except StoreUnavailable as error:
        return "was closed" in str(error)
    return False


@can_fork
@ignores_threads
def test_a_store_that_was_closed_is_closed_in_a_forked_child(store: FilesystemStore) -> None:
    store.close()

    assert child(lambda: refuses(store)) == 0


@can_fork
@ignores_threads
@shows_descriptors
def test_a_forked_child_has_the_descriptors_of_its_own_spool_alone(store: FilesystemStore) -> None:
    """Though another thread of the parent waits for news, and is in none of its verbs for ever."""
    put(store, *(mail(f"m{n}") for n in range(100)))
    waiting = threading.Thread(target=store.wait, args=(dt.timedelta(seconds=60),))
    take(store, 10)
    waiting.start()
    before = len(opened())

    def generation(left: int) -> bool:
        put(store, *(mail(f"g{left}-{n}") for n in range(100)))
        if left == 0:
            return len(opened()) <= before + 20
        return child(lambda: generation(left - 1)) == 0

    status = child(lambda: generation(4))
    store.wake()
    waiting.join(60)
    assert status == 0


class Forking(Disk):
    """Forks in the middle of a verb, once."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.child = -1

    def link(self, folder: int, name: str, other: int, new: str) -> None:
        if self.armed:
            self.armed = False
            self.child = os.fork()
        super().link(folder, name, other, new)


@can_fork
@ignores_threads
def test_a_verb_that_forks_half_way_ends_in_the_child_too(path: Path, clock: ManualClock) -> None:
    disk = Forking()
    store = FilesystemStore(path, clock=clock, disk=disk)
    put(store, "first")
    disk.armed = True
    code = 1
    try:
        put(store, "a")
        code = 0
    except StoreUnavailable:
        # One of the two was quicker with the other's draft, and both know.
        code = 0
    finally:
        if disk.child == 0:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(disk.child, 0)[1]) == 0

    assert ids(take(store)) == ["a", "first"]
    store.close()


def lockable(path: Path) -> bool:
    import fcntl  # noqa: PLC0415 - Windows has none, and imports this file too

    own = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(own)
    return True


@can_fork
@ignores_threads
def test_a_lock_ends_with_its_holder_though_a_child_was_forked_meanwhile(tmp_path: Path) -> None:
    disk, (ends, living) = Disk(), os.pipe()
    folder = disk.open_root(str(tmp_path))
    with disk.lock(folder):
        pid = os.fork()
        if pid == 0:
            os.close(living)
            os.read(ends, 1)
            os._exit(0)
    assert lockable(tmp_path)

    os.close(living)
    os.waitpid(pid, 0)
    os.close(ends)
    disk.close(folder)


@can_fork
@ignores_threads
def test_a_child_keeps_no_lock_of_a_parent_that_was_killed(path: Path, clock: ManualClock) -> None:
    disk, (ends, living), (told, tell) = Disk(), os.pipe(), os.pipe()
    store = FilesystemStore(path, clock=clock, disk=disk)

    def hold(held: threading.Event) -> None:
        with disk.lock(os.open(path, os.O_RDONLY)):
            held.set()
            threading.Event().wait()

    def parent() -> bool:
        held = threading.Event()
        threading.Thread(target=hold, args=(held,), daemon=True).start()
        held.wait()
        if os.fork() == 0:
            os.close(living)
            os.write(tell, b".")
            os.read(ends, 1)
            os._exit(0)
        return os.read(told, 1) == b"."

    assert child(parent) == 0
    assert lockable(path)

    for each in (ends, living, told, tell):
        os.close(each)
    store.close()

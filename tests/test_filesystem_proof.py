"""What the filesystem store acknowledges stands: whatever others do to the draft, the id and the spool meanwhile."""

from __future__ import annotations

import datetime as dt
import errno
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from model_disk import Killed, ModelDisk

from outbox.errors import AmbiguousPut, ConflictError, StoreError, StoreFull, StoreUnavailable
from outbox.message import Message
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.filesystem.disk import Disk
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
    statuses,
    take,
)
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")

DAY = dt.timedelta(days=1)


class World:
    """A spool on a model disk, and two programs that use it."""

    def __init__(self, *, frugal: bool = False) -> None:
        self.disk = ModelDisk(logged=False, frugal=frugal)
        self.clock = ManualClock()
        self.store = self.open(self.clock)

    def open(self, clock: ManualClock) -> FilesystemStore:
        return FilesystemStore("spool", clock=clock, disk=self.disk)

    def at(self, number: int, act: Callable[[], object]) -> None:
        """Do this at the call of that number from now on, but not while somebody is alone in a folder."""
        calls = iter(range(1, 10_000))
        me = threading.current_thread()
        before = ""

        def step(name: str) -> None:
            nonlocal before
            # What is read is looked at as well, while the model lets nobody else do anything.
            inner, before = before == "read", name
            if inner or self.disk.locked or threading.current_thread() is not me:
                return
            if next(calls) == number:
                act()

        self.disk.step = step

    def at_next(self, call: str, act: Callable[[], object]) -> None:
        """Do this once, at the next call of this name."""

        def step(name: str) -> None:
            if name == call:
                self.disk.step = lambda _: None
                act()

        self.disk.step = step

    def errors(self) -> list[str]:
        return [found.text for found in self.store.check() if found.level == "error"]


def failing(world: World) -> tuple[threading.Thread, threading.Event]:
    """A put of *a* that holds its id already, and takes everything back once it is let go on."""
    held, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        with pytest.raises(ConflictError):
            world.store.put([mail("a"), mail("b", "somebody@else.example.org")])

    thread = threading.Thread(target=fail)

    def step(name: str) -> None:
        if threading.current_thread() is thread and name == "read":
            held.set()
            assert go_on.wait(30)

    world.disk.step = step
    thread.start()
    assert held.wait(30)
    return thread, go_on


def test_a_put_beside_one_that_takes_itself_back_stores_the_message_all_the_same() -> None:
    for number in range(1, 100):
        world = World()
        other = world.open(world.clock)
        put(world.store, "b")
        thread, go_on = failing(world)
        came: list[bool] = []

        def take_back(
            thread: threading.Thread = thread, go_on: threading.Event = go_on, came: list[bool] = came
        ) -> None:
            came.append(True)
            go_on.set()
            thread.join(30)

        world.at(number, take_back)
        answer = statuses(other.put([mail("a")]))
        came_in_time = bool(came)
        take_back()
        said = f"taken back at call {number}, and the other was told {answer}"
        assert ids(take(other)) == ["a", "b"], said
        assert statuses(other.put([mail("a")])) == ["known"], said
        assert world.errors() == [], said
        if not came_in_time:
            return
    raise AssertionError("the put never came to its end")


def pruning(world: World) -> Callable[[], object]:
    """By a program whose clock is two days ahead."""
    ahead = ManualClock(world.clock.now() + 2 * DAY)
    return world.open(ahead).prune


def refusal(store: FilesystemStore, messages: Sequence[Message], *, leased: bool) -> StoreError | None:
    """Why a put was not acknowledged."""
    try:
        if leased:
            store.put_claimed(messages, lease=LEASE)
        else:
            store.put(messages)
    except (StoreUnavailable, AmbiguousPut) as error:
        return error
    return None


@pytest.mark.parametrize("leased", [False, True], ids=["put", "put_claimed"])
def test_a_put_whose_draft_is_thrown_away_says_so_and_acknowledges_nothing(leased: bool) -> None:
    told = 0
    for number in range(1, 200):
        world = World()
        put(world.store, "before")
        act = pruning(world)
        came: list[object] = []
        world.at(number, lambda act=act, came=came: came.append(act()))  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
        messages = [mail("a"), mail("b")]
        error = refusal(world.store, messages, leased=leased)
        world.disk.step = lambda _: None
        if error is not None:
            told += 1
            assert "put it again" in str(error)
            assert isinstance(error, AmbiguousPut) or ids(take(world.store)) == ["before"]
            world.store.put(messages)
        world.clock.advance(LEASE + LEASE)
        found = {id for _ in range(4) for id in ids(take(world.store))}
        assert found == {"before", "a", "b"}, f"at call {number}"
        assert statuses(world.store.put(messages)) == ["known", "known"], f"at call {number}"
        assert world.errors() == [], f"at call {number}"
        if not came:
            assert told
            return
    raise AssertionError("the put never came to its end")


# -- those who take themselves for the first


def test_a_start_of_what_takes_itself_for_another_machine_takes_nothing_from_those_at_work() -> None:
    for number in range(1, 300):
        world = World()
        put(world.store, "before")
        came: list[FilesystemStore] = []

        def start(world: World = world, came: list[FilesystemStore] = came) -> None:
            # As a container does that has its own number for the start of the same machine.
            world.disk.boots += 1
            came.append(world.open(world.clock))

        world.at(number, start)
        put(world.store, "a")
        for claim in take(world.store):
            settle(world.store, claim, retry(claim, SECOND))
        world.disk.step = lambda _: None
        world.clock.advance(2 * SECOND)

        assert ids(take(world.store)) == ["a", "before"], f"at call {number}"
        assert world.errors() == [], f"at call {number}"
        if not came:
            return
    raise AssertionError("it never came to its end")


def test_a_note_that_was_thrown_away_before_its_ticket_named_it_is_written_again() -> None:
    world = World()
    put(world.store, "a")
    (claim,) = take(world.store)
    world.at_next("rename", pruning(world))
    settle(world.store, claim, retry(claim, SECOND))
    world.clock.advance(2 * SECOND)

    assert ids(take(world.store)) == ["a"]
    assert world.errors() == []


# -- copies


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def draft(store: FilesystemStore, path: Path, name: str) -> Path:
    """As a put leaves it that is killed before it renames its draft."""
    put(store, name)
    (ticket,) = (path / "queues").rglob(f"*,{name},*")
    return ticket.rename(path / "tmp" / ticket.name)


def hard_linked(path: Path) -> None:
    """A copy as `cp -al` makes it."""
    shutil.copytree(path, path.with_name("backup"), copy_function=os.link)


def machine_started(path: Path) -> None:
    (path / "boot").unlink()


def prune_later(store: FilesystemStore, clock: ManualClock) -> None:
    clock.advance(2 * DAY)
    store.prune()


@pytest.mark.parametrize("by_prune", [False, True], ids=["start", "prune"])
def test_a_backup_by_hard_links_makes_no_message_of_a_put_that_was_killed(
    open_spool: Callable[..., FilesystemStore], path: Path, clock: ManualClock, by_prune: bool
) -> None:
    store = open_spool()
    put(store, "kept")
    draft(store, path, "a")
    hard_linked(path)
    if by_prune:
        prune_later(store, clock)
    else:
        machine_started(path)
        store = open_spool()

    assert store.get("a") is None
    assert statuses(store.cancel(["a"])) == ["unknown"]
    # A start leaves the draft to the next put of its id, which finishes it.
    assert statuses(store.put([mail("a"), mail("kept")])) == ["stored" if by_prune else "known", "known"]
    assert ids(take(store)) == ["a", "kept"]


def test_an_id_of_no_message_is_free_after_a_start_though_a_backup_has_its_file(
    open_spool: Callable[..., FilesystemStore], path: Path
) -> None:
    store = open_spool()
    put(store, "kept", "sent")
    (sent,) = (claim for claim in take(store) if claim.message.id == "sent")
    settle(store, sent, delivered(sent))
    lost = draft(store, path, "a")
    hard_linked(path)
    lost.unlink()
    machine_started(path)
    store = open_spool()

    assert statuses(store.put([mail("a"), mail("kept"), mail("sent")])) == ["stored", "known", "known"]


def test_a_put_that_fails_beside_a_backup_by_hard_links_leaves_its_id_free(
    open_spool: Callable[..., FilesystemStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_spool()
    put(store, "first")

    def fail(*_: object) -> bool:
        hard_linked(path)
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(store._spool.folders, "move", fail)
    with pytest.raises(StoreFull):
        put(store, "a")

    assert list((path / "ids").rglob("a")) == []


def test_the_repair_that_check_advises_forgets_no_delivered_id_of_a_copy_without_hard_links(
    open_spool: Callable[..., FilesystemStore], path: Path
) -> None:
    store = open_spool()
    put(store, "sent", "waiting")
    sent, _ = take(store)
    settle(store, sent, delivered(sent))
    store.close()
    copy = path.with_name("restored")
    shutil.copytree(path, copy)
    store = open_spool(copy)
    assert [f.text for f in store.check() if f.level == "error" and sent.message.id in f.text]
    store.close()
    machine_started(copy)
    store = open_spool(copy)

    assert [f.text for f in store.check() if f.level == "error"] == []
    assert statuses(store.put([mail("sent"), mail("waiting")])) == ["known", "known"]


def test_check_names_what_a_copy_of_a_spool_in_use_has_lost_and_what_it_has_twice(
    open_spool: Callable[..., FilesystemStore], path: Path
) -> None:
    store = open_spool()
    put(store, "lost", "twice")
    (before,) = (path / "queues").rglob("*,twice,*")
    name = before.with_name("aside")
    os.link(before, name)
    take(store)
    # As a copy has it that came by while the ticket was moved, or before and after.
    name.rename(before)
    (lost,) = (path / "queues").rglob("*,lost,*")
    lost.unlink()

    found = {each.text: each.level for each in store.check() if each.level != "ok"}

    (twice,) = (text for text, level in found.items() if level == "error")
    assert twice.startswith("1 files are a second ticket of a message")
    assert ",twice," in twice
    assert found["1 files are names under ids/ of messages that are not there: lost"] == "warning"


def test_the_id_of_what_was_put_anew_stays_with_it_though_its_old_tombstone_is_still_there(
    open_spool: Callable[..., FilesystemStore], path: Path, clock: ManualClock
) -> None:
    store = open_spool()
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, delivered(claim))
    clock.advance(30 * DAY)
    put(store, "a")
    assert list((path / "remembered").rglob("*,a,*"))
    machine_started(path)
    store = open_spool()

    assert [f.text for f in store.check() if f.level == "error"] == []
    assert statuses(store.put([mail("a")])) == ["known"]
    assert ids(take(store)) == ["a"]


# -- what stands for a message


class Hooked(Disk):
    """Lets something else happen directly before one of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.before_rename: Callable[[], object] | None = None
        self.kept_id = ""

    def rename(self, folder: int, name: str, other: int, new: str) -> None:
        if self.before_rename is not None:
            act, self.before_rename = self.before_rename, None
            act()
        super().rename(folder, name, other, new)

    def unlink(self, folder: int, name: str) -> None:
        if name == self.kept_id:
            raise OSError(errno.EIO, "input/output error")
        super().unlink(folder, name)


def test_a_put_is_not_told_that_a_message_is_known_whose_file_was_given_to_a_draft() -> None:
    world = World(frugal=True)
    put(world.store, "a")
    (claim,) = take(world.store)
    settle(world.store, claim, dead(claim))
    other, third = world.open(world.clock), world.open(world.clock)

    def killed() -> None:
        raise Killed

    def purge_and_put() -> None:
        assert statuses(other.purge(["a"])) == ["done"]
        # The number of the file that was removed goes to the next one.
        world.at_next("rename", killed)
        with pytest.raises(Killed):
            put(third, "a")

    world.at_next("rename", purge_and_put)

    assert statuses(world.store.put([mail("a")])) == ["known"]
    assert ids(take(other)) == ["a"]


def test_an_id_that_could_not_be_given_up_beside_a_backup_by_hard_links_is_free(
    path: Path, clock: ManualClock
) -> None:
    disk = Hooked()
    store = FilesystemStore(path, clock=clock, disk=disk)

    def fail() -> None:
        hard_linked(path)
        disk.kept_id = "a"
        raise OSError(errno.ENOSPC, "no space left")

    disk.before_rename = fail
    with pytest.raises(StoreFull):
        put(store, "a")
    assert list((path / "ids").rglob("a"))
    disk.kept_id = ""

    assert statuses(store.put([mail("a")])) == ["stored"]
    assert ids(take(store)) == ["a"]
    store.close()

"""What the filesystem store acknowledges stands: whatever others do to the draft, the id and the spool meanwhile."""

from __future__ import annotations

import datetime as dt
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from model_disk import ModelDisk

from outbox.errors import AmbiguousPut, ConflictError, StoreError, StoreFull, StoreUnavailable
from outbox.message import Message
from outbox.stores.filesystem import FilesystemStore
from outbox.testing.clauses.scene import LEASE, delivered, ids, mail, put, settle, statuses, take
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")

DAY = dt.timedelta(days=1)


class World:
    """A spool on a model disk, and two programs that use it."""

    def __init__(self) -> None:
        self.disk = ModelDisk(logged=False)
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


def starting(world: World) -> Callable[[], object]:
    """On what seems to be another start of the machine."""

    def start() -> FilesystemStore:
        world.disk.boots += 1
        return world.open(world.clock)

    return start


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
@pytest.mark.parametrize("prepare", [pruning, starting])
def test_a_put_whose_draft_is_thrown_away_says_so_and_acknowledges_nothing(
    prepare: Callable[[World], Callable[[], object]], leased: bool
) -> None:
    told = 0
    for number in range(1, 200):
        world = World()
        put(world.store, "before")
        act = prepare(world)
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
        assert found == {"before", "a", "b"}, f"{prepare.__name__} at call {number}"
        assert statuses(world.store.put(messages)) == ["known", "known"], f"at call {number}"
        assert world.errors() == [], f"at call {number}"
        if not came:
            assert told
            return
    raise AssertionError("the put never came to its end")


# -- copies


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_store(path: Path, clock: ManualClock) -> Iterator[Callable[..., FilesystemStore]]:
    opened: list[FilesystemStore] = []

    def open(where: Path = path) -> FilesystemStore:
        opened.append(FilesystemStore(where, clock=clock))
        return opened[-1]

    yield open
    for store in opened:
        store.close()


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
    open_store: Callable[..., FilesystemStore], path: Path, clock: ManualClock, by_prune: bool
) -> None:
    store = open_store()
    put(store, "kept")
    draft(store, path, "a")
    hard_linked(path)
    if by_prune:
        prune_later(store, clock)
    else:
        machine_started(path)
        store = open_store()

    assert store.get("a") is None
    assert statuses(store.cancel(["a"])) == ["unknown"]
    assert statuses(store.put([mail("a"), mail("kept")])) == ["stored", "known"]
    assert ids(take(store)) == ["a", "kept"]


def test_an_id_of_no_message_is_free_after_a_start_though_a_backup_has_its_file(
    open_store: Callable[..., FilesystemStore], path: Path
) -> None:
    store = open_store()
    put(store, "kept", "sent")
    (sent,) = (claim for claim in take(store) if claim.message.id == "sent")
    settle(store, sent, delivered(sent))
    lost = draft(store, path, "a")
    hard_linked(path)
    lost.unlink()
    machine_started(path)
    store = open_store()

    assert statuses(store.put([mail("a"), mail("kept"), mail("sent")])) == ["stored", "known", "known"]


def test_a_put_that_fails_beside_a_backup_by_hard_links_leaves_its_id_free(
    open_store: Callable[..., FilesystemStore], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    put(store, "first")

    def fail(*_: object) -> bool:
        hard_linked(path)
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(store._spool.folders, "move", fail)
    with pytest.raises(StoreFull):
        put(store, "a")

    assert list((path / "ids").rglob("a")) == []


def test_the_repair_that_check_advises_forgets_no_delivered_id_of_a_copy_without_hard_links(
    open_store: Callable[..., FilesystemStore], path: Path
) -> None:
    store = open_store()
    put(store, "sent", "waiting")
    sent, _ = take(store)
    settle(store, sent, delivered(sent))
    store.close()
    copy = path.with_name("restored")
    shutil.copytree(path, copy)
    store = open_store(copy)
    assert [f.text for f in store.check() if f.level == "error" and sent.message.id in f.text]
    store.close()
    machine_started(copy)
    store = open_store(copy)

    assert [f.text for f in store.check() if f.level == "error"] == []
    assert statuses(store.put([mail("sent"), mail("waiting")])) == ["known", "known"]


def test_the_id_of_what_was_put_anew_stays_with_it_though_its_old_tombstone_is_still_there(
    open_store: Callable[..., FilesystemStore], path: Path, clock: ManualClock
) -> None:
    store = open_store()
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, delivered(claim))
    clock.advance(30 * DAY)
    put(store, "a")
    assert list((path / "remembered").rglob("*,a,*"))
    machine_started(path)
    store = open_store()

    assert [f.text for f in store.check() if f.level == "error"] == []
    assert statuses(store.put([mail("a")])) == ["known"]
    assert ids(take(store)) == ["a"]

"""What another process commits ends a wait, because the kernel tells of it; and where it tells nothing, all the same."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from started import PATIENCE

from outbox.errors import StoreUnavailable
from outbox.stores import inotify, watching
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.inotify import Watch
from outbox.stores.news import News
from outbox.stores.sqlite import SQLiteStore
from outbox.stores.watching import Watching
from outbox.testing.clauses.scene import LEASE, SHORT, ids, put, take

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")

HOUR = dt.timedelta(hours=1)
REST = dt.timedelta(milliseconds=150)
MOMENT = dt.timedelta(milliseconds=5)
STORES = {"sqlite": SQLiteStore, "filesystem": FilesystemStore}

SCRIPT = """
import sys
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.news import News
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import put
store = {"sqlite": SQLiteStore, "filesystem": FilesystemStore}[sys.argv[1]](sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    put(store, line.strip())
    print("put", flush=True)
store.close()
"""


class Stranger:
    """Another process that puts what it is told to; its store is open until it ends."""

    def __init__(self, kind: str, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, kind, os.fspath(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer("ready")

    def put(self, id: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{id}\n")
        self._process.stdin.flush()
        self._answer("put")

    def end(self) -> None:
        self._process.communicate(timeout=PATIENCE)

    def _answer(self, expected: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{expected}\n"


@pytest.fixture(params=sorted(STORES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look finds by chance what the kernel has to tell of; but a commit of SQLite is to be seen some time later."""
    sqlite = "kind" in request.fixturenames and request.getfixturevalue("kind") == "sqlite"
    monkeypatch.setattr(watching, "_SOON", (0.01,) * 10 if sqlite else ())
    monkeypatch.setattr("outbox.waiting._PATIENCE", 3600.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def stranger(kind: str, path: Path) -> Iterator[Stranger]:
    other = Stranger(kind, path)
    yield other
    other.end()


@contextlib.contextmanager
def opened(kind: str, path: Path, poll: dt.timedelta = HOUR) -> Iterator[Any]:
    with contextlib.closing(STORES[kind](path, poll=poll)) as store:
        yield store


def watching_of(store: Any) -> Watching:
    found: Watching = store._database.watching if isinstance(store, SQLiteStore) else store._spool.watching
    return found


def at_rest(store: Any) -> None:
    """Nothing is new to this thread, and nothing of the last change can still come."""
    assert any(not store.wait(REST) for _ in range(5))


def descriptors() -> list[str]:
    """What leads to inotify or an eventfd, and is of this test."""
    return sorted(link for name, link in all_descriptors().items() if OTHERS.get(name) != link)


def all_descriptors() -> dict[str, str]:
    found = {}
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[name.name] = os.fspath(name.readlink())
    return {
        name: link for name, link in found.items() if link in ("anon_inode:inotify", "anon_inode:[eventfd]")
    }


OTHERS: Final[dict[str, str]] = {}
"""What some test before has left open."""


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    gc.collect()
    OTHERS.update(all_descriptors())
    yield
    OTHERS.clear()


ONE_WATCH = ["anon_inode:[eventfd]", "anon_inode:inotify"]


def until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(12_000):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("it never came true")


@contextlib.contextmanager
def waiting(store: Any, *waits: Callable[[], object]) -> Iterator[list[object]]:
    """Each on a thread of its own, and all end by themselves; what they returned is there at the end."""
    results: list[object] = []

    def act(wait: Callable[[], object]) -> None:
        try:
            results.append(wait())
        except StoreUnavailable:
            results.append("closed")

    threads = [threading.Thread(target=act, args=(wait,)) for wait in waits]
    for thread in threads:
        thread.start()
    try:
        yield results
        until(lambda: len(results) == len(waits))
    finally:
        if len(results) < len(waits):
            store.close()
        for thread in threads:
            thread.join()


# -- what another process puts


def test_a_put_of_another_process_ends_the_wait(kind: str, path: Path, stranger: Stranger) -> None:
    with opened(kind, path) as store:
        for round in range(3):
            at_rest(store)
            with waiting(store, lambda: store.wait(HOUR)) as heard:
                until(watching_of(store)._heard)
                stranger.put(f"m{round}")
            assert heard == [True]
            assert ids(take(store)) == [f"m{round}"]


def test_what_another_process_put_before_the_wait_ends_it(kind: str, path: Path, stranger: Stranger) -> None:
    with opened(kind, path) as store:
        at_rest(store)
        assert take(store) == []
        stranger.put("a")

        assert store.wait(HOUR) is True


@pytest.mark.parametrize("refused", ["__init__", "_add"])
def test_where_nothing_is_told_the_store_is_looked_at(
    kind: str, path: Path, stranger: Stranger, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def none(*_: object) -> None:
        raise OSError(28, "no watch is left")

    monkeypatch.setattr(Watch, refused, none)
    monkeypatch.setattr(watching, "_WATCHED", 3600.0)
    with opened(kind, path, poll=MOMENT) as store:
        at_rest(store)
        with waiting(store, *[lambda: store.wait(HOUR)] * 2) as heard:
            until(lambda: len(store_waits(store)) == 2)
            stranger.put("a")

        assert heard == [True] * 2


def test_a_system_without_inotify_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="not implemented"):
        Watch(os.fspath(tmp_path / "file"))


def test_a_file_system_that_tells_nothing_is_polled(
    kind: str, path: Path, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(Watch):
        def __init__(self, _: str) -> None:
            super().__init__(os.fspath(path.parent / "nobody" / "writes here"))

    (path.parent / "nobody").mkdir()
    # Looks that come soon after a change count for nothing.
    monkeypatch.setattr(watching, "_SOON", ())
    monkeypatch.setattr(watching, "Watch", Deaf)
    monkeypatch.setattr(watching, "_WATCHED", 0.01)
    with opened(kind, path, poll=MOMENT) as store:
        at_rest(store)
        assert watching_of(store)._usable() is not None
        for number in range(20):
            with waiting(store, lambda: store.wait(HOUR)) as heard:
                # One that is there before the wait has begun to sleep is none that the watch has missed.
                until(lambda: bool(store_waits(store)))
                stranger.put(f"m{number}")
            assert heard == [True]
            if watching_of(store)._usable() is None:
                break

        assert watching_of(store)._usable() is None
        at_rest(store)
        with waiting(store, lambda: store.wait(HOUR)) as heard:
            until(lambda: bool(store_waits(store)))
            stranger.put("n")
        assert heard == [True]


def test_a_bell_that_is_not_there_yet_is_heard_of(path: Path) -> None:
    with opened("filesystem", path) as store:
        at_rest(store)
        assert not (path / "bell").exists()
        stranger = Stranger("filesystem", path)
        with waiting(store, lambda: store.wait(HOUR)) as heard:
            until(watching_of(store)._heard)
            stranger.put("a")
        stranger.end()

        assert heard == [True]


def test_a_wal_that_was_deleted_and_made_anew_is_watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SOON", (0.01,) * 10)
    with opened("sqlite", path) as store:
        at_rest(store)
        wal = path.with_name("outbox-wal")
        before = wal.stat().st_ino
        # Around a fork every connection is closed, and with the last one the WAL is gone.
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert not wal.exists() or wal.stat().st_ino != before
        at_rest(store)
        stranger = Stranger("sqlite", path)
        at_rest(store)
        with waiting(store, lambda: store.wait(HOUR)) as heard:
            until(watching_of(store)._heard)
            stranger.put("a")
        stranger.end()

        assert heard == [True]


def test_what_may_still_come_of_a_change_is_left_to_the_next_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that changed the file, and is not there to be seen when this wait ends."""
    monkeypatch.setattr(watching, "_SOON", (0.01,) * 10)
    path.touch()
    waits = Watching(News(), os.fspath(path))
    assert waits.wait(REST, lambda: 0, 0, poll=HOUR) == (False, 0)
    path.write_bytes(b"a frame")
    assert waits.wait(MOMENT, lambda: 0, 0, poll=HOUR) == (False, 0)
    looks = iter([0, 0, 1])

    assert waits.wait(HOUR, lambda: next(looks), 0, poll=HOUR) == (True, 1)


def test_a_store_that_was_replaced_ends_no_wait_too_late_and_is_refused(kind: str, path: Path) -> None:
    with opened(kind, path) as store:
        at_rest(store)
        path.rename(path.with_name("elsewhere"))
        with opened(kind, path) as other:
            put(other, "a")

        store.wait(SHORT)
        with pytest.raises(StoreUnavailable, match="replaced"):
            store.claim(limit=1, lease=LEASE, queues=["mail"])


# -- several threads


def test_one_watch_does_for_all_threads_of_a_store(kind: str, path: Path, stranger: Stranger) -> None:
    with opened(kind, path) as store:
        at_rest(store)

        def wait() -> bool:
            take(store)
            return bool(store.wait(HOUR))

        with waiting(store, *[wait] * 6) as heard:
            until(lambda: len(store_waits(store)) == 6)
            assert descriptors() == ONE_WATCH
            stranger.put("a")

        assert heard == [True] * 6


def store_waits(store: Any) -> list[Any]:
    return list(watching_of(store)._news._waiting._waiting)


def test_when_the_one_who_listens_leaves_another_does(kind: str, path: Path, stranger: Stranger) -> None:
    with opened(kind, path) as store:
        at_rest(store)
        first = threading.Event()

        def leaves() -> bool:
            at_rest(store)
            first.set()
            return bool(store.wait(2 * REST))

        def stays() -> bool:
            first.wait()
            return bool(store.wait(HOUR))

        with waiting(store, leaves, stays) as heard:
            until(lambda: heard == [False])
            until(watching_of(store)._heard)
            stranger.put("a")

        assert heard == [False, True]


def test_wake_from_many_threads_ends_every_wait(kind: str, path: Path) -> None:
    with opened(kind, path) as store:
        at_rest(store)
        for _ in range(20):
            with waiting(store, *[lambda: store.wait(HOUR)] * 4) as heard:
                until(lambda: len(store_waits(store)) == 4)
                with waiting(store, *[store.wake] * 4):
                    pass
            assert heard == [True] * 4


def test_what_a_signal_handler_raises_leaves_the_others_waiting_and_hearing(
    kind: str, path: Path, stranger: Stranger
) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    def send() -> None:
        until(watching_of(store)._heard)
        os.kill(os.getpid(), signal.SIGUSR1)

    with opened(kind, path) as store:
        at_rest(store)
        before = signal.signal(signal.SIGUSR1, interrupt)
        try:
            with waiting(store, send), pytest.raises(Interrupt):
                store.wait(HOUR)
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert not watching_of(store)._heard()
        with waiting(store, lambda: store.wait(HOUR)) as heard:
            until(watching_of(store)._heard)
            stranger.put("a")
        assert heard == [True]


# -- forks and the end


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_watch_of_its_own(kind: str, path: Path, stranger: Stranger) -> None:
    with opened(kind, path) as store:
        at_rest(store)
        with waiting(store, lambda: store.wait(HOUR)):
            until(watching_of(store)._heard)
            # The thread that waits is not in the child, which has what it held.
            child = os.fork()
            if child == 0:
                os._exit(waited_in_a_child(store))
            store.wake()
        assert descriptors() == ONE_WATCH
        at_rest(store)
        with waiting(store, lambda: store.wait(HOUR)) as heard:
            until(watching_of(store)._heard)
            until((path.parent / "child").exists)
            stranger.put("a")

        assert heard == [True]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def waited_in_a_child(store: Any) -> int:
    with contextlib.suppress(BaseException):
        assert descriptors() == []
        at_rest(store)
        assert descriptors() == ONE_WATCH
        (Path(store._path) if isinstance(store, FilesystemStore) else store._database.path).with_name(
            "child"
        ).touch()
        return 0 if store.wait(HOUR) else 2
    return 1


def test_thousands_of_waits_leave_no_descriptor_behind(kind: str, path: Path) -> None:
    with opened(kind, path) as store:
        for _ in range(12_000):
            store.wait(dt.timedelta(0))
        assert descriptors() == ONE_WATCH
    assert descriptors() == []


def test_a_store_that_is_closed_under_its_waits_gives_its_descriptors_back(kind: str, path: Path) -> None:
    with opened(kind, path) as store:
        at_rest(store)
        with waiting(store, *[lambda: store.wait(HOUR)] * 3) as heard:
            until(lambda: len(store_waits(store)) == 3)
            store.close()

        assert len(heard) == 3
        assert descriptors() == []


def test_a_store_that_nobody_has_any_more_gives_its_descriptors_back(kind: str, path: Path) -> None:
    store = STORES[kind](path)
    store.wait(MOMENT)
    assert descriptors() == ONE_WATCH
    watch = watching_of(store)._watch
    store.close()
    assert descriptors() == ONE_WATCH, "somebody may be writing to it"
    del watch

    assert descriptors() == []


# -- what it costs


def test_an_empty_claim_changes_nothing_that_is_watched(kind: str, path: Path) -> None:
    with opened(kind, path) as store:
        put(store, "a")
        assert ids(take(store)) == ["a"]
        at_rest(store)
        watch = Watch(watching_of(store)._path)
        watch.stirred()
        for _ in range(3):
            assert store.claim(limit=100, lease=LEASE, queues=["mail"]) == []
            store.next_due(["mail"])
            store.wait(dt.timedelta(0))

        assert not watch.stirred()


def test_nobody_is_woken_where_nobody_waits(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    monkeypatch.setattr(Watch, "release", lambda _: woken.append(1))
    with opened(kind, path) as store:
        at_rest(store)
        put(store, "a")
        store.wake()

    assert woken == []


# -- the watch itself


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.touch()
    return file


def test_a_change_is_told_once(file: Path) -> None:
    watch = Watch(os.fspath(file))
    assert watch.stirred(), "there may have been a change before"
    assert not watch.stirred()
    file.write_bytes(b"more")

    watch.acquire(timeout=30)
    assert watch.told
    assert watch.stirred()
    assert not watch.told
    assert not watch.stirred()


def test_a_touch_is_a_change(file: Path) -> None:
    watch = Watch(os.fspath(file))
    watch.stirred()
    os.utime(file, ns=(1, 1))

    assert watch.stirred()


def test_a_file_that_takes_the_place_of_another_is_watched(file: Path) -> None:
    watch = Watch(os.fspath(file))
    watch.stirred()
    held = file.open("rb")
    file.unlink()
    assert watch.stirred()
    assert watch.stirred() is False, "it is the folder that is watched now"
    file.touch()
    assert watch.stirred()
    watch.stirred()
    file.write_bytes(b"more")
    assert watch.stirred()
    held.close()


def test_more_changes_than_the_kernel_keeps_are_one(file: Path) -> None:
    watch = Watch(os.fspath(file))
    watch.stirred()
    with file.open("wb", buffering=0) as writer:
        for _ in range(17_000):
            writer.write(b".")
            os.utime(writer.fileno())

    assert watch.stirred()
    assert not watch.stirred()


def test_a_release_before_the_sleep_ends_it(file: Path) -> None:
    watch = Watch(os.fspath(file))
    watch.stirred()
    watch.release()
    watch.acquire(timeout=30)

    assert not watch.told


def test_a_watch_that_was_closed_says_so(file: Path) -> None:
    watch = Watch(os.fspath(file))
    watch.close()
    watch.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.stirred()
    assert inotify.__all__ == ["Watch"]

"""A signal's handler raises in the middle of a wait: the other threads of the store go on."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outbox.errors import StoreUnavailable
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.filesystem.crowding import Crowd
from outbox.stores.filesystem.disk import Disk
from outbox.stores.filesystem.gate import Gate
from outbox.stores.limits import Limits, Load
from outbox.stores.news import News
from outbox.testing.clauses.scene import mail, put
from outbox.testing.clock import ManualClock
from outbox.waiting import Waiting

PATIENCE = 30
posix = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")


class Interrupted(BaseException):
    """What the handler raises."""


def interrupted(act: Callable[[], object], number: int) -> bool:
    """Raise when so many calls have returned, as a handler may; False where there were not so many."""
    left = number

    def interrupt(_frame: object, event: str, _function: object) -> None:
        nonlocal left
        if event == "c_return":
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise Interrupted

    before = sys.getprofile()
    # What is raised while a collection closes something is raised to nobody.
    gc.disable()
    try:
        sys.setprofile(interrupt)
        act()
    except Interrupted:
        return True
    finally:
        sys.setprofile(before)
        gc.enable()
    return False


def ends(act: Callable[[], object]) -> bool:
    """Whether another thread comes through."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()


def each_interrupt(make: Callable[[], Any], act: Callable[[Any], object]) -> Iterator[tuple[Any, int]]:
    """Everything anew, and interrupted one call later each time."""
    for number in range(1, 200):
        thing = make()
        if not interrupted(lambda thing=thing: act(thing), number):  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
            assert number > 1
            return
        yield thing, number
    raise AssertionError("it never came to its end")


def test_an_interrupted_word_leaves_others_their_voice_and_ends_the_waits_all_the_same() -> None:
    for news, number in each_interrupt(News, News.tell):
        assert ends(news.tell), f"at call {number}"
        assert ends(lambda news=news: (news.wait(0), news.tell(), news.wait(PATIENCE))), f"at call {number}"  # type: ignore[misc]  # mypy cannot infer lambdas with defaults


def test_an_interrupted_wait_leaves_others_theirs() -> None:
    for news, number in each_interrupt(News, lambda news: news.wait(0.01)):
        assert ends(news.tell), f"at call {number}"
        assert ends(lambda news=news: news.wait(0.01)), f"at call {number}"  # type: ignore[misc]  # mypy cannot infer lambdas with defaults


def test_what_somebody_was_interrupted_before_he_could_tell_is_seen_without_him() -> None:
    waiting, came = Waiting(), threading.Event()

    def wait() -> None:
        asked = iter([False])
        # It comes true, and nobody says so.
        assert waiting.wait_for(lambda: next(asked, True), PATIENCE)
        came.set()

    assert ends(wait)
    assert came.is_set()


def visit(gate: Gate) -> None:
    with gate.inside():
        pass


def test_a_store_can_be_closed_after_an_interrupted_verb() -> None:
    for gate, number in each_interrupt(lambda: Gate("spool"), visit):
        assert ends(lambda gate=gate: visit(gate)), f"at call {number}"  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
        assert ends(gate.close), f"at call {number}"
        with pytest.raises(StoreUnavailable, match="closed"):
            visit(gate)


def test_an_interrupted_close_can_be_repeated() -> None:
    for gate, number in each_interrupt(lambda: Gate("spool"), Gate.close):
        assert ends(gate.close), f"at call {number}"


class Empty:
    """In the place of a spool's folders."""

    def subfolders(self, _: object) -> list[str]:
        return []


def admit(crowd: Crowd) -> None:
    with crowd.admitted(Empty(), Load(1), 0):  # type: ignore[arg-type]  # a count asks for no more
        pass


def test_an_interrupted_put_takes_no_room_for_ever() -> None:
    for crowd, number in each_interrupt(lambda: Crowd(Limits(max_messages=1)), admit):
        assert ends(lambda crowd=crowd: admit(crowd)), f"at call {number}"  # type: ignore[misc]  # mypy cannot infer lambdas with defaults


class Interrupting(Disk):
    """The first sync waits until three have been renamed; the second is interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = False
        self.syncing = threading.Event()
        self.renamed = threading.Semaphore(0)
        self.log: list[str] = []
        self._number = 0

    def rename(self, folder: int, name: str, other: int, new: str) -> None:
        super().rename(folder, name, other, new)
        if self.begun:
            self.log.append(name.split(",")[1])
            self.renamed.release()

    def sync(self, folder: int) -> None:
        if self.begun:
            self._number += 1
            if self._number == 1:
                self.syncing.set()
                for _ in range(3):
                    assert self.renamed.acquire(timeout=PATIENCE)
                # Nothing tells when they have begun to wait for this sync to end.
                threading.Event().wait(0.3)
            if self._number == 2:
                raise Interrupted
        super().sync(folder)
        self.log.append("synced")


@posix
def test_nobody_is_told_of_a_sync_that_was_interrupted(tmp_path: Path) -> None:
    disk = Interrupting()
    store = FilesystemStore(tmp_path / "spool", disk=disk, clock=ManualClock())
    put(store, "first")
    acknowledged = []

    def submit(name: str) -> None:
        with contextlib.suppress(Interrupted):
            put(store, mail(name, priority=1))
            acknowledged.append((name, list(disk.log)))

    put(store, mail("second", priority=1))
    disk.begun = True
    threads = [threading.Thread(target=submit, args=(name,)) for name in "abc"]
    threads[0].start()
    assert disk.syncing.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    store.close()

    assert len(acknowledged) == 2
    for name, log in acknowledged:
        if name != "a":
            assert log[log.index(name) :].count("synced") > 1, f"{name} was acknowledged after {log}"

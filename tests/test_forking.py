"""What is done around a fork is done whole, also where a signal handler raises in the middle of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from outbox.errors import StoreUnavailable
from outbox.stores.forking import Hooks, _Forks
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import put, states


class Interrupt(BaseException):
    """What a signal handler raises."""


class Thing:
    """Notes what was done with it; *raises* comes in the middle of the first."""

    def __init__(self, *, raises: bool = False) -> None:
        self.done: list[str] = []
        self.raises = raises

    def before(self) -> None:
        if self.raises:
            self.raises = False
            raise Interrupt
        self.done.append("before")


HOOKS = Hooks(
    before=Thing.before,
    in_parent=lambda thing: thing.done.append("parent"),
    in_child=lambda thing: thing.done.append("child"),
)


def forks(*things: Thing) -> _Forks:
    forks = _Forks()
    forks._registered = True
    for thing in things:
        forks.watch(thing, HOOKS)
    return forks


def test_what_was_interrupted_before_a_fork_is_done_again_and_nothing_is_passed_over() -> None:
    things = Thing(), Thing(raises=True), Thing()
    watched = forks(*things)
    with pytest.raises(Interrupt):
        watched._before()
    watched._in_parent()

    assert [thing.done for thing in things] == [["before", "parent"]] * 3


def test_the_next_fork_finds_nothing_held() -> None:
    thing = Thing(raises=True)
    watched = forks(thing)
    with pytest.raises(Interrupt):
        watched._before()
    watched._in_parent()
    watched._before()
    watched._in_child()

    assert thing.done == ["before", "parent", "before", "child"]


def test_a_store_whose_closing_before_a_fork_never_came_to_its_end_is_none_in_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "outbox.db")
    put(store, "a")
    links = store._database._links

    def interrupted(lock: object) -> bool:
        raise Interrupt

    monkeypatch.setattr(links, "_hold", interrupted)
    with pytest.raises(Interrupt):
        links.before_fork(threading.RLock())
    abandoned = list(links)
    links.after_in_child()

    with pytest.raises(StoreUnavailable, match="in the middle of a transaction"):
        put(store, "b")
    links._unusable = ""
    assert states(store) == {"a": "queued"}
    store.close()
    for link in abandoned:
        link.close()

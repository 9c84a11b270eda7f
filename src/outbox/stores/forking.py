"""What has to be whole in a forked child: locks, and what they guard."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

__all__ = ["Hooks", "watch_forks", "whole_after_fork"]

_TRIES: Final = 10

T = TypeVar("T")
Lock: TypeAlias = "threading.Lock | threading.Condition"


@attrs.frozen(kw_only=True)
class Hooks(Generic[T]):
    """What is done with a thing around each fork of the process."""

    before: Callable[[T], object]
    in_parent: Callable[[T], object]
    in_child: Callable[[T], object]


class _Forks:
    """Everything that is watched, until nobody else has it any more.

    What is registered with ``os`` stays registered for as long as the process
    lives, so that is done once, however many stores come and go.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._numbers = itertools.count()
        self._watched: dict[int, tuple[weakref.ref[Any], Hooks[Any]]] = {}
        self._told: list[tuple[Any, Hooks[Any]]] = []
        self._registered = not hasattr(os, "register_at_fork")

    def watch(self, thing: T, hooks: Hooks[T]) -> None:
        with self._turn:
            if not self._registered:
                os.register_at_fork(
                    before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
                )
                self._registered = True
            number = next(self._numbers)
            self._watched[number] = weakref.ref(thing, lambda _: self._watched.pop(number, None)), hooks

    def _before(self) -> None:
        raised = _surely(self._turn.acquire)
        things = [(thing(), hooks) for thing, hooks in list(self._watched.values())]
        self._told = [(thing, hooks) for thing, hooks in things if thing is not None]
        # The last first, as `os` does it.
        for thing, hooks in reversed(self._told):
            raised = _surely(functools.partial(hooks.before, thing)) or raised
        if raised is not None:
            raise raised

    def _in_parent(self) -> None:
        for thing, hooks in self._over():
            hooks.in_parent(thing)

    def _in_child(self) -> None:
        for thing, hooks in self._over():
            hooks.in_child(thing)

    def _over(self) -> list[tuple[Any, Hooks[Any]]]:
        told, self._told = self._told, []
        self._turn.release()
        return told


def _surely(act: Callable[[], object]) -> BaseException | None:
    """Do it to its end, where a signal handler's exception comes between again: the fork is not stopped by that.

    Returns:
        What came between.
    """
    raised: BaseException | None = None
    for _ in range(_TRIES):
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - it is raised when all is done
            raised = error
        else:
            break
    return raised


_FORKS: Final = _Forks()
"""One for the process, as the list that `os` keeps is one."""


def watch_forks(thing: T, hooks: Hooks[T]) -> None:
    """Call these around each fork, for as long as *thing* lives; nothing where the platform cannot fork."""
    _FORKS.watch(thing, hooks)


def whole_after_fork(lock: Lock) -> None:
    """Let nobody fork this process while another thread holds *lock*.

    That thread is not there in the child, which would wait for ever for a
    lock that nobody holds, around things that were left half done.
    """
    watch_forks(lock, _HELD)


def _acquire(lock: Lock) -> None:
    lock.acquire()


def _release(lock: Lock) -> None:
    lock.release()


_HELD: Final = Hooks(before=_acquire, in_parent=_release, in_child=_release)

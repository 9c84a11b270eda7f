"""Locks that a forked child finds free, and what they guard whole."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, TypeAlias

__all__ = ["whole_after_fork"]

Lock: TypeAlias = "threading.Lock | threading.Condition"

_CAN_FORK: Final = hasattr(os, "register_at_fork")


def whole_after_fork(lock: Lock) -> None:
    """Let nobody fork this process while another thread holds *lock*.

    That thread is not there in the child, which would wait for ever for a
    lock that nobody holds, around things that were left half done.
    """
    if _CAN_FORK:
        across = _Across(lock)
        os.register_at_fork(
            before=across.take, after_in_parent=across.give_back, after_in_child=across.give_back
        )


class _Across:
    """Takes a lock over a fork; what is registered for forks is never dropped, and so may not keep the lock alive."""

    def __init__(self, lock: Lock) -> None:
        self._lock = weakref.ref(lock)
        self._taken: Lock | None = None

    def take(self) -> None:
        lock = self._lock()
        if lock is not None:
            lock.acquire()
            self._taken = lock

    def give_back(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.release()

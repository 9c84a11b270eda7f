"""One at a time on a connection that several threads share: one's savepoint would undo what another has put meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

import attrs

from .forking import Hooks, watch_forks

__all__ = ["alone_on"]


@attrs.define(eq=False)
class _Turn:
    """*waiting* counts who has it, too."""

    lock: threading.RLock = attrs.Factory(threading.RLock)
    waiting: int = 0


@attrs.define(eq=False, weakref_slot=True)
class _Turns:
    """Those that somebody has or waits for; by the connection's address, for not every driver's can be referred to weakly."""

    guard: threading.Lock = attrs.Factory(threading.Lock)
    by_address: dict[int, _Turn] = attrs.Factory(dict)

    def join(self, address: int) -> _Turn:
        with self.guard:
            turn = self.by_address.setdefault(address, _Turn())
            turn.waiting += 1
            return turn

    def leave(self, address: int, turn: _Turn) -> None:
        with self.guard:
            turn.waiting -= 1
            if not turn.waiting and self.by_address.get(address) is turn:
                del self.by_address[address]

    def forget(self) -> None:
        self.by_address.clear()
        self.guard.release()


_TURNS: Final = _Turns()
# Whoever had a turn is not there in a forked child.
watch_forks(
    _TURNS,
    Hooks(
        before=lambda turns: turns.guard.acquire(),
        in_parent=lambda turns: turns.guard.release(),
        in_child=_Turns.forget,
    ),
)


@contextlib.contextmanager
def alone_on(connection: object) -> Iterator[None]:
    """Wait until no other thread is here with the same connection; the same thread may come again."""
    turn = _TURNS.join(id(connection))
    try:
        with turn.lock:
            yield
    finally:
        _TURNS.leave(id(connection), turn)

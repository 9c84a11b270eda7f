"""What a main thread sleeps by: signals wake it, other threads ring, and pipes that have something to say."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import threading
from typing import Final, Self

__all__ = ["Bell"]

_MANY: Final = 4096


class Bell:
    """Made and waited for in the main thread; rung from any.  A context manager."""

    def __init__(self) -> None:
        # A pair of sockets and no pipe: on Windows only sockets can be waited for.
        self._heard, self._rope = socket.socketpair()
        self._heard.setblocking(False)
        self._rope.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._heard, selectors.EVENT_READ)
        # A handler in Python runs when the interpreter comes to it; only this
        # wakes a select() that the signal came just before.
        self._wakes = threading.current_thread() is threading.main_thread()
        if self._wakes:
            self._before = signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._wakes:
            signal.set_wakeup_fd(self._before)
        self._selector.close()
        self._heard.close()
        self._rope.close()

    def ring(self) -> None:
        """End the wait, or the next one."""
        with contextlib.suppress(OSError):
            self._rope.send(b"\0")

    def watch(self, descriptor: int) -> None:
        """Wake also when this pipe can be read, or has ended (POSIX)."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def forget(self, descriptor: int) -> None:
        """Do not wake for this pipe any more."""
        self._selector.unregister(descriptor)

    def wait(self, timeout: float | None) -> frozenset[int]:
        """Wait for at most *timeout* seconds; which of the watched pipes can be read."""
        ready = frozenset(key.fd for key, _ in self._selector.select(timeout))
        with contextlib.suppress(OSError):
            while self._heard.recv(_MANY):
                pass
        return ready - {self._heard.fileno()}

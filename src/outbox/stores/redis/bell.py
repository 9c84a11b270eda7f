"""A blocking read that is always under way, on a connection of its own: the server answers it when there is news.

It is never waited for with the socket alone: whoever sleeps before it can be
woken by any thread, as from every :class:`~outbox.waiting.Bed`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import weakref
from typing import Any

from .driver import Cut, Driver, Refused, Unreachable
from .tidings import NOTHING, Number, Tidings, number

__all__ = ["Bell"]


class Bell:
    """For one thread at a time, :meth:`release` apart."""

    def __init__(self, driver: Driver, key: str, tidings: Tidings) -> None:
        self._driver = driver
        self._key = key
        self._tidings = tidings
        self._pid = os.getpid()
        self._connection: Any = None
        self._under_way = False
        self._after = NOTHING
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        # When nobody has it any more: never while another thread may be about to write to it.
        self._closing = weakref.finalize(self, _close, self._woken, self._waker)

    @property
    def of_this_process(self) -> bool:
        """A forked child has to have one of its own."""
        return self._pid == os.getpid()

    def listen(self, after: Number) -> bool:
        """See that a read is under way for what comes after this piece of news; False where that cannot be now."""
        if self._under_way and after < self._after:
            # Another server has taken over, which is not so far.
            self.hang_up()
        if self._under_way:
            return True
        try:
            if self._connection is None:
                self._connection = self._driver.apart()
            self._driver.begin(
                self._connection, "XREAD", "BLOCK", 0, "STREAMS", self._key, f"{after[0]}-{after[1]}"
            )
        except (Unreachable, Refused):
            self.hang_up()
            return False
        self._under_way, self._after = True, after
        return True

    def hang_up(self) -> None:
        """Give the connection back; the next read has another."""
        connection, self._connection, self._under_way = self._connection, None, False
        if connection is not None:
            connection.disconnect()

    def acquire(self, *, timeout: float) -> None:
        """Sleep until the server answers, or somebody calls :meth:`release`; at most *timeout* seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            line = self._driver.socket_of(self._connection) if self._under_way else None
            if line is not None:
                selector.register(line, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(max(0.0, timeout))}
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if line is not None and line in ready:
            self._hear()

    def release(self) -> None:
        """Wake whoever sleeps, or keep the next one from it."""
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def _hear(self) -> None:
        self._under_way = False
        try:
            answer = self._driver.answer(self._connection)
        except (Cut, Refused):
            self.hang_up()
            return
        if answer:
            self._tidings.learn(number(answer[0][1][-1][0]))


def _close(*ends: socket.socket) -> None:
    for end in ends:
        end.close()

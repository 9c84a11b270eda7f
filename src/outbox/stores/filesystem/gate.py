"""Who is inside: a spool is closed when the last verb that uses it has returned."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from outbox.errors import StoreUnavailable

__all__ = ["Gate"]


class Gate:
    """Open until it is closed; whoever closes it waits for those inside."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        with self._turn:
            if self._closed:
                raise StoreUnavailable(f"the store {self._name} was closed: make a new FilesystemStore")
            self._inside += 1
        try:
            yield
        finally:
            with self._turn:
                self._inside -= 1
                self._turn.notify_all()

    def close(self) -> bool:
        """Whether it was open; it is closed and empty when this returns."""
        with self._turn:
            was_open = not self._closed
            self._closed = True
            self._turn.wait_for(lambda: not self._inside)
            return was_open

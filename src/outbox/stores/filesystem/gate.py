"""Who is inside: a spool is closed when the last verb that uses it has returned."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from outbox.errors import StoreUnavailable
from outbox.waiting import Waiting

__all__ = ["Gate"]


class Gate:
    """Open until it is closed; whoever closes it waits for those inside."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._leaving = Waiting()
        # By the visit, for a thread may come in twice; and by no count, which an exception would put out of step.
        self._inside: dict[object, int] = {}
        self.closed = False

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        visit = object()
        try:
            # In this order: whoever closes it sees this visit, or it sees that it is closed.
            self._inside[visit] = threading.get_ident()
            if self.closed:
                raise StoreUnavailable(f"the store {self._name} was closed: make a new FilesystemStore")
            yield
        finally:
            self._inside.pop(visit, None)
            if self.closed:
                self._leaving.wake()

    def visited(self, thread: int) -> bool:
        """Whether this thread is inside."""
        return thread in list(self._inside.values())

    def close(self) -> bool:
        """Whether it was open; it is closed and empty when this returns."""
        with self._lock:
            was_open = not self.closed
            self.closed = True
        self._leaving.wait_for(lambda: not self._inside)
        return was_open

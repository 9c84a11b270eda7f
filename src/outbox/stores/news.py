"""How threads of one process learn that there may be something to claim."""

from __future__ import annotations

import threading

from .forking import whole_after_fork

__all__ = ["News"]


class News:
    """A counter that rises with each piece of news, and remembers what each thread has seen.

    A thread has seen what there was when it last looked or last stopped
    waiting; so nothing slips between an empty claim and the wait after it,
    and each piece of news ends a thread's wait once.
    """

    def __init__(self) -> None:
        self._told = threading.Condition()
        self._count = 0
        self._thread = threading.local()
        whole_after_fork(self._told)

    def tell(self) -> None:
        """Something may have become claimable: end every wait."""
        with self._told:
            self._count += 1
            self._told.notify_all()

    def look(self) -> None:
        """This thread is about to see all that there is."""
        self._thread.seen = self._count

    def wait(self, seconds: float) -> bool:
        """Block until there is news for this thread; False where the time ran out."""
        with self._told:
            seen = self._thread.__dict__.setdefault("seen", self._count)
            patience = min(max(0.0, seconds), threading.TIMEOUT_MAX)
            if not self._told.wait_for(lambda: self._count != seen, patience):
                return False
            self.look()
            return True

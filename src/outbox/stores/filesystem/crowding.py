"""How much is in the queue, counted no more often than the limits ask for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from outbox.errors import StoreFull
from outbox.lifecycle import State
from outbox.stores.limits import Limits, Load
from outbox.waiting import Waiting

from . import walking
from .folders import Folders

__all__ = ["Crowd"]

_SECOND: Final = 1_000_000
_AT_ONCE: Final = 50_000
"""So many messages are counted in well under a second."""


class Crowd:
    """The queue as this store object last counted it, and what it has put in since.

    A refusal always follows a count.  What other processes put in after the
    last one is seen within a second, and within one more for every fifty
    thousand messages that wait: a count looks at all their names.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._turn = Waiting()
        self._counted_at: int | None = None
        self._held = Load()
        # Those that are being put: a count may have met them, or not.
        self._coming: dict[object, Load] = {}

    @contextlib.contextmanager
    def admitted(self, folders: Folders, new: Load, now: int) -> Iterator[None]:
        """So much more is put meanwhile; raises StoreFull where that is too much."""
        if not self._limits.any or not new.messages:
            yield
            return
        put = object()
        try:
            self._admit(folders, put, new, now)
            yield
        finally:
            self._coming.pop(put, None)
            self._turn.wake()

    def _admit(self, folders: Folders, put: object, new: Load, now: int) -> None:
        with self._lock:
            if self._outdated(now):
                self._count(folders, now)
            with contextlib.suppress(StoreFull):
                self._enter(put, new)
                return
        # It may be full of what is counted twice, or of what will not be put after all.
        while not self._entered_alone(folders, put, new, now):
            self._turn.wait_for(lambda: not self._coming)

    def _entered_alone(self, folders: Folders, put: object, new: Load, now: int) -> bool:
        with self._lock:
            if self._coming:
                return False
            self._count(folders, now)
            self._enter(put, new)
            return True

    def _enter(self, put: object, new: Load) -> None:
        self._limits.require_room(self._held, new)
        self._coming[put] = new
        self._held += new

    def _outdated(self, now: int) -> bool:
        patience = _SECOND * (1 + self._held.messages // _AT_ONCE)
        return self._counted_at is None or not 0 <= now - self._counted_at < patience

    def _count(self, folders: Folders, now: int) -> None:
        waiting = walking.walk(folders, states=(State.QUEUED, State.CLAIMED))
        found = Load.of(entry.size for entry in waiting)
        self._held = sum(list(self._coming.values()), found)
        self._counted_at = now

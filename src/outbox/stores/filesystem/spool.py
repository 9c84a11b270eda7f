"""What one process has open of a spool."""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import Final

from outbox.errors import StoreUnavailable
from outbox.stores.limits import Limits
from outbox.stores.news import News
from outbox.stores.watching import Watching

from .crowding import Crowd
from .disk import Disk
from .folders import Folders
from .gate import Gate
from .leases import Leases
from .opening import open_spool, recover
from .shelves import Shelves
from .steering import Places
from .suspending import Suspended

__all__ = ["Spool"]

_BELL: Final = "bell"
_DAYS: Final = 1 << 50
"""Thirteen, in nanoseconds."""


class Spool:
    """A forked child makes its own."""

    def __init__(self, disk: Disk, path: str, limits: Limits) -> None:
        self._path = path
        self.gate = Gate(path)
        self.news = News()
        self.watching = Watching(self.news, f"{path}/{_BELL}")
        self.seen = threading.local()
        self.folders: Folders = open_spool(disk, path)
        self._identity = disk.identity(self.folders.root.handle)
        self.leases = Leases(self.folders)
        self.shelves = Shelves(self.folders)
        self.crowd = Crowd(limits)
        self.suspended = Suspended()
        self.places = Places()

    def close(self) -> None:
        """Wait for those who use it, and give back its descriptors."""
        if self.gate.close():
            self._give_back()
        self.watching.close()
        self.news.tell()

    def abandon(self) -> None:
        """Give back its descriptors in a forked child, where nobody uses it but perhaps the thread that forked."""
        self.watching.abandon()
        if not self.gate.visited(threading.get_ident()):
            self._give_back()

    def _give_back(self) -> None:
        self.shelves.close()
        self.folders.close()

    def require_usable(self) -> None:
        """Raise StoreUnavailable where the path no longer leads to the directory that was opened.

        What is put into one that was deleted is gone, and what is put into
        one that was moved is where nobody looks.  One that could not be
        written to when it was opened is put right first; raises OSError.
        """
        found = self.folders.disk.identity(self._path)
        if found != self._identity:
            event = "moved or deleted" if found is None else "replaced by another directory"
            raise StoreUnavailable(
                f"{self._path} was {event} while it was in use: stop all programs that use it, put the right "
                "directory in its place, and start them again"
            )
        if not self.folders.recovered:
            recover(self.folders)
            self.folders.recovered = True

    def shut(self) -> Spool:
        """The same, for nobody to use."""
        self.gate = Gate(self._path)
        self.gate.close()
        return self

    def bell(self) -> int:
        """Another number whenever something may have come."""
        try:
            return self.folders.disk.stat(self.folders.root.handle, _BELL).mtime
        except FileNotFoundError:
            return 0

    def ring(self, now: int) -> None:
        """Tell this process and the others that something may have come; what they miss they find when they poll."""
        with contextlib.suppress(OSError):
            self.ring_out(now)
        self.news.tell()

    def ring_out(self, now: int) -> None:
        """The same where the others must not miss it; raises OSError."""
        self.shelves.changed()
        # The time is read by nobody: it only has to be another one each time, also where the file system
        # keeps whole seconds.  So it is any of the last days.
        stamp = now * 1000 - secrets.randbelow(_DAYS)
        self.folders.disk.touch(self.folders.root.handle, _BELL, stamp)
        self.news.tell()

"""What one process has open of a spool."""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import Final

from outbox.stores.limits import Limits
from outbox.stores.news import News

from .crowding import Crowd
from .disk import Disk
from .folders import Folders
from .gate import Gate
from .leases import Leases
from .opening import open_spool
from .shelves import Shelves
from .suspending import Suspended

__all__ = ["Spool"]

_BELL: Final = "bell"


class Spool:
    """A forked child makes its own."""

    def __init__(self, disk: Disk, path: str, limits: Limits) -> None:
        self._path = path
        self.gate = Gate(path)
        self.news = News()
        self.seen = threading.local()
        self.folders: Folders = open_spool(disk, path)
        self.leases = Leases(self.folders)
        self.shelves = Shelves(self.folders)
        self.crowd = Crowd(limits)
        self.suspended = Suspended()

    def close(self) -> None:
        """Wait for those who use it, and give back its descriptors."""
        if self.gate.close():
            self.shelves.close()
            self.folders.close()
        self.news.tell()

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
        # The time is read by nobody: it only has to be another one each time.
        stamp = now * 1000 + secrets.randbelow(10**9)
        self.folders.disk.touch(self.folders.root.handle, _BELL, stamp)
        self.news.tell()

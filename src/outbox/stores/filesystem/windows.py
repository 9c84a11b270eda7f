"""Windows on folders of tickets: the few that are next, read on as they are used up.

A folder may hold any number of tickets, and a claim wants ten.  So a window
reads a thousand names, and stays open: the next claims take from it, and
when it runs low it goes on where it stopped.  A name whose ticket has been
taken by another process costs one failed rename.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Hashable, Iterable
from typing import Final

from .disk import Kind, Listing
from .folders import Folders
from .names import Path, Ticket

__all__ = ["WIDTH", "Window"]

WIDTH: Final = 1000
LAST: Final = "~"
"""Sorts after every ticket."""
_LOW: Final = 100
_NEVER_LOST: Final = ",l000,"


class Window:
    """The tickets of one folder that are known to be there.  Not safe from many threads.

    Attributes:
        names: Sorted: the earliest due is first.
        suspects: Likewise, those with claims that never settled.
        tickets: All of them, by their names.
    """

    def __init__(self, folders: Folders, path: Path) -> None:
        self._folders = folders
        self.path = path
        self.names: list[str] = []
        self.suspects: list[str] = []
        self.tickets: dict[str, Ticket] = {}
        self._listing: Listing | None = None
        self._mark: Hashable = None

    def __len__(self) -> int:
        return len(self.names) + len(self.suspects)

    @property
    def whole(self) -> bool:
        """Whether there is no more in the folder than what it shows."""
        return self._listing is None

    def look(self, mark: Hashable, until: str = LAST) -> None:
        """See what is there and sorts before *until*; where *mark* is new, something may have come.

        Afterwards it is empty only where nothing was there, or where not all could be read yet.
        """
        anew = self.whole and mark != self._mark
        if anew:
            self._begin(mark)
        if len(self) < _LOW:
            self._read_on(until)
        if not len(self) and self.whole and not anew:
            self._begin(mark)
            self._read_on(until)

    def take(self, names: Iterable[str]) -> None:
        """Show these no more."""
        for name in names:
            self.tickets.pop(name, None)
            kind = self.names if _NEVER_LOST in name else self.suspects
            place = bisect.bisect_left(kind, name)
            if kind[place : place + 1] == [name]:
                del kind[place]

    def stands(self) -> bool:
        """Whether one of those that it shows is there; it shows no more those that it found gone."""
        while len(self):
            name = (self.names or self.suspects)[0]
            try:
                self._folders.stat(self.path, name)
            except FileNotFoundError:
                self.take([name])
            else:
                return True
        return False

    def close(self) -> None:
        if self._listing is not None:
            self._listing.close()
            self._listing = None

    def _begin(self, mark: Hashable) -> None:
        self.close()
        self.names, self.suspects, self.tickets = [], [], {}
        self._mark = mark
        with contextlib.suppress(FileNotFoundError):
            self._listing = self._folders.listing(self.path)

    def _read_on(self, until: str) -> None:
        if self._listing is None:
            return
        shown = self.tickets
        for _ in range(WIDTH - len(shown)):
            name, kind = next(self._listing, ("", Kind.FILE))
            if not name:
                self.close()
                break
            # What is no ticket would stand in the way of those behind it for ever.
            if kind is Kind.FILE and name < until and (ticket := Ticket.parse(name)) is not None:
                shown[name] = ticket
        self.names = sorted(name for name in shown if _NEVER_LOST in name)
        self.suspects = sorted(name for name in shown if _NEVER_LOST not in name)

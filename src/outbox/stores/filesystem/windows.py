"""Windows on folders of tickets: the few that are next, read on as they are used up.

A folder may hold any number of tickets, and a claim wants ten.  So a window
reads a thousand names, and stays open: the next claims take from it, and
when it runs low it goes on where it stopped.  A name whose ticket has been
taken by another process costs one failed rename.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Hashable
from typing import Final

from .disk import Kind, Listing
from .folders import Folders
from .names import Path

__all__ = ["WIDTH", "Window"]

WIDTH: Final = 1000
LAST: Final = "~"
"""Sorts after every ticket."""
_LOW: Final = 100
_COMMAS: Final = 8


class Window:
    """The tickets of one folder that are known to be there.  Not safe from many threads.

    Attributes:
        names: Sorted: the earliest due is first.  They are not taken apart
            before they are wanted.
    """

    def __init__(self, folders: Folders, path: Path) -> None:
        self._folders = folders
        self.path = path
        self.names: list[str] = []
        self._listing: Listing | None = None
        self._mark: Hashable = None

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
        if len(self.names) < _LOW:
            self._read_on(until)
        if not self.names and self.whole and not anew:
            self._begin(mark)
            self._read_on(until)

    def take(self, names: Collection[str]) -> None:
        """Show these no more."""
        self.names = [name for name in self.names if name not in names]

    def close(self) -> None:
        if self._listing is not None:
            self._listing.close()
            self._listing = None

    def _begin(self, mark: Hashable) -> None:
        self.close()
        self.names = []
        self._mark = mark
        with contextlib.suppress(FileNotFoundError):
            self._listing = self._folders.listing(self.path)

    def _read_on(self, until: str) -> None:
        if self._listing is None:
            return
        shown = set(self.names)
        for _ in range(WIDTH - len(shown)):
            name, kind = next(self._listing, ("", Kind.FILE))
            if not name:
                self.close()
                break
            if kind is Kind.FILE and name.count(",") == _COMMAS and name < until:
                shown.add(name)
        self.names = sorted(shown)

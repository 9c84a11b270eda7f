"""The names under ``ids/``: one for every message that is known, a hard link to its file.

A name stands for a message only where its file is that of a ticket or of a
tombstone.  Taking a name is a link, which fails where it is taken.  A name is
given up under a lock of its folder, so that whoever looked first gives up
what it looked at, and not another message that has come since.  Nothing here
is synced: after a loss of power the names are made anew from the tickets.
"""

from __future__ import annotations

import contextlib
from typing import Final

from .disk import Status
from .folders import Folders
from .names import GONE, Path, ids_path

__all__ = ["forget", "free", "give_up", "is_gone", "stands", "status", "withdraw"]

_OURS: Final = 2
"""So many names a message's file has: its ticket and its id.  More are those of a backup by hard links."""


def status(folders: Folders, id: str) -> Status | None:
    """What the name leads to; None where the id is not known."""
    try:
        return folders.disk.stat(folders.get(ids_path(id)).handle, id)
    except FileNotFoundError:
        return None


def free(folders: Folders, id: str) -> None:
    """Give the name up where it is the only one of its file: its message is gone, or never came."""
    _give_up(folders, id, None)


def is_gone(folders: Folders, id: str, inode: int) -> bool:
    """Whether the file that the name leads to is that of a message that was removed."""
    try:
        return folders.disk.stat(folders.get(GONE).handle, id).inode == inode
    except FileNotFoundError:
        return False


def stands(folders: Folders, id: str, inode: int) -> bool:
    """Whether the name leads to this file, and the file has another name in the spool: asked of no draft."""
    found = status(folders, id)
    if found is not None and found.links > _OURS:
        # The names of a backup hide whether ours is still among them; so nobody may be withdrawing it meanwhile.
        with folders.disk.lock(folders.need(ids_path(id)).handle):
            found = status(folders, id)
    return found is not None and found.inode == inode and found.links > 1


def withdraw(folders: Folders, path: Path, name: str, id: str) -> bool:
    """Take back a draft, or a ticket that nobody has touched, and the name where it leads there.

    The ticket first: whoever finishes a put of somebody else's renames its
    draft, so that one of the two has it.

    Returns:
        Whether it was still there.
    """
    folder = folders.need(ids_path(id)).handle
    with folders.disk.lock(folder):
        try:
            found = folders.disk.stat(folders.get(path).handle, name)
        except FileNotFoundError:
            return False
        if not folders.unlink(path, name):
            return False
        # One without another name is no more, and its number may be a stranger's by now.  What
        # cannot be given up here says nothing: the next put of this id, or a start, does it.
        with contextlib.suppress(OSError):
            known = status(folders, id) if found.links > 1 else None
            if known is not None and known.inode == found.inode:
                folders.disk.unlink(folder, id)
        return True


def forget(folders: Folders, path: Path, name: str, id: str) -> bool:
    """Remove a message: its name first, so that a ticket without one is a message that is gone.

    While the ticket is there no other file can have its inode: so what is
    removed is its own name, and not that of a message which has come since.

    Returns:
        Whether the name was still this message's.
    """
    try:
        found = folders.disk.stat(folders.get(path).handle, name)
    except FileNotFoundError:
        return False
    known = _give_up(folders, id, found.inode)
    folders.unlink(path, name)
    return known


def _give_up(folders: Folders, id: str, inode: int | None) -> bool:
    """Remove the name where it leads to *inode*, or to a file with no other name."""
    folder = folders.need(ids_path(id)).handle
    with folders.disk.lock(folder):
        found = status(folders, id)
        if found is None or (found.links != 1 if inode is None else found.inode != inode):
            return False
        folders.disk.unlink(folder, id)
        return True


def give_up(folders: Folders, id: str, inode: int) -> bool:
    """Give the name up where it still leads to this file."""
    return _give_up(folders, id, inode)

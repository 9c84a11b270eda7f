"""The names under ``ids/``: one for every message that is known, a hard link to its file.

Taking a name is a link, which fails where it is taken.  A name is given up
under a lock of its folder, so that whoever looked first gives up what it
looked at, and not another message that has come since.  Nothing here is
synced: after a loss of power the names are made anew from the tickets.
"""

from __future__ import annotations

from .disk import Status
from .folders import Folders
from .names import GONE, Path, ids_path

__all__ = ["forget", "free", "give_up", "is_gone", "status"]


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

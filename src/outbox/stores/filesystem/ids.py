"""The names under ``ids/``: one for every message that is known, a hard link to its file.

A name stands for a message only where its file is that of a ticket or of a
tombstone.  Taking a name is a link, which fails where it is taken.  A name is
given up under a lock of its folder, so that whoever looked first gives up
what it looked at, and not another message that has come since.  Nothing here
is synced: after a loss of power the names are made anew from the tickets.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Final

from .disk import Kind, Status
from .folders import Folders
from .names import GONE, IDS, Path, Ticket, ids_path

__all__ = ["OURS", "forget", "free", "give_up", "is_gone", "some", "status", "withdraw"]

OURS: Final = 2
"""So many names a message's file has: its ticket and its id.  More are those of a backup by hard links."""


def status(folders: Folders, id: str) -> Status | None:
    """What the name leads to; None where the id is not known."""
    try:
        return folders.stat(ids_path(id), id)
    except FileNotFoundError:
        return None


def some(folders: Folders) -> Iterator[str]:
    """Every id that is known, in an order that nobody can tell."""
    shards = folders.subfolders(IDS)
    start = secrets.randbelow(len(shards) or 1)
    for shard in shards[start:] + shards[:start]:
        yield from filter(Ticket.is_id, folders.entries((*IDS, shard), Kind.FILE))


def free(folders: Folders, id: str) -> None:
    """Give the name up where it is the only one of its file: its message is gone, or never came."""
    _give_up(folders, id, None)


def is_gone(folders: Folders, id: str, inode: int) -> bool:
    """Whether the file that the name leads to is that of a message that was removed."""
    try:
        return folders.stat(GONE, id).inode == inode
    except FileNotFoundError:
        return False


def withdraw(folders: Folders, path: Path, name: str, id: str) -> bool:
    """Take back a draft, or a ticket that nobody has touched, and the name where it leads there.

    Whoever finishes a put of somebody else's renames its draft, and so is it
    done here: one of the two has it.  It is put aside before its name goes,
    as what is removed for good is: so the name is seen to be that of no
    message, whatever happens in between and whoever else has the file.

    Returns:
        Whether it was still there.
    """
    with folders.lock(ids_path(id)) as folder:
        named = _is_named(folders, path, name, id)
        if named is None:
            return False
        if not named:
            return folders.unlink(path, name)
        if not _put_aside(folders, path, name, id):
            return False
        # What cannot be given up here says nothing: the next put of this id, or a start, does it.
        with contextlib.suppress(OSError):
            folders.disk.unlink(folder, id)
            folders.unlink(GONE, id)
        return True


def _put_aside(folders: Folders, path: Path, name: str, id: str) -> bool:
    try:
        return folders.move(path, name, GONE, id)
    except OSError:
        # There is no room even for that.
        return folders.unlink(path, name)


def forget(folders: Folders, path: Path, name: str, id: str) -> bool:
    """Remove a message: its name first, so that a ticket without one is a message that is gone.

    While the ticket is there no other file can have its inode, and it goes
    only under the lock: so what is removed is its own name, and not that of
    a message which has come since.

    Returns:
        Whether the name was still this message's.
    """
    with folders.lock(ids_path(id)) as folder:
        named = _is_named(folders, path, name, id)
        if named is None:
            return False
        if named:
            folders.disk.unlink(folder, id)
        folders.unlink(path, name)
        return named


def _is_named(folders: Folders, path: Path, name: str, id: str) -> bool | None:
    """Whether the id, whose folder is locked, leads to this file; None where the file is not there any more."""
    try:
        found = folders.stat(path, name)
    except FileNotFoundError:
        return None
    known = status(folders, id)
    return known is not None and known.inode == found.inode


def _give_up(folders: Folders, id: str, inode: int | None) -> bool:
    """Remove the name where it leads to *inode*, or to a file with no other name."""
    with folders.lock(ids_path(id)) as folder:
        found = status(folders, id)
        if found is None or (found.links != 1 if inode is None else found.inode != inode):
            return False
        folders.disk.unlink(folder, id)
        return True


def give_up(folders: Folders, id: str, inode: int) -> bool:
    """Give the name up where it still leads to this file."""
    return _give_up(folders, id, inode)

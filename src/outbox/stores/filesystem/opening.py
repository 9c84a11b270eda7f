"""How a spool is opened: made where there is none, refused where it is not ours, and put right after a crash."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Collection, Iterable
from typing import Final

from outbox.errors import ConfigurationError, CorruptRecord, FormatError, UnsupportedError

from . import body, ids, leftovers, moving, reading, transitions, walking
from .disk import Disk, Kind, Status
from .folders import Folders
from .names import IDS, Path, Ticket, ids_path

__all__ = ["is_blank", "open_spool", "recover"]

VERSION: Final = 1
_EVER: Final = 1 << 62
_DRAFT: Final = "format."
_FORMAT: Final = f"outbox spool {VERSION}\n".encode()


def is_blank(path: str | os.PathLike[str]) -> bool:
    """Whether opening it would make a spool in this directory; where it cannot be told, opening it will tell."""
    try:
        names = os.listdir(path)  # noqa: PTH208 - the seam speaks of strings
    except OSError:
        return False
    return "format" not in names and not _foreign(names)


def open_spool(disk: Disk, path: str) -> Folders:
    """The spool at this path.

    Raises:
        ConfigurationError: it is no place for one, or something else's.
        FormatError: a newer release wrote it.
        UnsupportedError: the file system has no hard links.
        OSError: it cannot be opened now.
    """
    folders = Folders(disk, _root(disk, path))
    try:
        _require_format(folders, path)
        _recover_if_writable(folders)
    except BaseException:
        folders.close()
        raise
    return folders


def _root(disk: Disk, path: str) -> int:
    try:
        return disk.open_root(path)
    except FileNotFoundError:
        pass
    except NotADirectoryError as error:
        raise ConfigurationError(
            f"{path} is no directory: name one, or a path where there is nothing"
        ) from error
    try:
        with contextlib.suppress(FileExistsError):
            disk.make_root(path)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path}: there is no directory {os.path.dirname(path)}: create it first"  # noqa: PTH120 - the seam speaks of strings
        ) from error
    return disk.open_root(path)


def _require_format(folders: Folders, path: str) -> None:
    root = folders.root.handle
    try:
        found = folders.disk.read(root, "format", 100)[1]
    except FileNotFoundError:
        _make_format(folders, path)
        return
    if found != _FORMAT:
        raise FormatError(
            f"{path} has the format {found[:40].decode(errors='replace')!r}, this release reads "
            f"{_FORMAT.decode()!r}: upgrade outbox"
        )


def _make_format(folders: Folders, path: str) -> None:
    root = folders.root.handle
    if foreign := _foreign(name for name, _ in _entries(folders, ())):
        raise ConfigurationError(
            f"{path} is no spool, and holds {foreign[0]!r}: name an empty directory, or one that does not exist"
        )
    draft = _DRAFT + secrets.token_hex(8)
    folders.disk.create(root, draft, _FORMAT)
    # Whoever sees the format puts; and whoever made the directory may have been killed before it synced anything.
    folders.disk.anchor_root(root)
    try:
        folders.disk.link(root, draft, root, "format")
    except (FileExistsError, FileNotFoundError):
        # Another process was quicker, and did the same; it may even have taken the draft for one that was left.
        _require_format(folders, path)
    except PermissionError as error:
        raise UnsupportedError(f"{path}: this file system has no hard links: use another") from error
    finally:
        folders.unlink((), draft)
    folders.root.sync()
    # With it from the beginning, so that each copy has the same; where there is no room now, it is drawn when it is asked for.
    with contextlib.suppress(OSError):
        moving.identity(folders)


def _foreign(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("format")]


def _entries(folders: Folders, path: Path) -> list[tuple[str, Kind]]:
    with contextlib.closing(folders.listing(path)) as listing:
        return list(listing)


# -- after a crash


def _recover_if_writable(folders: Folders) -> None:
    try:
        recover(folders)
    except OSError as error:
        # What cannot be written to can be looked at; whoever writes to it later sees to it before.
        if error.errno != errno.EROFS:
            raise
        folders.recovered = False


def recover(folders: Folders) -> None:
    """Once in the life of the machine; where that cannot be told, at every opening.

    Others may be at work meanwhile: a container may have a ``boot`` of its
    own on the same machine.  So nothing is done here that they mind.  Who
    opens the spool in the same life of the machine waits until it is done.
    """
    disk, root = folders.disk, folders.root.handle
    boot = disk.boot()
    if boot and _swept(folders) == boot:
        return
    with disk.lock(root):
        if boot and _swept(folders) == boot:
            return
        _sweep(folders)
        if boot:
            draft = _DRAFT + secrets.token_hex(8)
            disk.create(root, draft, boot.encode())
            disk.rename(root, draft, root, "boot")


def _swept(folders: Folders) -> str:
    try:
        return folders.disk.read(folders.root.handle, "boot", 100)[1].decode(errors="replace")
    except FileNotFoundError:
        return ""


def _sweep(folders: Folders) -> None:
    """Make the names under ``ids/`` anew from the tickets, and give up those that lead to no message.

    Drafts and notes that nothing leads to are left to prune: they may be
    those of a put or a settle that is under way.
    """
    _remove_format_drafts(folders)
    # One folder that cannot be read is no reason to open none; `check` names it, and what has no name then.
    way = walking.Detour(failing=True)
    with way.around():
        leftovers.remove_gone(folders)
    standing: set[int] = set()
    for entry in walking.walk(folders, detour=way):
        if (ticket := Ticket.parse(entry.name)) is not None:
            with way.around():
                _name(folders, entry.path, ticket, standing)
    for path, name in walking.tombstones(folders, way):
        if (ticket := Ticket.parse(name)) is not None:
            with way.around():
                _name_tombstone(folders, path, ticket, standing)
    _sweep_ids(folders, standing, way)
    with way.around():
        for path, ticket in leftovers.uncut(folders, _EVER):
            transitions.cut(folders, path, ticket)


def _remove_format_drafts(folders: Folders) -> None:
    for name, kind in _entries(folders, ()):
        if kind is Kind.FILE and name.startswith(_DRAFT):
            folders.unlink((), name)


def _sweep_ids(folders: Folders, standing: Collection[int], way: walking.Detour) -> None:
    """Give up the names whose files are those of no message.

    A file without another name is no message's for certain.  One that has
    just one other may be on the move, or a draft.  Only of more, which are
    those of a backup by hard links, it is looked whether one is a ticket.

    Args:
        standing: The files of the tickets and tombstones that were met.
        way: What was passed by; where anything was, its tickets were not met.
    """
    doubtful: dict[str, int] = {}
    for folder in way.found(folders.subfolders, IDS):
        with way.around():
            doubtful |= _free(folders, folder, standing)
    if not way.errors:
        for id in walking.search(folders, doubtful)[1]:
            ids.give_up(folders, id, doubtful[id])


def _free(folders: Folders, folder: str, standing: Collection[int]) -> dict[str, int]:
    """Give up the names in this folder whose file has no other; those that are in doubt, with their files."""
    doubtful: dict[str, int] = {}
    for id in folders.entries((*IDS, folder), Kind.FILE):
        found = ids.status(folders, id) if Ticket.is_id(id) else None
        if found is None:
            continue
        if found.links == 1:
            ids.free(folders, id)
        elif found.links > ids.OURS and found.inode not in standing:
            doubtful[id] = found.inode
    return doubtful


def _name(folders: Folders, path: Path, ticket: Ticket, standing: set[int]) -> None:
    """See that the id leads to the file of this ticket."""
    try:
        handle = folders.get(path).handle
        found = folders.disk.stat(handle, ticket.name)
        if found.kind is not Kind.FILE:
            return
        standing.add(found.inode)
        other = ids.status(folders, ticket.id)
        if other is not None and other.inode != found.inode and _older(folders, ticket):
            ids.give_up(folders, ticket.id, other.inode)
        if other is None or other.inode != found.inode:
            _link(folders, handle, ticket)
    except FileNotFoundError:
        return  # it has moved on, and so is not what a crash has left


def _link(folders: Folders, handle: int, ticket: Ticket) -> None:
    with contextlib.suppress(FileExistsError):
        folders.disk.link(handle, ticket.name, folders.need(ids_path(ticket.id)).handle, ticket.id)


def _older(folders: Folders, ticket: Ticket) -> bool:
    """Whether the id leads to an earlier message than this ticket's, or to none that can be read."""
    try:
        _, data = reading.head(folders, ids_path(ticket.id), ticket.id, body.HEAD)
        return body.header(data).ticket.submitted <= ticket.submitted
    except FileNotFoundError:
        return False
    except (CorruptRecord, FormatError):
        return True


def _name_tombstone(folders: Folders, path: Path, ticket: Ticket, standing: set[int]) -> None:
    """The same for a tombstone; but the id may be that of a message that was put since."""
    try:
        handle = folders.get(path).handle
        found = folders.disk.stat(handle, ticket.name)
        if found.kind is not Kind.FILE:
            return
        other = ids.status(folders, ticket.id)
        if other is not None and _is_older(folders, ticket, other, found, standing):
            ids.give_up(folders, ticket.id, other.inode)
            other = None
        standing.add(found.inode)
        if other is None:
            _link(folders, handle, ticket)
    except FileNotFoundError:
        return
    if not found.buried:
        transitions.bury(folders, path, ticket)


def _is_older(folders: Folders, ticket: Ticket, other: Status, found: Status, standing: set[int]) -> bool:
    return other.inode != found.inode and other.inode not in standing and _older(folders, ticket)

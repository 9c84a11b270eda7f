"""Walks through the names of the tickets: no file is opened, and nothing is kept in memory.

A ticket that moves meanwhile may be met twice, or not at all; whoever must
have it walks again.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, ParamSpec, TypeVar

import attrs

from outbox.errors import ConfigurationError, CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import State

from . import body, ids, reading
from .disk import Kind
from .folders import Folders
from .names import (
    CLAIMED,
    LATER,
    QUEUES,
    READY,
    REMEMBERED,
    TMP,
    Path,
    Ticket,
    ids_path,
    queue_of,
    slot_start,
)

__all__ = [
    "Detour",
    "Entry",
    "Place",
    "find",
    "priorities",
    "queue_folders",
    "refused",
    "search",
    "slots",
    "tombstones",
    "walk",
]

P = ParamSpec("P")
T = TypeVar("T")

_WALKS: Final = 10
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR})
_FAILING: Final = frozenset({errno.EIO, errno.ESTALE, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)})
"""What a disk says that fails in one folder, and perhaps in no other."""


class Detour:
    """Passes by the folders that must not be entered, and remembers why.

    Args:
        failing: Whether those that cannot be read are passed by, too: not by
            a list, which would be taken for whole.
    """

    def __init__(self, *, failing: bool = False) -> None:
        self._failing = failing
        self.errors: list[Exception] = []

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Go on behind this where a folder in it cannot be entered."""
        try:
            yield
        except (ConfigurationError, OSError) as error:
            fails = self._failing and getattr(error, "errno", None) in _FAILING
            if not (fails or refused(error)):
                raise
            self.errors.append(error)

    def found(self, look: Callable[P, list[T]], *args: P.args, **named: P.kwargs) -> list[T]:
        """What is seen there; nothing where it cannot be entered."""
        with self.around():
            return look(*args, **named)
        return []


@attrs.frozen
class Entry:
    """A ticket by its name, which may still turn out to be no ticket's: it may tell of the 30th of February."""

    queue: str
    state: State
    path: Path
    name: str

    @property
    def id(self) -> str:
        return self.name.split(",", 2)[1]

    @property
    def size(self) -> int:
        """Bytes of content."""
        return int(self.name.rpartition(",b")[2])


@attrs.frozen(kw_only=True)
class Place:
    """A ticket, and where it was met."""

    queue: str
    state: State
    path: Path
    ticket: Ticket


def queue_folders(folders: Folders, only: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """The queues there are, with their folders; ``()`` is all."""
    for name in folders.subfolders(QUEUES):
        if not only or queue_of(name) in only:
            folders.renew((*QUEUES, name))
            yield queue_of(name), (*QUEUES, name)


def slots(folders: Folders, path: Path) -> list[Path]:
    """The slots in a folder, in the order of their beginning."""
    found = [(start, name) for name in folders.subfolders(path) if (start := slot_start(name)) is not None]
    return [(*path, name) for _, name in sorted(found)]


def priorities(folders: Folders, queue: Path) -> list[Path]:
    """The folders of the ready tickets of a queue, the highest priority first."""
    found = []
    for name in folders.subfolders((*queue, READY)):
        try:
            found.append((-int(name), name))
        except ValueError:
            continue
    return [(*queue, READY, name) for _, name in sorted(found)]


def walk(
    folders: Folders,
    *,
    states: Collection[State] = (),
    queues: Collection[str] = (),
    detour: Detour | None = None,
) -> Iterator[Entry]:
    """Every ticket of these states and queues; ``()`` is all.

    Args:
        detour: Is told of the folders that were passed by, which `check` names.
    """
    way = detour or Detour()
    for queue, path in queue_folders(folders, queues):
        for state in states or State:
            yield from _tickets(folders, queue, path, state, way)


def _tickets(folders: Folders, queue: str, path: Path, state: State, way: Detour) -> Iterator[Entry]:
    for folder in _folders_of(folders, path, state, way):
        with way.around():
            for name in folders.entries(folder, Kind.FILE):
                if Ticket.is_name(name):
                    yield Entry(queue, state, folder, name)


def refused(error: Exception) -> bool:
    """Whether a folder is none that may be entered: others can write to it, or something else stands there."""
    return isinstance(error, ConfigurationError) or getattr(error, "errno", None) in _REFUSED


def _folders_of(folders: Folders, queue: Path, state: State, way: Detour) -> Iterator[Path]:
    """In the order in which a ticket wanders through them, so that few are missed."""
    if state is State.QUEUED:
        yield from way.found(slots, folders, (*queue, LATER))
        for priority in way.found(priorities, folders, queue):
            yield from way.found(slots, folders, priority)
    else:
        yield from way.found(slots, folders, (*queue, CLAIMED if state is State.CLAIMED else state.value))


def tombstones(folders: Folders, detour: Detour | None = None) -> Iterator[tuple[Path, str]]:
    """Every remembered id: folder and name, in the order of the slots; *detour* as in :func:`walk`."""
    way = detour or Detour()
    for path in way.found(slots, folders, REMEMBERED):
        with way.around():
            for name in folders.entries(path, Kind.FILE):
                if Ticket.is_name(name):
                    yield path, name


def find(folders: Folders, wanted: Iterable[str]) -> dict[str, Place]:
    """Where these messages are, those that there are.

    Raises:
        StoreUnavailable: one of them moves so fast that it cannot be found.
    """
    found, missing = search(folders, wanted)
    if missing:
        raise StoreUnavailable(
            f"the message {min(missing)} moves faster than it can be found: try again; where that goes on, "
            "look with `outbox check` whether its folder cannot be entered"
        )
    return found


def search(folders: Folders, wanted: Iterable[str]) -> tuple[dict[str, Place], set[str]]:
    """The same, and those that may be there and were met on no walk."""
    found: dict[str, Place] = {}
    missing = {id for id in wanted if _may_be_there(folders, id)}
    for _ in range(_WALKS):
        if not missing:
            break
        for entry in walk(folders):
            if entry.id in missing and (ticket := Ticket.parse(entry.name)) is not None:
                found[ticket.id] = Place(queue=entry.queue, state=entry.state, path=entry.path, ticket=ticket)
        missing -= set(found)
        if missing:
            missing -= {id for _, name in tombstones(folders) if (id := name.split(",", 2)[1]) in missing}
            missing = {id for id in missing if _may_be_there(folders, id)}
    return found, missing


def _may_be_there(folders: Folders, id: str) -> bool:
    """Whether the id is that of a message: not of a tombstone, and not of a put that is under way."""
    status = ids.status(folders, id) if Ticket.is_id(id) else None
    if status is None or status.links == 1 or status.buried or ids.is_gone(folders, id, status.inode):
        return False
    try:
        _, data = reading.head(folders, ids_path(id), id, body.HEAD)
        draft = body.header(data).first.name
        folders.stat(TMP, draft)
    except (FileNotFoundError, CorruptRecord, FormatError):
        return True
    return False

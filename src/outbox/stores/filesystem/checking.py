"""Whether all is well with a spool: what cannot be read, what is none of ours, and what a crash has left."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from outbox.errors import ConfigurationError, CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import State
from outbox.protocols import Finding
from outbox.stores import surroundings
from outbox.stores.content import Codings
from outbox.stores.names import is_queue
from outbox.values import printable

from . import announcing, body, ids, leftovers, moving, notes, reading, suspending, walking
from .disk import Kind
from .folders import Folders
from .names import (
    CLAIMED,
    GONE,
    HERE,
    IDS,
    LATER,
    MOVING,
    NOTES,
    QUEUES,
    READY,
    REMEMBERED,
    SECOND,
    SUSPENDED,
    TMP,
    Path,
    Ticket,
    queue_of,
    slot_start,
)
from .walking import Entry

__all__ = ["check"]

T = TypeVar("T")

_SHOWN: Final = 5
_MINUTE: Final = 60 * SECOND
"""So long a settle may take that is still under way."""


def check(folders: Folders, path: str, codings: Codings, now: int) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`; it reads every file."""
    yield Finding("ok", f"{path} is a spool of version 1, every put and settle synced")
    look = _Look()
    unreadable = list(look.at(_unreadable(folders, codings)))
    yield from look.shown(
        "error",
        "cannot be read",
        "they end HELD when they are claimed",
        (text for text, known in unreadable if known),
    )
    yield from look.shown(
        "warning",
        "have content in a coding that this store was opened without",
        "open it with that coding, or nothing of their queues can be claimed",
        (text for text, known in unreadable if not known),
    )
    yield from look.shown(
        "warning",
        "are none of ours, and are left alone",
        "see who put them there, and remove them",
        _strangers(folders, ()),
    )
    yield from look.shown(
        "error",
        "are open to others, or another user's",
        f"chown and chmod -R go-rwx {path}",
        _open_to_others(folders, ()),
    )
    yield from look.shown(
        "error",
        "have no name under ids/: their id may be stored twice",
        "stop all programs that use the spool, delete its file `boot`, and open it again",
        itertools.chain(_nameless(folders), _nameless_tombstones(folders)),
    )
    yield from look.shown(
        "error",
        "are a second ticket of a message, which may be sent twice",
        "they come from a copy of a spool that was in use: stop all programs that use this one, and of the two "
        "remove the older, which has the lower g, or n",
        _doubled(folders),
    )
    yield from look.shown(
        "warning",
        "are names under ids/ of messages that are not there",
        "a kill leaves such a name, which the next put of the id frees; in a copy of a spool that was in use the "
        "message was lost: look for it in the original",
        _forlorn(folders),
    )
    yield from look.shown(
        "warning",
        "hold content that is not to be kept, for whoever settled them was killed",
        "prune takes it out, once a day",
        _uncut(folders, now - _MINUTE),
    )
    yield from look.shown(
        "warning",
        "are drafts of puts that were cut short more than a day ago",
        "prune removes them",
        leftovers.drafts(folders, now),
    )
    yield from look.shown(
        "warning",
        "are notes that no ticket has named for more than a day",
        "prune removes them",
        (notes.name_of(*each) for each in leftovers.orphans(folders, now)),
    )
    yield from look.at(moving.check(folders, now))
    yield from look.at(_clock(folders, now))
    yield from look.failures()


class _Look:
    """What was found, and where looking failed: that ends no check."""

    def __init__(self) -> None:
        self._failed: list[str] = []

    def at(self, found: Iterable[T]) -> Iterator[T]:
        try:
            yield from found
        except OSError as error:
            self._failed.append(error.strerror or str(error))
        except ConfigurationError as error:
            self._failed.append(str(error))

    def shown(self, level: str, what: str, advice: str, found: Iterable[str]) -> Iterator[Finding]:
        number, names, failed = 0, [], len(self._failed)
        for name in self.at(found):
            number += 1
            if number <= _SHOWN:
                names.append(printable(name))
        if number:
            more = f" and {number - len(names)} more" if number > len(names) else ""
            text = f"{number} files {what}: {', '.join(names)}{more}"
            yield Finding("error" if level == "error" else "warning", text, advice)
        elif failed == len(self._failed):
            yield Finding("ok", f"no files {what}")

    def failures(self) -> Iterator[Finding]:
        if self._failed:
            reasons = "; ".join(dict.fromkeys(map(printable, self._failed)))
            yield Finding("error", f"not all could be looked at: {reasons}", "mend what is named above first")


def _clock(folders: Folders, now: int) -> Iterator[Finding]:
    number, latest = 0, now
    for entry in walking.walk(folders, states=(State.QUEUED,)):
        ticket = Ticket.parse(entry.name)
        if ticket is not None and ticket.at > now and ticket.submitted > now + surroundings.AHEAD:
            number, latest = number + 1, max(latest, ticket.submitted)
    yield surroundings.clock(number, latest - now)


def _unreadable(folders: Folders, codings: Codings) -> Iterator[tuple[str, bool]]:
    """What is wrong with each that cannot be read, and whether it is the file's fault."""
    for entry in walking.walk(folders):
        ticket = Ticket.parse(entry.name)
        if ticket is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            try:
                _read(folders, entry, ticket, codings)
            except (CorruptRecord, FormatError) as error:
                yield str(error), True
            except (ConfigurationError, StoreUnavailable):
                yield ticket.id, False


def _read(folders: Folders, entry: Entry, ticket: Ticket, codings: Codings) -> None:
    note = notes.read(folders, ticket.id, ticket.revision) if ticket.revision else None
    if note is None or not note.bare:
        body.whole(ticket.id, _content(folders, entry), codings)


def _content(folders: Folders, entry: Entry) -> bytes:
    try:
        return reading.content(folders, entry.path, entry.name)
    except CorruptRecord as error:
        raise CorruptRecord(f"{entry.id}: {error}") from error


def _uncut(folders: Folders, until: int) -> Iterator[str]:
    for _, ticket in itertools.chain(leftovers.unburied(folders, until), leftovers.uncut(folders, until)):
        yield ticket.name


def _nameless(folders: Folders) -> Iterator[str]:
    for entry in walking.walk(folders):
        with contextlib.suppress(FileNotFoundError):
            found = folders.stat(entry.path, entry.name)
            known = ids.status(folders, entry.id)
            if found.kind is Kind.FILE and (known is None or known.inode != found.inode):
                yield entry.name


def _nameless_tombstones(folders: Folders) -> Iterator[str]:
    """Those whose id leads to a file of no message; one that leads nowhere is about to be forgotten."""
    for path, name in walking.tombstones(folders):
        with contextlib.suppress(FileNotFoundError):
            found = folders.stat(path, name)
            known = ids.status(folders, name.split(",", 2)[1])
            if known is not None and known.inode != found.inode and known.links == 1:
                yield name


def _doubled(folders: Folders) -> Iterator[str]:
    """Tickets whose file has been met under another ticket's name, and has it still."""
    met: dict[str, tuple[Path, str]] = {}
    for entry in walking.walk(folders):
        with contextlib.suppress(FileNotFoundError):
            found = folders.stat(entry.path, entry.name)
            if found.links <= ids.OURS:
                continue
            path, name = met.setdefault(entry.id, (entry.path, entry.name))
            if name != entry.name or path != entry.path:
                # One that has moved between the two looks is not there any more.
                other = folders.stat(path, name)
                if other.inode == found.inode:
                    yield entry.name


def _forlorn(folders: Folders) -> Iterator[str]:
    for id in ids.some(folders):
        found = ids.status(folders, id)
        if found is not None and found.links == 1:
            yield id


_ROOT_FILES: Final = frozenset({"format", "boot", "bell", "swept"})
_ROOT_FOLDERS: Final = frozenset(
    path[0] for path in (TMP, IDS, NOTES, QUEUES, REMEMBERED, GONE, SUSPENDED, HERE, MOVING)
)
_STATES: Final = frozenset(state.value for state in State) - {State.QUEUED.value} | {LATER, READY, CLAIMED}
_PRIORITY: Final = re.compile(r"[+-]\d{3}", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-f]{2}", re.ASCII)


def _strangers(folders: Folders, path: Path) -> Iterator[str]:
    """Whatever the store would neither read, follow nor delete."""
    for name, kind in _listed(folders, path):
        inner = (*path, name)
        if not _ours(inner, kind):
            yield "/".join(inner)
        elif kind is Kind.FOLDER:
            yield from _strangers(folders, inner)


def _listed(folders: Folders, path: Path) -> list[tuple[str, Kind]]:
    """What is in a folder; nothing where it must not be entered, which is said of the folder."""
    try:
        with contextlib.closing(folders.listing(path)) as listing:
            return list(listing)
    except FileNotFoundError:
        return []
    except (ConfigurationError, OSError) as error:
        if not path or not walking.refused(error):
            raise
        return []


def _ours(path: Path, kind: Kind) -> bool:
    """Whether there may be such a thing in this place: by the names that lead to it, from the root."""
    if kind is Kind.OTHER:
        return False
    if len(path) == 1:
        return _of_root(path[0], kind)
    return _folder_of(path) if kind is Kind.FOLDER else _file_of(path)


def _of_root(name: str, kind: Kind) -> bool:
    if kind is Kind.FOLDER:
        return name in _ROOT_FOLDERS
    return name in _ROOT_FILES or name.startswith("format.")


def _folder_of(path: Path) -> bool:
    match path:
        case ("moving", "arriving"):
            return True
        case ("ids", shard):
            return _HASH.fullmatch(shard) is not None
        case ("queues", queue):
            return is_queue(queue_of(queue))
        case ("queues", _, state):
            return state in _STATES
        case ("queues", _, "ready", priority):
            return _PRIORITY.fullmatch(priority) is not None
        case ("notes" | "remembered", slot) | ("queues", _, "ready", _, slot) | ("queues", _, _, slot):
            return slot_start(slot) is not None
        case _:
            return False


def _file_of(path: Path) -> bool:
    match path:
        case ("ids", _, name) | ("gone", name):
            return Ticket.is_id(name)
        case ("suspended", name):
            return suspending.is_name(name)
        case ("moving" | "here", name):
            return moving.is_name(name) if path[0] == "moving" else announcing.is_name(name)
        case ("notes", _, name):
            return notes.parse_name(name) is not None
        case ("tmp", name) | ("remembered", _, name) | ("moving", "arriving", name):
            return Ticket.parse(name) is not None
        case ("queues", _, "ready", _, _):
            return False
        case ("queues", _, "ready", _, _, name) | ("queues", _, _, _, name):
            return Ticket.parse(name) is not None
        case _:
            return False


def _open_to_others(folders: Folders, path: Path) -> Iterator[str]:
    """Of what is ours; a file under ids/ is that of a ticket, and looked at there."""
    handle = folders.get(path).handle
    for name, kind in _listed(folders, path):
        inner = (*path, name)
        if not _ours(inner, kind) or (kind is Kind.FILE and path[:1] == IDS):
            continue
        with contextlib.suppress(FileNotFoundError):
            found = folders.disk.stat(handle, name)
            if found.mode & 0o077 or not folders.disk.owns(found):
                yield "/".join(inner)
            elif kind is Kind.FOLDER:
                yield from _open_to_others(folders, inner)

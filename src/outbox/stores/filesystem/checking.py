"""Whether all is well with a spool: what cannot be read, what is none of ours, and what a crash has left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from outbox.errors import ConfigurationError, CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import State
from outbox.protocols import Finding
from outbox.stores.content import Codings

from . import body, ids, leftovers, notes, suspending, walking
from .disk import Kind, Status
from .folders import Folders
from .names import CLAIMED, GONE, IDS, LATER, NOTES, QUEUES, READY, REMEMBERED, SUSPENDED, Path, Ticket
from .walking import Entry

__all__ = ["check"]

_SHOWN: Final = 5


def check(folders: Folders, path: str, codings: Codings, now: int) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`; it reads every file."""
    yield Finding("ok", f"{path} is a spool of version 1, every put and settle synced")
    unreadable = list(_unreadable(folders, codings))
    yield from _shown(
        "error",
        "cannot be read",
        "they end HELD when they are claimed",
        (text for text, known in unreadable if known),
    )
    yield from _shown(
        "warning",
        "have content in a coding that this store was opened without",
        "open it with that coding, or nothing of their queues can be claimed",
        (text for text, known in unreadable if not known),
    )
    yield from _shown(
        "warning",
        "are none of ours, and are left alone",
        "see who put them there, and remove them",
        _strangers(folders, ()),
    )
    yield from _shown(
        "error",
        "are open to others, or another user's",
        f"chown and chmod -R go-rwx {path}",
        _open_to_others(folders),
    )
    yield from _shown(
        "error",
        "are queued and have no name under ids/: their id may be stored twice",
        "stop all programs that use the spool, delete its file `boot`, and open it again",
        _nameless(folders),
    )
    yield from _shown(
        "warning",
        "are drafts of puts that were cut short more than a day ago",
        "prune removes them",
        leftovers.drafts(folders, now),
    )
    yield from _shown(
        "warning",
        "are notes that no ticket has named for more than a day",
        "prune removes them",
        (notes.name_of(*each) for each in leftovers.orphans(folders, now)),
    )


def _shown(level: str, what: str, advice: str, found: Iterator[str]) -> Iterator[Finding]:
    number, names = 0, []
    for name in found:
        number += 1
        if number <= _SHOWN:
            names.append(name)
    if number:
        more = f" and {number - len(names)} more" if number > len(names) else ""
        text = f"{number} files {what}: {', '.join(names)}{more}"
        yield Finding("error" if level == "error" else "warning", text, advice)
    else:
        yield Finding("ok", f"no files {what}")


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
        data = folders.disk.content(folders.get(entry.path).handle, entry.name)
        body.whole(ticket.id, data, codings)


def _nameless(folders: Folders) -> Iterator[str]:
    for entry in walking.walk(folders):
        with contextlib.suppress(FileNotFoundError):
            found = folders.disk.stat(folders.get(entry.path).handle, entry.name)
            known = ids.status(folders, entry.id)
            if found.kind is Kind.FILE and (known is None or known.inode != found.inode):
                yield entry.name


_ROOT: Final = frozenset(
    "tmp ids notes queues remembered gone suspended format boot bell swept".split()  # noqa: SIM905 - a list of words is read as one
)
_STATES: Final = frozenset(state.value for state in State) | {LATER, READY, CLAIMED}


def _strangers(folders: Folders, path: Path) -> Iterator[str]:
    """Whatever the store would neither read, follow nor delete."""
    for name, kind in _listed(folders, path):
        inner = (*path, name)
        if not _ours(inner, kind):
            yield "/".join(inner)
        elif kind is Kind.FOLDER:
            yield from _strangers(folders, inner)


def _listed(folders: Folders, path: Path) -> list[tuple[str, Kind]]:
    try:
        with contextlib.closing(folders.listing(path)) as listing:
            return list(listing)
    except FileNotFoundError:
        return []


def _ours(path: Path, kind: Kind) -> bool:
    name = path[-1]
    if len(path) == 1:
        return name in _ROOT or name.startswith("format.")
    if kind is Kind.OTHER:
        return False
    if kind is Kind.FILE:
        return _file_of(path)
    if path[0] == QUEUES[0]:
        return len(path) != 3 or name in _STATES  # noqa: PLR2004 - queues/<queue>/<state>
    return path[0] in (IDS[0], NOTES[0], REMEMBERED[0])


def _file_of(path: Path) -> bool:
    name = path[-1]
    if path[0] in (IDS[0], GONE[0]):
        return Ticket.is_id(name)
    if path[0] == SUSPENDED[0]:
        return suspending.is_name(name)
    if path[0] == NOTES[0]:
        return notes.parse_name(name) is not None
    return Ticket.parse(name) is not None


def _open_to_others(folders: Folders) -> Iterator[str]:
    for entry in walking.walk(folders):
        with contextlib.suppress(FileNotFoundError):
            found: Status = folders.disk.stat(folders.get(entry.path).handle, entry.name)
            if found.kind is Kind.FILE and found.mode & 0o077:
                yield entry.name

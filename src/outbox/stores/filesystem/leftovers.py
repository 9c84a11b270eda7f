"""What a crash leaves behind: drafts, notes that no ticket names, what was half removed, content that is to go.

None of it says anything, and all of it takes up room.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Final

from outbox.errors import CorruptRecord, StoreUnavailable
from outbox.lifecycle import State

from . import body, ids, notes, reading, transitions, walking
from .disk import Kind
from .folders import Folders
from .names import GONE, NOTES, SECOND, TMP, Path, Ticket, slot_start

__all__ = ["drafts", "orphans", "remove", "remove_gone", "unburied", "uncut"]

_DAY: Final = 86_400 * SECOND
_CHUNK: Final = 10_000
_SWEPT: Final = "swept"


def remove(folders: Folders, limit: int, now: int) -> None:
    """Remove up to *limit* of each kind that have lain there for a day; for notes and content once a day is enough.

    Whether a note is an orphan is seen by a walk through the names of all
    tickets, and whether content is left by a look at the files of what was
    delivered.
    """
    for name in itertools.islice(drafts(folders, now), limit):
        # Its put was killed: nobody was told that it is stored.
        _withdraw(folders, name)
    remove_gone(folders, limit)
    if not _swept(folders, now):
        for id, revision in orphans(folders, now):
            notes.discard(folders, id, revision)
        for path, ticket in unburied(folders, now):
            transitions.bury(folders, path, ticket)
        for path, ticket in uncut(folders, now):
            transitions.cut(folders, path, ticket)
        folders.disk.touch(folders.root.handle, _SWEPT, now * 1000)


def _withdraw(folders: Folders, name: str) -> None:
    """Remove a draft, with its id."""
    id = name.split(",", 2)[1]
    if not ids.withdraw(folders, TMP, name, id):
        ids.free(folders, id)


def _swept(folders: Folders, now: int) -> bool:
    try:
        at = folders.disk.stat(folders.root.handle, _SWEPT).mtime // 1000
    except FileNotFoundError:
        return False
    return 0 <= now - at < _DAY


def remove_gone(folders: Folders, limit: int | None = None) -> None:
    """Finish the removals that were begun; whoever is about it meanwhile is not disturbed."""
    for id in itertools.islice(folders.entries(GONE, Kind.FILE), limit):
        if Ticket.is_id(id):
            ids.forget(folders, GONE, id, id)


def drafts(folders: Folders, now: int) -> Iterator[str]:
    """Those of puts that were begun a day ago."""
    for name in folders.entries(TMP, Kind.FILE):
        ticket = Ticket.parse(name)
        if ticket is not None and ticket.submitted + _DAY < now:
            yield name


def orphans(folders: Folders, now: int) -> Iterator[tuple[str, int]]:
    """Id and revision of the notes, written a day ago, that no ticket names.

    Ten thousand are held against one walk; whoever is not met there is looked for by the id, for a ticket
    that moves is missed by a walk.
    """
    found = _notes(folders, now)
    while chunk := set(itertools.islice(found, _CHUNK)):
        for entry in walking.walk(folders):
            ticket = Ticket.parse(entry.name)
            if ticket is not None:
                chunk.discard((ticket.id, ticket.revision))
        # One that moves too fast to be found is looked at again another day.
        with contextlib.suppress(StoreUnavailable):
            places = walking.find(folders, {id for id, _ in chunk})
            chunk -= {(id, place.ticket.revision) for id, place in places.items()}
            yield from sorted(chunk)


def _notes(folders: Folders, now: int) -> Iterator[tuple[str, int]]:
    for path in walking.slots(folders, NOTES):
        if (slot_start(path[-1]) or 0) + _DAY > now:
            return
        for name in folders.entries(path, Kind.FILE):
            note = notes.parse_name(name)
            if note is not None and note[1] + _DAY < now:
                yield note


def unburied(folders: Folders, until: int) -> Iterator[tuple[Path, Ticket]]:
    """Those remembered, and settled by then, whose content was not cut off."""
    for path, name in walking.tombstones(folders):
        ticket = Ticket.parse(name)
        if ticket is None or ticket.at > until:
            continue
        with contextlib.suppress(FileNotFoundError):
            found = folders.stat(path, name)
            if found.kind is Kind.FILE and not found.buried:
                yield path, ticket


def uncut(folders: Folders, until: int) -> Iterator[tuple[Path, Ticket]]:
    """Those delivered by then and kept without their content, that have it still."""
    for entry in walking.walk(folders, states=[State.DELIVERED]):
        ticket = Ticket.parse(entry.name)
        if ticket is None or ticket.at > until or not ticket.revision:
            continue
        with contextlib.suppress(FileNotFoundError, CorruptRecord):
            if notes.read(folders, ticket.id, ticket.revision).bare:
                data = reading.content(folders, entry.path, entry.name)
                if body.header_length(data) < len(data):
                    yield entry.path, ticket

"""What a crash leaves behind: drafts, notes that no ticket names, and what was half removed.

None of it says anything, and all of it takes up room.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Final

from outbox.errors import StoreUnavailable

from . import ids, notes, walking
from .disk import Kind
from .folders import Folders
from .names import GONE, NOTES, SECOND, TMP, Ticket, slot_start

__all__ = ["drafts", "orphans", "remove", "remove_gone"]

_DAY: Final = 86_400 * SECOND
_CHUNK: Final = 10_000
_SWEPT: Final = "swept"


def remove(folders: Folders, limit: int, now: int) -> None:
    """Remove up to *limit* of each kind that have lain there for a day; for notes once a day is enough.

    Whether a note is an orphan is seen by a walk through the names of all tickets.
    """
    for name in itertools.islice(drafts(folders, now), limit):
        # Its put was killed: nobody was told that it is stored.
        folders.unlink(TMP, name)
        ids.free(folders, name.split(",", 2)[1])
    remove_gone(folders, limit)
    if not _swept(folders, now):
        for id, revision in orphans(folders, now):
            notes.discard(folders, id, revision)
        folders.disk.touch(folders.root.handle, _SWEPT, now * 1000)


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


def orphans(folders: Folders, now: int | None = None) -> Iterator[tuple[str, int]]:
    """Id and revision of the notes that no ticket names; with *now* only of those written a day ago.

    Without it nobody else may use the spool.  Ten thousand are held against
    one walk; whoever is not met there is looked for by the id, for a ticket
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


def _notes(folders: Folders, now: int | None) -> Iterator[tuple[str, int]]:
    for path in walking.slots(folders, NOTES):
        if now is not None and (slot_start(path[-1]) or 0) + _DAY > now:
            return
        for name in folders.entries(path, Kind.FILE):
            note = notes.parse_name(name)
            if note is not None and (now is None or note[1] + _DAY < now):
                yield note

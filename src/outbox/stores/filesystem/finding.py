"""What a filter finds: by the names of the tickets first, and then by what the files of those tell that are left."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import attrs

from outbox.filters import Filter
from outbox.lifecycle import Summary
from outbox.stores.instants import micros

from . import browsing, walking
from .folders import Folders
from .names import Ticket
from .spool import Spool
from .walking import Entry, Place

__all__ = ["find"]

_FIRST: Final = 1000
_MOST: Final = 100_000
"""How many names one walk brings at most: more are another walk, and not more memory."""
_TRIES: Final = 10
"""Walks for what moves again and again."""


def find(
    inside: Callable[[], AbstractContextManager[Spool]], sought: Filter, after: str
) -> Iterator[Summary]:
    """See :meth:`FilesystemStore.find`; *inside* is entered for each step."""
    many = _FIRST
    while True:
        with inside() as spool:
            names = _names(spool.folders, sought, after, many)
        yield from _among(inside, sought, names)
        if len(names) < many:
            return
        after = names[-1].id
        many = min(4 * many, _MOST)


def _names(folders: Folders, sought: Filter, after: str, many: int) -> list[Entry]:
    """The first tickets behind *after* that may fit, in the order of their ids."""
    entries = walking.walk(folders, states=sought.states, queues=sought.queues)
    fit = (entry for entry in entries if entry.id > after and _may_fit_by_name(entry, sought))
    return heapq.nsmallest(many, fit, key=lambda entry: entry.id)


def _may_fit_by_name(entry: Entry, sought: Filter) -> bool:
    before, since = sought.submitted_before, sought.settled_since
    if before is None and since is None:
        return True
    ticket = Ticket.parse(entry.name)
    if ticket is None:
        return False
    settled = ticket.standing(entry.state).settled
    return (before is None or ticket.submitted <= micros(before)) and (
        since is None or (settled is not None and settled >= micros(since))
    )


def _among(
    inside: Callable[[], AbstractContextManager[Spool]], sought: Filter, names: list[Entry]
) -> Iterator[Summary]:
    seen: set[str] = set()
    moved: list[str] = []
    for entry in names:
        if entry.id in seen or (ticket := Ticket.parse(entry.name)) is None:
            continue  # met twice by the walk, for it moved; or none of ours
        seen.add(entry.id)
        place = Place(queue=entry.queue, state=entry.state, path=entry.path, ticket=ticket)
        with inside() as spool:
            found = _fitting(spool, place, sought)
        if found is None:
            moved.append(entry.id)
        else:
            yield from found
    yield from _among_moved(inside, sought, moved)


def _among_moved(
    inside: Callable[[], AbstractContextManager[Spool]], sought: Filter, moved: list[str]
) -> Iterator[Summary]:
    """One walk for all of them: each by itself would be a walk each."""
    for _ in range(_TRIES):
        if not moved:
            return
        with inside() as spool:
            places, _missing = walking.search(spool.folders, moved)
        moved = []
        for place in places.values():
            with inside() as spool:
                found = _fitting(spool, place, sought)
            if found is None:
                moved.append(place.ticket.id)
            else:
                yield from found


def _fitting(spool: Spool, place: Place, sought: Filter) -> list[Summary] | None:
    """The one there, where it fits; None where its ticket has moved on."""
    # Caught before it leaves the store, which would say that it is unavailable.
    with contextlib.suppress(FileNotFoundError):
        if not _may_fit(spool.folders, place, sought):
            return []
        summary = browsing.summary(spool.folders, place)
        spool.places.note(place)
        return [summary] if sought.fits(summary) else []
    return None


def _may_fit(folders: Folders, place: Place, sought: Filter) -> bool:
    """By its envelope alone, where that is asked for: most are left out by one look at one file."""
    if not (sought.recipients or sought.domains or sought.senders or sought.attributes):
        return True
    ticket = place.ticket
    envelope = attrs.evolve(sought, states=(), settled_since=None, reasons=(), by_hand=None)
    return envelope.fits(browsing.enveloped(folders, place, ticket.standing(place.state)))

"""What a person is shown.  Lists never decode a message, so that a damaged one breaks no list."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Sequence

import attrs

from outbox.errors import CorruptRecord, StoreUnavailable
from outbox.lifecycle import Attempt, Record, State, Summary
from outbox.protocols import QueueCount
from outbox.stores import standing as standings
from outbox.stores.instants import moment
from outbox.stores.standing import Standing

from . import body, transitions, walking
from .folders import Folders
from .names import Ticket, ids_path
from .walking import Entry, Place

__all__ = ["browse", "count", "get"]

_TRIES = 10
_SPARE = 16
"""A ticket that moves is met twice: so many more are looked for."""


def get(folders: Folders, id: str) -> Record | None:
    """See :meth:`outbox.protocols.SupportsBrowse.get`; it walks through the names of all tickets."""
    for _ in range(_TRIES):
        place = walking.find(folders, [id]).get(id)
        if place is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            return _record(folders, place)
    raise StoreUnavailable(f"the message {id} moves faster than it can be read: try again")


def _record(folders: Folders, place: Place) -> Record:
    id = place.ticket.id
    _, data = folders.disk.read(folders.get(ids_path(id)).handle, id)
    _, message = body.whole(id, data)
    standing, history = _learned(folders, place)
    summary = standings.summary(
        standing,
        id=id,
        queue=message.queue,
        priority=message.priority,
        sender=message.sender,
        recipients=message.recipients,
        size=len(message.content),
    )
    return Record(summary=summary, message=message, history=history)


def _learned(folders: Folders, place: Place) -> tuple[Standing, Sequence[Attempt]]:
    """Raises FileNotFoundError where the ticket has moved on, and CorruptRecord where its note is missing."""
    try:
        return transitions.learned(folders, place.ticket, place.state)
    except FileNotFoundError as error:
        # The ticket is looked at after its note: where it is still there, the note is not coming.
        folders.disk.stat(folders.get(place.path).handle, place.ticket.name)
        raise CorruptRecord(f"{place.ticket.id}: its note is missing") from error


def browse(
    folders: Folders,
    *,
    states: Sequence[State],
    queues: Sequence[str],
    after: str,
    limit: int,
) -> list[Summary]:
    """See :meth:`outbox.protocols.SupportsBrowse.browse`: one walk, and no more memory than the page."""
    entries = (each for each in walking.walk(folders, states=states, queues=queues) if each.id > after)
    page: dict[str, Summary] = {}
    for entry in heapq.nsmallest(limit + _SPARE, entries, key=lambda entry: entry.id):
        if len(page) < limit and (ticket := Ticket.parse(entry.name)) is not None:
            with contextlib.suppress(FileNotFoundError):
                page[ticket.id] = _summary(folders, entry, ticket)
    return list(page.values())


def _summary(folders: Folders, entry: Entry, ticket: Ticket) -> Summary:
    standing, _ = transitions.learned_or_feared(folders, ticket, entry.state)
    sender, recipients = body.recipients(body.beginning(folders, ticket.id))
    return standings.summary(
        standing,
        id=ticket.id,
        queue=entry.queue,
        priority=ticket.priority,
        sender=sender,
        recipients=recipients,
        size=ticket.size,
    )


@attrs.define
class _Tally:
    number: int = 0
    due: int = 0
    oldest: int | None = None
    oldest_due: int | None = None

    def add(self, ticket: Ticket, *, due: bool) -> None:
        self.number += 1
        self.oldest = ticket.submitted if self.oldest is None else min(self.oldest, ticket.submitted)
        if due:
            self.due += 1
            self.oldest_due = ticket.at if self.oldest_due is None else min(self.oldest_due, ticket.at)


def count(folders: Folders, now: int) -> list[QueueCount]:
    """See :meth:`outbox.protocols.SupportsBrowse.count`: by the names alone."""
    tallies: dict[tuple[str, State], _Tally] = {}
    for entry, ticket in _tickets(folders):
        waiting = entry.state in (State.QUEUED, State.CLAIMED)
        tally = tallies.setdefault((entry.queue, entry.state), _Tally())
        tally.add(ticket, due=waiting and ticket.at <= now)
    return [
        QueueCount(
            queue=queue,
            state=state,
            number=tally.number,
            due=tally.due,
            oldest_at=None if tally.oldest is None else moment(tally.oldest),
            oldest_due_at=None if tally.oldest_due is None else moment(tally.oldest_due),
        )
        for (queue, state), tally in sorted(tallies.items(), key=lambda item: item[0])
    ]


def _tickets(folders: Folders) -> Iterator[tuple[Entry, Ticket]]:
    for entry in walking.walk(folders):
        ticket = Ticket.parse(entry.name)
        if ticket is not None:
            yield entry, ticket

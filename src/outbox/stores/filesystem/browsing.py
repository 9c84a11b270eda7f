"""What a person is shown.  Lists never decode a message, so that a damaged one breaks no list."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence

import attrs

from outbox import codec
from outbox.errors import CorruptRecord, StoreUnavailable
from outbox.lifecycle import Record, State, Summary
from outbox.message import Message
from outbox.moving import ON_ITS_WAY
from outbox.protocols import QueueCount
from outbox.stores import standing as standings
from outbox.stores.content import Codings
from outbox.stores.instants import FOREVER, moment
from outbox.stores.standing import Standing

from . import body, notes, reading, transitions, walking
from .folders import Folders
from .names import Path, Ticket, ids_path
from .notes import Note
from .walking import Entry, Place

__all__ = ["browse", "count", "enveloped", "get", "record", "summary"]

_TRIES = 10
_SPARE = 16
"""A ticket that moves is met twice: so many more are looked for."""


def get(folders: Folders, id: str, codings: Codings) -> Record | None:
    """See :meth:`outbox.protocols.SupportsBrowse.get`; it walks through the names of all tickets."""
    for _ in range(_TRIES):
        place = walking.find(folders, [id]).get(id)
        if place is None:
            return None
        with _moving(folders, place.path, place.ticket):
            return record(folders, place, codings)
    raise StoreUnavailable(f"the message {id} moves faster than it can be read: try again")


@contextlib.contextmanager
def _moving(folders: Folders, path: Path, ticket: Ticket) -> Iterator[None]:
    """Let pass what fails because the ticket has moved on meanwhile: it is to be looked for again."""
    try:
        yield
    except FileNotFoundError:
        return
    except CorruptRecord:
        # What is settled loses its note, or its content.
        with contextlib.suppress(FileNotFoundError):
            transitions.require_there(folders, path, ticket)
            raise


def record(folders: Folders, place: Place, codings: Codings) -> Record:
    """All that is known of the message of this ticket.

    Raises:
        CorruptRecord, FormatError: it cannot be read.
        FileNotFoundError: the ticket has moved on.
    """
    ticket = place.ticket
    note = _note(folders, place)
    message = _message(folders, ticket.id, note, codings)
    # What its note does not tell is what it was put with.
    fresh = standings.fresh(message, ticket.submitted)
    told = Note(fates=fresh.fates, since=fresh.since) if note is None else note.about(len(fresh.fates))
    summary = standings.summary(
        _on_its_way(told.on(ticket.standing(place.state))),
        id=ticket.id,
        queue=message.queue,
        priority=message.priority,
        sender=message.sender,
        recipients=message.recipients,
        size=ticket.size,
        attributes=message.attributes,
    )
    return Record(summary=summary, message=message, history=told.history)


def _message(folders: Folders, id: str, note: Note | None, codings: Codings) -> Message:
    if note is not None and note.bare:
        return codec.join(note.bare.encode(), b"")
    try:
        data = reading.content(folders, ids_path(id), id)
    except CorruptRecord as error:
        raise CorruptRecord(f"{id}: {error}") from error
    return body.whole(id, data, codings)


def _note(folders: Folders, place: Place) -> Note | None:
    """Raises FileNotFoundError where the ticket has moved on, and CorruptRecord where its note is missing."""
    ticket = place.ticket
    if not ticket.revision:
        return None
    try:
        return notes.read(folders, ticket.id, ticket.revision)
    except FileNotFoundError as error:
        # The ticket is looked at after its note: where it is still there, the note is not coming.
        transitions.require_there(folders, place.path, ticket)
        raise CorruptRecord(f"{ticket.id}: its note is missing") from error


def browse(
    folders: Folders,
    *,
    states: Sequence[State],
    queues: Sequence[str],
    after: str,
    limit: int,
) -> list[Summary]:
    """See :meth:`outbox.protocols.SupportsBrowse.browse`: a walk, and no more memory than the page."""
    page: dict[str, Summary] = {}
    while len(page) < limit:
        asked = limit - len(page) + _SPARE
        entries = (each for each in walking.walk(folders, states=states, queues=queues) if each.id > after)
        found = heapq.nsmallest(asked, entries, key=lambda entry: entry.id)
        for entry in found:
            if len(page) < limit and (ticket := Ticket.parse(entry.name)) is not None:
                place = Place(queue=entry.queue, state=entry.state, path=entry.path, ticket=ticket)
                summary = _summarised(folders, place)
                if summary is not None and summary.state in (states or State):
                    page[summary.id] = summary
        if len(found) < asked:
            break
        after = found[-1].id
    return list(page.values())


def _summarised(folders: Folders, place: Place | None) -> Summary | None:
    """The summary of a message, wherever its ticket has moved meanwhile; None where it cannot be found any more."""
    for _ in range(_TRIES):
        if place is None:
            break
        with contextlib.suppress(FileNotFoundError):
            return summary(folders, place)
        place = walking.search(folders, [place.ticket.id])[0].get(place.ticket.id)
    return None


def summary(folders: Folders, place: Place) -> Summary:
    """What a list shows of it; raises FileNotFoundError where its ticket has moved on."""
    standing, _ = transitions.learned_or_feared(folders, place.path, place.ticket, place.state)
    return enveloped(folders, place, _on_its_way(standing))


def _on_its_way(standing: Standing) -> Standing:
    """The same with the reason of what leaves for another store: its ticket tells it, and no note."""
    leaves = standing.state is State.CLAIMED and standing.due >= FOREVER
    return attrs.evolve(standing, reason=ON_ITS_WAY) if leaves else standing


def enveloped(folders: Folders, place: Place, standing: Standing) -> Summary:
    """The same of one that stands so."""
    ticket, data = place.ticket, _beginning(folders, place)
    sender, recipients = body.recipients(data)
    if len(standing.fates) == 1:
        standing = attrs.evolve(standing, fates=standing.fates * len(recipients))
    return standings.summary(
        standing,
        id=ticket.id,
        queue=place.queue,
        priority=ticket.priority,
        sender=sender,
        recipients=recipients,
        size=ticket.size,
        attributes=codec.attributes_of(data.partition(b"\n")[2].partition(b"\n")[0]),
    )


def _beginning(folders: Folders, place: Place) -> bytes:
    try:
        return body.beginning(folders, ids_path(place.ticket.id), place.ticket.id)
    except FileNotFoundError:
        # Without its name under ids/ it is there all the same, and is to be seen.
        return body.beginning(folders, place.path, place.ticket.name)


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


def count(folders: Folders, served: Callable[[Sequence[str]], Sequence[str]], now: int) -> list[QueueCount]:
    """See :meth:`outbox.protocols.SupportsBrowse.count`: by the names alone.

    Args:
        served: Those of some queues that are not suspended.
    """
    tallies: dict[tuple[str, State], _Tally] = {}
    for entry, ticket in _tickets(folders):
        waiting = entry.state in (State.QUEUED, State.CLAIMED)
        tally = tallies.setdefault((entry.queue, entry.state), _Tally())
        tally.add(ticket, due=waiting and ticket.at <= now)
    going_on = served([queue for queue, _ in tallies])
    return [
        QueueCount(
            queue=queue,
            state=state,
            number=tally.number,
            due=tally.due if queue in going_on else 0,
            oldest_at=None if tally.oldest is None else moment(tally.oldest),
            oldest_due_at=(
                None if tally.oldest_due is None or queue not in going_on else moment(tally.oldest_due)
            ),
        )
        for (queue, state), tally in sorted(tallies.items(), key=lambda item: item[0])
    ]


def _tickets(folders: Folders) -> Iterator[tuple[Entry, Ticket]]:
    for entry in walking.walk(folders):
        ticket = Ticket.parse(entry.name)
        if ticket is not None:
            yield entry, ticket

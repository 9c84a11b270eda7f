"""Messages that come from another store, each batch once.

Their files and notes are written to ``moving/arriving/`` and their ids taken;
then ``moving/placing`` says where each of them belongs: from that instant the
batch is accepted, and each file is brought there by one rename, by whoever
comes next if this one is killed.  What no ``placing`` names was left by a
kill before it, and is thrown away.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.errors import AmbiguousPut, StoreError
from outbox.lifecycle import Fate, Record, State
from outbox.moving import Batch, Remembered
from outbox.stores import carrying
from outbox.stores.carrying import Given
from outbox.stores.content import Codings
from outbox.stores.instants import micros
from outbox.stores.limits import Load
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import body, ids, notes, transitions, walking
from .body import Header
from .crowding import Crowd
from .disk import Kind
from .folders import Folders
from .moving import given_name, has_left, keep, kept
from .names import (
    ARRIVING,
    MOVING,
    Path,
    Ticket,
    claimed_path,
    ids_path,
    note_path,
    queued_path,
    remembered_path,
    settled_path,
)
from .notes import Note

__all__ = ["give", "last_given", "remember"]

_PLACING: Final = "placing"
_ANY: Final = "mail"
"""A queue that can be: which it was is nobody's concern any more, and is in the digest."""


@attrs.frozen
class _Arrival:
    """One message: its file's name from now on, and the folder that it belongs into."""

    ticket: Ticket
    to: Path
    note: Note | None


def give(
    folders: Folders,
    batch: Batch,
    codings: Codings,
    *,
    crowd: Crowd,
    require_free: Callable[[], None],
    now: int,
) -> Sequence[str]:
    """See :meth:`outbox.moving.SupportsMove.give`.

    Args:
        require_free: Raises StoreFull where the disk has less room than has to stay.
    """
    with folders.lock(MOVING):
        _finish(folders)
        last = _given(folders, batch.source)
        if last.repeats(batch):
            return last.refused
        if batch.records:
            require_free()
        _throw_away(folders)
        wanted = [record.message.id for record in batch.records]
        _bury_left(folders, wanted)
        known = {id for id in wanted if ids.status(folders, id) is not None}
        made: list[_Arrival] = []
        refused: list[str] = list(batch.unreadable)
        try:
            load = Load.of(r.summary.size for r in batch.records if r.summary.state in _WAITING)
            with crowd.admitted(folders, load, now):
                for record in batch.records:
                    arrival = _arrive(folders, record, codings, now)
                    if arrival is None:
                        refused.append(record.message.id)
                    else:
                        made.append(arrival)
                folders.sync([ARRIVING, *(note_path(each.ticket.revision) for each in made if each.note)])
                places = [["/".join(each.to), each.ticket.name] for each in made]
                keep(folders, _PLACING, [batch.source, Given(batch.name, tuple(refused)).encode(), places])
        except BaseException as error:
            if _undone(folders, made) or not isinstance(error, OSError | StoreError):
                raise
            raise _ambiguous(error) from error
        try:
            _finish(folders)
        except (OSError, StoreError) as error:
            raise _ambiguous(error) from error
        with contextlib.suppress(OSError, StoreError):
            _clear_replaced(folders, known.difference(refused))
        return refused


def _clear_replaced(folders: Folders, replaced: Collection[str]) -> None:
    """Remove the tombstones that made way: they would count among what is remembered, in the place of others."""
    for path, name in walking.tombstones(folders) if replaced else ():
        id = name.split(",", 2)[1]
        found = ids.status(folders, id) if id in replaced else None
        if found is not None:
            with contextlib.suppress(FileNotFoundError):
                if folders.stat(path, name).inode != found.inode:
                    folders.unlink(path, name)


def _undone(folders: Folders, made: Sequence[_Arrival]) -> bool:
    """Throw away what was written; False where the batch is accepted, or that cannot be told."""
    try:
        if kept(folders, _PLACING) is not None:
            return False
    except (OSError, StoreError):
        return False
    with contextlib.suppress(Exception):
        _throw_away(folders)
        for each in made:
            notes.discard(folders, each.ticket.id, each.ticket.revision)
    return True


def _ambiguous(error: Exception) -> AmbiguousPut:
    return AmbiguousPut(
        f"the batch may have been accepted, and is not in its place ({getattr(error, 'strerror', None) or error}): "
        "give the same batch again"
    )


def _bury_left(folders: Folders, wanted: Iterable[str]) -> None:
    """Make those files tombstones that are to be, where a kill came before: they are taken for messages otherwise."""
    doubtful = {
        id: found.inode
        for id in wanted
        if (found := ids.status(folders, id)) is not None and found.links > 1 and not found.buried
    }
    for path, name in walking.tombstones(folders) if doubtful else ():
        ticket = Ticket.parse(name)
        if ticket is not None and ticket.id in doubtful:
            with contextlib.suppress(FileNotFoundError):
                if folders.stat(path, name).inode == doubtful[ticket.id]:
                    transitions.bury(folders, path, ticket)


_WAITING: Final = (State.QUEUED, State.CLAIMED)


def last_given(folders: Folders, source: str) -> Given:
    """What was given last from the store of this identity; what is accepted is brought to its place first."""
    with folders.lock(MOVING):
        _finish(folders)
        return _given(folders, source)


def _given(folders: Folders, source: str) -> Given:
    found = kept(folders, given_name(source))
    return Given() if found is None else Given.decode(found)


def _finish(folders: Folders) -> None:
    """Bring to its place what was accepted."""
    found: Any = kept(folders, _PLACING)
    if found is None:
        return
    source, given, places = found
    to = [(tuple(path.split("/")), name) for path, name in places]
    for path, name in to:
        _bring(folders, name, path)
    folders.sync(dict.fromkeys(path for path, _ in to))
    keep(folders, given_name(source), given)
    folders.unlink(MOVING, _PLACING)
    folders.sync([MOVING])


def _bring(folders: Folders, name: str, to: Path) -> None:
    """Bring a file to its place; where it is not there, it was brought before: perhaps it has been delivered since."""
    id = name.split(",", 2)[1]
    # A loss of power may have taken the id, which a start links anew for tickets alone.
    with contextlib.suppress(FileNotFoundError):
        with contextlib.suppress(FileExistsError):
            folders.link(ARRIVING, name, ids_path(id), id)
        if folders.stat(ids_path(id), id).inode != folders.stat(ARRIVING, name).inode:
            # Who put it here since then stands for it: an id is that of one message.
            folders.unlink(ARRIVING, name)
    folders.move(ARRIVING, name, to, name)


def _throw_away(folders: Folders) -> None:
    """What a kill has left of a batch that was not accepted."""
    for name in list(folders.entries(ARRIVING, Kind.FILE)):
        ticket = Ticket.parse(name)
        if ticket is None or not ids.withdraw(folders, ARRIVING, name, ticket.id):
            folders.unlink(ARRIVING, name)


def _arrive(folders: Folders, record: Record, codings: Codings, now: int) -> _Arrival | None:
    """Write its file and its note, and take its id; None where that is another's."""
    message, summary, standing = record.message, record.summary, carrying.arrived(record)
    first = Ticket(
        at=standing.since,
        id=message.id,
        priority=message.priority,
        # It starts anywhere: a token of an earlier message of this id never fits.
        generation=secrets.randbits(47),
        submitted=standing.submitted,
        size=summary.size,
    )
    header = Header(ticket=first, queue=message.queue, digest=message.envelope_digest, coding=codings.name)
    note = _note(record, standing)
    draft = first.name
    folders.create(ARRIVING, draft, body.encode(message, header, codings))
    if not _named(folders, draft, message.id):
        folders.unlink(ARRIVING, draft)
        return None
    revision = 0 if note is None else notes.write(folders, message.id, note, after=0, now=now)
    ticket = first.after(standing, revision=revision)
    if ticket.name != draft:
        folders.move(ARRIVING, draft, ARRIVING, ticket.name)
    return _Arrival(ticket, _place(message.queue, ticket, standing, now), note)


def _note(record: Record, standing: Standing) -> Note | None:
    """What its file does not tell; None where that is nothing."""
    bare = not record.message.content and record.summary.size > 0
    note = Note.of(standing, record.history)
    if bare:
        note = attrs.evolve(note, bare=notes.bare(record.message))
    fresh = all(fate is Fate.WAITING for fate in standing.fates)
    told = bare or standing.reason or record.history or standing.resumes is not None or standing.lost
    return None if fresh and standing.queued and not told else note


def _place(queue: str, ticket: Ticket, standing: Standing, now: int) -> Path:
    if standing.state is State.QUEUED:
        return queued_path(queue, ticket, now)
    if standing.state is State.CLAIMED:
        return claimed_path(queue, ticket.at)
    return settled_path(queue, standing.state, ticket.at)


def _named(folders: Folders, draft: str, id: str) -> bool:
    """Whether the id leads to this file from now on; one that is only remembered makes way."""
    while True:
        try:
            folders.link(ARRIVING, draft, ids_path(id), id)
        except FileExistsError:
            found = ids.status(folders, id)
            if found is None:
                continue
            if not (found.buried or found.links == 1 or ids.is_gone(folders, id, found.inode)):
                return False
            ids.give_up(folders, id, found.inode)
        else:
            return True


def remember(folders: Folders, known: Sequence[Remembered], retention: Retention, now: int) -> None:
    """See :meth:`outbox.moving.SupportsMove.remember`."""
    since = retention.known_since(now)
    with folders.lock(MOVING):
        _finish(folders)
        _throw_away(folders)
        wanted = {each.id: each for each in known if retention.remembers and micros(each.settled_at) > since}
        known_already = {id for id in wanted if _is_known(folders, id)}
        made = [_buried(folders, each) for id, each in wanted.items() if id not in known_already]
        ended = _ended(folders, {id: wanted[id] for id in known_already})
        folders.sync(dict.fromkeys(path for path in (*made, *ended) if path is not None))


def _is_known(folders: Folders, id: str) -> bool:
    found = ids.status(folders, id)
    return found is not None and found.links > 1 and not ids.is_gone(folders, id, found.inode)


def _ended(folders: Folders, known: Mapping[str, Remembered]) -> Iterator[Path]:
    """Of those whose messages have left note that they came to their end elsewhere; the folders that have changed."""
    maybe = {id for id in known if (found := ids.status(folders, id)) is not None and found.buried}
    left = [
        (path, ticket)
        for path, name in (walking.tombstones(folders) if maybe else ())
        if (ticket := Ticket.parse(name)) is not None and ticket.id in maybe and has_left(ticket)
    ]
    for path, ticket in left:
        at = max(ticket.at, micros(known[ticket.id].settled_at))
        to, new = remembered_path(at), attrs.evolve(ticket, at=at, lost=0)
        if folders.move(path, ticket.name, to, new.name):
            transitions.bury(folders, to, new)
            yield from (to, path)


def _buried(folders: Folders, known: Remembered) -> Path | None:
    at = micros(known.settled_at)
    ticket = Ticket(at=at, id=known.id, priority=0, generation=secrets.randbits(47), submitted=at, size=0)
    header = Header(ticket=ticket, queue=_ANY, digest=known.digest)
    folders.create(ARRIVING, ticket.name, body.tombstone(header))
    if not _named(folders, ticket.name, known.id):
        folders.unlink(ARRIVING, ticket.name)
        return None
    path = remembered_path(at)
    folders.move(ARRIVING, ticket.name, path, ticket.name)
    transitions.bury(folders, path, ticket)
    return path

"""Messages that leave for another store: what is under way is named in ``moving/leaving``.

Its tickets are claimed until the end of time, each by one rename; which they
are, and what they were called, stands in the file before the first of them is
renamed.  A kill in between leaves a smaller batch, which is none the worse.
One program at a time takes or concludes, by the lock of the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Collection, Iterator
from typing import Any, Final

import attrs

from outbox.errors import CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import Record, State
from outbox.moving import Abandoned, Batch, Remembered
from outbox.protocols import Finding
from outbox.stores import carrying
from outbox.stores.content import Codings
from outbox.stores.instants import FOREVER, micros, moment
from outbox.stores.retention import Retention

from . import body, browsing, ids, notes, reading, transitions, walking
from .disk import Kind
from .folders import Folders
from .names import CLAIMED, GONE, LATER, MOVING, Path, Ticket, claimed_path, queue_of, remembered_path
from .notes import Note
from .transitions import Transition
from .walking import Place

__all__ = [
    "abandon",
    "check",
    "conclude",
    "given_name",
    "has_left",
    "identity",
    "is_elsewhere",
    "is_name",
    "keep",
    "kept",
    "remembered",
    "take",
]

_IDENTITY: Final = "identity"
_LEAVING: Final = "leaving"
_DRAFT: Final = ".draft"
_TRIES: Final = 10
_LEFT: Final = 999_999_999
"""As the claims lost of a tombstone: its message has left for another store."""
_SETTLED: Final = tuple(state for state in State if state not in (State.QUEUED, State.CLAIMED))


def is_name(name: str) -> bool:
    """Whether a file of this name is one of ours."""
    name = name.removesuffix(_DRAFT)
    return name in (_IDENTITY, _LEAVING, "placing") or name.startswith("given-")


def given_name(source: str) -> str:
    """Where stands what was given last from the store of this identity."""
    return f"given-{hashlib.blake2b(source.encode(), digest_size=16).hexdigest()}"


def has_left(ticket: Ticket) -> bool:
    """Whether it is the tombstone of a message that is in another store."""
    return ticket.lost == _LEFT


def keep(folders: Folders, name: str, fields: Any) -> None:
    """Let the file hold this from now on, durably; the folder is locked."""
    folders.unlink(MOVING, name + _DRAFT)
    folders.create(MOVING, name + _DRAFT, json.dumps(fields).encode() + b"\n")
    folders.move(MOVING, name + _DRAFT, MOVING, name)
    folders.sync([MOVING])


def kept(folders: Folders, name: str) -> Any:
    """What the file holds; None where it is not there."""
    try:
        return json.loads(reading.content(folders, MOVING, name))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptRecord(f"{'/'.join(MOVING)}/{name} cannot be read: {error}") from error


def identity(folders: Folders) -> str:
    """See :meth:`outbox.moving.SupportsMove.identity`."""
    found = kept(folders, _IDENTITY)
    if found is None:
        with folders.lock(MOVING):
            found = kept(folders, _IDENTITY)
            if found is None:
                found = secrets.token_hex(16)
                keep(folders, _IDENTITY, found)
    return str(found)


@attrs.frozen
class _Stood:
    """A message under way, as it stood: its ticket, and where that was."""

    place: Place

    @property
    def frozen(self) -> Ticket:
        return attrs.evolve(self.place.ticket, at=FOREVER, generation=self.place.ticket.generation + 1)

    @property
    def aside(self) -> Path:
        """The folder where its ticket is meanwhile."""
        return claimed_path(self.place.queue, FOREVER)

    def fields(self) -> list[str]:
        return [self.place.queue, self.place.state.value, "/".join(self.place.path), self.place.ticket.name]

    @classmethod
    def read(cls, fields: list[str]) -> _Stood:
        queue, state, path, name = fields
        ticket = Ticket.parse(name)
        if ticket is None:
            raise CorruptRecord(f"{'/'.join(MOVING)}/{_LEAVING} cannot be read: {name} is no ticket")
        return cls(Place(queue=queue, state=State(state), path=tuple(path.split("/")), ticket=ticket))


@attrs.frozen
class _Leaving:
    """What is under way; what was concluded is none of it."""

    name: str = ""
    to: str = ""
    stood: tuple[_Stood, ...] = ()

    def keep(self, folders: Folders) -> None:
        keep(folders, _LEAVING, [self.name, self.to, [each.fields() for each in self.stood]])

    @classmethod
    def read(cls, folders: Folders) -> _Leaving:
        try:
            found = kept(folders, _LEAVING)
            if found is None:
                return cls()
            name, to, stood = found
            each = tuple(map(_Stood.read, stood))
        except (CorruptRecord, ValueError, TypeError) as error:
            raise carrying.damaged(error) from error
        return cls(name, to, tuple(one for one in each if _is_aside(folders, one)))


def _is_aside(folders: Folders, stood: _Stood) -> bool:
    try:
        transitions.require_there(folders, stood.aside, stood.frozen)
    except FileNotFoundError:
        return False
    return True


def take(
    folders: Folders,
    codings: Codings,
    now: int,
    *,
    to: str,
    limit: int,
    max_bytes: int,
    leave: Collection[str],
    after: str,
) -> Batch | None:
    """See :meth:`outbox.moving.SupportsMove.take`."""
    source = identity(folders)
    with folders.lock(MOVING):
        leaving = _Leaving.read(folders)
        if leaving.stood:
            carrying.require_partner(leaving.to, to)
            found = {each.place.ticket.id: _record(folders, each, codings) for each in leaving.stood}
            return Batch(
                name=leaving.name,
                source=source,
                records=[record for record in found.values() if record is not None],
                unreadable=[id for id, record in found.items() if record is None],
            )
        for _ in range(_TRIES if limit else 0):
            chosen, unreadable, missed = _chosen(
                folders, codings, now, frozenset(leave), limit=limit, room=max_bytes
            )
            name = carrying.next_name(leaving.name, now, after)
            records = _set_aside(folders, _Leaving(name, to, tuple(chosen)), chosen)
            if records:
                return Batch(name=name, source=source, records=records, unreadable=unreadable)
            if unreadable:
                return Batch(name="", source=source, unreadable=unreadable)
            if not missed and not chosen:
                return None
        if not limit:
            return None
        raise StoreUnavailable("its messages move faster than they can be taken: try again")


def _chosen(
    folders: Folders, codings: Codings, now: int, leave: frozenset[str], *, limit: int, room: int
) -> tuple[dict[_Stood, Record], list[str], bool]:
    """What is to be taken, what cannot be read, and whether some moved on meanwhile."""
    chosen: dict[_Stood, Record] = {}
    unreadable: list[str] = []
    missed = False
    for place in _there(folders, now, leave):
        room -= place.ticket.size
        if len(chosen) + len(unreadable) >= limit or (chosen and room < 0):
            break
        try:
            chosen[_Stood(place)] = browsing.record(folders, place, codings)
        except (CorruptRecord, FormatError):
            unreadable.append(place.ticket.id)
        except FileNotFoundError:
            missed = True
    return chosen, unreadable, missed


def _set_aside(folders: Folders, leaving: _Leaving, chosen: dict[_Stood, Record]) -> list[Record]:
    """Rename their tickets; the records of those that were still there."""
    if not chosen:
        return []
    leaving.keep(folders)
    taken = [
        (each, record)
        for each, record in chosen.items()
        if folders.move(each.place.path, each.place.ticket.name, each.aside, each.frozen.name)
    ]
    folders.sync(each.aside for each, _ in taken)
    return [record for _, record in taken]


def _there(folders: Folders, now: int, leave: frozenset[str]) -> Iterator[Place]:
    """All that may leave: the ready ones first, the settled ones last."""
    for queue, state, path in _folders(folders):
        for name in sorted(folders.entries(path, Kind.FILE)):
            ticket = Ticket.parse(name)
            if ticket is None or ticket.id in leave or (state is State.CLAIMED and ticket.at > now):
                continue
            yield Place(queue=queue, state=state, path=path, ticket=ticket)


def _folders(folders: Folders) -> Iterator[tuple[str, State, Path]]:
    queues = [path for _, path in walking.queue_folders(folders)]
    for path in queues:
        for priority in walking.priorities(folders, path):
            yield from ((queue_of(path[-1]), State.QUEUED, slot) for slot in walking.slots(folders, priority))
    for state, folder in ((State.QUEUED, LATER), (State.CLAIMED, CLAIMED), *((s, s.value) for s in _SETTLED)):
        for path in queues:
            found = walking.slots(folders, (*path, folder))
            yield from ((queue_of(path[-1]), state, slot) for slot in found)


def _record(folders: Folders, stood: _Stood, codings: Codings) -> Record | None:
    try:
        return browsing.record(folders, stood.place, codings)
    except (CorruptRecord, FormatError, FileNotFoundError):
        return None


def conclude(folders: Folders, retention: Retention, now: int, name: str, back: Collection[str]) -> None:
    """See :meth:`outbox.moving.SupportsMove.conclude`."""
    with folders.lock(MOVING):
        leaving = _Leaving.read(folders)
        if name != leaving.name or not leaving.stood:
            return
        returned = frozenset(back)
        moves = [_return(each) for each in leaving.stood if each.place.ticket.id in returned]
        gone = [
            _farewell(each, retention, now) for each in leaving.stood if each.place.ticket.id not in returned
        ]
        transitions.make(folders, [*moves, *gone])
        for each in gone:
            transitions.cleared(folders, each)
        attrs.evolve(leaving, stood=()).keep(folders)


def _return(stood: _Stood) -> Transition:
    again = attrs.evolve(stood.place.ticket, generation=stood.frozen.generation)
    return Transition(path=stood.aside, ticket=stood.frozen, to=stood.place.path, new=again)


def _farewell(stood: _Stood, retention: Retention, now: int) -> Transition:
    new = attrs.evolve(stood.frozen, at=now, revision=0, lost=_LEFT)
    to = remembered_path(now) if retention.remembers else GONE
    return Transition(path=stood.aside, ticket=stood.frozen, to=to, new=new)


def abandon(folders: Folders, retention: Retention, now: int) -> Abandoned:
    """See :meth:`outbox.moving.SupportsMove.abandon`."""
    try:
        leaving = _Leaving.read(folders)
    except CorruptRecord:
        return _held(folders, now)
    ids = [each.place.ticket.id for each in leaving.stood]
    conclude(folders, retention, now, leaving.name, ids)
    return Abandoned(given_back=len(ids))


def _held(folders: Folders, now: int) -> Abandoned:
    """Hold what is set aside: which it is tell the names of its tickets."""
    with folders.lock(MOVING):
        planned = [
            _untold(folders, queue_of(path[-1]), aside, ticket, now)
            for _, path in list(walking.queue_folders(folders))
            if (aside := claimed_path(queue_of(path[-1]), FOREVER))
            for name in _names(folders, aside)
            if (ticket := Ticket.parse(name)) is not None and ticket.at == FOREVER
        ]
        held = transitions.make(folders, planned)
        _Leaving().keep(folders)
        return Abandoned(held=len(held))


def _names(folders: Folders, path: Path) -> list[str]:
    try:
        return sorted(folders.entries(path, Kind.FILE))
    except FileNotFoundError:
        return []


def _untold(folders: Folders, queue: str, path: Path, ticket: Ticket, now: int) -> Transition:
    standing, history = transitions.learned_or_feared(folders, path, ticket, State.CLAIMED)
    standing = carrying.untold(standing, now)
    note = Note.of(standing, history)
    if ticket.revision:
        # What is kept without its content stands in its note alone.
        with contextlib.suppress(CorruptRecord, FileNotFoundError):
            note = attrs.evolve(note, bare=notes.read(folders, ticket.id, ticket.revision).bare)
    return transitions.plan(folders, queue, path, ticket, standing, now=now, note=note)


def check(folders: Folders, now: int) -> Iterator[Finding]:
    """What ``check`` says of what is under way."""
    return carrying.findings(lambda: _Leaving.read(folders), now)


def is_elsewhere(folders: Folders, id: str) -> bool:
    """See :meth:`outbox.moving.SupportsMove.has_left`."""
    known = ids.status(folders, id) if Ticket.is_id(id) else None
    if known is None:
        return False
    return any(
        ticket.id == id and has_left(ticket) and _is_file(folders, path, name, known.inode)
        for path, name in walking.tombstones(folders)
        if (ticket := Ticket.parse(name)) is not None
    )


def _is_file(folders: Folders, path: Path, name: str, inode: int) -> bool:
    try:
        return folders.stat(path, name).inode == inode
    except FileNotFoundError:
        return False


def remembered(
    folders: Folders, retention: Retention, now: int, after: Remembered | None, limit: int
) -> list[Remembered]:
    """See :meth:`outbox.moving.SupportsMove.remembered`; the names of the slots before *after* are not read."""
    since = retention.known_since(now)
    behind = (since, "") if after is None else (micros(after.settled_at), after.id)
    found: list[Remembered] = []
    for path in walking.slots(folders, remembered_path(now)[:-1]):
        if path[-1] < remembered_path(max(behind[0], 0))[-1]:
            continue
        tickets = [t for name in folders.entries(path, Kind.FILE) if (t := Ticket.parse(name)) is not None]
        for ticket in sorted(tickets, key=lambda ticket: (ticket.at, ticket.id)):
            if ticket.at <= since or (ticket.at, ticket.id) <= behind or has_left(ticket):
                continue
            if (digest := _digest(folders, path, ticket)) is not None:
                found.append(Remembered(ticket.id, digest, moment(ticket.at)))
            if len(found) >= limit:
                return found
    return found


def _digest(folders: Folders, path: Path, ticket: Ticket) -> bytes | None:
    """That of a tombstone whose id is still known for it; None of any other."""
    try:
        status, data = reading.head(folders, path, ticket.name, body.HEAD)
        known = ids.status(folders, ticket.id)
        return None if known is None or known.inode != status.inode else body.header(data).digest
    except (CorruptRecord, FormatError, FileNotFoundError):
        return None

"""Leases: a claim is a rename that nobody else made first."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from outbox.errors import CorruptRecord, FormatError
from outbox.lifecycle import Claim, Fate, Held, State
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.standing import Standing

from . import body, notes, transitions
from .disk import Strange
from .folders import Folders
from .leases import Lease, Leases
from .notes import Note
from .shelves import Pick, Shelves

__all__ = ["claim"]

_UNREADABLE: Final = frozenset({errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENXIO})
"""What the disk says of one bad file; other errors pass, and say nothing of the message."""


@attrs.frozen
class _Claimed:
    """A ticket that is ours, and where it came from."""

    pick: Pick
    lease: Lease
    standing: Standing


def claim(
    folders: Folders,
    leases: Leases,
    shelves: Shelves,
    choose: Callable[[], Sequence[Pick]],
    *,
    now: int,
    until: int,
) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.claim`; what others took, or cannot be read, is made up for."""
    while True:
        picks = choose()
        ours: list[_Claimed] = []
        claims: list[Claim] = []
        try:
            for pick in picks:
                claimed = _take(folders, pick, until)
                if claimed is None:
                    shelves.collided()
                    continue
                ours.append(claimed)
                claims += _read(folders, leases, claimed, now)
            # Once handed over it may be sent, and must not come back after a loss of power.
            only_once = {each.message.id for each in claims if each.message.at_most_once}
            folders.sync(each.lease.path for each in ours if each.lease.ticket.id in only_once)
        except OSError:
            _give_back(folders, ours)
            shelves.changed()
            raise
        if claims or not picks:
            return claims


def _take(folders: Folders, pick: Pick, until: int) -> _Claimed | None:
    standing = standings.claimed(pick.ticket.standing(State.CLAIMED if pick.expired else State.QUEUED), until)
    ticket = pick.ticket.after(standing).next_generation()
    path, ticket = Lease(queue=pick.queue, path=pick.path, ticket=ticket).until(until)
    if not folders.move(pick.path, pick.ticket.name, path, ticket.name):
        return None
    return _Claimed(pick, Lease(queue=pick.queue, path=path, ticket=ticket), standing)


def _give_back(folders: Folders, ours: Sequence[_Claimed]) -> None:
    """As though they had never been claimed: nobody has seen their tokens."""
    for each in ours:
        with contextlib.suppress(OSError):
            folders.move(each.lease.path, each.lease.ticket.name, each.pick.path, each.pick.ticket.name)


def _read(folders: Folders, leases: Leases, claimed: _Claimed, now: int) -> list[Claim]:
    """The claim; none where the message cannot be read, and is held."""
    lease = claimed.lease
    try:
        data = _data(folders, lease)
        message = _message(lease, data)
        note = _note(folders, lease, message)
    except (CorruptRecord, FormatError) as error:
        _hold(folders, claimed, str(error), now)
        return []
    leases.keep(attrs.evolve(lease, head=body.header_length(data)))
    return [standings.claim(message, note.on(claimed.standing), lease.ticket.token, now)]


def _data(folders: Folders, lease: Lease) -> bytes:
    try:
        return folders.disk.read(folders.get(lease.path).handle, lease.ticket.name)[1]
    except OSError as error:
        if error.errno in _UNREADABLE or isinstance(error, FileNotFoundError | Strange):
            raise CorruptRecord(f"{lease.ticket.id}: its file cannot be read: {error.strerror}") from error
        raise


def _message(lease: Lease, data: bytes) -> Message:
    head, message = body.whole(lease.ticket.id, data)
    if head.queue != lease.queue:
        raise CorruptRecord(f"{message.id}: it is of the queue {head.queue}, and was in {lease.queue}")
    return message


def _note(folders: Folders, lease: Lease, message: Message) -> Note:
    if not lease.ticket.revision:
        waiting = (Fate.WAITING,) * len(message.recipients)
        return Note(fates=waiting, since=body.since(message, lease.ticket.submitted))
    try:
        note = notes.read(folders, message.id, lease.ticket.revision)
    except FileNotFoundError as error:
        raise CorruptRecord(f"{message.id}: its note is missing") from error
    if len(note.fates) != len(message.recipients):
        raise CorruptRecord(f"{message.id}: its note is about other recipients")
    return note


def _hold(folders: Folders, claimed: _Claimed, reason: str, now: int) -> None:
    lease, standing = claimed.lease, claimed.standing
    verdict = Held(fates={}, reason=reason)
    before, history = transitions.learned_or_feared(folders, lease.ticket, State.CLAIMED)
    after = standings.settled(attrs.evolve(standing, since=before.since), before.fates, verdict, now)
    attempt = standings.attempt(standing.attempts, verdict, now)
    note = Note.of(after, [*history, *([attempt] if attempt else [])])
    transitions.make(
        folders,
        [transitions.plan(folders, lease.queue, lease.path, lease.ticket, after, now=now, note=note)],
    )

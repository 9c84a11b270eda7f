"""Leases: a claim is a rename that nobody else made first."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from outbox.errors import ConfigurationError, CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import Claim, Held, State
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import Codings
from outbox.stores.standing import Standing

from . import body, ids, notes, reading, transitions
from .folders import Folders
from .leases import Lease, Leases
from .names import Path, Ticket, claimed_path, ids_path
from .notes import Note
from .reading import DiskFailed
from .shelves import Pick, Shelves

__all__ = ["Terms", "claim"]

_LEAP: Final = 1 << 20
_OTHERS: Final = 8
_HELD_AT_ONCE: Final = 100
"""How many a claim holds before it comes back with nothing: what makes so many unreadable may be no fault of theirs."""


@attrs.frozen(kw_only=True)
class Terms:
    """What a claim is made by: its instant, when its leases end, and how content is read."""

    now: int
    until: int
    codings: Codings


@attrs.frozen
class _Claimed:
    """A ticket that is ours, and where it came from."""

    pick: Pick
    path: Path
    ticket: Ticket
    standing: Standing


def claim(
    folders: Folders, leases: Leases, shelves: Shelves, choose: Callable[[], Sequence[Pick]], terms: Terms
) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.claim`; what others took, or cannot be read, is made up for."""
    # The tokens are such as nobody has: not even whoever had a claim before a loss of power undid it.
    leap = 1 + secrets.randbelow(_LEAP)
    held = 0
    while held < _HELD_AT_ONCE and (picks := choose()):
        paths = {queue: claimed_path(queue, terms.until) for queue in {pick.queue for pick in picks}}
        ours: list[_Claimed] = []
        claims: list[Claim] = []
        try:
            for pick in picks:
                claimed = _take(folders, pick, paths[pick.queue], leap, terms)
                if claimed is None:
                    shelves.collided()
                    continue
                ours.append(claimed)
                claims += _read(folders, leases, claimed, terms)
            # Once handed over it may be sent, and must not come back after a loss of power.
            only_once = {each.message.id for each in claims if each.message.at_most_once}
            folders.sync(each.path for each in ours if each.ticket.id in only_once)
        except (OSError, ConfigurationError, StoreUnavailable):
            _give_back(folders, ours)
            shelves.changed()
            raise
        if claims:
            return claims
        held += len(ours)
    return []


def _take(folders: Folders, pick: Pick, path: Path, leap: int, terms: Terms) -> _Claimed | None:
    before = pick.ticket.standing(State.CLAIMED if pick.expired else State.QUEUED)
    standing = standings.claimed(before, terms.until)
    ticket = pick.ticket.after(standing, generation=pick.ticket.generation + leap)
    if not folders.move(pick.path, pick.ticket.name, path, ticket.name):
        return None
    return _Claimed(pick, path, ticket, standing)


def _give_back(folders: Folders, ours: Sequence[_Claimed]) -> None:
    """As though they had never been claimed: nobody has seen their tokens."""
    for each in ours:
        with contextlib.suppress(OSError):
            folders.move(each.path, each.ticket.name, each.pick.path, each.pick.ticket.name)


def _read(folders: Folders, leases: Leases, claimed: _Claimed, terms: Terms) -> list[Claim]:
    """The claim; none where the message cannot be read, and is held."""
    ticket = claimed.ticket
    try:
        message, head = body.opened(ticket.id, _data(folders, claimed), terms.codings)
        standing = _learned(folders, claimed, message)
    except (CorruptRecord, FormatError) as error:
        if isinstance(error, DiskFailed) and _fails_for_all(folders, ticket.id):
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
        _hold(folders, claimed, str(error), terms.now)
        return []
    leases.keep(Lease(queue=message.queue, path=claimed.path, ticket=ticket, head=head))
    return [standings.claim(message, standing, ticket.token, terms.now)]


def _data(folders: Folders, claimed: _Claimed) -> bytes:
    try:
        return reading.content(folders, claimed.path, claimed.ticket.name)
    except FileNotFoundError as error:
        raise CorruptRecord(f"{claimed.ticket.id}: its file cannot be read: {error.strerror}") from error
    except CorruptRecord as error:
        raise type(error)(f"{claimed.ticket.id}: {error}") from error


def _fails_for_all(folders: Folders, id: str) -> bool:
    """Whether the disk gives back no other message either, of a few met by chance: then it is no fault of this one."""
    failed = False
    for other in itertools.islice((other for other in ids.some(folders) if other != id), _OTHERS):
        try:
            reading.content(folders, ids_path(other), other)
        except DiskFailed:
            failed = True
        except (CorruptRecord, FileNotFoundError):
            continue
        else:
            return False
    return failed


def _learned(folders: Folders, claimed: _Claimed, message: Message) -> Standing:
    """How the message stands now that it is claimed, with what its note tells."""
    ticket, queue = claimed.ticket, claimed.pick.queue
    if message.queue != queue:
        raise CorruptRecord(f"{message.id}: it is of the queue {message.queue}, and was in {queue}")
    if not ticket.revision:
        fresh = standings.fresh(message, ticket.submitted)
        return standings.in_doubt(attrs.evolve(claimed.standing, fates=fresh.fates, since=fresh.since))
    try:
        note = notes.read(folders, message.id, ticket.revision).about(len(message.recipients))
    except FileNotFoundError as error:
        raise CorruptRecord(f"{message.id}: its note is missing") from error
    if len(note.fates) != len(message.recipients):
        raise CorruptRecord(f"{message.id}: its note is about other recipients")
    return note.on(claimed.standing)


def _hold(folders: Folders, claimed: _Claimed, reason: str, now: int) -> None:
    """Hold it; where somebody with another clock has it already, that is up to him."""
    with contextlib.suppress(FileNotFoundError):
        _held(folders, claimed, reason, now)


def _held(folders: Folders, claimed: _Claimed, reason: str, now: int) -> None:
    ticket, standing = claimed.ticket, claimed.standing
    verdict = Held(fates={}, reason=reason)
    before, history = transitions.learned_or_feared(folders, claimed.path, ticket, State.CLAIMED)
    after = standings.settled(attrs.evolve(standing, since=before.since), before.fates, verdict, now)
    attempt = standings.attempt(standing.attempts, verdict, now)
    note = Note.of(after, standings.recorded(history, attempt))
    queue = claimed.pick.queue
    held = transitions.plan(folders, queue, claimed.path, ticket, after, now=now, note=note)
    transitions.make(folders, [held])

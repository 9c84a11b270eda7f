"""Messages into the spool, all or none.

Drafts first, each on the platter; then the ids, which another put may have
taken; then, when nothing can conflict any more and there is room, the
tickets, by which they can be claimed; and one sync of each folder.  What is
acknowledged was seen to stand: its rename was made, or else its id was looked
up again, for whoever took the draft away may have thrown it away.  A kill
between two renames leaves some of a batch stored and others not: its ``put``
had not returned, and each of its messages is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Sequence

import attrs

from outbox.errors import AmbiguousPut, CorruptRecord, StoreUnavailable
from outbox.lifecycle import Claim, PutResult
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import Codings
from outbox.stores.intake import sift
from outbox.stores.limits import Load

from . import body, ids, reading
from .body import Header
from .crowding import Crowd
from .disk import Status
from .folders import Folders
from .leases import Lease, Leases
from .names import QUEUES, TMP, Path, ids_path, queue_folder

__all__ = ["Put", "Terms"]


@attrs.frozen(kw_only=True)
class Terms:
    """How a store takes messages in.

    Attributes:
        leased: Until when the caller has a lease on what is new and due; None is not at all.
        leased_queues: Those of which it has one; the others are suspended.
    """

    now: int
    remembered_since: int
    codings: Codings
    crowd: Crowd
    leased: int | None = None
    leased_queues: Collection[str] = ()

    def leases(self, message: Message) -> bool:
        """Whether the caller is to have it at once."""
        due = standings.fresh(message, self.now).due <= self.now
        return self.leased is not None and due and message.queue in self.leased_queues


@attrs.frozen
class _Draft:
    message: Message
    header: Header
    leased: bool

    @property
    def name(self) -> str:
        return self.header.first.name


@attrs.frozen
class _Known:
    """Whose an id is."""

    header: Header
    inode: int


class Put:
    """One put: what it has done so far, and how it is undone."""

    def __init__(self, folders: Folders, terms: Terms) -> None:
        self._folders = folders
        self._terms = terms
        self._drafts: list[_Draft] = []
        self._placed: list[_Draft] = []
        self._touched: list[Path] = []
        self._known: set[str] = set()

    @property
    def finished_another(self) -> bool:
        """Whether what another put has begun may have been stored by this one."""
        return bool(self._known)

    @property
    def left_waiting(self) -> bool:
        """Whether something was stored that the caller has no lease on."""
        return not all(draft.leased for draft in self._placed)

    def put(self, messages: Sequence[Message]) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; OSError where nothing was stored."""
        new, results = sift(messages, {})
        for queue in {message.queue for message in new}:
            # One look for each: what is put into a queue that a person has moved away is where nobody looks.
            self._folders.renew((*QUEUES, queue_folder(queue)))
        try:
            self._draft(new)
            self._reserve()
            load = Load.of(draft.header.ticket.size for draft in self._drafts)
            with self._terms.crowd.admitted(self._folders, load, self._terms.now):
                self._place()
        except Exception as error:
            if not self._undo():
                raise AmbiguousPut(
                    f"the put failed ({error}) when part of it could be claimed already: "
                    "put it again with the same ids"
                ) from error
            raise
        self._sync()
        return [PutResult(each.id, "known") if each.id in self._known else each for each in results]

    def claims(self, leases: Leases) -> list[Claim]:
        """Those on what was stored, where it was leased."""
        return [self._claim(draft, leases) for draft in self._placed if draft.leased]

    def _claim(self, draft: _Draft, leases: Leases) -> Claim:
        header, ticket = draft.header, draft.header.first
        leases.keep(Lease(queue=header.queue, path=header.place, ticket=ticket))
        standing = standings.claimed(standings.fresh(draft.message, self._terms.now), ticket.at)
        return standings.claim(draft.message, standing, ticket.token, self._terms.now)

    def _draft(self, messages: Sequence[Message]) -> None:
        terms = self._terms
        # It starts anywhere: a token of an earlier message of one of these ids, purged since, never fits.
        generation = secrets.randbits(47)
        for message in messages:
            leased = terms.leases(message)
            header = Header.of(
                message,
                terms.now,
                generation=generation,
                coding=terms.codings.name,
                leased=terms.leased if leased else None,
            )
            draft = _Draft(message, header, leased)
            self._drafts.append(draft)
            self._folders.create(TMP, draft.name, body.encode(message, header, terms.codings))

    def _reserve(self) -> None:
        """Take the ids; a draft whose id is known already is dropped."""
        reserved = []
        for draft in list(self._drafts):
            while not self._take(draft):
                found = self._holder(draft.message)
                if found is not None and self._finish(draft.message, found):
                    self._known.add(draft.message.id)
                    self._folders.unlink(TMP, draft.name)
                    break
            else:
                reserved.append(draft)
        self._drafts = reserved

    def _take(self, draft: _Draft) -> bool:
        id, folders = draft.message.id, self._folders
        try:
            folders.link(TMP, draft.name, ids_path(id), id)
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            raise _thrown_away(id) from error
        return True

    def _holder(self, message: Message) -> _Known | None:
        """Whose the id is; None where it has become free.

        Raises:
            ConflictError: another envelope's.
            CorruptRecord: it cannot be told.
        """
        id, folders = message.id, self._folders
        try:
            status, data = reading.head(folders, ids_path(id), id, body.HEAD)
        except FileNotFoundError:
            return None
        except CorruptRecord as error:
            raise CorruptRecord(f"{id} is known, and {error}") from error
        if self._spent(status) or ids.is_gone(folders, id, status.inode):
            ids.give_up(folders, id, status.inode)
            return None
        header = body.header(data)
        sift((message,), {id: header.digest})
        return _Known(header, status.inode)

    def _spent(self, status: Status) -> bool:
        """Whether its message is gone, or need not be remembered any more."""
        over = status.mtime // 1000 <= self._terms.remembered_since
        return status.links == 1 or (status.buried and over)

    def _finish(self, message: Message, known: _Known) -> bool:
        """Make a message as good as stored whose put was killed, or has not come so far.

        Its ticket gets another name, so that a put that fails after all, and
        takes back what it did, does not take back what is acknowledged here.
        What its put has leased already is not here, and is never taken back.

        Returns:
            Whether it stands; False where it was taken back in the meantime.
        """
        folders, header, name = self._folders, known.header, known.header.first.name
        adopted = attrs.evolve(header.ticket, generation=header.ticket.generation + 1).name
        adopts = folders.move(TMP, name, header.queued, adopted)
        adopts = adopts or folders.move(header.queued, name, header.queued, adopted)
        if not adopts and not self._stands(message, known):
            return False
        self._touched += [header.queued, header.place]
        return True

    def _stands(self, message: Message, known: _Known) -> bool:
        """Whether the id still leads to this message, of which there is no draft any more.

        In this order: what is removed is put aside before its id goes.  And
        by its whole first line: its file's number may be another's by now.
        """
        if ids.is_gone(self._folders, message.id, known.inode):
            return False
        found = self._holder(message)
        return found is not None and found.header == known.header

    def _place(self) -> None:
        for draft in self._drafts:
            if self._folders.move(TMP, draft.name, draft.header.place, draft.name):
                self._touched.append(draft.header.place)
                self._placed.append(draft)
            else:
                self._look_again(draft)

    def _look_again(self, draft: _Draft) -> None:
        """See to a draft that is not there: somebody else's put has finished it, or it was thrown away."""
        while (found := self._holder(draft.message)) is not None:
            if not self._finish(draft.message, found):
                continue
            if self._terms.leased is None and found.header.first.name == draft.name:
                self._placed.append(draft)
            else:
                # It waits, and is not the caller's.
                self._known.add(draft.message.id)
            return
        raise _thrown_away(draft.message.id)

    def _undo(self) -> bool:
        """Whether nothing of it can be claimed."""
        clean = True
        for draft in self._placed:
            clean = self._taken_back(draft) and clean
        for draft in self._drafts:
            # What stays behind is no message: the next put of this id, or a prune, removes it.
            with contextlib.suppress(OSError):
                if not self._withdrawn(TMP, draft):
                    ids.free(self._folders, draft.message.id)
        return clean

    def _taken_back(self, draft: _Draft) -> bool:
        if draft.header.leased is not None:
            return False
        try:
            return self._withdrawn(draft.header.place, draft)
        except OSError:
            return False

    def _withdrawn(self, path: Path, draft: _Draft) -> bool:
        try:
            return ids.withdraw(self._folders, path, draft.name, draft.message.id)
        except OSError:
            # The id says nothing without it.
            return self._folders.unlink(path, draft.name)

    def _sync(self) -> None:
        try:
            self._folders.sync(self._touched)
        except OSError as error:
            raise AmbiguousPut(
                f"the put may or may not outlast a loss of power ({error}): put it again with the same ids"
            ) from error


def _thrown_away(id: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{id}: its draft was removed while it was being put: put it again, and see that all that use the "
        "spool are on one machine and agree on the time"
    )

"""Messages into the spool, all or none.

Drafts first, each on the platter; then the ids, which another put may have
taken; then, when nothing can conflict any more, the tickets, by which they
can be claimed; and one sync of each folder.  A kill between two renames
leaves some of a batch stored and others not: its ``put`` had not returned,
and each of its messages is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import attrs

from outbox.errors import AmbiguousPut, StoreError
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.stores.intake import sift

from . import body, ids
from .body import Header
from .disk import Status
from .folders import Folders
from .names import TMP, Path, ids_path

__all__ = ["put"]


@attrs.define
class _Batch:
    """What one put has done so far, and what it takes to undo it."""

    drafts: list[Header] = attrs.Factory(list)
    placed: list[Header] = attrs.Factory(list)
    known: set[str] = attrs.Factory(set)
    touched: list[Path] = attrs.Factory(list)


def put(
    folders: Folders, messages: Sequence[Message], *, now: int, remembered_since: int
) -> Sequence[PutResult]:
    """See :meth:`outbox.protocols.Intake.put`; OSError where nothing was stored."""
    new, results = sift(messages, {})
    batch = _Batch()
    try:
        _draft(folders, batch, new, now)
        _reserve(folders, batch, new, remembered_since)
        _place(folders, batch)
    except (OSError, StoreError) as error:
        if not _undo(folders, batch):
            raise AmbiguousPut(
                f"the put failed ({error}) when part of it could be claimed already: put it again with the same ids"
            ) from error
        raise
    _sync(folders, batch)
    return [PutResult(each.id, "known") if each.id in batch.known else each for each in results]


def _draft(folders: Folders, batch: _Batch, messages: Iterable[Message], now: int) -> None:
    for message in messages:
        header = Header.of(message, now)
        batch.drafts.append(header)
        folders.create(TMP, header.name, body.encode(message, header))


def _reserve(folders: Folders, batch: _Batch, messages: Sequence[Message], remembered_since: int) -> None:
    """Take the ids; a draft whose id is known already is dropped."""
    reserved = []
    for message, header in zip(messages, list(batch.drafts), strict=True):
        while not _take(folders, header):
            found = _holder(folders, message, remembered_since)
            if found is not None:
                _finish(folders, found)
                batch.touched.append(found.place)
                batch.known.add(message.id)
                folders.unlink(TMP, header.name)
                break
        else:
            reserved.append(header)
    batch.drafts = reserved


def _take(folders: Folders, header: Header) -> bool:
    id = header.ticket.id
    try:
        folders.disk.link(folders.need(TMP).handle, header.name, folders.need(ids_path(id)).handle, id)
    except FileExistsError:
        return False
    return True


def _holder(folders: Folders, message: Message, remembered_since: int) -> Header | None:
    """Whose the id is; None where it has become free.

    Raises:
        ConflictError: another envelope's.
        CorruptRecord: it cannot be told.
    """
    try:
        status, data = folders.disk.read(folders.need(ids_path(message.id)).handle, message.id, body.HEAD)
    except FileNotFoundError:
        return None
    if _spent(status, remembered_since):
        ids.give_up(folders, message.id, status.inode)
        return None
    header = body.header(data)
    sift((message,), {message.id: header.digest})
    return header


def _spent(status: Status, remembered_since: int) -> bool:
    """Whether its message is gone, or need not be remembered any more."""
    return status.links == 1 or (status.buried and status.mtime // 1000 <= remembered_since)


def _finish(folders: Folders, header: Header) -> None:
    """Make a message as good as stored whose put was killed, or has not come so far.

    Its ticket gets another name, so that a put that fails after all, and
    takes back what it did, does not take back what is acknowledged here.
    """
    adopted = attrs.evolve(header.ticket, generation=header.ticket.generation + 1).name
    if not folders.move(TMP, header.name, header.place, adopted):
        folders.move(header.place, header.name, header.place, adopted)


def _place(folders: Folders, batch: _Batch) -> None:
    for header in batch.drafts:
        # Where the draft is gone somebody else's put of the same message has finished it: to the same place.
        folders.move(TMP, header.name, header.place, header.name)
        batch.placed.append(header)
    batch.touched += [header.place for header in batch.placed]


def _undo(folders: Folders, batch: _Batch) -> bool:
    """Whether nothing of it can be claimed."""
    clean = True
    for header in batch.placed:
        try:
            gone = folders.unlink(header.place, header.name)
        except OSError:
            gone = False
        clean = clean and gone
    for header in batch.drafts:
        # What stays behind is no message: the next put of this id, or a prune, removes it.
        with contextlib.suppress(OSError):
            folders.unlink(TMP, header.name)
            ids.free(folders, header.ticket.id)
    return clean


def _sync(folders: Folders, batch: _Batch) -> None:
    try:
        folders.sync(batch.touched)
    except OSError as error:
        raise AmbiguousPut(
            f"the put may or may not outlast a loss of power ({error}): put it again with the same ids"
        ) from error

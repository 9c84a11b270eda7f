"""One transition of a message: its note where there is something to say, then one rename of its ticket.

Several go together: all notes are written, their folders synced once, then
the tickets are renamed, and the folders they came into synced once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import attrs

from outbox.errors import CorruptRecord
from outbox.lifecycle import Attempt, Fate, State
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import body, ids, notes
from .folders import Folders
from .names import GONE, Path, Ticket, note_path, queued_path, remembered_path, settled_path
from .notes import Note
from .reading import DiskFailed

__all__ = [
    "Transition",
    "bury",
    "cleared",
    "cut",
    "forget",
    "learned",
    "learned_or_feared",
    "make",
    "plan",
    "removal",
    "require_there",
    "whole",
]


@attrs.frozen(kw_only=True)
class Transition:
    """A rename that is still to be made, and the note that was written for it."""

    path: Path
    ticket: Ticket
    to: Path
    new: Ticket
    note: Note | None = None

    @property
    def name(self) -> str:
        """What the ticket is called from then on: what is removed for good is found by its id."""
        return self.new.id if self.to == GONE else self.new.name

    @property
    def obsolete(self) -> int:
        """The note that no ticket names once the rename is made."""
        return self.ticket.revision if self.ticket.revision != self.new.revision else 0


def learned(folders: Folders, ticket: Ticket, state: State) -> tuple[Standing, tuple[Attempt, ...]]:
    """How a message stands, and its history, from its ticket, its note and as much of its file as is needed.

    Where the recipients cannot be read there is one fate, which is
    everybody's: lists and commands work all the same.

    Raises:
        CorruptRecord: its note cannot be read.
        FileNotFoundError: the ticket has moved on.
    """
    standing = ticket.standing(state)
    if ticket.revision:
        note = notes.read(folders, ticket.id, ticket.revision)
        return note.on(standing), note.history
    since, recipients = body.first(folders, ticket.id)
    fates = (Fate.WAITING,) * max(1, recipients)
    return standings.in_doubt(attrs.evolve(standing, fates=fates, since=since or ticket.submitted)), ()


def learned_or_feared(
    folders: Folders, path: Path, ticket: Ticket, state: State, *, proven: bool = False
) -> tuple[Standing, tuple[Attempt, ...]]:
    """The same; where the note cannot be read, everybody may have received the message already.

    Args:
        proven: Whether DiskFailed is raised all the same: what the note
            tells may be read tomorrow, and is not to be replaced by a fear.

    Raises:
        DiskFailed: see *proven*.
        FileNotFoundError: the ticket has moved on.
    """
    try:
        return learned(folders, ticket, state)
    except (CorruptRecord, FileNotFoundError) as error:
        if proven and isinstance(error, DiskFailed):
            raise
        failure = error
    # The ticket is looked at after its note: where it is still there, the note is not coming.
    require_there(folders, path, ticket)
    return _feared(folders, ticket, state, failure), ()


def _feared(folders: Folders, ticket: Ticket, state: State, failure: Exception) -> Standing:
    """How a message stands of which no more can be read than the name of its ticket, and perhaps its file."""
    missing = "its note is missing" if ticket.revision else "it has no name under ids/"
    reason = str(failure) if isinstance(failure, CorruptRecord) else f"{ticket.id}: {missing}"
    since, recipients = None, 0
    with contextlib.suppress(FileNotFoundError):
        since, recipients = body.first(folders, ticket.id)
    # Where there never was a note nobody has been tried, but by claims that were lost.
    fates = (Fate.UNCERTAIN if ticket.revision else Fate.WAITING,) * max(1, recipients)
    standing = attrs.evolve(ticket.standing(state), fates=fates, since=since or ticket.submitted)
    return attrs.evolve(standings.in_doubt(standing), reason=reason)


def plan(
    folders: Folders,
    queue: str,
    path: Path,
    ticket: Ticket,
    standing: Standing,
    *,
    now: int,
    note: Note | None,
) -> Transition:
    """What is to be renamed so that the message stands so; the note, where there is one, is written."""
    revision = 0
    if note is not None:
        revision = notes.write(folders, ticket.id, note, after=ticket.revision, now=now)
    new = ticket.after(standing, revision=revision)
    if standing.state is State.QUEUED:
        to = queued_path(queue, new, now)
    else:
        to = settled_path(queue, standing.state, new.at)
    return Transition(path=path, ticket=ticket, to=to, new=new, note=note)


def removal(path: Path, ticket: Ticket, standing: Standing, retention: Retention, now: int) -> Transition:
    """What is to be renamed so that a settled message is there no more; its id may stay known."""
    new = ticket.after(standing, revision=0)
    to = remembered_path(new.at) if retention.buries(ticket.id, standing, now) else GONE
    return Transition(path=path, ticket=ticket, to=to, new=new)


def make(
    folders: Folders,
    transitions: Sequence[Transition],
    again: Callable[[Collection[int]], Mapping[int, Transition]] = lambda _: {},
) -> set[int]:
    """Make them, durably.

    Args:
        again: Asked for those, by their numbers, whose ticket was not where
            it was thought to be: the same from where it is now.

    Returns:
        The numbers of those that were made; of the others nothing is left.
    """
    made: set[int] = set()
    with whole(folders, transitions):
        folders.sync(_notes(transitions))
        try:
            _rename(folders, dict(enumerate(transitions)), made)
            missed = set(range(len(transitions))) - made
            _rename(folders, again(missed) if missed else {}, made)
        finally:
            folders.sync(transitions[number].to for number in sorted(made))
        _keep_notes(folders, [transitions[number] for number in sorted(made)])
    _discard_notes(folders, transitions, made)
    return made


@contextlib.contextmanager
def whole(folders: Folders, planned: Collection[Transition]) -> Iterator[None]:
    """Leave no note of what is *planned* and is not made, where this fails: a full disk is not filled by trying."""
    try:
        yield
    except Exception:
        for each in planned:
            with contextlib.suppress(OSError):
                if each.note is not None:
                    # Whether a rename that failed was made after all, only the ticket tells.
                    require_there(folders, each.path, each.ticket)
                    notes.discard(folders, each.new.id, each.new.revision)
        raise


def require_there(folders: Folders, path: Path, ticket: Ticket) -> None:
    """Raise FileNotFoundError where the ticket has moved on."""
    folders.stat(path, ticket.name)


def _notes(transitions: Iterable[Transition]) -> list[Path]:
    return [note_path(each.new.revision) for each in transitions if each.note is not None]


def _keep_notes(folders: Folders, made: Sequence[Transition]) -> None:
    """See that the notes are still there.

    A prune whose clock is a day ahead, or before which the machine slept
    between a note and its rename, has met a note that no ticket named.  To
    look costs a stat for each note, which cost a sync.
    """
    lost = [each for each in made if each.note is not None and _is_lost(folders, each)]
    for each in lost:
        if each.note is not None:
            notes.write_again(folders, each.new.id, each.note, each.new.revision)
    folders.sync(_notes(lost))


def _is_lost(folders: Folders, made: Transition) -> bool:
    try:
        notes.require(folders, made.new.id, made.new.revision)
    except OSError as error:
        # Whatever else is wrong does not say that it is gone.
        return isinstance(error, FileNotFoundError)
    return False


def _rename(folders: Folders, transitions: Mapping[int, Transition], made: set[int]) -> None:
    for number, each in transitions.items():
        if folders.move(each.path, each.ticket.name, each.to, each.name):
            made.add(number)


def _discard_notes(folders: Folders, transitions: Sequence[Transition], made: Collection[int]) -> None:
    """Those that were replaced, and those of transitions that were not made."""
    for number, each in enumerate(transitions):
        with contextlib.suppress(OSError):
            if number in made:
                notes.discard(folders, each.ticket.id, each.obsolete)
            elif each.note is not None:
                notes.discard(folders, each.new.id, each.new.revision)


def cleared(folders: Folders, removed: Transition, head: int | None = None) -> None:
    """Of what was removed leave nothing that takes up room; *head* as in :func:`bury`.

    Not durable: what a crash leaves here says the same, and is seen to by the next start or prune.
    """
    with contextlib.suppress(OSError):
        if removed.to == GONE:
            ids.forget(folders, GONE, removed.name, removed.new.id)
        else:
            bury(folders, removed.to, removed.new, head)


def bury(folders: Folders, path: Path, ticket: Ticket, head: int | None = None) -> None:
    """Make the file of a remembered message a tombstone; *head* is how long it is before its content."""
    with contextlib.suppress(OSError):
        handle = folders.get(path).handle
        length = _head(folders, path, ticket) if head is None else head
        folders.disk.bury(handle, ticket.name, length, ticket.at * 1000)


def cut(folders: Folders, path: Path, ticket: Ticket, head: int | None = None) -> None:
    """Take the content out of the file of a message whose note has what is kept of it."""
    with contextlib.suppress(OSError):
        length = _head(folders, path, ticket) if head is None else head
        folders.disk.cut(folders.get(path).handle, ticket.name, length)


def _head(folders: Folders, path: Path, ticket: Ticket) -> int:
    return body.header_length(folders.disk.read(folders.get(path).handle, ticket.name)[1])


def forget(folders: Folders, path: Path, ticket: Ticket) -> bool:
    """Remove a remembered message for good; whether its id was still known."""
    return ids.forget(folders, path, ticket.name, ticket.id)

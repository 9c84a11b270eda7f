"""Looking after the spool: what is past its retention, what a crash has left, and whether all is well."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator
from typing import Final

from outbox.errors import CorruptRecord, FormatError
from outbox.lifecycle import State
from outbox.protocols import Finding

from . import body, ids, notes, transitions, walking
from .disk import Kind, Status
from .folders import Folders
from .names import (
    CLAIMED,
    IDS,
    LATER,
    NOTES,
    QUEUES,
    READY,
    REMEMBERED,
    SECOND,
    SETTLED_WIDTH,
    TMP,
    Path,
    Ticket,
    remembered_path,
    slot_start,
)

__all__ = ["check", "prune"]

_DAY: Final = 86_400 * SECOND
_SHOWN: Final = 5


def prune(folders: Folders, *, limit: int, now: int, kept_since: int, remembered_since: int) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`."""
    if limit < 1:
        return 0
    done = _forget(folders, limit, remembered_since)
    done += _unkeep(folders, limit - done, kept_since, remembered_since)
    _tidy(folders, limit, now)
    return done


def _forget(folders: Folders, limit: int, until: int) -> int:
    """Forget ids that need not be remembered any more, the oldest first."""
    done = 0
    for path in walking.slots(folders, REMEMBERED):
        if (slot_start(path[-1]) or 0) > until:
            break
        for ticket in _oldest(folders, path, limit - done, until):
            done += transitions.forget(folders, path, ticket)
        if done >= limit:
            break
        if (slot_start(path[-1]) or 0) + SETTLED_WIDTH < until:
            folders.remove(path)
    return done


def _oldest(folders: Folders, path: Path, limit: int, until: int) -> list[Ticket]:
    tickets = (ticket for name in folders.entries(path, Kind.FILE) if (ticket := Ticket.parse(name)))
    old = (ticket for ticket in tickets if ticket.at <= until)
    return heapq.nsmallest(limit, old, key=lambda ticket: (ticket.at, ticket.id))


def _unkeep(folders: Folders, limit: int, until: int, remembered_since: int) -> int:
    """Make tombstones of delivered records that need not be kept any more, the oldest first."""
    kept = (
        (ticket.at, ticket.id, path, ticket)
        for _, queue in walking.queue_folders(folders)
        for path in walking.slots(folders, (*queue, State.DELIVERED.value))
        if (slot_start(path[-1]) or 0) <= until
        for ticket in _oldest(folders, path, limit, until)
    )
    old = heapq.nsmallest(limit, kept)
    moved = []
    for _, _, path, ticket in old:
        to, new = remembered_path(ticket.at), ticket.without_note()
        if folders.move(path, ticket.name, to, new.name):
            moved.append((ticket, to, new))
    folders.sync(to for _, to, _ in moved)
    for ticket, to, new in moved:
        notes.discard(folders, ticket.id, ticket.revision)
        if new.at > remembered_since:
            transitions.bury(folders, to, new)
        else:
            transitions.forget(folders, to, new)
    return len(moved)


def _tidy(folders: Folders, limit: int, now: int) -> None:
    """Old drafts, and slots that are empty and whose time is over."""
    for number, name in enumerate(folders.entries(TMP, Kind.FILE)):
        if number >= limit:
            break
        ticket = Ticket.parse(name)
        # Its put was killed: nobody was told that it is stored.
        if ticket is not None and ticket.submitted + _DAY < now:
            folders.unlink(TMP, name)
            ids.free(folders, ticket.id)
    for _, queue in walking.queue_folders(folders):
        for state in (State.DELIVERED, State.DEAD, State.HELD, State.CANCELLED, State.EXPIRED):
            _remove_empty(folders, (*queue, state.value), now)
    _remove_empty(folders, NOTES, now)


def _remove_empty(folders: Folders, path: Path, now: int) -> None:
    for each in walking.slots(folders, path):
        if (slot_start(each[-1]) or 0) + 2 * SETTLED_WIDTH < now:
            folders.remove(each)


# -- check


def check(folders: Folders, path: str) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`; it reads every file."""
    yield Finding("ok", f"{path} is a spool of version 1, every put and settle synced")
    yield from _shown("error", "cannot be read", "they end HELD when they are claimed", _damaged(folders))
    yield from _shown(
        "warning",
        "are none of ours, and are left alone",
        "see who put them there, and remove them",
        _strangers(folders, ()),
    )
    yield from _shown(
        "error",
        "are open to others, or another user's",
        f"chown and chmod -R go-rwx {path}",
        _open_to_others(folders),
    )
    yield from _shown(
        "error",
        "are queued and have no name under ids/: their id may be stored twice",
        "stop all programs that use the spool, delete its file `boot`, and open it again",
        _nameless(folders),
    )


def _shown(level: str, what: str, advice: str, found: Iterator[str]) -> Iterator[Finding]:
    number, names = 0, []
    for name in found:
        number += 1
        if number <= _SHOWN:
            names.append(name)
    if number:
        more = f" and {number - len(names)} more" if number > len(names) else ""
        text = f"{number} files {what}: {', '.join(names)}{more}"
        yield Finding("error" if level == "error" else "warning", text, advice)
    else:
        yield Finding("ok", f"no files {what}")


def _damaged(folders: Folders) -> Iterator[str]:
    for entry in walking.walk(folders):
        ticket = Ticket.parse(entry.name)
        if ticket is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            try:
                _, data = folders.disk.read(folders.get(entry.path).handle, entry.name)
                body.whole(ticket.id, data)
                transitions.learned(folders, ticket, entry.state)
            except (CorruptRecord, FormatError) as error:
                yield str(error)


def _nameless(folders: Folders) -> Iterator[str]:
    for entry in walking.walk(folders):
        with contextlib.suppress(FileNotFoundError):
            found = folders.disk.stat(folders.get(entry.path).handle, entry.name)
            known = ids.status(folders, entry.id)
            if found.kind is Kind.FILE and (known is None or known.inode != found.inode):
                yield entry.name


_ROOT: Final = frozenset({"tmp", "ids", "notes", "queues", "remembered", "format", "boot", "bell"})
_STATES: Final = frozenset(state.value for state in State) | {LATER, READY, CLAIMED}


def _strangers(folders: Folders, path: Path) -> Iterator[str]:
    """Whatever the store would neither read, follow nor delete."""
    for name, kind in _listed(folders, path):
        inner = (*path, name)
        if not _ours(inner, kind):
            yield "/".join(inner)
        elif kind is Kind.FOLDER:
            yield from _strangers(folders, inner)


def _listed(folders: Folders, path: Path) -> list[tuple[str, Kind]]:
    try:
        with contextlib.closing(folders.listing(path)) as listing:
            return list(listing)
    except FileNotFoundError:
        return []


def _ours(path: Path, kind: Kind) -> bool:
    name = path[-1]
    if len(path) == 1:
        return name in _ROOT or name.startswith("format.")
    if kind is Kind.OTHER:
        return False
    if kind is Kind.FILE:
        return _file_of(path)
    if path[0] == QUEUES[0]:
        return len(path) != 3 or name in _STATES  # noqa: PLR2004 - queues/<queue>/<state>
    return path[0] in (IDS[0], NOTES[0], REMEMBERED[0])


def _file_of(path: Path) -> bool:
    name = path[-1]
    if path[0] == IDS[0]:
        return Ticket.is_id(name)
    if path[0] == NOTES[0]:
        return notes.parse_name(name) is not None
    return Ticket.parse(name) is not None


def _open_to_others(folders: Folders) -> Iterator[str]:
    for entry in walking.walk(folders):
        with contextlib.suppress(FileNotFoundError):
            found: Status = folders.disk.stat(folders.get(entry.path).handle, entry.name)
            if found.kind is Kind.FILE and found.mode & 0o077:
                yield entry.name

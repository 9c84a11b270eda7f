"""Looking after the spool: what is past its retention, and what a crash has left."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

import attrs

from outbox.errors import ConfigurationError, CorruptRecord
from outbox.lifecycle import State
from outbox.stores.retention import FAILED, Retention

from . import leftovers, suspending, transitions, walking
from .disk import Kind
from .folders import Folders
from .names import NOTES, REMEMBERED, SETTLED_WIDTH, Path, Ticket, slot_start

__all__ = ["prune"]


def prune(folders: Folders, retention: Retention, *, limit: int, now: int) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`."""
    if limit < 1:
        return 0
    done = _forget(folders, limit, retention.known_since(now))
    if done < limit:
        done += _forget_spare(folders, limit - done, retention.remember_at_most)
    for state in (State.DELIVERED, *FAILED):
        since = retention.kept_since(now, state)
        if since is not None and done < limit:
            done += _discard(folders, _Old(state, since, limit - done), retention, now)
    leftovers.remove(folders, limit, now)
    suspending.prune(folders, now)
    _remove_empty(folders, now)
    return done


# -- ids


def _forget(folders: Folders, limit: int, until: int) -> int:
    """Forget ids that need not be remembered any more, the oldest first; how many were known till now."""
    done = 0
    for path in walking.slots(folders, REMEMBERED):
        start = slot_start(path[-1]) or 0
        if start > until or done >= limit:
            break
        for ticket in _oldest(folders, path, limit - done, until):
            done += transitions.forget(folders, path, ticket)
        if start + SETTLED_WIDTH < until:
            folders.remove(path)
    return done


def _forget_spare(folders: Folders, limit: int, at_most: int) -> int:
    """Forget the oldest of more ids than are to be remembered."""
    known = 0
    for known, _ in enumerate(walking.tombstones(folders), 1):
        if known >= at_most + limit:
            break
    spare = known - at_most
    done = 0
    for path in walking.slots(folders, REMEMBERED):
        if done >= spare:
            break
        for ticket in _oldest(folders, path, spare - done):
            transitions.forget(folders, path, ticket)
            done += 1
    return done


def _oldest(folders: Folders, path: Path, limit: int, until: int | None = None) -> list[Ticket]:
    tickets = (ticket for name in folders.entries(path, Kind.FILE) if (ticket := Ticket.parse(name)))
    old = (ticket for ticket in tickets if until is None or ticket.at <= until)
    return heapq.nsmallest(limit, old, key=lambda ticket: (ticket.at, ticket.id))


# -- records


@attrs.frozen
class _Old:
    """Which records go: those in *state* that were settled until then, the oldest first."""

    state: State
    until: int
    limit: int


def _discard(folders: Folders, old: _Old, retention: Retention, now: int) -> int:
    removals = []
    for path, ticket in heapq.nsmallest(old.limit, _aged(folders, old), key=_age):
        try:
            standing, _ = transitions.learned_or_feared(folders, path, ticket, old.state, proven=True)
        except (FileNotFoundError, CorruptRecord):
            continue
        removals.append(transitions.removal(path, ticket, standing, retention, now))
    made = transitions.make(folders, removals)
    for number in made:
        transitions.cleared(folders, removals[number])
    return len(made)


def _aged(folders: Folders, old: _Old) -> Iterator[tuple[Path, Ticket]]:
    for path in _settled(folders, old.state):
        if (slot_start(path[-1]) or 0) <= old.until:
            for ticket in _oldest(folders, path, old.limit, old.until):
                yield path, ticket


def _age(found: tuple[Path, Ticket]) -> tuple[int, str]:
    return found[1].at, found[1].id


# -- folders


def _remove_empty(folders: Folders, now: int) -> None:
    """Slots whose time is over."""
    slots = [
        walking.slots(folders, NOTES),
        *(_settled(folders, state) for state in (State.DELIVERED, *FAILED)),
    ]
    for path in itertools.chain.from_iterable(slots):
        if (slot_start(path[-1]) or 0) + 2 * SETTLED_WIDTH < now:
            folders.remove(path)


def _settled(folders: Folders, state: State) -> Iterator[Path]:
    """The slots of this state in all queues, but for those that must not be entered."""
    for _, queue in walking.queue_folders(folders):
        try:
            yield from walking.slots(folders, (*queue, state.value))
        except (ConfigurationError, OSError) as error:
            if not walking.refused(error):
                raise

"""What is scheduled becomes ready: the wheel of slots turns by as much as each claim can afford.

A slot whose time has begun is emptied: what is due becomes ready, and what
is not goes into finer slots.  The finest are a second wide; what is not due
yet within that second stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from . import walking
from .disk import Kind, Listing
from .folders import Folders
from .names import LATER, LEVELS, QUEUES, Path, Ticket, queue_folder, queued_path, slot_start
from .walking import Detour

__all__ = ["Promotion"]

_READ: Final = 1000
"""How many names are read at once."""


@attrs.define
class _Pass:
    """One reading of a slot, from its beginning to its end."""

    listing: Listing
    left: int = 0
    """Tickets; what is none never becomes due."""


class Promotion:
    """The scheduled tickets of one queue.  Not safe from many threads."""

    def __init__(self, folders: Folders, queue: str, detour: Detour) -> None:
        self._folders = folders
        self._detour = detour
        self._queue = queue
        self._later: Path = (*QUEUES, queue_folder(queue), LATER)
        self._passes: dict[Path, _Pass] = {}
        self.unfinished = False
        """Whether what is due may be among what was not looked at."""

    def close(self) -> None:
        for each in self._passes.values():
            each.listing.close()
        self._passes.clear()

    def turn(self, now: int, limit: int) -> int:
        """Move on what its time has come for, at most *limit* tickets; how many became ready."""
        ready, budget = 0, limit
        self.unfinished = False
        for path in self._begun(now):
            promoted, moved, done = 0, 0, True
            with self._detour.around():
                promoted, moved, done = self._empty(path, now, budget)
            ready += promoted
            budget -= moved
            self.unfinished = self.unfinished or not done
            if budget <= 0:
                self.unfinished = True
                break
        return ready

    def _begun(self, now: int) -> Iterator[Path]:
        there = self._detour.found(walking.slots, self._folders, self._later)
        # Those that another process has emptied and removed.
        for path in self._passes.keys() - set(there):
            self._passes.pop(path).listing.close()
        for path in there:
            if (slot_start(path[-1]) or 0) > now:
                return
            yield path

    def _empty(self, path: Path, now: int, budget: int) -> tuple[int, int, bool]:
        """How many became ready, how many were moved, and whether the slot was seen to its end."""
        current = self._passes.get(path)
        resumed = current is not None
        if current is None:
            try:
                current = self._passes[path] = _Pass(self._folders.listing(path))
            except FileNotFoundError:
                return 0, 0, True
        ready = moved = 0
        for _ in range(_READ):
            if moved >= budget:
                return ready, moved, False
            name, kind = next(current.listing, ("", Kind.FILE))
            if not name:
                self._end(path, current, now)
                # What was left when this reading began may be due by now.
                return ready, moved, not (resumed and current.left)
            ticket = Ticket.parse(name) if kind is Kind.FILE else None
            if ticket is None:
                continue
            due = self._move(path, ticket, now)
            moved += due is not None
            ready += bool(due)
            current.left += due is None
        return ready, moved, False

    def _end(self, path: Path, current: _Pass, now: int) -> None:
        current.listing.close()
        del self._passes[path]
        level = LEVELS[int(path[-1][0])]
        if not current.left and (slot_start(path[-1]) or 0) + 2 * level < now:
            self._folders.remove(path)

    def _move(self, path: Path, ticket: Ticket, now: int) -> bool | None:
        """True where it became ready, False where it went into a finer slot, None where it stays."""
        to = queued_path(self._queue, ticket, now)
        if to == path:
            return None
        if not self._folders.move(path, ticket.name, to, ticket.name):
            return None
        return ticket.at <= now

    def due_at(self) -> int | None:
        """When the first of them is due, or its slot begins where that is too full to look through."""
        firsts: dict[str, Path] = {}
        found: list[int] = []
        for path in self._detour.found(walking.slots, self._folders, self._later):
            level = path[-1][0]
            with self._detour.around():
                if level not in firsts and (at := earliest(self._folders, path, _READ)) is not None:
                    firsts[level] = path
                    found.append(at)
        return min(found, default=None)


def earliest(folders: Folders, path: Path, at_most: int | None = None) -> int | None:
    """The first instant in a slot; its beginning where there are more than *at_most* to look through."""
    first: Ticket | None = None
    for number, name in enumerate(filter(Ticket.is_name, folders.entries(path, Kind.FILE))):
        if number == at_most:
            return slot_start(path[-1])
        # They sort as they are due: few have to be taken apart.
        if first is None or name < first.name:
            first = Ticket.parse(name) or first
    return None if first is None else first.at

"""What can be claimed, queue by queue: ready tickets, and leases that ran out.

Kept by a store object for its own callers.  It is only a guess of what is on
the disk: whoever is offered a ticket has it when its rename has succeeded.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from outbox.stores.instants import EARLIEST
from outbox.stores.selection import PROMOTED, Candidate, Offer, Turns, choose

from . import walking
from .folders import Folders
from .names import CLAIMED, QUEUES, READY_WIDTH, Path, Ticket, queue_folder, slot_start, stamp
from .promotion import Promotion, earliest
from .walking import Detour
from .windows import Window

__all__ = ["Pick", "Shelves"]

_CROWDED: Final = 64
"""For so many claims after a collision the tickets are taken at random."""


@attrs.frozen
class Pick:
    """A ticket to claim, and where it is thought to be."""

    queue: str
    path: Path
    ticket: Ticket
    expired: bool

    @property
    def candidate(self) -> Candidate:
        return Candidate((-self.ticket.priority, self.ticket.at, self.ticket.id), self.ticket.size)


class _Shelf:
    """One queue."""

    def __init__(self, folders: Folders, queue: str, die: random.Random, detour: Detour) -> None:
        self._folders = folders
        self._queue = queue
        self._die = die
        self._detour = detour
        self.path: Path = (*QUEUES, queue_folder(queue))
        self._windows: dict[Path, Window] = {}
        self.promotion = Promotion(folders, queue, detour)

    def close(self) -> None:
        self.promotion.close()
        for window in self._windows.values():
            window.close()
        self._windows.clear()

    def offer(self, now: int, limit: int, mark: object, *, crowded: bool) -> tuple[list[Pick], Pick | None]:
        """The first of its ready tickets, and the first of its suspects as far as that is before them."""
        ready: list[Pick] = []
        suspects: list[Pick] = []
        for window in self._ready(now, mark):
            if not suspects:
                suspects += self._picks(window, window.suspects[:1])
            some = window.names[: limit - len(ready)]
            if crowded:
                some = self._die.sample(window.names, len(some))
            ready += self._picks(window, some)
            if len(ready) >= limit:
                break
        suspects += self._expired(now, mark)
        return ready, min(suspects, key=lambda pick: pick.candidate.key, default=None)

    def take(self, picks: Sequence[Pick]) -> None:
        for path in {pick.path for pick in picks}:
            window = self._windows.get(path)
            if window is not None:
                window.take({pick.ticket.name for pick in picks})

    def _ready(self, now: int, mark: object) -> Iterator[Window]:
        for window in self._prioritized():
            if not self._look(window, mark):
                continue
            if len(window):
                yield window
            elif window.whole:
                self._discard(window.path, now)

    def _prioritized(self) -> Iterator[Window]:
        for priority in self._detour.found(walking.priorities, self._folders, self.path):
            for path in self._slots(priority):
                yield self._window(path)

    def _look(self, window: Window, *mark: Any) -> bool:
        """Whether it could be looked at."""
        with self._detour.around():
            window.look(*mark)
            return True
        return False

    def _expired(self, now: int, mark: object) -> list[Pick]:
        picks = []
        for path in self._slots((*self.path, CLAIMED)):
            if (slot_start(path[-1]) or 0) > now:
                break
            window = self._window(path)
            # A name goes on after its instant: with this it sorts before the next one.
            if not self._look(window, (mark, now), stamp(now) + "-"):
                continue
            picks += self._picks(window, [*window.names, *window.suspects], expired=True)
            if not len(window) and window.whole:
                self._discard(path, now)
        return picks

    def _picks(self, window: Window, names: Sequence[str], *, expired: bool = False) -> list[Pick]:
        return [Pick(self._queue, window.path, window.tickets[name], expired) for name in names]

    def _slots(self, folder: Path) -> list[Path]:
        """The slots of a folder; of those that another process has removed no window stays open."""
        there = self._detour.found(walking.slots, self._folders, folder)
        known = {path for path in self._windows if path[:-1] == folder}
        for path in known.difference(there):
            self._windows.pop(path).close()
        return there

    def _window(self, path: Path) -> Window:
        if path not in self._windows:
            self._windows[path] = Window(self._folders, path)
        return self._windows[path]

    def _discard(self, path: Path, now: int) -> None:
        """A slot whose time is over and that is empty goes; who wants it all the same makes it again."""
        if (slot_start(path[-1]) or 0) + 2 * READY_WIDTH < now and self._folders.remove(path):
            self._windows.pop(path).close()

    def due_at(self, mark: object) -> int | None:
        """When the first of them can be claimed; EARLIEST where one can be now, or where not all was seen."""
        if self.promotion.unfinished:
            return EARLIEST
        for window in self._prioritized():
            if self._look(window, mark) and self._has_some(window):
                return EARLIEST
        ends = (self._ends(path) for path in self._slots((*self.path, CLAIMED)))
        end = next((at for at in ends if at is not None), None)
        return min((at for at in (end, self.promotion.due_at()) if at is not None), default=None)

    def _has_some(self, window: Window) -> bool:
        """Whether there is a ticket still: another process may have taken what the window shows."""
        with self._detour.around():
            return window.stands() or not window.whole
        return False

    def _ends(self, path: Path) -> int | None:
        with self._detour.around():
            return earliest(self._folders, path)
        return None


class Shelves:
    """See the module.  Safe from many threads."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._shelves: dict[str, _Shelf] = {}
        # A slot that cannot be read stops no other, and no other queue.
        self._detour = Detour(failing=True)
        self._turns = Turns()
        self._die = random.Random()  # noqa: S311 - it keeps processes out of each other's way, and secrets from nobody
        self._crowded = 0
        self._numbers = itertools.count(1)
        self._changes = 0

    def close(self) -> None:
        """Nobody uses it any more; see :meth:`Folders.close`."""
        for shelf in self._shelves.values():
            shelf.close()
        self._shelves.clear()

    def changed(self) -> None:
        """Something of this process's doing may have moved tickets."""
        # Another number each time, also from many threads at once.
        self._changes = next(self._numbers)

    def collided(self) -> None:
        """Another process took what was offered here."""
        self._crowded = _CROWDED

    def choose(self, queues: Sequence[str], bell: int, *, now: int, limit: int, max_bytes: int) -> list[Pick]:
        """What to claim; nobody else of this process is offered the same meanwhile.

        Raises:
            ConfigurationError, OSError: there is nothing, and not all folders could be looked at.
        """
        with self._lock:
            self._detour.errors.clear()
            crowded = self._crowded > 0
            self._crowded -= crowded
            known: dict[str, Pick] = {}
            offers = [
                self._offer(
                    queue,
                    known,
                    bell=bell,
                    now=now,
                    limit=limit,
                    promoted=PROMOTED // len(queues) or 1,
                    crowded=crowded,
                )
                for queue in queues
            ]
            chosen = choose(self._turns.sort(offers), limit=limit, max_bytes=max_bytes)
            picks = [known[id] for id in chosen]
            if not picks and self._detour.errors:
                raise self._detour.errors[0]
            for queue in {pick.queue for pick in picks}:
                self._shelves[queue].take([pick for pick in picks if pick.queue == queue])
            return picks

    def _offer(
        self,
        queue: str,
        known: dict[str, Pick],
        *,
        bell: int,
        now: int,
        limit: int,
        promoted: int,
        crowded: bool,
    ) -> Offer:
        shelf = self._shelf(queue)
        # One look for each queue: it may have been moved away, and another begun.
        self._folders.renew(shelf.path)
        if shelf.promotion.turn(now, promoted):
            self.changed()
        ready, suspect = shelf.offer(now, limit, (self._changes, bell), crowded=crowded)
        known.update({pick.ticket.id: pick for pick in [*ready, *([suspect] if suspect else [])]})
        return Offer(queue, [pick.candidate for pick in ready], suspect.candidate if suspect else None)

    def due_at(self, queues: Sequence[str], bell: int) -> int | None:
        """When the first message of these queues can be claimed; EARLIEST is now, None is never."""
        with self._lock:
            due = [self._shelf(queue).due_at((self._changes, bell)) for queue in queues]
        return min((at for at in due if at is not None), default=None)

    def _shelf(self, queue: str) -> _Shelf:
        if queue not in self._shelves:
            self._shelves[queue] = _Shelf(self._folders, queue, self._die, self._detour)
        return self._shelves[queue]

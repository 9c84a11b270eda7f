"""The heaps of the memory store: what is scheduled, what is ready, and who of that is suspect."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from .instants import EARLIEST
from .rows import Row
from .selection import Key, Offer

__all__ = ["Lanes"]


_Entry: TypeAlias = tuple[Key, int, Row]


class _Heap:
    """Rows by key; what left it is dropped when it comes up."""

    def __init__(self, places: Iterator[int]) -> None:
        self._places = places
        self._entries: list[_Entry] = []

    def push(self, key: Key, row: Row) -> None:
        row.place = next(self._places)
        heapq.heappush(self._entries, (key, row.place, row))

    def first(self) -> Row | None:
        while self._entries:
            _, place, row = self._entries[0]
            if row.place == place:
                return row
            heapq.heappop(self._entries)
        return None

    def take(self, limit: int, due: Callable[[Row], bool] = lambda _: True) -> list[Row]:
        """Up to *limit* of the first rows, removed."""
        taken: list[Row] = []
        while len(taken) < limit and (row := self.first()) and due(row):
            heapq.heappop(self._entries)
            taken.append(row)
        return taken


class _Lane:
    """One queue: what is not due yet, what is ready, and the suspects among that."""

    def __init__(self, places: Iterator[int]) -> None:
        self.scheduled = _Heap(places)
        self.ready = _Heap(places)
        self.suspects = _Heap(places)

    def schedule(self, row: Row) -> None:
        self.scheduled.push((0, row.standing.due, row.id), row)

    def make_ready(self, row: Row) -> None:
        heap = self.suspects if row.standing.suspect else self.ready
        heap.push(row.candidate.key, row)

    def promote(self, now: int, limit: int) -> None:
        for row in self.scheduled.take(limit, lambda row: row.standing.due <= now):
            self.make_ready(row)

    def offer(self, queue: str, limit: int) -> Offer:
        """The first of them; they stay where they are."""
        ready = self.ready.take(limit)
        for row in ready:
            self.make_ready(row)
        suspect = self.suspects.first()
        return Offer(queue, [row.candidate for row in ready], suspect.candidate if suspect else None)

    def due_at(self) -> int | None:
        """When the first of them is due: EARLIEST where one is ready."""
        if self.ready.first() or self.suspects.first():
            return EARLIEST
        row = self.scheduled.first()
        return None if row is None else row.standing.due


class Lanes:
    """The lanes of all queues, each made when its first message comes."""

    def __init__(self) -> None:
        # One count for all heaps: the entries that a row has left behind fit it nowhere.
        self._places = itertools.count(1)
        self._lanes: dict[str, _Lane] = {}

    def enqueue(self, row: Row, now: int) -> None:
        """It may be claimed when it is due."""
        if row.standing.due <= now:
            self._of(row).make_ready(row)
        else:
            self._of(row).schedule(row)

    def schedule(self, row: Row) -> None:
        """It may be claimed when it is due, however late it is seen to be."""
        self._of(row).schedule(row)

    def offer(self, queue: str, now: int, limit: int, promoted: int) -> Offer:
        """What a queue has to give, after up to *promoted* of what has become due were made ready."""
        lane = self._lanes.get(queue)
        if lane is None:
            return Offer(queue, ())
        lane.promote(now, promoted)
        return lane.offer(queue, limit)

    def due_at(self, queues: Sequence[str]) -> int | None:
        """When the first message of *queues* can be claimed: EARLIEST where one is ready, None where there is none."""
        lanes = [self._lanes[queue] for queue in queues if queue in self._lanes]
        due = [at for lane in lanes if (at := lane.due_at()) is not None]
        return min(due) if due else None

    def _of(self, row: Row) -> _Lane:
        queue = row.message.queue
        if queue not in self._lanes:
            self._lanes[queue] = _Lane(self._places)
        return self._lanes[queue]

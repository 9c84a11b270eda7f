"""The heaps of the memory store: what is scheduled, what is ready, and who of that is suspect."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import TypeAlias

import attrs

from outbox.lifecycle import Attempt
from outbox.message import Message

from .selection import Candidate, Key, Offer
from .standing import Standing

__all__ = ["Lane", "Row"]


@attrs.define(kw_only=True, eq=False)
class Row:
    """A message and where it stands.

    *place* names its entry in one of its queue's heaps; an entry that bears
    another number has been left behind, and is dropped when it comes up.
    """

    message: Message
    standing: Standing
    generation: int = 0
    place: int = 0
    history: list[Attempt] = attrs.Factory(list)

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def candidate(self) -> Candidate:
        key = (-self.message.priority, self.standing.due, self.message.id)
        return Candidate(key, len(self.message.content))


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


class Lane:
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
        """When the first of them is due: 0 where one is ready."""
        if self.ready.first() or self.suspects.first():
            return 0
        row = self.scheduled.first()
        return None if row is None else row.standing.due

"""Messages of the memory store that leave for another store, or come from one: the model that others are held to."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Collection, Iterator, Sequence

import attrs

from outbox.lifecycle import Record
from outbox.moving import Abandoned, Batch, Remembered

from . import carrying
from .carrying import Given
from .instants import micros
from .rows import Row
from .shelf import Shelf
from .standing import Standing

__all__ = ["Ferry"]


class Ferry:
    """What is under way from this shelf, and what came to it last from each other store."""

    def __init__(self, shelf: Shelf) -> None:
        self.identity = secrets.token_hex(16)
        self._shelf = shelf
        self._name = ""
        self._to = ""
        self._stood: dict[str, Standing] = {}
        self._given: dict[str, Given] = {}

    # -- out

    def take(
        self, now: int, *, to: str, limit: int, max_bytes: int, leave: Collection[str], after: str
    ) -> Batch | None:
        if self._stood:
            carrying.require_partner(self._to, to)
            return self._batch()
        chosen = list(_bounded(self._there(now, frozenset(leave)), limit, max_bytes))
        if not chosen:
            return None
        self._name, self._to = carrying.next_name(self._name, now, after), to
        for row in chosen:
            self._stood[row.id] = row.standing
            self._shelf.detain(row, carrying.leaving(row.standing))
        return self._batch()

    def _there(self, now: int, leave: frozenset[str]) -> Iterator[Row]:
        """All that may leave, the best first."""
        rows = [
            row for row in self._shelf.rows.values() if row.id not in leave and not row.standing.leased(now)
        ]
        due = [row for row in rows if row.standing.queued and row.standing.due <= now]
        later = [row for row in rows if row.standing.queued and row.standing.due > now]
        settled = [row for row in rows if not row.standing.queued]
        return itertools.chain(sorted(due, key=lambda row: row.candidate.key), later, settled)

    def _batch(self) -> Batch:
        return Batch(
            name=self._name,
            source=self.identity,
            records=[self._record(id, stood) for id, stood in self._stood.items()],
        )

    def _record(self, id: str, stood: Standing) -> Record:
        return attrs.evolve(self._shelf.rows[id], standing=stood).record

    def conclude(self, name: str, back: Collection[str], now: int) -> None:
        if name != self._name:
            return
        for id, stood in self._stood.items():
            row = self._shelf.rows[id]
            if id in back:
                self._shelf.stand(row, stood, now)
            else:
                self._shelf.part(row, now)
        self._stood = {}

    def abandon(self, now: int) -> Abandoned:
        given_back = len(self._stood)
        self.conclude(self._name, list(self._stood), now)
        return Abandoned(given_back=given_back)

    def remembered(self, now: int, after: Remembered | None, limit: int) -> list[Remembered]:
        known = sorted(self._shelf.remembered(now), key=lambda each: (each.settled_at, each.id))
        behind = (each for each in known if after is None or _key(each) > _key(after))
        return list(itertools.islice(behind, limit))

    # -- in

    def give(self, batch: Batch, now: int) -> Sequence[str]:
        last = self.last_given(batch.source)
        if last.repeats(batch):
            return last.refused
        rows = [_row(record) for record in batch.records]
        refused = (*(row.id for row in rows if row.id in self._shelf.rows), *batch.unreadable)
        self._shelf.admit([row for row in rows if row.id not in refused], now)
        self._given[batch.source] = Given(batch.name, refused)
        return refused

    def last_given(self, source: str) -> Given:
        return self._given.get(source, Given())

    def remember(self, known: Sequence[Remembered]) -> None:
        for each in known:
            self._shelf.remember(each.id, each.digest, micros(each.settled_at))


def _bounded(rows: Iterator[Row], limit: int, room: int) -> Iterator[Row]:
    for number, row in enumerate(itertools.islice(rows, limit)):
        room -= row.size
        if number and room < 0:
            return
        yield row


def _key(known: Remembered) -> tuple[object, str]:
    return known.settled_at, known.id


def _row(record: Record) -> Row:
    message = record.message
    return Row(
        message=message,
        digest=message.envelope_digest,
        size=record.summary.size,
        standing=carrying.arrived(record),
        history=list(record.history),
    )

"""How messages come in: by a commit of their own, by one shared with other threads, or by the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import attrs

from outbox.errors import AmbiguousPut, StoreFull
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.moving import Batch
from outbox.protocols import Finding
from outbox.stores import surroundings
from outbox.stores.content import Codings
from outbox.stores.limits import Limits
from outbox.stores.retention import Retention

from . import moving, putting
from .connection import Database
from .crowding import Crowd
from .grouping import Share
from .naming import Sql
from .salvage import Indexes
from .translation import CommitFailed

__all__ = ["Entrance"]

T = TypeVar("T")

_MARGIN: Final = 1 << 20


@attrs.frozen(kw_only=True, eq=False)
class Entrance:
    """See the module; each of its ways looks first whether there is room."""

    database: Database
    indexes: Indexes
    codings: Codings
    retention: Retention
    limits: Limits
    crowd: Crowd
    now: Callable[[], int]

    def put(self, messages: Sequence[Message]) -> Sequence[PutResult]:
        """Store them; puts of other threads may come in by the same statements."""
        return self.put_and(messages, lambda _, stored: stored.results, share=self._stored_together)

    def put_and(
        self,
        messages: Sequence[Message],
        then: Callable[[Sql, putting.Stored], T],
        *,
        share: Callable[[Sql, Sequence[Any]], Sequence[T | Exception]] | None = None,
    ) -> T:
        """Store them, and do within the same commit what is to be done *then*."""
        drafts = putting.drafts(messages, self.codings)
        size = sum(len(draft.message.content) for draft in drafts)
        try:
            return self.indexes.trusted(
                lambda: self.database.write(
                    lambda sql: then(sql, self._stored(sql, drafts)),
                    content=size,
                    share=None if share is None else Share(share, drafts),
                )
            )
        except CommitFailed as error:
            raise AmbiguousPut(f"{error}; put it again with the same id") from error.__cause__

    def give(self, batch: Batch) -> Sequence[str]:
        """Store what comes from another store, once."""
        made = moving.arrivals(batch, self.codings)
        size = sum(len(record.message.content) for record in batch.records)

        def give(sql: Sql) -> Sequence[str]:
            last = moving.given(sql, batch.source)
            if last.repeats(batch):
                # Where it is full, too: nothing is to be written.
                return last.refused
            if made:
                self._require_room()
            return moving.give(sql, batch, made, self.crowd, self.now())

        try:
            refused = self.database.write(give, content=size)
        except CommitFailed as error:
            raise AmbiguousPut(f"{error}; give the same batch again") from error.__cause__
        self.database.news.tell()
        return refused

    def put_within(self, sql: Sql, messages: Sequence[Message]) -> Sequence[PutResult]:
        """Store them, and leave the commit to whose transaction it is."""
        return self._stored(sql, putting.drafts(messages, self.codings)).results

    def _stored(self, sql: Sql, drafts: Sequence[putting.Draft]) -> putting.Stored:
        (stored,) = self._stored_each(sql, [drafts])
        if isinstance(stored, Exception):
            raise stored
        return stored

    def _stored_together(
        self, sql: Sql, puts: Sequence[Sequence[putting.Draft]]
    ) -> Sequence[Sequence[PutResult] | Exception]:
        each = self._stored_each(sql, puts)
        return [stored if isinstance(stored, Exception) else stored.results for stored in each]

    def _stored_each(
        self, sql: Sql, puts: Sequence[Sequence[putting.Draft]]
    ) -> Sequence[putting.Stored | Exception]:
        self._require_room()
        return putting.put(sql, puts, self.retention, self.crowd, self.now())

    def room(self) -> Finding:
        """Whether the disk has room for what is to be put."""
        reserve = self.database.wal.reserve(exactly=True) + _MARGIN
        return surroundings.room(self.database.file.parent, self.limits, reserve=reserve)

    def _require_room(self) -> None:
        """A checkpoint may need as much again as the WAL has; the margin is for the WAL of the settlements."""
        folder = self.database.file.parent
        try:
            self.limits.require_free(folder, reserve=self.database.wal.reserve() + _MARGIN)
        except StoreFull:
            self.limits.require_free(folder, reserve=self.database.wal.reserve(exactly=True) + _MARGIN)

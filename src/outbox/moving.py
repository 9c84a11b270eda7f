"""What it takes to move messages from one store to another, so that each is in exactly one of them at any time.

The source parts with messages in batches, and the destination accepts each
batch once, whatever is killed in between::

    batch = source.take(to=destination.identity(), limit=500)
    refused = destination.give(batch)
    source.conclude(batch.name, back=refused)

From ``take`` on nobody at the source is given these messages; from ``give``
on the destination delivers them; by ``conclude`` the source forgets them.
Each of the three is atomic and durable, and each may be repeated: ``take``
returns the batch that is under way until it was concluded, ``give`` accepts a
name once, and what was concluded is not concluded again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Protocol, runtime_checkable

import attrs

from .lifecycle import Record
from .protocols import MAX_BYTES

__all__ = ["ON_ITS_WAY", "Abandoned", "Batch", "Remembered", "SupportsMove"]

ON_ITS_WAY: Final = "on its way to another store, until outbox move has brought it there"
"""The reason of a message that was taken, until its batch is concluded."""


def _records(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(records)


def _ids(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(ids)


@attrs.frozen(kw_only=True)
class Batch:
    """Messages on their way from one store to another.

    Attributes:
        name: Of all batches that leave a store a later one has a greater
            name, also where the store was restored from a backup in between;
            ``""`` is a batch without messages, which is neither given nor
            concluded.
        source: The identity of the store that they leave.
        records: How each stood when it was taken.
        unreadable: What was met and cannot be read: it stays where it is.
    """

    name: str
    source: str
    records: Sequence[Record] = attrs.field(default=(), converter=_records)
    unreadable: Sequence[str] = attrs.field(default=(), converter=_ids)


@attrs.frozen(kw_only=True)
class Abandoned:
    """What became of a batch that was given up: how many messages stand as they stood, and how many are HELD."""

    given_back: int = 0
    held: int = 0


@attrs.frozen
class Remembered:
    """An id that a store still knows, of a message that was settled there and that it does not keep."""

    id: str
    digest: bytes
    settled_at: dt.datetime


@runtime_checkable
class SupportsMove(Protocol):
    """A store from which messages can be moved to another, and to which they can."""

    def identity(self) -> str:
        """What this store is told from every other by, also after it was closed and opened again; never ``""``."""
        ...

    def take(
        self,
        *,
        to: str,
        limit: int,
        max_bytes: int = MAX_BYTES,
        leave: Collection[str] = (),
        after: str = "",
    ) -> Batch | None:
        """The batch that is under way to the store of identity *to*; where none is, a new one.

        A new one has up to *limit* messages in any state, but none of *leave*
        and none under a live lease, with at most *max_bytes* of content
        unless it is one alone: those that are due before those that are not,
        and those before the settled.  It is durable before it returns.  From
        then on, and until it is concluded, they stand here as CLAIMED under a
        lease that never runs out, whose token nobody has: they are neither
        claimed, settled, steered nor pruned.

        A batch is read as it was taken: what can no longer be read of one
        under way is ``unreadable``.

        Args:
            to: ``""`` is whichever store a batch leads to, for who asks with *limit* 0.
            limit: With 0 no new one is made.
            after: A batch of this store that the other has accepted: the name of a new one is greater.

        Returns:
            None where there is nothing (more) to take.

        Raises:
            ConfigurationError: a batch is under way to another store; nothing was taken.
            StoreUnavailable: it cannot be written; nothing was taken.
        """
        ...

    def give(self, batch: Batch, /) -> Sequence[str]:
        """Store the records of *batch* as they stand, all at once, unless this very batch was given before.

        A record keeps its content, its state and fates, its times (when it is
        due, was submitted, was settled, since when its age counts), attempts,
        claims lost, reason, history, and whether a person holds it.  One that
        is CLAIMED is one whose lease ran out.  A remembered id keeps none
        out: the message stands again.  Durable on return; what is due can be
        claimed from then on.

        Returns:
            The ids of which nothing was written: those that are here already,
            as messages of this store's own, and those that the batch says
            cannot be read.  The same list when the batch is given again,
            whatever could be read by then, and whether there is room or not.
            So a batch of this name and without records, which asks for no
            room, sees to it that none of it arrives, or tells what did not.

        Raises:
            ConflictError: a later batch of the same source was given before.
            InvalidMessage: one of the messages is more than this store can hold; nothing was stored.
            StoreFull: no room; nothing was stored.
            StoreUnavailable: the store cannot be written; nothing was stored.
            AmbiguousPut: it cannot be told; to give it again is safe.
        """
        ...

    def last_given(self, source: str, /) -> str:
        """The name of the last batch that was given from the store of this identity; ``""`` where none was."""
        ...

    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        """Forget the messages of the batch of this name, durably; harmless where it is not under way.

        Those of *back* stand as they stood when they were taken.  The ids of
        the others stay known for as long as those of delivered messages, so
        that a repeated put stores nothing.
        """
        ...

    def abandon(self) -> Abandoned:
        """Let the messages of the batch under way, wherever it leads, stand here as they stood, durably.

        Where damage keeps from telling how, they are HELD, and a person decides.
        """
        ...

    def has_left(self, id: str, /) -> bool:
        """Whether the message of this id has left for another store, for as long as its id is known here for that."""
        ...

    def remembered(self, *, after: Remembered | None = None, limit: int = 1000) -> Sequence[Remembered]:
        """A page of the ids that are known here of messages that are not kept, by when they were settled, then by id.

        Those of messages that have left for another store may be left out.
        """
        ...

    def remember(self, known: Sequence[Remembered], /) -> None:
        """Let these ids be known here, too, for as long as this store remembers such; durable on return.

        An id that is known already stays as it is, but for that of a message
        which has left for another store: that it came to its end there is
        known from now on, too.
        """
        ...

"""Move all messages of one store to another, step by step; whatever is killed in between, the next run goes on there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final, Protocol, cast

import attrs

from .errors import ConfigurationError, ConflictError, StoreFull, UnsupportedError
from .lifecycle import State
from .moving import Batch, SupportsMove
from .protocols import MAX_BYTES, QueueCount, Store, SupportsBrowse, SupportsSuspend, Suspension

__all__ = ["Move", "Plan", "Step", "abandon"]

_PAGE: Final = 2000
_MOST_LEFT: Final = 1000
"""More than so many that have to stay are no exception any more."""


class _Movable(Store, SupportsMove, SupportsBrowse, Protocol):
    """What both stores have to be."""


@attrs.frozen(kw_only=True)
class Step:
    """What one step of a move did, or what it waits for.

    Attributes:
        moved: Messages that were moved so far.
        remembered: Ids of settled messages that were told to the destination so far.
        leased: How many of those left are under live leases, where nothing
            else is left; then it is worth waiting before the next step.
        until: When the first of these leases runs out, unless it is extended.
    """

    moved: int
    remembered: int
    leased: int = 0
    until: dt.datetime | None = None


@attrs.frozen(kw_only=True)
class Plan:
    """What a move would do."""

    counts: tuple[QueueCount, ...]
    suspended: int
    under_way: int
    others: bool
    """Whether the destination has messages of its own, which bars the move unless they are to be joined."""


class Move:
    """One move.  Nobody else has to stop: who works at either end is given only what stands there.

    Args:
        joins: Whether the destination may have messages of its own.
        limit, max_bytes: How much goes in one batch.

    Raises:
        UnsupportedError: one of the stores lacks what a move needs.
        ConfigurationError: both are the same store.
        StoreUnavailable: one of them cannot be read.

    Attributes:
        moved: How many messages were moved.
        remembered: How many ids of settled messages were told to the destination.
        refused: The ids that stay, for the destination has messages of these ids.
        unreadable: The ids of those that stay, for they cannot be read.
    """

    def __init__(
        self,
        source: Store,
        destination: Store,
        *,
        joins: bool = False,
        limit: int = 500,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if limit < 1:
            raise ConfigurationError("a batch has at least one message")
        self._source = _movable(source, "from")
        self._destination = _movable(destination, "to")
        self._joins = joins
        self._limit = limit
        self._max_bytes = max_bytes
        self._from, self._to = self._source.identity(), self._destination.identity()
        if self._from == self._to:
            raise ConfigurationError(
                "both are the same store, or one is a copy of the other: there is nothing to move"
            )
        self.moved = 0
        self.remembered = 0
        self.refused: list[str] = []
        self.unreadable: list[str] = []

    def plan(self) -> Plan:
        """What there is to do; nothing is changed."""
        batch = self._source.take(to=self._to, limit=0)
        return Plan(
            counts=tuple(self._source.count()),
            suspended=len(_suspensions(self._source)),
            under_way=0 if batch is None else len(batch.records),
            others=self._has_others(),
        )

    def steps(self) -> Iterator[Step]:
        """Do it; between two steps each message is in exactly one store, and it may end there.

        While messages are under live leases at the source each step says so,
        and the next looks again: whoever waits between them decides how long.

        Raises:
            ConfigurationError: the destination has messages of its own, or a
                batch of an earlier move is under way to or from another store.
            ConflictError: too many of the messages are in the destination
                already; or another program moves the same ones.
            StoreFull: the destination has no room.
            UnsupportedError: something is suspended, and the destination cannot keep that.
            StoreUnavailable, AmbiguousPut: one of the stores fails; the next run goes on from there.
        """
        # Where an earlier move the other way was killed, its last batch stands in neither for certain.
        self._finish(self._destination, self._source)
        self._finish(self._source, self._destination)
        if not self._joins and self._has_others():
            raise ConfigurationError(
                "the destination has messages of its own: name an empty one, or say that they are to be joined "
                "(--join); nothing was moved"
            )
        self._suspend()
        # Before the messages: whoever puts into the destination from now on is to be told what is known.
        yield from self._tell_ids()
        while True:
            batch = self._source.take(
                to=self._to,
                limit=self._limit,
                max_bytes=self._max_bytes,
                leave=[*self.refused, *self.unreadable],
            )
            if batch is not None:
                self._note_unreadable(batch)
                self._carry(batch, self._source, self._destination)
                yield self._step()
                self._require_few_left()
                continue
            left = {*self.refused, *self.unreadable}
            claimed = self._source.browse(states=[State.CLAIMED], limit=self._limit + len(left))
            leased = [each for each in claimed if each.id not in left]
            if not leased:
                break
            ends = [each.leased_until for each in leased if each.leased_until is not None]
            yield attrs.evolve(self._step(), leased=len(leased), until=min(ends, default=None))
        # What was delivered at the source meanwhile: from the first again, for it may be known under an earlier time.
        yield from self._tell_ids()

    def _step(self) -> Step:
        return Step(moved=self.moved, remembered=self.remembered)

    def _has_others(self) -> bool:
        return not self._destination.last_given(self._from) and bool(self._destination.browse(limit=1))

    # -- one batch

    def _finish(self, source: _Movable, destination: _Movable) -> None:
        batch = source.take(to=destination.identity(), limit=0)
        if batch is not None:
            self._carry(batch, source, destination)

    def _carry(self, batch: Batch, source: _Movable, destination: _Movable) -> None:
        if not batch.name:
            return
        try:
            # What could not be read when it was first given did not arrive, whatever can be read now.
            back = list(destination.give(batch))
        except StoreFull:
            # It may have been accepted before: by a run that was killed, or by another that is at it now.
            if destination.last_given(batch.source) < batch.name:
                source.conclude(batch.name, back=_ids(batch))
            raise
        source.conclude(batch.name, back=back)
        if source is self._source:
            refused = [id for id in back if id not in batch.unreadable]
            self.refused += refused
            self.moved += len(_ids(batch)) - len(back)

    def _note_unreadable(self, batch: Batch) -> None:
        self.unreadable += [id for id in batch.unreadable if id not in self.unreadable]

    def _require_few_left(self) -> None:
        if len(self.refused) > _MOST_LEFT:
            raise ConflictError(
                f"more than {_MOST_LEFT} messages are in the destination already, under the same ids "
                f"({', '.join(self.refused[:3])} …): is it a copy of the source? These stay where they are"
            )
        if len(self.unreadable) > _MOST_LEFT:
            raise ConflictError(
                f"more than {_MOST_LEFT} messages of the source cannot be read ({', '.join(self.unreadable[:3])} …): "
                "see outbox check; these stay where they are"
            )

    # -- what goes with them

    def _tell_ids(self) -> Iterator[Step]:
        told, last = 0, None
        while page := self._source.remembered(after=last, limit=_PAGE):
            self._destination.remember(page)
            told, last = told + len(page), page[-1]
            self.remembered = max(self.remembered, told)
            yield self._step()

    def _suspend(self) -> None:
        """What is suspended at the source is to be so at the destination, before anything can go out there."""
        suspensions = _suspensions(self._source)
        if not suspensions or self._destination.last_given(self._from):
            return
        destination: object = self._destination
        if not isinstance(destination, SupportsSuspend):
            raise UnsupportedError(
                f"something is suspended in the source ({suspensions[0].kind} {suspensions[0].value}), and the "
                "destination cannot keep that: it does not do `suspend`; end it first; nothing was moved"
            )
        there = {(each.kind, each.value) for each in destination.suspensions()}
        for each in suspensions:
            if (each.kind, each.value) not in there:
                destination.suspend(each)


def abandon(source: Store) -> int:
    """Let the batch that is under way from *source* stand there as it stood; how many messages that were.

    For where the other store is gone for good: what has arrived there would be in both.

    Raises:
        UnsupportedError: the store lacks what a move needs.
    """
    store = _movable(source, "from")
    batch = store.take(to="", limit=0)
    if batch is None:
        return 0
    store.conclude(batch.name, back=_ids(batch))
    return len(_ids(batch))


def _ids(batch: Batch) -> list[str]:
    return [*(record.message.id for record in batch.records), *batch.unreadable]


def _suspensions(store: object) -> list[Suspension]:
    return list(store.suspensions()) if isinstance(store, SupportsSuspend) else []


def _movable(store: Store, end: str) -> _Movable:
    for capability in (SupportsMove, SupportsBrowse):
        if not isinstance(store, capability):
            raise UnsupportedError(
                f"messages cannot be moved {end} this store ({type(store).__name__}): it is not "
                f"{capability.__name__}"
            )
    return cast(_Movable, store)

"""Move all messages of one store to another, step by step; whatever is killed in between, the next run goes on there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, cast

import attrs

from .errors import ConfigurationError, ConflictError, InvalidMessage, StoreFull, UnsupportedError
from .lifecycle import State
from .moving import Abandoned, Batch, SupportsMove
from .protocols import MAX_BYTES, QueueCount, Store, SupportsBrowse, SupportsSuspend, Suspension

__all__ = ["Move", "Plan", "Step", "abandon", "require_source"]

_PAGE: Final = 2000
_MOST_LEFT: Final = 1000
"""More than so many that have to stay are no exception any more."""
_MOST_TRIES: Final = 10
"""So often in a row a message is there, and nobody has it, and it is not taken."""


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
        unfit: The ids of those that stay, for the destination cannot hold
            them, each with what it says of that.
        unsuspended: What an earlier run has found, and is suspended at the
            source alone: somebody let it go on at the destination, or has
            suspended it since.
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
        self._limit = self._narrow = limit
        self._max_bytes = max_bytes
        self._from, self._to = self._source.identity(), self._destination.identity()
        if self._from == self._to:
            raise ConfigurationError(
                "both are the same store, or one is a copy of the other: there is nothing to move"
            )
        self._told: set[tuple[str, str]] = set()
        self.moved = 0
        self.remembered = 0
        self.refused: list[str] = []
        self.unreadable: list[str] = []
        self.unfit: dict[str, str] = {}
        self.unsuspended: list[Suspension] = []

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
        self._begin_suspended()
        # Before the messages: whoever puts into the destination from now on is to be told what is known.
        yield from self._tell_ids()
        yield from self._carry_all()
        # What was delivered at the source meanwhile: from the first again, for it may be known under an earlier time.
        yield from self._tell_ids()

    def _carry_all(self) -> Iterator[Step]:
        elusive = 0
        while True:
            self._suspend()
            if (batch := self._taken()) is not None:
                elusive = 0
                self._note_unreadable(batch)
                self._carry(batch, self._source, self._destination)
                yield self._step()
                self._require_few_left()
                continue
            # Asked of all: what is claimed may have been let go since, and what waited be claimed.
            left = self._left()
            others = [
                each for each in self._source.browse(limit=self._limit + len(left)) if each.id not in left
            ]
            leased = [each for each in others if each.state is State.CLAIMED]
            elusive = 0 if leased else elusive + 1
            if not others or elusive > _MOST_TRIES:
                # What is there and never comes is of no use to anybody.
                self.unreadable += [each.id for each in others]
                return
            if leased:
                ends = [each.leased_until for each in leased if each.leased_until is not None]
                yield attrs.evolve(self._step(), leased=len(leased), until=min(ends, default=None))

    def _taken(self) -> Batch | None:
        return self._source.take(
            to=self._to,
            limit=self._narrow,
            max_bytes=self._max_bytes,
            leave=self._left(),
            # Of a source that was restored the clock may have been set back, too.
            after=self._destination.last_given(self._from),
        )

    def _left(self) -> frozenset[str]:
        """What stays, as far as is known."""
        return frozenset((*self.refused, *self.unreadable, *self.unfit))

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
            self._conclude(batch, source, self._closed(batch, destination))
            raise
        except InvalidMessage as error:
            self._conclude(batch, source, self._closed(batch, destination))
            if source is self._source:
                self._narrow_down(batch, error)
        except ConflictError:
            if not _was_restored(batch, source, destination):
                raise
            # So its messages are to it what all others of the backup are.
            source.conclude(batch.name, back=_ids(batch))
        else:
            self._conclude(batch, source, back)
            if source is self._source:
                self.refused += [id for id in back if id not in batch.unreadable]
                self._narrow = min(self._limit, 2 * self._narrow)

    def _conclude(self, batch: Batch, source: _Movable, back: Sequence[str]) -> None:
        source.conclude(batch.name, back=back)
        if source is self._source:
            self.moved += len(_ids(batch)) - len(back)

    def _closed(self, batch: Batch, destination: _Movable) -> Sequence[str]:
        """See that nobody gives this batch any more, and tell what of it is to stand at its source again.

        It may have been accepted before: by a run that was killed, or by
        another that is at it now; then it is what was refused.
        """
        return destination.give(attrs.evolve(batch, records=(), unreadable=_ids(batch)))

    def _narrow_down(self, batch: Batch, error: InvalidMessage) -> None:
        """One of these the destination cannot hold: which, smaller batches tell."""
        if len(batch.records) == 1:
            self.unfit[batch.records[0].message.id] = str(error)
        self._narrow = max(1, len(batch.records) // 2)

    def _note_unreadable(self, batch: Batch) -> None:
        self.unreadable += [id for id in batch.unreadable if id not in self.unreadable]

    def _require_few_left(self) -> None:
        for ids, why in (
            (
                self.refused,
                "are in the destination already, under the same ids ({}): is it a copy of the source?",
            ),
            (self.unreadable, "of the source cannot be read ({}): see outbox check;"),
            (list(self.unfit), "are such as the destination cannot hold ({}): is it the right one?"),
        ):
            if len(ids) > _MOST_LEFT:
                some = f"{', '.join(ids[:3])} …"
                raise ConflictError(
                    f"more than {_MOST_LEFT} messages {why.format(some)} These stay where they are"
                )

    # -- what goes with them

    def _tell_ids(self) -> Iterator[Step]:
        told, last = 0, None
        while page := self._source.remembered(after=last, limit=_PAGE):
            self._destination.remember(page)
            told, last = told + len(page), page[-1]
            self.remembered = max(self.remembered, told)
            yield self._step()

    def _begin_suspended(self) -> None:
        """What is suspended at the source is to be so at the destination, before anything can go out there."""
        if not self._destination.last_given(self._from):
            self._suspend()
            return
        found = _suspensions(self._source)
        there = {_key(each) for each in _suspensions(self._destination)}
        self.unsuspended = [each for each in found if _key(each) not in there]
        self._told = {_key(each) for each in found}

    def _suspend(self) -> None:
        """The same of what this run has not told yet."""
        new = [each for each in _suspensions(self._source) if _key(each) not in self._told]
        if not new:
            return
        destination: object = self._destination
        if not isinstance(destination, SupportsSuspend):
            raise UnsupportedError(
                f"something is suspended in the source ({new[0].kind} {new[0].value}), and the "
                "destination cannot keep that: it does not do `suspend`; end it first; nothing more was moved"
            )
        there = {_key(each) for each in destination.suspensions()}
        for each in new:
            if _key(each) not in there:
                destination.suspend(each)
            self._told.add(_key(each))


def abandon(source: Store) -> Abandoned:
    """Let the batch that is under way from *source* stand there as it stood.

    For where the other store is gone for good: what has arrived there would be in both.

    Raises:
        UnsupportedError: the store lacks what a move needs.
    """
    return _movable(source, "from").abandon()


def require_source(store: Store) -> None:
    """Raise what :class:`Move` would of this store as the source, for who has not made the destination yet."""
    _movable(store, "from").identity()


def _was_restored(batch: Batch, source: _Movable, destination: _Movable) -> bool:
    """Whether the source came from a backup; asked where the destination has accepted a later batch.

    One that has this batch under way after that did not conclude it before it
    named the later one, as it always does.
    """
    under_way = source.take(to=destination.identity(), limit=0)
    return under_way is not None and under_way.name == batch.name


def _ids(batch: Batch) -> list[str]:
    return [*(record.message.id for record in batch.records), *batch.unreadable]


def _key(suspension: Suspension) -> tuple[str, str]:
    return suspension.kind, suspension.value


def _suspensions(store: object) -> list[Suspension]:
    return list(store.suspensions()) if isinstance(store, SupportsSuspend) else []


def _movable(store: Store, end: str) -> _Movable:
    for capability in (SupportsMove, SupportsBrowse):
        if not isinstance(store, capability):
            raise UnsupportedError(
                f"messages cannot be moved {end} this store ({type(store).__name__}): it is not "
                f"{capability.__name__}; submit to the new store, and let runners empty the old one: see docs/moving.md"
            )
    return cast(_Movable, store)

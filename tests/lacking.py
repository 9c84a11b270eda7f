"""Stores that are sound and unusual: each really lacks what it says it lacks, or does what the contract leaves open.

To declare a lack and keep the promise all the same would show nothing: the
suite has to ask none of these for what it cannot do.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from breaking import OnAShelf, changed

from outbox.lifecycle import Claim, PutResult, Released, Settlement, State
from outbox.message import Message
from outbox.protocols import Exchanged, Guarantee
from outbox.stores.memory import MemoryStore
from outbox.stores.shelf import Shelf as SoundShelf
from outbox.stores.sqlite import SQLiteStore

__all__ = ["LACKING"]

QUARTER: Final = 15 * 60 * 10**6


class NoDeduplication:
    """Keeps every put under a name of its own.  The five verbs, and no more."""

    lacks = frozenset({Guarantee.DEDUPLICATION, Guarantee.ORDER})

    def __init__(self, **settings: Any) -> None:
        self.inner = self.kept(**settings)

    def kept(self, **settings: Any) -> Any:
        return MemoryStore(**settings)

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        self.inner.put(
            [attrs.evolve(m, id=f"{m.id[:31]}.{uuid.uuid4().hex}".replace(".", "-")) for m in messages]
        )
        return [PutResult(message.id, "stored") for message in messages]

    def claim(self, **order: Any) -> Sequence[Claim]:
        return [self.told(claim) for claim in self.inner.claim(**order)]

    @staticmethod
    def told(claim: Claim) -> Claim:
        name = claim.message.id
        return attrs.evolve(
            claim,
            message=attrs.evolve(claim.message, id=name[:-33]),
            token=f"{name}/{claim.token}",
        )

    @staticmethod
    def meant(claim: Claim) -> Claim:
        name, _, token = claim.token.rpartition("/")
        if name[:-33] != claim.message.id:
            return attrs.evolve(claim, token="")
        return attrs.evolve(claim, message=attrs.evolve(claim.message, id=name), token=token)

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        meant = [self.meant(claim) for claim in claims]
        return self._lost(claims, meant, self.inner.extend(meant, lease=lease))

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        meant = [Settlement(self.meant(each.claim), each.verdict) for each in settlements]
        return self._lost(
            [each.claim for each in settlements], [each.claim for each in meant], self.inner.settle(meant)
        )

    @staticmethod
    def _lost(told: Sequence[Claim], meant: Sequence[Claim], lost: Sequence[Claim]) -> Sequence[Claim]:
        left, found = list(lost), []
        for claim, inner in reversed(list(zip(told, meant, strict=True))):
            if inner in left:
                left.remove(inner)
                found.append(claim)
        return found[::-1]

    def close(self) -> None:
        self.inner.close()


class NoDeduplicationOnDisk(NoDeduplication):
    lasting = True

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        super().__init__(**settings)

    def kept(self, **settings: Any) -> Any:
        return SQLiteStore(self.path / "outbox.db", **settings)


class NoRefunds(OnAShelf):
    """Charges what is released, and knows no more how often it was lost."""

    lacks = frozenset({Guarantee.REFUNDS})

    class Shelf(SoundShelf):
        def settle(self, settlements: Any, fates: Any, now: int) -> Any:
            freed = [
                row
                for each in settlements
                if isinstance(each.verdict, Released) and (row := self.held(each.claim)) is not None
            ]
            stale = super().settle(settlements, fates, now)
            for row in freed:
                changed(row, attempts=row.standing.attempts + 1, lost=0)
            return stale


class ShortDelays(OnAShelf):
    """Delays nothing for longer than a quarter of an hour."""

    lacks = frozenset({Guarantee.DELAYS})

    class Shelf(SoundShelf):
        def stand(self, row: Any, new: Any, now: int) -> None:
            if new.state is State.QUEUED:
                new = attrs.evolve(new, due=min(new.due, now + QUARTER))
            super().stand(row, new, now)


class LongLeases(MemoryStore):
    """Leases by whole minutes, at least one, and twelve hours at most."""

    lacks = frozenset({Guarantee.LEASES})

    def claim(self, *, lease: dt.timedelta, **order: Any) -> Any:
        return super().claim(lease=rounded(lease), **order)

    def extend(self, claims: Any, /, *, lease: dt.timedelta) -> Any:
        return super().extend(claims, lease=rounded(lease))

    def exchange(self, settlements: Any, /, *, lease: dt.timedelta, **order: Any) -> Any:
        return super().exchange(settlements, lease=rounded(lease), **order)

    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        return super().put_claimed(messages, lease=rounded(lease), attempted=attempted)


def rounded(lease: dt.timedelta) -> dt.timedelta:
    shorter = min(lease, dt.timedelta(hours=12))
    return dt.timedelta(minutes=max(1, -(-shorter // dt.timedelta(minutes=1))))


class NoFencing(OnAShelf):
    """Takes the word of whoever once had it."""

    lacks = frozenset({Guarantee.FENCING})

    class Shelf(SoundShelf):
        def held(self, claim: Claim) -> Any:
            row = self.rows.get(claim.message.id)
            return row if row is not None and row.standing.state is State.CLAIMED else None


class NoFencingOnDisk(SQLiteStore):
    """Knows of no claim that it is stale."""

    lacks = frozenset({Guarantee.FENCING})
    lasting = True

    def __init__(self, path: Path, **settings: Any) -> None:
        super().__init__(path / "outbox.db", **settings)

    def settle(self, settlements: Any, /) -> Any:
        super().settle(settlements)
        return ()

    def extend(self, claims: Any, /, *, lease: dt.timedelta) -> Any:
        super().extend(claims, lease=lease)
        return ()

    def exchange(self, settlements: Any, /, **order: Any) -> Exchanged:
        return Exchanged((), super().exchange(settlements, **order).claims)


class Modest(MemoryStore):
    """Lacks nothing: answers in tuples, gives ten at a time, names the lost in any order, and tells of news late."""

    lacks = frozenset[Guarantee]()

    def claim(self, *, limit: int, **order: Any) -> Any:
        claims = tuple(super().claim(limit=min(limit, 10), **order))
        if claims:
            self.wake()
        return claims

    def exchange(self, settlements: Any, /, *, limit: int, **order: Any) -> Exchanged:
        answer = super().exchange(settlements, limit=min(limit, 10), **order)
        return Exchanged(tuple(answer.lost)[::-1], tuple(answer.claims))

    def extend(self, claims: Any, /, *, lease: dt.timedelta) -> Any:
        return tuple(super().extend(claims, lease=lease))[::-1]

    def settle(self, settlements: Any, /) -> Any:
        return tuple(super().settle(settlements))[::-1]

    def put(self, messages: Any, /) -> Any:
        return tuple(super().put(messages))

    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        return tuple(super().put_claimed(messages, lease=lease, attempted=attempted))

    def browse(self, **criteria: Any) -> Any:
        return tuple(super().browse(**criteria))

    def count(self) -> Any:
        return tuple(super().count())

    def requeue(self, ids: Any, /, *, uncertain: bool = False, **more: Any) -> Any:
        return tuple(super().requeue(ids, uncertain=uncertain, **more))

    def cancel(self, ids: Any, /, **more: Any) -> Any:
        return tuple(super().cancel(ids, **more))

    def purge(self, ids: Any, /, **more: Any) -> Any:
        return tuple(super().purge(ids, **more))

    def suspensions(self) -> Any:
        return tuple(super().suspensions())

    def migrate(self) -> Any:
        return tuple(super().migrate())

    def check(self) -> Any:
        return tuple(super().check())


class Narrow:
    """The five verbs."""

    lacks = frozenset[Guarantee]()

    def __init__(self, **settings: Any) -> None:
        inner = MemoryStore(**settings)
        self.put, self.claim, self.extend = inner.put, inner.claim, inner.extend
        self.settle, self.close = inner.settle, inner.close


LACKING: Final[dict[str, type[Any]]] = {
    each.__name__: each
    for each in (
        NoDeduplication,
        NoDeduplicationOnDisk,
        NoRefunds,
        ShortDelays,
        LongLeases,
        NoFencing,
        NoFencingOnDisk,
        Modest,
        Narrow,
    )
}

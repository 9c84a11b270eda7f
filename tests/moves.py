"""Moves that are killed: a seam around both stores, and what the stores hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from outbox import Message
from outbox.lifecycle import Record, Settlement
from outbox.mover import Move
from outbox.protocols import Store
from outbox.testing.clauses.scene import LEASE, VERDICTS, mail, retry, take
from outbox.testing.clock import ManualClock

__all__ = ["STEPS", "Contents", "Killed", "Seam", "contents", "fill", "moved", "seamed"]

STEPS: Final = ("take", "give", "conclude", "remember", "suspend")
"""The calls that change something: a move is killed before each of them, and after it."""


class Killed(BaseException):
    """As though the process had ended here: nothing catches it."""


class Seam:
    """Calls *at* with the number of each moment in which a move can be killed, from 1."""

    def __init__(self, at: Callable[[int], None]) -> None:
        self._numbers = itertools.count(1)
        self._at = at

    def pass_(self) -> None:
        self._at(next(self._numbers))

    def wrap(self, store: Store) -> Any:
        return _Seamed(store, self)


class _Seamed:
    """A store whose steps pass the seam, before and after."""

    def __init__(self, store: Store, seam: Seam) -> None:
        self._store = store
        for name in STEPS:
            setattr(self, name, _passing(getattr(store, name), seam))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _passing(step: Callable[..., Any], seam: Seam) -> Callable[..., Any]:
    def passing(*args: Any, **kwargs: Any) -> Any:
        seam.pass_()
        answer = step(*args, **kwargs)
        seam.pass_()
        return answer

    return passing


def seamed(source: Store, destination: Store, at: Callable[[int], None]) -> tuple[Any, Any]:
    """Both stores with one seam around them."""
    seam = Seam(at)
    return seam.wrap(source), seam.wrap(destination)


def moved(source: Store, destination: Store, **settings: Any) -> Move:
    """The move, done; nothing of the source is under a lease."""
    move = Move(source, destination, **settings)
    for step in move.steps():
        assert not step.leased
    return move


@attrs.frozen
class Contents:
    """All that a store holds: each message whole, and the ids that it knows beside."""

    records: dict[str, Record]
    known: frozenset[str]

    @property
    def order(self) -> list[tuple[int, object, str]]:
        """What the due and scheduled messages are sorted by."""
        summaries = [record.summary for record in self.records.values()]
        return sorted((-s.priority, s.due_at, s.id) for s in summaries if s.due_at is not None)


def contents(store: Any) -> Contents:
    ids = [summary.id for summary in _all(store)]
    records = {id: store.get(id) for id in ids}
    known: list[str] = []
    after = None
    while page := store.remembered(after=after, limit=1000):
        known += [each.id for each in page]
        after = page[-1]
    assert len(known) == len(set(known))
    return Contents(records, frozenset(known))


def _all(store: Any) -> Iterator[Any]:
    after = ""
    while page := store.browse(after=after, limit=1000):
        yield from page
        after = page[-1].id


def fill(store: Any, clock: ManualClock, number: int) -> None:
    """So many messages in all states, of several queues, priorities and times; a tenth of them delivered and gone."""
    for start in range(0, number, 500):
        store.put([_message(each, clock) for each in range(start, min(start + 500, number))])
        clock.advance(LEASE / 100)
    claims = take(store, number, "mail", "bulk")
    store.settle([settlement for claim in claims if (settlement := _settled(claim))])
    store.hold([f"m{each:06}" for each in range(0, number, 17)], reason="by hand")
    clock.advance(2 * LEASE)


def _message(number: int, clock: ManualClock) -> Message:
    return mail(
        f"m{number:06}",
        f"a{number}@example.org",
        f"b{number}@example.net",
        queue="bulk" if number % 3 else "mail",
        priority=number % 7 - 3,
        not_before=clock.now() + 9 * LEASE if number % 4 == 0 else None,
        at_most_once=number % 11 == 0,
        attributes={"number": str(number)},
    )


def _settled(claim: Any) -> Settlement | None:
    """A tenth each delivered, dead, held or expired; some wait for a retry, and of the others the lease is lost."""
    number = int(claim.message.id[1:])
    verdicts: Sequence[Any] = tuple(VERDICTS.values())
    if number % 10 < len(verdicts):
        return Settlement(claim, verdicts[number % 10](claim))
    return Settlement(claim, retry(claim, LEASE)) if number % 2 else None

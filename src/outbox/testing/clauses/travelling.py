"""Batches on their way from one store to another, as the clauses make and look at them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import attrs

from outbox.lifecycle import Fate, Record
from outbox.moving import Batch
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    SECOND,
    Whole,
    dead,
    delivered,
    held,
    known,
    mail,
    put,
    retry,
    settle,
    summaries,
    take,
)

__all__ = [
    "ELSEWHERE",
    "HOUR",
    "MAIL",
    "deliver",
    "everything",
    "fill",
    "fill_some",
    "id_of",
    "move",
    "names",
    "taken",
]

HOUR = dt.timedelta(hours=1)
ELSEWHERE = "the identity of another store"


def move(source: Whole, destination: Whole, *, limit: int = 2) -> list[str]:
    """Move all that can be moved, in small batches; the ids that the destination refused."""
    refused: list[str] = []
    while (
        batch := source.take(to=destination.identity(), limit=limit, leave=refused)
    ) is not None and batch.records:
        again = list(destination.give(batch))
        source.conclude(batch.name, back=again)
        refused += again
    return refused


def taken(store: Whole, *, to: str = ELSEWHERE, limit: int = 100, leave: Sequence[str] = ()) -> Batch:
    """The batch under way, or a new one; there is one."""
    batch = store.take(to=to, limit=limit, leave=leave)
    assert batch is not None
    return batch


def names(batch: Batch) -> list[str]:
    return sorted(record.message.id for record in batch.records)


def everything(store: Whole) -> dict[str, Record]:
    return {id: known(store, id) for id in summaries(store)}


def fill(store: Whole, clock: ManualClock) -> None:
    """Messages in every state but delivered, with all that a record can tell; "lost" is under a lease that ran out."""
    two = ("x@example.org", "y@example.org")
    put(
        store,
        mail("lost", *two),
        "dead",
        "held",
        mail("tried", *two, attributes={"list": "news"}),
        "cancelled",
    )
    claims = {claim.message.id: claim for claim in take(store)}
    settle(store, claims["dead"], dead(claims["dead"]))
    settle(store, claims["held"], held(claims["held"]))
    fates = {"x@example.org": Fate.ACCEPTED, "y@example.org": Fate.WAITING}
    settle(store, claims["tried"], attrs.evolve(retry(claims["tried"], HOUR), fates=fates))
    settle(store, claims["cancelled"], retry(claims["cancelled"]))
    store.cancel(["cancelled"])
    clock.advance(LEASE + SECOND)
    put(
        store,
        mail("later", not_before=clock.now() + DAY),
        mail("urgent", priority=7),
        "plain",
        mail("other", queue="other"),
    )
    clock.advance(SECOND)
    put(store, "second", mail("at-once", at_most_once=True))


MAIL = ("mail", "other")
"""The queues of what :func:`fill` puts."""


def deliver(store: Whole, *names: str) -> None:
    """Put these, and settle them as delivered."""
    put(store, *names)
    for claim in take(store):
        settle(store, claim, delivered(claim))


def fill_some(store: Whole, number: int) -> None:
    put(store, *(f"m{each}" for each in range(number)))


def id_of(record: Record) -> str:
    return record.message.id

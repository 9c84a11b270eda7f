"""Memory stores that are broken, each in one way: in what a claim, an exchange or an extension brings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from breaking import DAY, caught_by, changed

from outbox.lifecycle import State
from outbox.protocols import MAX_BYTES, Exchanged
from outbox.stores.instants import later
from outbox.stores.memory import MemoryStore
from outbox.stores.selection import Candidate, Offer, choose
from outbox.stores.shelf import Shelf

# -- what a claim brings


def on_lease(name: str, clause: str, spoil: Callable[[Any, int], None]) -> None:
    """A store that spoils a row before it is leased."""

    class OnLease(Shelf):
        def lease(self, row: Any, now: int, until: int) -> Any:
            spoil(row, now)
            return super().lease(row, now, until)

    OnLease.__name__ = name
    caught_by(clause)(OnLease)


def sent_again(row: Any, _: int) -> None:
    if row.standing.suspect:
        row.message = attrs.evolve(row.message, at_most_once=False)


def young_again(row: Any, now: int) -> None:
    if row.standing.state is State.CLAIMED:
        changed(row, since=now)


on_lease("MoreThanOnce", "test_a_message_at_most_once_says_so_at_every_attempt", sent_again)
on_lease("MoreThanOnceLater", "test_the_message_is_the_same_at_every_attempt", sent_again)
on_lease("YoungerWhenLost", "test_nothing_but_a_person_s_word_makes_it_younger", young_again)
on_lease(
    "Unreasonable",
    "test_a_claim_does_not_hide_why_the_last_attempt_failed",
    lambda row, _: changed(row, reason=""),
)


@caught_by("test_a_long_lease_is_not_cut_short")
class ShortLease(Shelf):
    def lease(self, row: Any, now: int, until: int) -> Any:
        return super().lease(row, now, min(until, now + DAY))


def sorts(name: str, clause: str, key: Callable[[Any], Any]) -> None:
    """A store that goes by another order."""

    class Sorts(MemoryStore):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            rows, sound = self._shelf.rows, self._shelf._lanes.offer

            def offer(queue: str, now: int, limit: int, promoted: int) -> Offer:
                given = sound(queue, now, 1000, promoted)
                ready = sorted(given.ready, key=lambda each: key(rows[each.id]))
                placed = [Candidate((n, 0, each.id), each.size) for n, each in enumerate(ready)]
                return Offer(queue, placed[:limit], given.suspect)

            self._shelf._lanes.offer = offer  # type: ignore[method-assign]  # that is the point

    Sorts.__name__ = name
    caught_by(clause)(Sorts)


sorts(
    "BySeconds",
    "test_of_two_that_were_due_a_microsecond_apart_the_earlier_goes_first",
    lambda row: (row.standing.due // 10**6, row.id),
)
sorts(
    "ByTen",
    "test_every_step_of_priority_counts",
    lambda row: (-max(-10, min(10, row.message.priority)), row.id),
)
sorts("Alike", "test_ids_are_in_the_order_of_their_characters", lambda row: row.id.replace("_", "-"))


def deals(name: str, clause: str, deal: Callable[..., list[str]]) -> None:
    """A store that chooses otherwise from what its queues offer."""

    class Deals(Shelf):
        def claim(self, queues: Any, now: int, *, limit: int, lease: Any, max_bytes: int) -> Any:
            offers = self._turns.sort(self._lanes.offer(each, now, limit, 1000) for each in queues)
            ids = deal(offers, limit=limit, max_bytes=max_bytes)
            return [self.lease(self.rows[id], now, later(now, lease)) for id in ids]

    Deals.__name__ = name
    caught_by(clause)(Deals)


def each_queue_alone(offers: Sequence[Offer], *, limit: int, max_bytes: int) -> list[str]:
    return [id for offer in offers for id in choose([offer], limit=limit, max_bytes=max_bytes)]


def smaller_first(offers: Sequence[Offer], *, limit: int, max_bytes: int) -> list[str]:
    ids = choose(offers, limit=limit, max_bytes=max_bytes)
    left = max_bytes - sum(each.size for offer in offers for each in offer.ready if each.id in ids)
    more = [each.id for offer in offers for each in offer.ready if each.id not in ids and each.size <= left]
    return [*ids, *more[:1]]


def not_alone(offers: Sequence[Offer], *, limit: int, max_bytes: int) -> list[str]:
    first = choose(offers[:1], limit=limit, max_bytes=max_bytes)
    if offers and offers[0].suspect_first:
        return first + choose(offers[1:], limit=limit, max_bytes=max_bytes)
    return choose(offers, limit=limit, max_bytes=max_bytes)


deals(
    "RoomForEachQueue",
    "test_the_content_of_all_queues_together_is_no_more_than_was_asked_for",
    each_queue_alone,
)
deals("PassesBy", "test_what_does_not_fit_is_passed_by_by_nothing_behind_it", smaller_first)
deals("NotAlone", "test_a_suspect_is_all_that_comes_however_many_queues_were_asked", not_alone)


@caught_by("test_no_more_content_comes_than_a_worker_has_room_for_unless_more_was_asked_for")
class Unbounded(MemoryStore):
    def claim(self, *, max_bytes: int = 1 << 60, **order: Any) -> Any:
        return super().claim(max_bytes=max_bytes, **order)


@caught_by("test_an_exchange_brings_no_more_content_than_a_worker_has_room_for")
class UnboundedExchange(MemoryStore):
    def exchange(self, settlements: Any, /, *, max_bytes: int = 1 << 60, **order: Any) -> Any:
        return super().exchange(settlements, max_bytes=max_bytes, **order)


@caught_by("test_a_claim_of_none_takes_none")
class AlwaysOne(MemoryStore):
    def claim(self, *, limit: int, max_bytes: int = MAX_BYTES, **order: Any) -> Any:
        return super().claim(limit=max(1, limit), max_bytes=max_bytes, **order)


@caught_by("test_the_claims_of_an_exchange_are_in_their_order")
class WorstFirst(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        answer = super().exchange(settlements, **order)
        return Exchanged(answer.lost, answer.claims[::-1])


@caught_by("test_the_lease_of_an_exchange_is_as_long_as_it_was_asked_for")
class FiveMinutes(MemoryStore):
    def exchange(self, settlements: Any, /, *, lease: dt.timedelta, **order: Any) -> Any:
        return super().exchange(settlements, lease=dt.timedelta(minutes=5), **order)


@caught_by("test_what_is_of_a_suspended_queue_is_stored_and_not_handed_over")
class HandsOverTheSuspended(MemoryStore):
    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        kept, shelf = self._shelf._suspensions, self._shelf
        shelf._suspensions = {name: each for name, each in kept.items() if each.until is None}
        claims = super().put_claimed(messages, lease=lease, attempted=attempted)
        shelf._suspensions = kept
        return claims


@caught_by("test_what_was_attempted_before_it_is_put_is_handed_over_whatever_is_suspended")
class ForgetsTheAttempt(MemoryStore):
    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        return super().put_claimed(messages, lease=lease)


# -- what an extension changes


@caught_by("test_every_claim_is_extended_whatever_became_of_those_beside_it")
class ExtendsTheFirst(Shelf):
    def extend(self, claims: Any, until: int) -> Any:
        return super().extend(claims[:1], until) + [each for each in claims[1:] if not self.held(each)]


@caught_by("test_every_claim_is_extended_whatever_became_of_those_beside_it")
class StopsAtTheLost(Shelf):
    def extend(self, claims: Any, until: int) -> Any:
        lost = [each for each in claims if not self.held(each)]
        super().extend(claims[: claims.index(lost[0])] if lost else claims, until)
        return lost


def extends(name: str, **spoilt: Callable[[Any], Any]) -> None:
    """A store whose extension changes more than the end of the lease."""

    class Extends(Shelf):
        def extend(self, claims: Any, until: int) -> Any:
            lost = super().extend(claims, until)
            for row in filter(None, map(self.held, claims)):
                changed(row, **{field: spoil(row.standing) for field, spoil in spoilt.items()})
            return lost

    Extends.__name__ = name
    caught_by("test_an_extension_changes_the_end_of_the_lease_and_nothing_else")(Extends)


extends("ForgetsLost", lost=lambda _: 0)
extends("Doubts", fates=lambda standing: tuple(fate.doubted for fate in standing.fates))

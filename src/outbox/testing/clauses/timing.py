"""What holds when the store's clock is set back, as a machine's clock sometimes is, and over a message's whole life."""

from __future__ import annotations

import datetime as dt

from outbox.lifecycle import Settlement
from outbox.protocols import Guarantee, SupportsBrowse, SupportsManage, SupportsWait
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    ZERO,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    ids,
    known,
    mail,
    put,
    released,
    retry,
    settle,
    take,
)

__all__ = ["TimeClauses"]

_HOUR = dt.timedelta(hours=1)
_BEFORE_1970 = dt.timedelta(days=60 * 366)


class TimeClauses(Clauses):
    """Time goes wrong sometimes; a message does not."""

    def test_a_clock_that_is_set_back_ends_no_lease(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (claim,) = take(store)
        clock.set_back(_HOUR)

        assert take(store) == []
        clock.advance(LEASE)
        assert take(store) == []
        settle(store, claim, delivered(claim))

    def test_after_the_clock_was_set_back_a_lease_is_extended_from_then_on(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        clock.set_back(_HOUR)
        assert list(store.extend([claim], lease=LEASE)) == []

        clock.advance(LEASE - SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        (again,) = take(store)
        assert (again.attempt, again.lost) == (2, 1)

    def test_after_the_clock_was_set_back_a_delay_counts_from_then_on(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        clock.set_back(_HOUR)
        settle(store, claim, retry(claim, 60 * SECOND))

        clock.advance(59 * SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        assert ids(take(store)) == ["a"]

    def test_a_clock_that_is_set_back_loses_nothing(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", mail("b", not_before=clock.now() + SECOND))
        clock.set_back(_HOUR)
        put(store, "c")
        first = take(store)
        clock.advance(_HOUR + SECOND)

        assert "c" in ids(first)
        # What was claimed an hour ago may come a second time; what was not comes now.
        found = {claim.message.id for _ in range(4) for claim in take(store)} | set(ids(first))
        assert found == {"a", "b", "c"}

    @clause(SupportsBrowse, SupportsWait)
    def test_no_age_and_no_wait_is_ever_negative(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b")
        (claim,) = take(store, 1)
        clock.set_back(_HOUR)
        settle(store, claim, released(claim))
        (again,) = take(store, 1, lease=SECOND)

        assert again.age == dt.timedelta(0)
        assert (store.next_due(["mail"]) or dt.timedelta(0)) >= dt.timedelta(0)
        clock.advance(2 * _HOUR)
        assert store.next_due(["mail"]) == dt.timedelta(0)

    @clause(SupportsBrowse, SupportsManage, Guarantee.LEASES)
    def test_the_message_is_the_same_at_every_attempt(
        self, store: Whole, reopen: Reopen, clock: ManualClock
    ) -> None:
        message = mail(
            "a",
            "x@example.org",
            "y@example.org",
            content=bytes(range(256)),
            attributes={"k": "✓"},
            priority=7,
            expires_at=clock.now() + _HOUR,
            at_most_once=True,
        )
        put(store, message)
        seen = []
        for step in ("retried", "lost", "released", "reopened", "dead", "requeued"):
            (claim,) = take(store)
            seen.append(claim.message)
            if step == "lost":
                clock.advance(LEASE)
            elif step == "dead":
                settle(store, claim, dead(claim))
                store.requeue(["a"], uncertain=True)
            else:
                settle(store, claim, released(claim) if step == "released" else retry(claim))
            if step == "reopened" and self.persistent:
                store = reopen()

        assert seen == [message] * 6
        assert {each.attributes["k"] for each in seen} == {"✓"}
        assert known(store, "a").message == message

    @clause(Guarantee.FENCING, Guarantee.LEASES)
    def test_every_verb_that_takes_a_claim_refuses_a_stale_one(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (stale,) = take(store)
        clock.advance(LEASE)
        (current,) = take(store)

        assert list(store.extend([stale, stale], lease=LEASE)) == [stale, stale]
        assert list(store.settle([Settlement(stale, dead(stale))])) == [stale]
        assert list(store.extend([current], lease=LEASE)) == []
        settle(store, current, delivered(current))
        assert list(store.extend([current], lease=LEASE)) == [current]

    @clause(SupportsWait)
    def test_a_clock_that_stands_before_1970_delivers_all_the_same(
        self, store: Whole, clock: ManualClock
    ) -> None:
        clock.set_back(_BEFORE_1970)
        put(store, "a")

        assert store.next_due(["mail"]) == ZERO
        (claim,) = take(store)
        settle(store, claim, retry(claim, SECOND))
        assert store.next_due(["mail"]) == SECOND
        clock.advance(SECOND)
        assert ids(take(store)) == ["a"]

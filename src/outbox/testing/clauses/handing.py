"""What ``put_claimed`` promises: stored, and leased to whoever stored it, in one commit."""

from __future__ import annotations

import datetime as dt

from outbox.errors import ConflictError, StoreUnavailable
from outbox.lifecycle import Settlement
from outbox.protocols import (
    Guarantee,
    SupportsBrowse,
    SupportsHandOver,
    SupportsManage,
    SupportsSuspend,
    Suspension,
)
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    Clauses,
    Reopen,
    Whole,
    clause,
    delivered,
    ids,
    mail,
    put,
    raises,
    released,
    retry,
    settle,
    statuses,
    summaries,
    take,
)

__all__ = ["HandOverClauses"]


class HandOverClauses(Clauses):
    """Stored, and leased to whoever stored it."""

    @clause(SupportsHandOver)
    def test_what_is_put_claimed_is_the_caller_s_alone(self, store: Whole) -> None:
        claims = store.put_claimed([mail("b"), mail("a")], lease=LEASE)

        assert ids(claims) == ["b", "a"]
        assert [(claim.attempt, claim.lost, claim.age) for claim in claims] == [(1, 0, dt.timedelta(0))] * 2
        assert [claim.message for claim in claims] == [mail("b"), mail("a")]
        assert take(store) == []
        for claim in claims:
            settle(store, claim, delivered(claim))

    @clause(SupportsHandOver, SupportsBrowse)
    def test_what_is_not_due_is_stored_and_not_handed_over(self, store: Whole, clock: ManualClock) -> None:
        later = mail("later", not_before=clock.now() + LEASE)

        assert ids(store.put_claimed([later, mail("now")], lease=SECOND)) == ["now"]

        assert summaries(store)["later"].state == "queued"
        clock.advance(LEASE - SECOND)
        assert ids(take(store)) == ["now"]
        clock.advance(SECOND)
        assert ids(take(store)) == ["later"]

    @clause(SupportsHandOver, SupportsSuspend)
    def test_what_is_of_a_suspended_queue_is_stored_and_not_handed_over(
        self, store: Whole, clock: ManualClock
    ) -> None:
        for name, until in (("a", None), ("b", clock.now() + LEASE)):
            store.suspend(Suspension(kind="queue", value="mail", until=until))

            assert list(store.put_claimed([mail(name)], lease=LEASE)) == []

            store.unsuspend("queue", "mail")
            assert ids(take(store)) == [name]

    @clause(SupportsHandOver, SupportsSuspend)
    def test_what_was_attempted_before_it_is_put_is_handed_over_whatever_is_suspended(
        self, store: Whole, clock: ManualClock
    ) -> None:
        store.suspend(Suspension(kind="queue", value="mail"))

        (claim,) = store.put_claimed([mail("a")], lease=LEASE, attempted=True)
        settle(store, claim, retry(claim, LEASE))
        clock.advance(LEASE)
        assert take(store) == []
        store.unsuspend("queue", "mail")
        assert [claim.attempt for claim in take(store)] == [2]

    @clause(SupportsHandOver, SupportsSuspend)
    def test_what_was_suspended_for_a_time_is_handed_over_when_that_is_over(
        self, store: Whole, clock: ManualClock
    ) -> None:
        store.suspend(Suspension(kind="queue", value="mail", until=clock.now() + LEASE))
        clock.advance(LEASE)

        assert ids(store.put_claimed([mail("a")], lease=LEASE)) == ["a"]

    @clause(SupportsHandOver, SupportsBrowse)
    def test_what_is_put_claimed_stands_as_claimed_until_its_lease_ends(
        self, store: Whole, clock: ManualClock
    ) -> None:
        store.put_claimed([mail("a")], lease=LEASE)

        summary = summaries(store)["a"]
        assert (summary.state, summary.attempts, summary.lost) == ("claimed", 1, 0)
        assert summary.leased_until == clock.now() + LEASE

    @clause(SupportsHandOver, Guarantee.DEDUPLICATION)
    def test_what_was_known_is_not_handed_over(self, store: Whole) -> None:
        put(store, "queued", "delivered")
        claim = next(claim for claim in take(store) if claim.message.id == "delivered")
        settle(store, claim, delivered(claim))

        claims = store.put_claimed([mail("queued"), mail("new"), mail("delivered"), mail("new")], lease=LEASE)

        assert ids(claims) == ["new"]

    @clause(SupportsHandOver, Guarantee.DEDUPLICATION)
    def test_a_conflict_hands_nothing_over_and_stores_nothing(self, store: Whole, clock: ManualClock) -> None:
        put(store, "b")

        with raises(ConflictError, "b"):
            store.put_claimed([mail("a"), mail("b", "other@example.org")], lease=LEASE)

        clock.advance(LEASE)
        assert ids(take(store)) == ["b"]

    @clause(SupportsHandOver, Guarantee.LEASES, Guarantee.FENCING)
    def test_what_was_put_claimed_and_never_settled_comes_back_and_counts_as_lost(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen()
        (old,) = store.put_claimed([mail("a", at_most_once=True)], lease=LEASE)
        if self.persistent:
            store = reopen(crash=True)

        clock.advance(LEASE - SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        (new,) = take(store)
        assert (new.attempt, new.lost) == (2, 1)
        assert new.message == old.message
        assert list(store.settle([Settlement(old, delivered(old))])) == [old]

    @clause(SupportsHandOver, Guarantee.LEASES, Guarantee.REFUNDS)
    def test_a_claim_that_was_handed_over_is_extended_and_released_like_any_other(
        self, store: Whole, clock: ManualClock
    ) -> None:
        (claim,) = store.put_claimed([mail("a")], lease=LEASE)
        assert list(store.extend([claim], lease=10 * LEASE)) == []
        clock.advance(9 * LEASE)
        assert take(store) == []

        settle(store, claim, released(claim))
        (again,) = take(store)
        assert (again.attempt, again.lost) == (1, 0)

    @clause(SupportsHandOver, SupportsManage)
    def test_what_was_handed_over_is_not_cancelled_under_its_lease(self, store: Whole) -> None:
        store.put_claimed([mail("a")], lease=LEASE)

        assert statuses(store.cancel(["a"])) == ["leased"]

    @clause(SupportsHandOver)
    def test_handing_over_nothing_is_harmless(self, store: Whole) -> None:
        assert list(store.put_claimed([], lease=LEASE)) == []

    @clause(SupportsHandOver)
    def test_a_closed_store_hands_nothing_over(self, store: Whole) -> None:
        store.close()

        with raises(StoreUnavailable, "closed"):
            store.put_claimed([mail("a")], lease=LEASE)

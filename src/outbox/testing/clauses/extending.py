"""What ``extend`` promises: the lease runs on, and nothing else changes."""

from __future__ import annotations

import attrs

from outbox.lifecycle import Settlement
from outbox.protocols import Guarantee, SupportsBrowse, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    Whole,
    clause,
    dead,
    delivered,
    ids,
    put,
    retry,
    settle,
    statuses,
    summaries,
    take,
)

__all__ = ["ExtendClauses"]


class ExtendClauses:
    """The same claim, for longer."""

    def test_an_extended_lease_runs_from_now(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b")
        a, _ = take(store, lease=60 * SECOND)
        clock.advance(50 * SECOND)

        assert list(store.extend([a], lease=60 * SECOND)) == []

        clock.advance(10 * SECOND)
        assert ids(take(store)) == ["b"]
        clock.advance(50 * SECOND)
        assert ids(take(store)) == ["a"]

    def test_an_extended_claim_is_no_other_claim(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (claim,) = take(store)
        for _ in range(3):
            clock.advance(LEASE - SECOND)
            assert list(store.extend([claim], lease=LEASE)) == []

        settle(store, claim, retry(claim))
        (again,) = take(store)
        assert (again.attempt, again.lost) == (2, 0)

    @clause(Guarantee.LEASES)
    def test_a_lease_that_ran_out_and_was_not_taken_can_still_be_extended(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        clock.advance(LEASE)

        assert list(store.extend([claim], lease=LEASE)) == []
        assert take(store) == []

    @clause(Guarantee.LEASES)
    def test_an_extended_lease_is_not_claimed_though_it_was_seen_to_have_run_out(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b")
        claims = take(store)
        clock.advance(LEASE)
        (taken,) = take(store)
        (left,) = [claim for claim in claims if claim.message.id != taken.message.id]

        assert list(store.extend([left], lease=LEASE)) == []
        assert take(store) == []

    @clause(Guarantee.FENCING, Guarantee.LEASES)
    def test_extend_returns_those_whose_lease_was_lost(self, store: Whole, clock: ManualClock) -> None:
        put(store, "taken", "settled", "mine")
        mine, settled, taken = sorted(take(store), key=lambda claim: claim.message.id)
        settle(store, settled, dead(settled))
        clock.advance(LEASE)
        assert list(store.extend([mine], lease=LEASE)) == []
        (other,) = take(store)

        assert sorted(ids(store.extend([mine, taken, settled], lease=LEASE))) == ["settled", "taken"]
        # And the one that took it holds it for as long as it asked for, no longer.
        settle(store, other, delivered(other))

    @clause(Guarantee.LEASES, Guarantee.FENCING, SupportsBrowse)
    def test_extending_a_lost_lease_changes_nothing(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (old,) = take(store)
        clock.advance(LEASE)
        take(store)
        before = summaries(store)
        clock.advance(SECOND)

        assert list(store.extend([old], lease=10 * LEASE)) == [old]
        assert summaries(store) == before

    @clause(Guarantee.LEASES, Guarantee.FENCING, SupportsManage)
    def test_a_lease_on_what_was_cancelled_and_purged_is_lost(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (claim,) = take(store)
        clock.advance(LEASE)
        for command in (store.cancel, store.purge):
            assert statuses(command(["a"])) == ["done"]
            assert list(store.extend([claim], lease=LEASE)) == [claim]
            assert list(store.settle([Settlement(claim, delivered(claim))])) == [claim]

    @clause(Guarantee.LEASES, Guarantee.FENCING)
    def test_every_claim_is_extended_whatever_became_of_those_beside_it(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b", "c", "d")
        claims = take(store)
        settle(store, claims[1], dead(claims[1]))
        clock.advance(LEASE - SECOND)

        assert list(store.extend(claims, lease=LEASE)) == [claims[1]]
        clock.advance(LEASE - SECOND)
        assert take(store) == []

    @clause(Guarantee.LEASES, SupportsBrowse)
    def test_an_extension_changes_the_end_of_the_lease_and_nothing_else(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        for _ in range(2):
            (claim,) = take(store)
            before = summaries(store)["a"]
            clock.advance(LEASE)
            assert list(store.extend([claim], lease=2 * LEASE)) == []

            assert summaries(store)["a"] == attrs.evolve(before, leased_until=clock.now() + 2 * LEASE)
            clock.advance(2 * LEASE)
        (claim,) = take(store)
        assert (claim.attempt, claim.lost) == (3, 2)

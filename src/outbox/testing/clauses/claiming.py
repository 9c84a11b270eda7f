"""What ``claim`` and ``extend`` promise of time, leases and counts."""

from __future__ import annotations

import datetime as dt

from outbox.clock import Clock
from outbox.lifecycle import Fate, Retry, Settlement
from outbox.protocols import Guarantee, SupportsBrowse, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    Clauses,
    Whole,
    clause,
    delivered,
    ids,
    mail,
    put,
    released,
    retry,
    settle,
    states,
    summaries,
    take,
)

__all__ = ["ClaimClauses"]


class ClaimClauses(Clauses):
    """Nothing before it is due, nothing under two leases, and every claim counted."""

    def test_an_empty_store_has_nothing_to_claim(self, store: Whole) -> None:
        assert take(store) == []
        assert take(store, 10, "a", "b") == []
        assert list(store.claim(limit=10, lease=LEASE, queues=())) == []

    def test_no_more_than_the_limit_are_claimed(self, store: Whole) -> None:
        put(store, "a", "b", "c")

        assert len(take(store, 2)) == 2
        assert len(take(store, 2)) == 1
        assert take(store, 0) == []

    def test_a_message_is_under_one_live_lease(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b", "c")

        first = take(store, 2)
        clock.advance(LEASE - SECOND)
        second = take(store)

        assert (len(first), len(second)) == (2, 1)
        assert sorted(ids(first + second)) == ["a", "b", "c"]
        assert take(store) == []

    def test_nothing_is_claimed_before_it_is_due(self, store: Whole, clock: ManualClock) -> None:
        due = clock.now() + dt.timedelta(hours=1)
        put(store, mail("a", not_before=due), mail("b", not_before=due + SECOND))

        for step in (60 * SECOND, 3539 * SECOND):
            clock.advance(step)
            assert take(store) == []
        clock.advance(SECOND)
        assert ids(take(store)) == ["a"]
        clock.advance(SECOND)
        assert ids(take(store)) == ["b"]

    @clause(Guarantee.DELAYS)
    def test_nothing_is_claimed_a_microsecond_before_it_is_due(
        self, store: Whole, clock: ManualClock
    ) -> None:
        due = clock.now() + dt.timedelta(hours=1)
        put(store, mail("a", not_before=due), mail("b", not_before=due + SECOND))

        clock.advance(dt.timedelta(hours=1) - dt.timedelta(microseconds=1))
        assert take(store) == []
        clock.advance(dt.timedelta(microseconds=1))
        assert ids(take(store)) == ["a"]
        clock.advance(SECOND)
        assert ids(take(store)) == ["b"]

    def test_a_not_before_in_the_past_is_due_now(self, store: Whole, clock: Clock) -> None:
        put(store, mail("a", not_before=clock.now() - dt.timedelta(days=3)))

        (claim,) = take(store)
        assert claim.age == dt.timedelta(0)

    def test_an_expired_lease_is_claimed_like_any_other_message(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (first,) = take(store)

        clock.advance(LEASE - dt.timedelta(microseconds=1))
        assert take(store) == []
        clock.advance(dt.timedelta(microseconds=1))
        (second,) = take(store)

        assert second.message == first.message
        assert second.token != first.token
        assert (second.attempt, second.lost) == (2, 1)

    @clause(Guarantee.LEASES)
    def test_the_lease_is_as_long_as_it_was_asked_for(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b")
        take(store, 1, lease=SECOND)
        take(store, 1, lease=10 * SECOND)

        clock.advance(SECOND)
        assert ids(take(store)) == ["a"]
        clock.advance(9 * SECOND)
        assert ids(take(store)) == ["b"]

    @clause(Guarantee.FENCING)
    def test_no_two_claims_of_a_message_bear_the_same_token(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        tokens = []
        for _ in range(3):
            (claim,) = take(store)
            tokens.append(claim.token)
            settle(store, claim, released(claim))
        for _ in range(3):
            tokens += [claim.token for claim in take(store)]
            clock.advance(LEASE)

        assert len(set(tokens)) == 6

    def test_each_claim_counts_an_attempt(self, store: Whole) -> None:
        put(store, "a")
        attempts = []
        for _ in range(3):
            (claim,) = take(store)
            attempts.append(claim.attempt)
            settle(store, claim, retry(claim))

        assert attempts == [1, 2, 3]

    def test_claims_that_never_settled_are_counted_until_one_does(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        lost = []
        for _ in range(3):
            (claim,) = take(store)
            lost.append(claim.lost)
            clock.advance(LEASE)
        (claim,) = take(store)
        settle(store, claim, retry(claim))
        (after,) = take(store)

        assert lost == [0, 1, 2]
        assert (claim.lost, claim.attempt) == (3, 4)
        assert (after.lost, after.attempt) == (0, 5)

    def test_who_was_in_the_hands_of_a_worker_that_never_reported_back_is_doubtful_from_then_on(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, mail("a", "x@example.org", "y@example.org"))
        (claim,) = take(store)
        fates = {"x@example.org": Fate.ACCEPTED, "y@example.org": Fate.WAITING}
        settle(store, claim, Retry(delay=dt.timedelta(0), fates=fates))
        (claim,) = take(store)
        assert claim.fates == fates
        clock.advance(LEASE)
        (claim,) = take(store)
        settle(store, claim, released(claim))
        (claim,) = take(store)

        assert claim.fates == {"x@example.org": Fate.ACCEPTED, "y@example.org": Fate.DOUBTFUL}
        assert claim.recipients == ("y@example.org",)

    @clause(Guarantee.REFUNDS)
    def test_a_released_claim_was_never_counted(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        take(store)
        clock.advance(LEASE)
        for _ in range(3):
            (claim,) = take(store)
            assert (claim.attempt, claim.lost) == (2, 1)
            settle(store, claim, released(claim))

    def test_the_age_counts_from_the_submit(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        clock.advance(90 * SECOND)

        (claim,) = take(store)
        settle(store, claim, retry(claim))
        clock.advance(30 * SECOND)
        (again,) = take(store)

        assert (claim.age, again.age) == (90 * SECOND, 120 * SECOND)

    def test_nothing_but_a_person_s_word_makes_it_younger(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        ages = []
        for verdict in (released, retry, None, released, retry):
            clock.advance(LEASE)
            (claim,) = take(store)
            ages.append(claim.age)
            if verdict is not None:
                settle(store, claim, verdict(claim))

        assert ages == [n * LEASE for n in range(1, 6)]

    def test_the_age_counts_from_not_before_where_that_is_later(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, mail("a", not_before=clock.now() + 60 * SECOND))
        clock.advance(90 * SECOND)

        (claim,) = take(store)

        assert claim.age == 30 * SECOND

    @clause(SupportsManage)
    def test_the_age_counts_from_the_requeue(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        clock.advance(90 * SECOND)
        store.requeue(["a"])
        clock.advance(SECOND)

        (claim,) = take(store)

        assert claim.age == SECOND

    def test_a_claim_says_how_long_until_it_expires(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("a", expires_at=clock.now() + 60 * SECOND), "b")
        clock.advance(90 * SECOND)

        first, second = take(store)

        assert first.expires_in == -30 * SECOND
        assert second.expires_in is None

    @clause(SupportsBrowse)
    def test_a_claimed_message_says_until_when(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        take(store)

        summary = summaries(store)["a"]

        assert states(store) == {"a": "claimed"}
        assert summary.leased_until == clock.now() + LEASE
        assert summary.due_at is None
        assert (summary.attempts, summary.lost) == (1, 0)

    @clause(SupportsBrowse)
    def test_an_unreadable_record_is_held_and_stops_no_other(self, store: Whole) -> None:
        put(store, "a", "b", "c")
        self.corrupt(store, "b")

        claims = take(store)

        assert ids(claims) == ["a", "c"]
        summary = summaries(store)["b"]
        assert summary.state == "held"
        assert "b" in summary.reason
        assert list(store.settle([Settlement(claim, delivered(claim)) for claim in claims])) == []
        assert take(store) == []

    @clause(SupportsBrowse)
    def test_where_the_first_is_unreadable_the_next_is_claimed_instead(self, store: Whole) -> None:
        put(store, "a", "b")
        self.corrupt(store, "a")

        assert ids(take(store, 1)) == ["b"]

"""What a token is worth: a stale one changes nothing, in whatever verb."""

from __future__ import annotations

from outbox.lifecycle import Settlement
from outbox.protocols import Guarantee, SupportsBrowse, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    Whole,
    clause,
    dead,
    delivered,
    expired,
    held,
    put,
    released,
    retry,
    settle,
    states,
    take,
)

__all__ = ["FenceClauses"]


class FenceClauses:
    """Whoever lost the lease has lost it."""

    @clause(Guarantee.FENCING, SupportsBrowse)
    def test_a_stale_token_changes_nothing_whatever_the_verdict(
        self, store: Whole, clock: ManualClock
    ) -> None:
        for verdict in (delivered, dead, held, expired, retry, released):
            name = verdict.__name__
            put(store, name)
            (stale,) = take(store)
            clock.advance(LEASE)
            (current,) = take(store)
            before = store.get(name)

            assert list(store.settle([Settlement(stale, verdict(stale))])) == [stale]
            assert store.get(name) == before
            settle(store, current, dead(current))

    @clause(Guarantee.FENCING, SupportsBrowse)
    def test_a_claim_is_settled_once(self, store: Whole) -> None:
        for verdict in (delivered, dead, held, expired, retry, released):
            name = verdict.__name__
            put(store, name)
            (claim,) = take(store)
            settle(store, claim, verdict(claim))
            before = store.get(name)

            assert list(store.settle([Settlement(claim, dead(claim))])) == [claim]
            assert store.get(name) == before
            for again in take(store):
                settle(store, again, delivered(again))

    @clause(Guarantee.FENCING, SupportsBrowse)
    def test_of_two_verdicts_on_one_claim_the_first_stands(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)

        answer = store.settle([Settlement(claim, held(claim)), Settlement(claim, dead(claim))])

        assert list(answer) == [claim]
        assert states(store) == {"a": "held"}

    @clause(Guarantee.FENCING, SupportsBrowse, Guarantee.LEASES)
    def test_a_stale_one_stops_no_other(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (stale,) = take(store)
        clock.advance(LEASE)
        take(store)
        put(store, "b", "c")
        b, c = take(store)

        answer = store.settle(
            [Settlement(b, dead(b)), Settlement(stale, delivered(stale)), Settlement(c, held(c))]
        )

        assert list(answer) == [stale]
        assert states(store) == {"a": "claimed", "b": "dead", "c": "held"}

    @clause(Guarantee.FENCING)
    def test_a_token_that_was_never_given_out_is_stale(self, store: Whole) -> None:
        put(store, "a", "b")
        a, b = take(store)
        for token in ("", "0", "x", "-1", a.token + "0"):
            forged = type(a)(message=a.message, fates=a.fates, attempt=1, lost=0, age=a.age, token=token)
            assert list(store.settle([Settlement(forged, dead(forged))])) == [forged]
        swapped = type(a)(message=b.message, fates=b.fates, attempt=1, lost=0, age=b.age, token=a.token)
        if a.token != b.token:
            assert list(store.settle([Settlement(swapped, dead(swapped))])) == [swapped]
        settle(store, a, retry(a))

    @clause(Guarantee.FENCING, SupportsManage)
    def test_a_token_from_before_a_purge_does_not_fit_a_later_message_of_the_same_id(
        self, store: Whole
    ) -> None:
        put(store, "a")
        (old,) = take(store)
        settle(store, old, dead(old))
        store.purge(["a"])
        put(store, "a")
        (new,) = take(store)

        assert list(store.settle([Settlement(old, delivered(old))])) == [old]
        settle(store, new, delivered(new))

    def test_a_late_settle_counts_as_long_as_nobody_else_took_the_message(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        clock.advance(10 * LEASE)

        settle(store, claim, delivered(claim))
        assert take(store) == []

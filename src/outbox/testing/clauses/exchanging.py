"""What ``exchange`` and ``put_claimed`` promise: two steps in one commit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from outbox.errors import ConfigurationError, ConflictError, StoreUnavailable
from outbox.lifecycle import Delivered, Settlement
from outbox.protocols import (
    Exchanged,
    Guarantee,
    SupportsBrowse,
    SupportsExchange,
    SupportsHandOver,
    SupportsManage,
    SupportsSuspend,
    SupportsWait,
    Suspension,
)
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    VERDICTS,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    expired,
    held,
    ids,
    mail,
    put,
    raises,
    released,
    retry,
    settle,
    states,
    statuses,
    summaries,
    take,
)

__all__ = ["ExchangeClauses", "HandOverClauses"]

_LONG = dt.timedelta(seconds=30)


def exchange(store: Whole, settlements: Sequence[Settlement] = (), limit: int = 100) -> Exchanged:
    return store.exchange(settlements, limit=limit, lease=LEASE, queues=("mail",))


class ExchangeClauses:
    """Settle, then claim."""

    @clause(SupportsExchange)
    def test_an_exchange_settles_and_claims(self, store: Whole) -> None:
        put(store, "a", "b")
        (first,) = take(store, 1)

        answer = exchange(store, [Settlement(first, delivered(first))])

        assert list(answer.lost) == []
        (second,) = answer.claims
        assert {first.message.id, second.message.id} == {"a", "b"}
        assert (second.attempt, second.lost) == (1, 0)
        assert take(store) == []

    @clause(SupportsExchange)
    def test_an_exchange_of_nothing_is_a_claim(self, store: Whole) -> None:
        assert exchange(store) == Exchanged([], [])
        put(store, "a", "b", "c")

        assert len(exchange(store, limit=2).claims) == 2
        assert len(exchange(store, limit=2).claims) == 1

    @clause(SupportsExchange, SupportsBrowse)
    def test_an_exchange_for_nothing_is_a_settle(self, store: Whole) -> None:
        put(store, *VERDICTS, "other")
        claims = [claim for claim in take(store, 5) if claim.message.id in VERDICTS]
        verdicts = [next(VERDICTS[s] for s in VERDICTS if s == claim.message.id) for claim in claims]

        answer = exchange(
            store, list(map(Settlement, claims, (v(c) for v, c in zip(verdicts, claims, strict=True)))), 0
        )

        assert answer == Exchanged([], [])
        expected = {"dead": "dead", "expired": "expired", "held": "held"}
        assert states(store).items() >= expected.items()

    @clause(SupportsExchange)
    def test_what_an_exchange_puts_back_it_may_take_again(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)

        (again,) = exchange(store, [Settlement(claim, retry(claim))]).claims

        assert (again.message.id, again.attempt) == ("a", 2)
        assert again.token != claim.token

    @clause(SupportsExchange, Guarantee.DELAYS)
    def test_an_exchange_takes_nothing_before_it_is_due(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (claim,) = take(store)

        assert list(exchange(store, [Settlement(claim, retry(claim, SECOND))]).claims) == []
        clock.advance(SECOND)
        assert ids(exchange(store).claims) == ["a"]

    @clause(SupportsExchange, SupportsBrowse, Guarantee.FENCING, Guarantee.LEASES)
    def test_a_stale_token_changes_nothing_in_an_exchange_and_stops_no_other(
        self, store: Whole, clock: ManualClock
    ) -> None:
        for verdict in (delivered, dead, held, expired, retry, released):
            name = verdict.__name__
            put(store, name)
            (stale,) = take(store)
            clock.advance(LEASE)
            (current,) = take(store)
            before = store.get(name)
            put(store, f"next-{name}")

            answer = exchange(store, [Settlement(stale, verdict(stale))])

            assert list(answer.lost) == [stale]
            assert ids(answer.claims) == [f"next-{name}"]
            assert store.get(name) == before
            assert list(exchange(store, [Settlement(current, dead(current))]).lost) == []
            settle(store, answer.claims[0], dead(answer.claims[0]))

    @clause(SupportsExchange, SupportsBrowse, Guarantee.FENCING)
    def test_of_two_verdicts_on_one_claim_in_an_exchange_the_first_stands(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)

        answer = exchange(store, [Settlement(claim, held(claim)), Settlement(claim, retry(claim))])

        assert list(answer.lost) == [claim]
        assert list(answer.claims) == []
        assert states(store) == {"a": "held"}

    @clause(SupportsExchange, SupportsBrowse)
    def test_an_exchange_that_is_refused_changes_nothing(self, store: Whole) -> None:
        put(store, "a", "b", "c")
        a, b = take(store, 2)
        before = summaries(store)

        with raises(ConfigurationError, "no fate"):
            exchange(store, [Settlement(a, dead(a)), Settlement(b, Delivered(fates={}))])
        with raises(ConfigurationError, "sequence"):
            store.exchange([Settlement(a, dead(a))], limit=1, lease=LEASE, queues="mail")

        assert summaries(store) == before

    @clause(SupportsExchange, Guarantee.LEASES)
    def test_a_suspect_comes_alone_out_of_an_exchange(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b")
        take(store)
        clock.advance(LEASE)

        first, second = exchange(store).claims, exchange(store).claims

        assert sorted([ids(first), ids(second)]) == [["a"], ["b"]]

    @clause(SupportsExchange)
    def test_no_more_content_comes_out_of_an_exchange_than_was_asked_for(self, store: Whole) -> None:
        put(store, *(mail(name, content=b"x" * 100) for name in "abc"))

        answer = store.exchange([], limit=9, lease=LEASE, queues=("mail",), max_bytes=250)

        assert len(answer.claims) == 2

    @clause(SupportsExchange, SupportsWait)
    def test_what_an_exchange_puts_back_is_news(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        exchange(store, [Settlement(claim, retry(claim, SECOND))])

        assert store.wait(_LONG) is True

    @clause(SupportsExchange)
    def test_a_closed_store_exchanges_nothing(self, store: Whole) -> None:
        store.close()

        with raises(StoreUnavailable, "closed"):
            exchange(store)


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
    def test_what_is_of_a_suspended_queue_is_stored_and_not_handed_over(self, store: Whole) -> None:
        store.suspend(Suspension(kind="queue", value="mail"))

        assert list(store.put_claimed([mail("a")], lease=LEASE)) == []

        store.unsuspend("queue", "mail")
        assert ids(take(store)) == ["a"]

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

    @clause(SupportsHandOver, Guarantee.LEASES)
    def test_what_was_put_claimed_and_never_settled_comes_back_and_counts_as_lost(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen()
        (old,) = store.put_claimed([mail("a")], lease=LEASE)
        if self.persistent:
            store = reopen(crash=True)

        clock.advance(LEASE - SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        (new,) = take(store)
        assert (new.attempt, new.lost) == (2, 1)
        assert new.message == old.message
        assert list(store.settle([Settlement(old, delivered(old))])) == [old]

    @clause(SupportsHandOver)
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

"""What ``exchange`` promises: a settle and a claim in one commit."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.lifecycle import Delivered, Settlement
from outbox.protocols import (
    Exchanged,
    Guarantee,
    SupportsBrowse,
    SupportsExchange,
    SupportsWait,
)
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    LONG,
    SECOND,
    VERDICTS,
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
    summaries,
    take,
)

__all__ = ["ExchangeClauses"]


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
        assert not exchange(store).claims
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

        assert (list(answer.lost), list(answer.claims)) == ([], [])
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

    @clause(SupportsExchange, Guarantee.ORDER)
    def test_the_claims_of_an_exchange_are_in_their_order(self, store: Whole) -> None:
        put(store, *(mail(name, priority=p) for name, p in (("c", 0), ("a", -1), ("d", 5), ("b", 0))))

        assert ids(exchange(store).claims) == ["d", "b", "c", "a"]

    @clause(SupportsExchange, Guarantee.LEASES)
    def test_the_lease_of_an_exchange_is_as_long_as_it_was_asked_for(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b")
        for lease in (SECOND, 3 * LEASE):
            assert len(store.exchange([], limit=1, lease=lease, queues=("mail",)).claims) == 1

        clock.advance(SECOND)
        assert len(take(store, lease=3 * LEASE)) == 1
        clock.advance(3 * LEASE - 2 * SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        assert len(take(store)) == 1

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

        assert store.wait(LONG) is True

    @clause(SupportsExchange)
    def test_a_closed_store_exchanges_nothing(self, store: Whole) -> None:
        store.close()

        with raises(StoreUnavailable, "closed"):
            exchange(store)

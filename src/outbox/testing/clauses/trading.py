"""That an exchange is a settle and a claim in all that they promise, and not in its first message only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from outbox.lifecycle import Fate, Settlement
from outbox.protocols import (
    Exchanged,
    Guarantee,
    SupportsBrowse,
    SupportsExchange,
    SupportsSuspend,
    Suspension,
)
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
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
    statuses,
    take,
)

__all__ = ["TradeClauses"]

QUEUES = ("x", "y", "z")


def exchange(
    store: Whole, settlements: Sequence[Settlement] = (), limit: int = 100, queues: Sequence[str] = ("mail",)
) -> Exchanged:
    return store.exchange(settlements, limit=limit, lease=LEASE, queues=queues)


class TradeClauses:
    """One commit, and nothing less."""

    @clause(SupportsExchange, Guarantee.DEDUPLICATION)
    def test_what_an_exchange_delivered_is_known(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        exchange(store, [Settlement(claim, delivered(claim))])

        assert statuses(store.put([mail("a")])) == ["known"]
        assert take(store) == []

    @clause(SupportsExchange, Guarantee.LEASES)
    def test_an_exchange_knows_how_often_it_was_lost_and_who_may_have_it(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        take(store)
        for lost in (1, 2):
            clock.advance(LEASE)
            (claim,) = exchange(store).claims
            assert (claim.attempt, claim.lost) == (lost + 1, lost)
            assert dict(claim.fates) == {"a@example.org": Fate.DOUBTFUL}
        clock.advance(LEASE)
        (claim,) = take(store)
        assert (claim.attempt, claim.lost, claim.fates["a@example.org"]) == (4, 3, Fate.DOUBTFUL)

    @clause(SupportsExchange, SupportsSuspend)
    def test_an_exchange_takes_nothing_of_a_queue_that_is_suspended_for_a_time(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b")
        (first,) = take(store, 1)
        store.suspend(Suspension(kind="queue", value="mail", until=clock.now() + LEASE / 2))

        assert list(exchange(store, [Settlement(first, retry(first))]).claims) == []
        clock.advance(LEASE / 2)
        assert len(exchange(store).claims) == 2

    @clause(SupportsExchange)
    def test_the_limit_of_an_exchange_is_shared_evenly_over_the_queues(self, store: Whole) -> None:
        put(store, *(mail(f"{q}{n}", queue=q) for q in QUEUES for n in range(9)))

        for limit in (6, 3):
            claims = exchange(store, limit=limit, queues=QUEUES).claims
            assert Counter(claim.message.queue for claim in claims) == dict.fromkeys(QUEUES, limit // 3)

    @clause(SupportsExchange)
    def test_one_at_a_time_the_queues_take_turns_in_exchanges(self, store: Whole) -> None:
        put(store, *(mail(f"{q}{n}", queue=q, priority=n) for q in QUEUES for n in range(9)))

        served: Counter[str] = Counter()
        settlements: list[Settlement] = []
        for _ in range(9):
            (claim,) = exchange(store, settlements, limit=1, queues=QUEUES).claims
            served[claim.message.queue] += 1
            settlements = [Settlement(claim, delivered(claim))]

        assert served == dict.fromkeys(QUEUES, 3)

    @clause(SupportsExchange)
    def test_a_message_larger_than_was_asked_for_comes_alone_out_of_an_exchange(self, store: Whole) -> None:
        put(store, mail("a", content=b"x" * 100), mail("b", content=b"x" * 100))
        seen: list[str] = []
        for _ in range(2):
            claims = store.exchange([], limit=9, lease=LEASE, queues=("mail",), max_bytes=10).claims
            assert len(claims) == 1
            seen += ids(claims)

        assert sorted(seen) == ["a", "b"]

    @clause(SupportsExchange, SupportsBrowse)
    def test_what_an_exchange_ended_carries_its_evidence(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        (claim,) = exchange(store, [Settlement(claim, retry(claim))]).claims
        exchange(store, [Settlement(claim, dead(claim))])

        record = known(store, "a")
        assert [(attempt.number, attempt.event) for attempt in record.history] == [(1, "retry"), (2, "dead")]
        assert record.history[1].results == dead(claim).outcome.results  # type: ignore[union-attr]  # it has one
        assert (record.summary.state, record.summary.reason) == ("dead", "550 no such user")
        assert record.summary.fates == dead(claim).fates

    @clause(SupportsExchange, Guarantee.REFUNDS)
    def test_what_an_exchange_released_was_never_counted(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        exchange(store, [Settlement(claim, released(claim))], limit=0)
        (claim,) = take(store)
        assert claim.attempt == 1

        (claim,) = exchange(store, [Settlement(claim, released(claim))]).claims
        assert claim.attempt == 1
        settle(store, claim, delivered(claim))

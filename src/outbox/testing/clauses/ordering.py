"""Which message is first: priority, due, id within a queue; even shares between queues; suspects alone."""

from __future__ import annotations

import datetime as dt
from collections import Counter

from outbox.protocols import Guarantee
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    Clauses,
    Whole,
    all_of,
    clause,
    delivered,
    ids,
    line,
    mail,
    put,
    raises,
    released,
    retry,
    settle,
)

__all__ = ["OrderClauses"]


class OrderClauses(Clauses):
    """The best first, and nobody starves."""

    @clause(Guarantee.ORDER)
    def test_higher_priority_goes_first(self, store: Whole) -> None:
        put(store, *(mail(f"p{p + 100}", priority=p) for p in (0, -100, 100, 5, -1)))

        assert ids(line(store)) == ["p200", "p105", "p100", "p99", "p0"]

    @clause(Guarantee.ORDER)
    def test_among_equals_the_earlier_due_goes_first(self, store: Whole, clock: ManualClock) -> None:
        now = clock.now()
        put(store, *(mail(name, not_before=now + n * SECOND) for name, n in (("a", 3), ("b", 1), ("c", 2))))
        clock.advance(5 * SECOND)
        put(store, "0")

        assert ids(line(store)) == ["b", "c", "a", "0"]

    @clause(Guarantee.ORDER)
    def test_among_those_due_together_the_smaller_id_goes_first(self, store: Whole) -> None:
        put(store, "c", "a", "b")

        assert ids(line(store)) == ["a", "b", "c"]

    @clause(Guarantee.ORDER)
    def test_priority_comes_before_due_also_for_what_was_scheduled(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        put(store, mail("b", priority=1, not_before=clock.now() + SECOND))
        clock.advance(SECOND)

        assert ids(line(store)) == ["b", "a"]

    @clause(Guarantee.ORDER)
    def test_a_retried_message_takes_its_place_by_its_new_due_time(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b")
        (a,) = line(store, 1)
        clock.advance(SECOND)
        settle(store, a, retry(a))

        assert ids(line(store)) == ["b", "a"]

    @clause(Guarantee.LEASES, Guarantee.ORDER)
    def test_an_expired_lease_takes_its_place_by_when_it_ran_out(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "lost")
        line(store, lease=10 * SECOND)
        clock.advance(5 * SECOND)
        put(store, "earlier")
        clock.advance(10 * SECOND)
        put(store, "later")

        assert ids(line(store, 1)) == ["earlier"]
        assert ids(line(store, 1)) == ["lost"]
        assert ids(line(store, 1)) == ["later"]

    def test_other_queues_are_left_alone(self, store: Whole) -> None:
        put(store, mail("a", queue="other", priority=100), "b")

        assert ids(line(store)) == ["b"]
        assert ids(line(store, 10, "other")) == ["a"]

    def test_a_long_queue_hides_no_other(self, store: Whole) -> None:
        """The filter comes before the limit."""
        put(store, *(mail(f"a{n:03}", queue="long", priority=9) for n in range(150)))
        put(store, "b")

        assert ids(line(store, 1)) == ["b"]

    def test_the_limit_is_shared_evenly_over_the_queues(self, store: Whole) -> None:
        put(store, *(mail(f"{q}{n}", queue=q) for q in ("x", "y", "z") for n in range(10)))

        claimed = ids(line(store, 6, "x", "y", "z"))

        assert sorted(name[0] for name in claimed) == ["x", "x", "y", "y", "z", "z"]

    def test_a_share_that_a_queue_does_not_use_goes_to_the_others(self, store: Whole) -> None:
        put(store, *(mail(f"x{n}", queue="x") for n in range(10)), mail("y0", queue="y"))

        claimed = ids(line(store, 6, "x", "y", "empty"))

        assert sorted(name[0] for name in claimed) == ["x", "x", "x", "x", "x", "y"]

    def test_a_queue_with_nothing_due_takes_no_share(self, store: Whole, clock: ManualClock) -> None:
        later = clock.now() + SECOND
        put(store, *(mail(f"x{n}", queue="x", not_before=later) for n in range(5)))
        put(store, *(mail(f"y{n}", queue="y") for n in range(5)))

        assert len(line(store, 4, "x", "y")) == 4

    def test_one_at_a_time_the_queues_take_turns(self, store: Whole) -> None:
        put(store, *(mail(f"x{n}", queue="x", priority=50) for n in range(9)))
        put(store, *(mail(f"{q}{n}", queue=q) for q in "yz" for n in range(9)))

        for queues in ("xy", "xyz"):
            served = [ids(line(store, 1, *queues))[0][0] for _ in range(2 * len(queues))]
            assert sorted(served) == sorted(2 * queues)

    def test_what_cannot_be_shared_evenly_differs_by_one(self, store: Whole) -> None:
        put(store, *(mail(f"{q}{n}", queue=q) for q in "xyz" for n in range(9)))

        for limit in (5, 4, 8):
            shares = Counter(name[0] for name in ids(line(store, limit, *"xyz")))
            assert sum(shares.values()) == limit
            assert max(shares.values()) - min(shares.values()) <= 1

    def test_what_one_claim_left_the_next_ones_bring(self, store: Whole) -> None:
        put(store, *(mail(f"{q}{n}", queue=q) for q in "xy" for n in range(5)))
        claimed = ids(line(store, 4, "x", "y"))

        assert sorted(claimed + ids(all_of(store, "x", "y"))) == [f"{q}{n}" for q in "xy" for n in range(5)]

    def test_a_queue_named_twice_counts_once(self, store: Whole) -> None:
        put(store, *(mail(f"{q}{n}", queue=q) for q in ("x", "y") for n in range(4)))

        claimed = ids(line(store, 4, "x", "x", "x", "y"))

        assert sorted(name[0] for name in claimed) == ["x", "x", "y", "y"]

    def test_a_bare_string_is_not_taken_for_a_list_of_queues(self, store: Whole) -> None:
        with raises(ValueError, "sequence"):
            store.claim(limit=1, lease=LEASE, queues="mail")

    def test_no_more_content_comes_than_was_asked_for(self, store: Whole) -> None:
        put(store, *(mail(name, content=b"x" * 100) for name in "abcd"))

        first = ids(store.claim(limit=10, lease=LEASE, queues=("mail",), max_bytes=250))
        second = ids(store.claim(limit=10, lease=LEASE, queues=("mail",), max_bytes=200))

        assert (len(first), len(second)) == (2, 2)
        assert sorted(first + second) == ["a", "b", "c", "d"]

    def test_a_message_larger_than_that_comes_alone(self, store: Whole) -> None:
        put(store, mail("a", content=b"x" * 100), mail("b", content=b"x" * 100))

        for _ in range(2):
            claims = store.claim(limit=10, lease=LEASE, queues=("mail",), max_bytes=10)
            assert len(claims) == 1

    def test_many_that_become_due_at_once_all_come(self, store: Whole, clock: ManualClock) -> None:
        due = clock.now() + SECOND
        names = [f"m{n:04}" for n in range(1250 * self.many // 2000)]
        put(store, *(mail(name, not_before=due, content=b"") for name in names))
        clock.advance(SECOND)
        claimed = []
        while claims := line(store, 500):
            claimed += ids(claims)

        assert sorted(claimed) == names

    # -- suspects: their last claim never settled

    def test_a_message_whose_claim_never_settled_comes_alone(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b")
        line(store)
        clock.advance(LEASE)
        put(store, "c")

        calls = [line(store) for _ in range(3)]

        assert sorted(map(ids, calls)) == [["a"], ["b"], ["c"]]
        assert {claim.message.id: claim.lost for claims in calls for claim in claims} == {
            "a": 1,
            "b": 1,
            "c": 0,
        }

    @clause(Guarantee.ORDER)
    def test_a_suspect_that_is_not_first_waits_for_a_later_call(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "suspect")
        line(store)
        clock.advance(LEASE)
        put(store, mail("a", priority=1), mail("b", priority=1), "c")

        assert set(ids(line(store))) >= {"a", "b"}
        assert ids(line(store)) == ["suspect"]

    @clause(Guarantee.REFUNDS)
    def test_a_suspect_that_is_released_is_still_one(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b")
        (a,) = line(store, 1)
        clock.advance(LEASE)
        (b,) = line(store, 1)
        (a,) = line(store, 1)
        settle(store, a, released(a))
        settle(store, b, released(b))

        assert sorted([ids(line(store)), ids(line(store))]) == [["a"], ["b"]]

    def test_once_settled_it_is_under_suspicion_no_more(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        line(store)
        clock.advance(LEASE)
        (claim,) = line(store)
        settle(store, claim, retry(claim))
        put(store, "b")

        assert sorted(ids(line(store))) == ["a", "b"]

    def test_suspects_of_one_queue_do_not_starve_another(self, store: Whole, clock: ManualClock) -> None:
        put(store, *(mail(f"x{n}", queue="x", priority=9) for n in range(5)))
        line(store, 10, "x")
        clock.advance(LEASE)
        put(store, *(mail(f"y{n}", queue="y") for n in range(5)))

        claimed = {name for _ in range(2) for name in ids(line(store, 10, "x", "y"))}

        assert "y0" in claimed

    def test_a_busy_queue_does_not_starve_the_suspects_of_another(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, mail("x0", queue="x"))
        line(store, 10, "x")
        clock.advance(LEASE)
        put(store, *(mail(f"y{n}", queue="y", priority=9) for n in range(9)))

        claimed = {name for _ in range(4) for name in ids(line(store, 1, "x", "y"))}

        assert "x0" in claimed

    def test_a_suspect_that_keeps_being_lost_does_not_stop_the_others(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, *(mail(f"a{n}") for n in range(3)), mail("poison", priority=9))
        seen = []
        for _ in range(8):
            for claim in line(store, lease=dt.timedelta(seconds=30)):
                seen.append(claim.message.id)
                if claim.message.id != "poison":
                    settle(store, claim, delivered(claim))
            clock.advance(dt.timedelta(seconds=20))

        assert {"a0", "a1", "a2"} <= set(seen)
        assert seen.count("poison") > 1

"""How much one claim takes: of several queues, of content, and of a suspect, which is all that comes."""

from __future__ import annotations

from outbox.lifecycle import Claim
from outbox.protocols import MAX_BYTES, Guarantee, SupportsExchange
from outbox.testing.clock import ManualClock

from .scene import LEASE, Whole, clause, dead, ids, line, mail, put, settle

__all__ = ["DealClauses"]

QUEUES = ("x", "y", "z")


def size(claims: list[Claim]) -> int:
    return sum(len(claim.message.content) for claim in claims)


class DealClauses:
    """What was asked for, and not a byte more."""

    def test_a_claim_of_none_takes_none(self, store: Whole) -> None:
        put(store, "a")

        assert line(store, 0) == []
        assert ids(line(store)) == ["a"]

    def test_the_content_of_all_queues_together_is_no_more_than_was_asked_for(self, store: Whole) -> None:
        put(store, *(mail(f"{q}{n}", queue=q, content=b"x" * 100) for q in QUEUES for n in range(3)))

        sizes = []
        while claims := list(store.claim(limit=10, lease=LEASE, queues=QUEUES, max_bytes=250)):
            sizes.append(size(claims))

        assert sum(sizes) == 900
        assert max(sizes) <= 250

    @clause(Guarantee.ORDER)
    def test_what_does_not_fit_is_passed_by_by_nothing_behind_it(self, store: Whole) -> None:
        put(store, mail("a", priority=9, content=b"x" * 100))
        put(store, mail("b", priority=5, content=b"x" * 200), mail("c", content=b"x" * 10))

        claims = store.claim(limit=10, lease=LEASE, queues=("mail",), max_bytes=150)

        assert ids(claims) == ["a"]
        assert ids(line(store)) == ["b", "c"]

    def test_no_more_content_comes_than_a_worker_has_room_for_unless_more_was_asked_for(
        self, store: Whole
    ) -> None:
        large = b"x" * (MAX_BYTES // 2 + 1)
        put(store, mail("a", content=large), mail("b", content=large))

        first = line(store)
        assert len(first) == 1
        assert len(line(store)) == 1

    @clause(SupportsExchange)
    def test_an_exchange_brings_no_more_content_than_a_worker_has_room_for(self, store: Whole) -> None:
        large = b"x" * (MAX_BYTES // 2 + 1)
        put(store, mail("a", content=large), mail("b", content=large))

        answer = store.exchange([], limit=9, lease=LEASE, queues=("mail",))

        assert len(answer.claims) == 1

    def test_a_suspect_is_all_that_comes_however_many_queues_were_asked(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, *(mail(f"{q}0", queue=q) for q in QUEUES))
        assert len(line(store, 10, "x", "y")) == 2
        clock.advance(LEASE)
        put(store, *(mail(f"{q}{n}", queue=q) for q in QUEUES for n in (1, 2)))

        calls = []
        while claims := line(store, 10, *QUEUES):
            calls.append(claims)
            for claim in claims:
                settle(store, claim, dead(claim))

        assert sorted(name for claims in calls for name in ids(claims)) == [
            f"{q}{n}" for q in QUEUES for n in range(3)
        ]
        alone = [claims for claims in calls if any(claim.lost for claim in claims)]
        assert sorted(map(ids, alone)) == [["x0"], ["y0"]]

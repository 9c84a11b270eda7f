"""What a verdict says of each recipient is what is written, whatever the verdict, and what it costs to forget it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from outbox.lifecycle import Claim, Dead, Delivered, Expired, Fate, Fates, Held, Released, Retry, Verdict
from outbox.protocols import Guarantee, SupportsBrowse, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    ZERO,
    Reopen,
    Whole,
    clause,
    delivered,
    known,
    mail,
    put,
    retry,
    settle,
    statuses,
    take,
)

__all__ = ["FateClauses"]

X, Y, Z = "x@example.org", "y@example.org", "z@example.org"
BACK: Final[tuple[Callable[[Fates], Verdict], ...]] = (
    lambda fates: Retry(delay=ZERO, fates=fates),
    lambda fates: Released(delay=ZERO, fates=fates),
)
ENDS: Final[tuple[Callable[[Fates], Verdict], ...]] = (
    lambda fates: Dead(fates=fates, reason="550"),
    lambda fates: Held(fates=fates, reason="look"),
    lambda fates: Expired(fates=fates),
    lambda fates: Delivered(fates=fates),
)
MIXED: Final = {Z: Fate.DOUBTFUL, Y: Fate.ACCEPTED, X: Fate.WAITING}
"""Not in the order of the recipients: a verdict names them, and has no places."""


def claimed(store: Whole, id: str = "a") -> Claim:
    """The claim on a new message for X, Y and Z."""
    put(store, mail(id, X, Y, Z))
    (claim,) = take(store)
    return claim


def partly_dead(store: Whole, id: str = "a") -> None:
    fates = {Z: Fate.FAILED, X: Fate.ACCEPTED, Y: Fate.FAILED}
    settle(store, claimed(store, id), Dead(fates=fates, reason="550 no such user"))


class FateClauses:
    """Each recipient has a fate of his own, and no verdict is alike for all."""

    def test_the_fates_that_a_verdict_back_into_the_queue_names_are_those_of_the_next_claim(
        self, store: Whole
    ) -> None:
        for number, verdict in enumerate(BACK):
            settle(store, claimed(store, f"m{number}"), verdict(MIXED))

            (again,) = take(store)
            assert again.fates == MIXED
            assert again.recipients == (X, Z)
            settle(store, again, delivered(again))

    @clause(SupportsBrowse)
    def test_the_fates_that_a_last_verdict_names_are_those_of_the_record(self, reopen: Reopen) -> None:
        store = reopen(keep_delivered=DAY)
        fates = {Z: Fate.FAILED, Y: Fate.ACCEPTED, X: Fate.UNCERTAIN}
        for number, verdict in enumerate(ENDS):
            settle(store, claimed(store, f"m{number}"), verdict(fates))

            assert known(store, f"m{number}").summary.fates == fates

    @clause(SupportsManage)
    def test_a_requeue_of_what_died_is_for_those_who_failed_alone(self, store: Whole) -> None:
        partly_dead(store)

        assert statuses(store.requeue(["a"])) == ["done"]
        (claim,) = take(store)
        assert claim.recipients == (Y, Z)
        assert claim.fates[X] is Fate.ACCEPTED

    @clause(SupportsManage, Guarantee.DEDUPLICATION)
    def test_the_purged_id_of_what_died_stays_known_where_one_has_it(self, store: Whole) -> None:
        partly_dead(store)

        assert statuses(store.purge(["a"])) == ["done"]
        assert statuses(store.put([mail("a", X, Y, Z)])) == ["known"]

    @clause(SupportsManage, Guarantee.DEDUPLICATION)
    def test_a_purged_id_is_remembered_since_the_end_of_its_message_and_not_since_the_purge(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(remember=2 * DAY)
        partly_dead(store)
        clock.advance(DAY)
        store.purge(["a"])

        assert statuses(store.put([mail("a", X, Y, Z)])) == ["known"]
        clock.advance(DAY)
        assert statuses(store.put([mail("a", X, Y, Z)])) == ["stored"]

    @clause(SupportsManage, SupportsBrowse, Guarantee.DEDUPLICATION)
    def test_the_purged_id_of_a_kept_delivered_message_stays_known(self, reopen: Reopen) -> None:
        store = reopen(keep_delivered=DAY)
        claim = claimed(store)
        settle(store, claim, delivered(claim))

        assert statuses(store.purge(["a"])) == ["done"]
        assert statuses(store.put([mail("a", X, Y, Z)])) == ["known"]

    @clause(SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_the_discarded_id_of_what_died_stays_known_where_one_has_it(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(discard_after=DAY, remember=2 * DAY)
        partly_dead(store)
        clock.advance(DAY)

        assert store.prune() == 1
        assert statuses(store.put([mail("a", X, Y, Z)])) == ["known"]

    @clause(Guarantee.AT_MOST_ONCE)
    def test_a_message_at_most_once_says_so_at_every_attempt(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("a", at_most_once=True))
        seen = take(store)
        for _ in range(2):
            clock.advance(LEASE)
            seen += take(store)
        settle(store, seen[-1], retry(seen[-1]))
        seen += take(store)

        assert [claim.message.at_most_once for claim in seen] == [True] * 4
        assert [claim.lost for claim in seen] == [0, 1, 2, 0]

    @clause(SupportsManage, Guarantee.LEASES)
    def test_a_requeue_forgets_how_often_it_was_lost_and_not_that_it_may_have_been_sent(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        for _ in range(3):
            take(store)
            clock.advance(LEASE)
        assert statuses(store.requeue(["a"], uncertain=True)) == ["done"]

        (claim,) = take(store)
        assert (claim.attempt, claim.lost, set(claim.fates.values())) == (1, 0, {Fate.DOUBTFUL})

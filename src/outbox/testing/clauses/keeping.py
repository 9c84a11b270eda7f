"""What lasts: every acknowledged step survives a close, retention ends when it is over, and close is final."""

from __future__ import annotations

import datetime as dt

from outbox.errors import StoreUnavailable
from outbox.lifecycle import Settlement
from outbox.protocols import Guarantee, Store, SupportsBrowse, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    SECOND,
    VERDICTS,
    Clauses,
    Reopen,
    Whole,
    clause,
    delivered,
    ids,
    known,
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

__all__ = ["KeepClauses"]


class KeepClauses(Clauses):
    """Acknowledged is kept."""

    def test_what_was_put_is_there_after_opening_again(self, store: Whole, reopen: Reopen) -> None:
        self.require_persistence()
        message = mail("a", "x@example.org", "y@example.org", content=bytes(range(256)))
        put(store, message)

        (claim,) = take(reopen())
        assert claim.message == message

    @clause(SupportsBrowse)
    def test_every_state_survives_opening_again(self, store: Whole, reopen: Reopen) -> None:
        self.require_persistence()
        put(store, *VERDICTS, "retried", "released", "claimed", mail("queued", priority=-1))
        for claim in take(store, 7):
            for state, verdict in VERDICTS.items():
                if claim.message.id == state:
                    settle(store, claim, verdict(claim))
            if claim.message.id == "retried":
                settle(store, claim, retry(claim, SECOND))
            if claim.message.id == "released":
                settle(store, claim, released(claim, SECOND))
        before = summaries(store)
        records = {name: store.get(name) for name in before}
        counts = list(store.count())

        store = reopen()

        assert summaries(store) == before
        assert {name: store.get(name) for name in before} == records
        assert list(store.count()) == counts

    def test_a_lease_outlives_its_store_object_and_its_token_still_fits(
        self, store: Whole, reopen: Reopen
    ) -> None:
        self.require_persistence()
        put(store, "a")
        (claim,) = take(store)

        store = reopen()

        assert take(store) == []
        assert list(store.extend([claim], lease=LEASE)) == []
        settle(store, claim, delivered(claim))

    @clause(Guarantee.DEDUPLICATION)
    def test_a_delivered_id_is_known_after_opening_again(self, store: Whole, reopen: Reopen) -> None:
        self.require_persistence()
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        store = reopen()

        assert [result.status for result in store.put([mail("a")])] == ["known"]

    @clause(Guarantee.FENCING)
    def test_a_claim_that_was_settled_is_stale_after_opening_again(
        self, store: Whole, reopen: Reopen
    ) -> None:
        self.require_persistence()
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        assert list(reopen().settle([Settlement(claim, delivered(claim))])) == [claim]

    @clause(SupportsManage, SupportsBrowse)
    def test_a_person_s_word_survives_opening_again(self, store: Whole, reopen: Reopen) -> None:
        self.require_persistence()
        put(store, "cancelled", "purged", "requeued")
        store.cancel(["cancelled", "purged", "requeued"])
        store.purge(["purged"])
        store.requeue(["requeued"])

        store = reopen()

        assert states(store) == {"cancelled": "cancelled", "requeued": "queued"}
        assert ids(take(store)) == ["requeued"]

    # -- retention

    @clause(SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_pruning_forgets_delivered_ids_and_nothing_else(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(remember=DAY)
        put(store, "delivered", "queued")
        claim, _ = take(store)
        settle(store, claim, delivered(claim))

        clock.advance(DAY - SECOND)
        assert store.prune() == 0
        clock.advance(SECOND)
        assert store.prune() == 1
        assert store.prune() == 0
        assert ids(take(store)) == ["queued"]

    @clause(SupportsMaintain, SupportsBrowse)
    def test_pruning_takes_no_more_than_the_limit_the_oldest_first(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(keep_delivered=DAY, remember=dt.timedelta(0))
        for name in "abcde":
            put(store, name)
            (claim,) = take(store)
            settle(store, claim, delivered(claim))
            clock.advance(SECOND)
        clock.advance(DAY)

        assert store.prune(limit=2) == 2
        assert list(summaries(store)) == ["c", "d", "e"]
        assert store.prune(limit=0) == 0
        assert store.prune() == 3

    @clause(SupportsMaintain, SupportsBrowse)
    def test_pruning_takes_kept_records_when_their_time_is_over_and_remembers_the_id(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(keep_delivered=DAY, remember=2 * DAY)
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        clock.advance(DAY - SECOND)
        assert store.prune() == 0
        assert known(store, "a").summary.state == "delivered"
        clock.advance(SECOND)
        assert store.prune() == 1
        assert store.get("a") is None
        assert [result.status for result in store.put([mail("a")])] == ["known"]
        clock.advance(DAY)
        assert [result.status for result in store.put([mail("a")])] == ["stored"]

    @clause(SupportsMaintain, SupportsBrowse, SupportsManage)
    def test_what_a_person_should_see_is_never_pruned(self, store: Whole, clock: ManualClock) -> None:
        put(store, "dead", "held", "expired", "cancelled")
        store.cancel(["cancelled"])
        for claim in take(store):
            settle(store, claim, next(VERDICTS[s] for s in VERDICTS if s == claim.message.id)(claim))
        before = summaries(store)
        clock.advance(1000 * DAY)

        assert store.prune() == 0
        assert summaries(store) == before

    @clause(SupportsMaintain)
    def test_a_healthy_store_finds_no_error_in_itself(self, store: Whole) -> None:
        put(store, "a")

        findings = store.check()

        assert findings
        assert [finding for finding in findings if finding.level == "error"] == []

    # -- the end

    def test_closing_twice_is_harmless(self, store: Whole) -> None:
        put(store, "a")
        store.close()
        store.close()

    def test_a_closed_store_says_so(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        store.close()

        with raises(StoreUnavailable, "closed"):
            put(store, "b")
        with raises(StoreUnavailable, "closed"):
            take(store)
        with raises(StoreUnavailable, "closed"):
            store.extend([claim], lease=LEASE)
        with raises(StoreUnavailable, "closed"):
            store.settle([Settlement(claim, delivered(claim))])

    @clause(SupportsBrowse, SupportsManage, SupportsMaintain)
    def test_a_closed_store_can_neither_be_looked_at_nor_steered(self, store: Whole) -> None:
        store.close()
        for verb in (
            lambda: store.get("a"),
            store.browse,
            store.count,
            lambda: store.requeue(["a"]),
            lambda: store.cancel(["a"]),
            lambda: store.purge(["a"]),
            store.check,
            store.prune,
        ):
            with raises(StoreUnavailable, "closed"):
                verb()

    def test_it_is_a_store_to_the_type_checker_too(self, store: Whole) -> None:
        plain: Store = store

        assert isinstance(getattr(plain, "lacks", frozenset()), frozenset)

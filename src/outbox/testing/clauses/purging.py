"""What ``purge`` removes, and what stays known of it."""

from __future__ import annotations

import datetime as dt

from outbox.lifecycle import Fate, Retry
from outbox.protocols import Guarantee, SupportsBrowse, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    VERDICTS,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    expired,
    held,
    ids,
    known,
    mail,
    put,
    released,
    settle,
    states,
    statuses,
    take,
)

__all__ = ["PurgeClauses"]


class PurgeClauses:
    """Removed for good, and no second copy of it."""

    @clause(SupportsManage, SupportsBrowse)
    def test_what_is_purged_is_gone(self, store: Whole) -> None:
        put(store, "dead", "expired", "held", "cancelled", "other")
        store.cancel(["cancelled"])
        for claim in take(store):
            if claim.message.id == "other":
                settle(store, claim, released(claim))
            else:
                verdict = next(VERDICTS[state] for state in VERDICTS if state == claim.message.id)
                settle(store, claim, verdict(claim))

        assert statuses(store.purge(["dead", "expired", "held", "cancelled"])) == ["done"] * 4
        assert states(store) == {"other": "queued"}
        assert [store.get(name) for name in ("dead", "expired", "held", "cancelled")] == [None] * 4
        assert statuses(store.purge(["dead"])) == ["unknown"]

    @clause(SupportsManage, SupportsBrowse)
    def test_what_is_still_in_the_queue_is_not_purged(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", mail("b", not_before=clock.now() + 2 * LEASE))
        take(store)
        clock.advance(LEASE)

        changes = store.purge(["a", "b"])

        assert statuses(changes) == ["refused", "refused"]
        assert "cancel" in changes[0].reason
        assert states(store) == {"a": "claimed", "b": "queued"}

    @clause(SupportsManage, SupportsBrowse)
    def test_a_kept_delivered_message_can_be_purged_but_not_requeued_or_cancelled(
        self, reopen: Reopen
    ) -> None:
        store = reopen(keep_delivered=dt.timedelta(days=30))
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        assert statuses(store.requeue(["a"], uncertain=True)) == ["refused"]
        assert statuses(store.cancel(["a"])) == ["refused"]
        assert statuses(store.purge(["a"])) == ["done"]
        assert store.get("a") is None

    @clause(SupportsManage, Guarantee.DEDUPLICATION)
    def test_a_purged_id_stays_known_where_somebody_has_or_may_have_the_message(self, store: Whole) -> None:
        put(store, mail("accepted", "x@example.org", "y@example.org"), "uncertain")
        accepted, uncertain = take(store)
        fates = {"x@example.org": Fate.ACCEPTED, "y@example.org": Fate.WAITING}
        settle(store, accepted, Retry(delay=dt.timedelta(0), fates=fates))
        settle(store, uncertain, held(uncertain))
        store.cancel(["accepted"])
        store.purge(["accepted", "uncertain"])

        again = [mail("accepted", "x@example.org", "y@example.org"), mail("uncertain")]
        assert [result.status for result in store.put(again)] == ["known", "known"]
        assert take(store) == []

    @clause(SupportsManage, Guarantee.DEDUPLICATION, Guarantee.LEASES)
    def test_a_purged_id_stays_known_where_a_worker_had_the_message_and_never_reported_back(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "cancelled", "expired")
        take(store)
        clock.advance(LEASE)
        store.cancel(["cancelled"])
        (claim,) = take(store)
        settle(store, claim, expired(claim))
        assert statuses(store.purge(["cancelled", "expired"])) == ["done", "done"]

        again = store.put([mail("cancelled"), mail("expired")])
        assert [result.status for result in again] == ["known", "known"]

    @clause(SupportsManage, Guarantee.DEDUPLICATION)
    def test_a_purged_id_is_free_again_where_nobody_has_the_message(self, store: Whole) -> None:
        put(store, "dead", "cancelled")
        store.cancel(["cancelled"])
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        store.purge(["dead", "cancelled"])

        assert [
            result.status for result in store.put([mail("dead"), mail("cancelled", "new@example.org")])
        ] == [
            "stored",
            "stored",
        ]
        assert ids(take(store)) == ["cancelled", "dead"]

    @clause(SupportsManage, SupportsBrowse)
    def test_a_purged_message_leaves_nothing_to_its_successor(self, store: Whole) -> None:
        put(store, mail("a", content=b"old"))
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        store.purge(["a"])
        put(store, mail("a", content=b"new"))

        record = known(store, "a")
        assert record.message.content == b"new"
        assert record.history == ()
        assert (record.summary.attempts, record.summary.reason) == (0, "")

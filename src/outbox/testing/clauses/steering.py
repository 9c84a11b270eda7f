"""What a person's word does: requeue, cancel, purge."""

from __future__ import annotations

import datetime as dt
import functools

from outbox.lifecycle import Fate, Held, Settlement, State
from outbox.protocols import Change, Expected, Guarantee, SupportsBrowse, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
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
    retry,
    settle,
    states,
    statuses,
    summaries,
    take,
)

__all__ = ["ManageClauses"]


class ManageClauses:
    """Nothing behind the back of a worker, and nothing that the record does not allow."""

    @clause(SupportsManage)
    def test_each_command_answers_each_id_in_order(self, store: Whole) -> None:
        put(store, "b")

        for command in (store.requeue, store.cancel, store.purge):
            changes = command(["c", "b", "a"])
            assert [change.id for change in changes] == ["c", "b", "a"]
            assert statuses(changes) == ["unknown", "done", "unknown"]
            assert list(command([])) == []

    @clause(SupportsManage)
    def test_an_id_that_cannot_be_helped_stops_no_other(self, store: Whole) -> None:
        put(store, "leased", "ended", mail("a", queue="other"))
        for claim in take(store):
            if claim.message.id == "ended":
                settle(store, claim, expired(claim))
        named = ["nobody", "leased", "ended", "a"]

        assert statuses(store.requeue(named)) == ["unknown", "leased", "refused", "done"]
        assert statuses(store.cancel(named)) == ["unknown", "leased", "refused", "done"]
        assert statuses(store.purge(named)) == ["unknown", "leased", "done", "done"]

    @clause(SupportsManage, SupportsBrowse)
    def test_a_command_leaves_alone_what_is_no_longer_what_it_was_chosen_for(self, store: Whole) -> None:
        put(store, "cancelled", "queued")
        store.cancel(["cancelled"])
        both = ["cancelled", "queued", "nobody"]
        before = summaries(store)

        for command in (store.requeue, store.purge):
            changes = command(both, expected=Expected(states=frozenset({State.DEAD})))
            assert statuses(changes) == ["refused", "refused", "unknown"]
            assert changes[0].reason == "it has changed meanwhile: it is cancelled"
            assert changes[0].state is State.CANCELLED
        assert statuses(store.cancel(both[1:], expected=Expected(states=frozenset({State.HELD})))) == [
            "refused",
            "unknown",
        ]
        assert summaries(store) == before

        waiting = Expected(states=frozenset({State.QUEUED}))
        over = Expected(states=frozenset({State.CANCELLED, State.DEAD}))
        assert statuses(store.requeue(both, expected=waiting)) == ["refused", "done", "unknown"]
        assert statuses(store.cancel(["queued", "queued"], expected=waiting)) == ["done", "refused"]
        assert statuses(store.requeue(["cancelled"], expected=over)) == ["done"]
        assert statuses(store.purge(both, expected=over)) == ["refused", "done", "unknown"]
        assert states(store) == {"cancelled": "queued"}

    # -- requeue

    @clause(SupportsManage, SupportsBrowse)
    def test_a_requeued_message_starts_anew(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        for _ in range(2):
            (claim,) = take(store)
            settle(store, claim, retry(claim))
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        clock.advance(SECOND)

        assert list(store.requeue(["a"])) == [Change(id="a", status="done")]

        summary = summaries(store)["a"]
        assert summary.state == "queued"
        assert summary.due_at == clock.now()
        assert (summary.attempts, summary.lost, summary.settled_at) == (0, 0, None)
        (again,) = take(store)
        assert (again.attempt, again.lost, again.age) == (1, 0, dt.timedelta(0))
        assert again.recipients == ("a@example.org",)

    @clause(SupportsManage, SupportsBrowse)
    def test_the_history_survives_a_requeue(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        before = known(store, "a").history
        store.requeue(["a"])

        assert known(store, "a").history == before

    @clause(SupportsManage)
    def test_a_message_that_waits_for_its_retry_is_due_now_once_requeued(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, retry(claim, dt.timedelta(hours=2)))
        store.requeue(["a"])

        assert ids(take(store)) == ["a"]

    @clause(SupportsManage)
    def test_a_requeue_does_not_override_not_before(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("a", not_before=clock.now() + 60 * SECOND))

        assert statuses(store.requeue(["a"])) == ["done"]

        assert take(store) == []
        clock.advance(60 * SECOND)
        (claim,) = take(store)
        assert claim.age == dt.timedelta(0)

    @clause(SupportsManage)
    def test_a_requeue_never_sends_again_to_who_has_accepted(self, store: Whole) -> None:
        put(store, mail("a", "x@example.org", "y@example.org", "z@example.org"))
        (claim,) = take(store)
        fates = {
            "x@example.org": Fate.ACCEPTED,
            "y@example.org": Fate.FAILED,
            "z@example.org": Fate.UNCERTAIN,
        }
        settle(store, claim, Held(fates=fates, reason="look"))
        store.requeue(["a"])
        (first,) = take(store)
        settle(store, first, Held(fates=fates, reason="look"))
        store.requeue(["a"], uncertain=True)
        (second,) = take(store)

        assert first.recipients == ("y@example.org",)
        assert first.fates["z@example.org"] is Fate.UNCERTAIN
        assert second.recipients == ("y@example.org", "z@example.org")

    @clause(SupportsManage)
    def test_an_uncertain_recipient_is_sent_to_again_only_where_that_is_said(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, held(claim))

        (change,) = store.requeue(["a"])
        assert change.status == "refused"
        assert "uncertain" in change.reason
        assert take(store) == []

        assert statuses(store.requeue(["a"], uncertain=True)) == ["done"]
        assert ids(take(store)) == ["a"]

    @clause(SupportsManage, Guarantee.LEASES)
    def test_what_a_worker_had_and_never_reported_back_is_requeued_only_where_that_is_said(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        take(store)
        clock.advance(LEASE)

        (change,) = store.requeue(["a"])
        assert change.status == "refused"
        assert "may have it" in change.reason
        assert statuses(store.requeue(["a"], uncertain=True)) == ["done"]
        (claim,) = take(store)
        assert (claim.attempt, claim.lost, set(claim.fates.values())) == (1, 0, {Fate.DOUBTFUL})
        settle(store, claim, retry(claim))
        assert statuses(store.requeue(["a"])) == ["refused"], "the doubt does not end with the next attempt"

    @clause(SupportsManage, Guarantee.LEASES)
    def test_a_doubt_survives_a_cancel(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        take(store)
        clock.advance(LEASE)
        store.cancel(["a"])

        assert statuses(store.requeue(["a"])) == ["refused"]
        assert statuses(store.requeue(["a"], uncertain=True)) == ["done"]
        (claim,) = take(store)
        assert set(claim.fates.values()) == {Fate.DOUBTFUL}

    @clause(SupportsManage)
    def test_what_nobody_waits_for_is_not_requeued(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, Held(fates={"a@example.org": Fate.ACCEPTED}, reason="odd"))

        (change,) = store.requeue(["a"], uncertain=True)
        assert change.status == "refused"
        assert "accepted" in change.reason

    @clause(SupportsManage, SupportsBrowse)
    def test_what_has_expired_is_not_requeued(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, expired(claim))

        (change,) = store.requeue(["a"])
        assert change.status == "refused"
        assert "expired" in change.reason
        assert states(store) == {"a": "expired"}

    @clause(SupportsManage)
    def test_what_was_cancelled_can_be_requeued(self, store: Whole) -> None:
        put(store, "a")
        store.cancel(["a"])

        assert statuses(store.requeue(["a"])) == ["done"]
        assert ids(take(store)) == ["a"]

    @clause(SupportsManage, Guarantee.LEASES, Guarantee.FENCING)
    def test_an_expired_lease_can_be_requeued_and_its_holder_comes_too_late(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (old,) = take(store)
        clock.advance(LEASE)

        assert statuses(store.requeue(["a"], uncertain=True)) == ["done"]
        assert list(store.settle([Settlement(old, delivered(old))])) == [old]
        assert list(store.extend([old], lease=LEASE)) == [old]
        (new,) = take(store)
        assert (new.attempt, new.lost) == (1, 0)
        assert list(store.settle([Settlement(old, delivered(old))])) == [old]

    # -- cancel

    @clause(SupportsManage, SupportsBrowse)
    def test_what_was_cancelled_is_never_handed_over(self, store: Whole, clock: ManualClock) -> None:
        due = clock.now() + SECOND
        put(store, "ready", mail("scheduled", not_before=due), "retried", "stays")
        claims = take(store)
        for claim in claims:
            settle(store, claim, retry(claim, SECOND if claim.message.id == "retried" else dt.timedelta(0)))

        changes = store.cancel(["ready", "scheduled", "retried"])

        assert statuses(changes) == ["done", "done", "done"]
        clock.advance(dt.timedelta(days=1))
        assert ids(take(store)) == ["stays"]
        cancelled = summaries(store)["ready"]
        assert cancelled.state == "cancelled"
        assert cancelled.settled_at == due - SECOND

    @clause(SupportsManage, SupportsBrowse)
    def test_what_is_held_can_be_cancelled(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, held(claim))

        assert statuses(store.cancel(["a"])) == ["done"]
        summary = summaries(store)["a"]
        assert summary.state == "cancelled"
        assert set(summary.fates.values()) == {Fate.UNCERTAIN}

    @clause(SupportsManage)
    def test_what_has_ended_cannot_be_cancelled(self, store: Whole) -> None:
        put(store, "a", "b", "c")
        a, b, _ = take(store)
        settle(store, a, dead(a))
        settle(store, b, expired(b))

        changes = store.cancel(["a", "b"])
        assert statuses(changes) == ["refused", "refused"]
        assert "dead" in changes[0].reason
        assert "expired" in changes[1].reason

    @clause(SupportsManage)
    def test_cancelling_twice_is_refused_the_second_time(self, store: Whole) -> None:
        put(store, "a")

        assert statuses(store.cancel(["a", "a"])) == ["done", "refused"]

    @clause(SupportsManage, Guarantee.LEASES, Guarantee.FENCING)
    def test_an_expired_lease_can_be_cancelled_and_its_holder_comes_too_late(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (old,) = take(store)
        clock.advance(LEASE)

        assert statuses(store.cancel(["a"])) == ["done"]
        assert list(store.settle([Settlement(old, retry(old))])) == [old]
        assert take(store) == []

    @clause(SupportsManage, SupportsBrowse, Guarantee.LEASES)
    def test_what_was_cancelled_still_says_that_somebody_had_it_and_never_reported_back(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        take(store)
        clock.advance(LEASE)
        store.cancel(["a"])

        summary = summaries(store)["a"]
        assert (summary.attempts, summary.lost) == (1, 1)
        assert set(summary.fates.values()) == {Fate.UNCERTAIN}

    # -- leases

    @clause(SupportsManage, SupportsBrowse, Guarantee.LEASES)
    def test_a_message_under_a_live_lease_is_left_alone_and_says_until_when(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        before = summaries(store)
        clock.advance(LEASE - SECOND)

        again = functools.partial(store.requeue, uncertain=True)
        chosen = functools.partial(store.purge, expected=Expected(states=frozenset({State.DEAD})))
        for command in (store.requeue, again, store.cancel, store.purge, chosen):
            (change,) = command(["a"])
            assert change.status == "leased"
            assert change.until == clock.now() + SECOND

        assert summaries(store) == before
        settle(store, claim, delivered(claim))

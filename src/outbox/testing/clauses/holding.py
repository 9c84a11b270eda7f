"""What a person's hold of single messages promises: nobody has them meanwhile, and they go on as they were."""

from __future__ import annotations

import datetime as dt

import attrs

from outbox.lifecycle import Fate, Settlement, State
from outbox.protocols import (
    Change,
    Expected,
    Guarantee,
    SupportsBrowse,
    SupportsHold,
    SupportsMaintain,
    SupportsManage,
    SupportsWait,
)
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    LONG,
    SECOND,
    SHORT,
    ZERO,
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
    retry,
    settle,
    states,
    statuses,
    summaries,
    take,
)

__all__ = ["HoldClauses"]

HOUR = dt.timedelta(hours=1)
SOON = dt.timedelta(minutes=10)


class HoldClauses(Clauses):
    """A message that a person holds is taken by nobody, and nothing of what it was is lost."""

    @clause(SupportsHold)
    def test_hold_and_release_answer_each_id_in_order(self, store: Whole) -> None:
        put(store, "b")

        for command in (store.hold, store.release):
            changes = command(["c", "b", "a"])
            assert [change.id for change in changes] == ["c", "b", "a"]
            assert statuses(changes) == ["unknown", "done", "unknown"]
            assert list(command([])) == []

    @clause(SupportsHold)
    def test_what_a_person_holds_is_given_to_nobody_until_it_is_released(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b")

        assert list(store.hold(["a"], reason="wrong prices")) == [Change(id="a", status="done")]
        assert ids(take(store)) == ["b"]
        clock.advance(DAY)
        assert "a" not in ids(take(store))
        assert list(store.release(["a"])) == [Change(id="a", status="done")]
        assert ids(take(store)) == ["a"]

    @clause(SupportsHold, SupportsBrowse)
    def test_a_list_tells_what_a_person_holds_and_why_from_what_a_verdict_has_held(
        self, store: Whole, clock: ManualClock
    ) -> None:
        due, again = clock.now() + HOUR, clock.now() + SOON
        put(store, "ours", mail("later", not_before=due), "theirs")
        claims = {claim.message.id: claim for claim in take(store)}
        settle(store, claims["ours"], held(claims["ours"]))
        settle(store, claims["theirs"], retry(claims["theirs"], SOON))
        clock.advance(SECOND)
        store.hold(["later", "theirs"], reason="wrong prices ✓")

        found = summaries(store)
        assert set(states(store).values()) == {State.HELD}
        assert (found["ours"].resumes_at, found["ours"].by_hand) == (None, False)
        assert (found["later"].resumes_at, found["later"].by_hand) == (due, True)
        assert found["theirs"].resumes_at == again
        assert found["theirs"].reason == "wrong prices ✓"
        assert found["theirs"].settled_at == clock.now()
        assert found["theirs"].due_at is None

    @clause(SupportsHold, SupportsBrowse)
    def test_a_released_message_is_what_it_was_before_but_for_the_reason(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, mail("a", "x@example.org", "y@example.org", priority=3))
        (claim,) = take(store)
        fates = {"x@example.org": Fate.ACCEPTED, "y@example.org": Fate.WAITING}
        settle(store, claim, attrs.evolve(retry(claim, HOUR), fates=fates))
        before = summaries(store)["a"]
        clock.advance(SECOND)
        store.hold(["a"], reason="look")
        clock.advance(SECOND)
        store.release(["a"])

        assert attrs.evolve(summaries(store)["a"], reason=before.reason) == before

    @clause(SupportsHold)
    def test_attempts_go_on_and_the_age_has_grown_while_it_was_held(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        for _ in range(2):
            (claim,) = take(store)
            settle(store, claim, retry(claim))
        store.hold(["a"])
        clock.advance(DAY)
        store.release(["a"])

        (claim,) = take(store)
        assert (claim.attempt, claim.lost, claim.age) == (3, 0, DAY)

    @clause(SupportsHold)
    def test_a_release_sends_nothing_before_it_is_due(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("a", not_before=clock.now() + HOUR))
        store.hold(["a"])
        store.release(["a"])

        assert take(store) == []
        clock.advance(HOUR)
        (claim,) = take(store)
        assert claim.age == ZERO

    @clause(SupportsHold, SupportsBrowse)
    def test_what_a_verdict_has_held_is_not_released(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, held(claim))
        before = summaries(store)

        (change,) = store.release(["a"])
        assert change.status == "refused"
        assert "requeue" in change.reason
        assert summaries(store) == before
        assert take(store) == []

    @clause(SupportsHold)
    def test_what_is_held_cannot_be_held_again_nor_what_has_ended(self, store: Whole) -> None:
        put(store, "by-a-verdict", "by-hand", "dead", "expired")
        claims = {claim.message.id: claim for claim in take(store)}
        settle(store, claims["by-a-verdict"], held(claims["by-a-verdict"]))
        settle(store, claims["dead"], dead(claims["dead"]))
        settle(store, claims["expired"], expired(claims["expired"]))
        settle(store, claims["by-hand"], retry(claims["by-hand"]))

        assert statuses(store.hold(["by-hand"])) == ["done"]
        assert set(statuses(store.hold(list(claims)))) == {"refused"}

    @clause(SupportsHold)
    def test_what_nobody_holds_is_not_released(self, store: Whole) -> None:
        put(store, "waits", "dead")
        claims = {claim.message.id: claim for claim in take(store)}
        settle(store, claims["dead"], dead(claims["dead"]))
        settle(store, claims["waits"], retry(claims["waits"], HOUR))

        assert statuses(store.release(["waits", "dead"])) == ["refused", "refused"]
        assert take(store) == []

    # -- leases

    @clause(SupportsHold, SupportsBrowse, Guarantee.LEASES)
    def test_what_a_worker_has_can_neither_be_held_nor_released_and_says_until_when(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        before = summaries(store)

        (change,) = store.hold(["a"])
        assert (change.status, change.until) == ("leased", clock.now() + LEASE)
        assert statuses(store.release(["a"])) == ["refused"]
        assert summaries(store) == before
        settle(store, claim, delivered(claim))

    @clause(SupportsHold, Guarantee.LEASES, Guarantee.FENCING)
    def test_an_expired_lease_can_be_held_and_the_doubt_stays(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (old,) = take(store)
        clock.advance(LEASE)

        assert statuses(store.hold(["a"])) == ["done"]
        assert list(store.settle([Settlement(old, delivered(old))])) == [old]
        assert take(store) == []
        store.release(["a"])
        (claim,) = take(store)
        assert (claim.attempt, claim.lost, set(claim.fates.values())) == (2, 1, {Fate.DOUBTFUL})

    # -- other commands on what is held by hand

    @clause(SupportsHold, SupportsManage)
    def test_an_uncertain_recipient_is_not_sent_to_again_by_a_release(self, store: Whole) -> None:
        put(store, mail("a", "x@example.org", "y@example.org"))
        (claim,) = take(store)
        fates = {"x@example.org": Fate.UNCERTAIN, "y@example.org": Fate.WAITING}
        settle(store, claim, attrs.evolve(retry(claim), fates=fates))
        store.hold(["a"])
        store.release(["a"])

        (again,) = take(store)
        assert again.recipients == ("y@example.org",)
        assert again.fates["x@example.org"] is Fate.UNCERTAIN

    @clause(SupportsHold, SupportsManage, SupportsBrowse)
    def test_what_a_person_holds_can_be_requeued_and_is_held_no_more(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, retry(claim, DAY))
        store.hold(["a"])
        clock.advance(SECOND)

        assert statuses(store.requeue(["a"])) == ["done"]
        assert summaries(store)["a"].resumes_at is None
        (again,) = take(store)
        assert (again.attempt, again.age) == (1, ZERO)
        settle(store, again, held(again))
        assert summaries(store)["a"].by_hand is False
        assert statuses(store.release(["a"])) == ["refused"]

    @clause(SupportsHold, SupportsManage, SupportsBrowse)
    def test_what_a_person_holds_can_be_cancelled_and_not_released_from_that(self, store: Whole) -> None:
        put(store, "a")
        store.hold(["a"])

        assert statuses(store.cancel(["a"])) == ["done"]
        assert summaries(store)["a"].resumes_at is None
        assert statuses(store.release(["a"])) == ["refused"]
        assert take(store) == []

    @clause(SupportsHold, SupportsManage)
    def test_what_a_person_holds_can_be_purged(self, store: Whole) -> None:
        put(store, "a")
        store.hold(["a"])

        assert statuses(store.purge(["a"])) == ["done"]
        assert statuses(store.release(["a"])) == ["unknown"]

    @clause(SupportsHold)
    def test_a_put_of_what_is_held_is_known(self, store: Whole) -> None:
        put(store, "a")
        store.hold(["a"])

        assert [result.status for result in store.put([mail("a")])] == ["known"]
        assert take(store) == []

    # -- the rest of the house

    @clause(SupportsHold, SupportsBrowse)
    def test_what_is_held_is_counted_as_held_and_not_as_due(self, store: Whole) -> None:
        put(store, "a", "b")
        store.hold(["a"])

        rows = {(count.state, count.number, count.due) for count in store.count()}
        assert rows == {(State.HELD, 1, 0), (State.QUEUED, 1, 1)}

    @clause(SupportsHold, SupportsManage, SupportsBrowse)
    def test_what_a_person_holds_meanwhile_is_left_alone_where_it_was_not_chosen_as_that(
        self, store: Whole
    ) -> None:
        put(store, "ours", "theirs", "waits")
        claims = {claim.message.id: claim for claim in take(store)}
        settle(store, claims["theirs"], held(claims["theirs"]))
        settle(store, claims["waits"], retry(claims["waits"], HOUR))
        settle(store, claims["ours"], retry(claims["ours"], HOUR))
        store.hold(["ours"], reason="look first")
        before = summaries(store)

        by_verdict = Expected(states=frozenset({State.HELD}), by_hand=False)
        by_person = Expected(states=frozenset({State.HELD}), by_hand=True)
        for command in (store.requeue, store.cancel, store.purge):
            (change,) = command(["ours"], expected=by_verdict)
            assert change.status == "refused"
            assert change.reason.startswith("it has changed meanwhile: it is held")
        assert statuses(store.hold(["waits"], expected=by_person)) == ["refused"]
        assert statuses(store.release(["ours"], expected=by_verdict)) == ["refused"]
        assert statuses(store.cancel(["theirs"], expected=by_person)) == ["refused"]
        assert summaries(store) == before

        waiting = Expected(states=frozenset({State.QUEUED, State.CLAIMED}), by_hand=False)
        assert statuses(store.hold(["waits"], expected=waiting)) == ["done"]
        assert statuses(store.release(["waits"], expected=by_person)) == ["done"]
        assert statuses(store.purge(["theirs", "ours"], expected=by_verdict)) == ["done", "refused"]
        assert set(states(store)) == {"ours", "waits"}

    @clause(SupportsHold, SupportsWait)
    def test_a_release_is_news(self, store: Whole) -> None:
        put(store, "a")
        store.hold(["a"])
        while store.wait(SHORT):
            pass
        assert take(store) == []
        store.release(["a"])

        assert store.wait(LONG) is True
        assert store.next_due(["mail"]) == ZERO

    @clause(SupportsHold, SupportsBrowse)
    def test_a_hold_survives_opening_again(self, store: Whole, reopen: Reopen, clock: ManualClock) -> None:
        self.require_persistence()
        put(store, mail("a", not_before=clock.now() + HOUR))
        store.hold(["a"], reason="look")
        before = summaries(store)

        for crash in (False, True):
            store = reopen(crash=crash)
            assert summaries(store) == before
        store.release(["a"])
        assert states(reopen(crash=True)) == {"a": State.QUEUED}

    @clause(SupportsHold, SupportsMaintain, SupportsBrowse)
    def test_pruning_leaves_alone_what_a_person_holds(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        store.hold(["a"])
        clock.advance(1000 * DAY)
        store.prune()

        assert states(store) == {"a": State.HELD}

    @clause(SupportsHold)
    def test_a_reason_is_a_person_s_text_and_nothing_else(self, store: Whole) -> None:
        put(store, "a")
        for reason in ("\0", "\ud800", 7):
            with raises(ValueError, "reason"):
                store.hold(["a"], reason=reason)  # type: ignore[arg-type]  # that it is refused is the point
        assert ids(take(store)) == ["a"]

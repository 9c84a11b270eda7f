"""What ``settle`` promises: every verdict its state and its evidence, and a stale token nothing."""

from __future__ import annotations

import datetime as dt

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.lifecycle import Dead, Delivered, Event, Fate, Held, Released, Retry, Settlement
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Guarantee, SupportsBrowse
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    VERDICTS,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    expired,
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

__all__ = ["SettleClauses"]


class SettleClauses:
    """The store writes what the verdict says."""

    def test_what_is_settled_for_good_is_not_claimed_again(self, store: Whole, clock: ManualClock) -> None:
        put(store, *VERDICTS)
        for claim, verdict in zip(take(store), VERDICTS.values(), strict=True):
            settle(store, claim, verdict(claim))
        clock.advance(dt.timedelta(days=30))

        assert take(store) == []

    def test_settling_nothing_is_harmless(self, store: Whole) -> None:
        assert list(store.settle([])) == []

    @clause(SupportsBrowse)
    def test_every_final_verdict_leads_to_its_state(self, store: Whole, clock: ManualClock) -> None:
        put(store, *VERDICTS)
        clock.advance(SECOND)
        for claim in take(store):
            state = next(state for state in VERDICTS if state == claim.message.id)
            settle(store, claim, VERDICTS[state](claim))

        found = summaries(store)
        assert {name: summary.state for name, summary in found.items()} == {
            "dead": "dead",
            "held": "held",
            "expired": "expired",
        }
        assert {summary.settled_at for summary in found.values()} == {clock.now()}
        assert {(summary.due_at, summary.leased_until) for summary in found.values()} == {(None, None)}
        assert found["dead"].reason == "550 no such user"
        assert found["held"].reason == "no reply after the dot"
        assert found["expired"].reason == "expires_at has passed"

    @clause(SupportsBrowse)
    def test_delivered_leaves_no_record_unless_it_is_to_be_kept(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        assert store.get("a") is None
        assert list(store.browse()) == []
        assert list(store.count()) == []

    @clause(SupportsBrowse)
    def test_a_kept_record_of_a_delivered_message_carries_its_evidence(
        self, reopen: Reopen, clock: Clock
    ) -> None:
        store = reopen(keep_delivered=dt.timedelta(days=1))
        put(store, mail("a", "x@example.org", "y@example.org"))
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        record = known(store, "a")
        assert record.summary.state == "delivered"
        assert record.summary.settled_at == clock.now()
        assert set(record.summary.fates.values()) == {Fate.ACCEPTED}
        assert record.message == claim.message
        (attempt,) = record.history
        assert attempt.results == dict.fromkeys(claim.message.recipients, Accepted("250 taken"))
        assert attempt.relay == "mx.example.org:25"

    def test_a_retried_message_is_due_after_its_delay(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, retry(claim, 60 * SECOND))

        clock.advance(59 * SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        assert ids(take(store)) == ["a"]

    def test_a_released_message_is_due_after_its_delay(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, released(claim, 60 * SECOND))

        clock.advance(59 * SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        assert ids(take(store)) == ["a"]

    @clause(SupportsBrowse)
    def test_a_delay_into_the_past_is_none(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        clock.advance(SECOND)
        for verdict in (retry, released):
            (claim,) = take(store)
            settle(store, claim, verdict(claim, -SECOND))

            assert summaries(store)["a"].due_at == clock.now()

    def test_without_a_delay_it_is_due_at_once(self, store: Whole) -> None:
        put(store, "a")
        for verdict in (retry, released):
            (claim,) = take(store)
            settle(store, claim, verdict(claim))

        assert ids(take(store)) == ["a"]

    @clause(SupportsBrowse, Guarantee.REFUNDS)
    def test_a_message_back_in_the_queue_says_why_and_until_when(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "retried", "released")
        second, first = take(store)
        settle(store, first, retry(first, 60 * SECOND))
        settle(store, second, released(second, 90 * SECOND))

        found = summaries(store)
        assert states(store) == {"retried": "queued", "released": "queued"}
        assert (found["retried"].reason, found["released"].reason) == ("451 later", "the relay is down")
        assert found["retried"].due_at == clock.now() + 60 * SECOND
        assert found["released"].due_at == clock.now() + 90 * SECOND
        assert (found["retried"].attempts, found["released"].attempts) == (1, 0)
        assert {summary.settled_at for summary in found.values()} == {None}
        assert {summary.leased_until for summary in found.values()} == {None}

    def test_only_those_whose_fate_is_open_are_handed_over_again(self, store: Whole) -> None:
        recipients = {f"{fate}@example.org": fate for fate in Fate}
        put(store, mail("a", *recipients))
        (claim,) = take(store)
        fates = recipients
        settle(store, claim, Retry(delay=dt.timedelta(0), fates=fates))

        (again,) = take(store)
        assert again.recipients == ("waiting@example.org", "doubtful@example.org")
        assert again.fates == fates
        settle(store, again, released(again))
        (third,) = take(store)
        assert third.fates == fates

    @clause(SupportsBrowse)
    def test_the_fates_are_those_of_the_verdict(self, store: Whole) -> None:
        recipients = [f"{fate}@example.org" for fate in Fate]
        put(store, mail("a", *recipients))
        (claim,) = take(store)
        fates = dict(zip(recipients, Fate, strict=True))
        settle(store, claim, Held(fates=fates, reason="look at this"))

        assert known(store, "a").summary.fates == fates

    @clause(SupportsBrowse)
    def test_the_history_tells_who_said_what(self, store: Whole, clock: ManualClock) -> None:
        results: dict[str, Result] = {
            "a@example.org": Accepted("250 2.0.0 ok"),
            "b@example.org": TempFailed("451 4.7.1 later", retry_after=dt.timedelta(seconds=90)),
            "c@example.org": TempFailed("450 busy"),
            "d@example.org": PermFailed("550 5.1.1 unknown"),
            "e@example.org": Uncertain("connection lost"),
            "f@example.org": Untried(),
        }
        put(store, mail("m", *results))
        (claim,) = take(store)
        clock.advance(2 * SECOND)
        settled_at = clock.now()
        outcome = Outcome(results=results, relay="mx.example.org:25")
        settle(store, claim, Retry(delay=SECOND, fates=claim.fates, reason="c: 450 busy", outcome=outcome))
        clock.advance(SECOND)

        (attempt,) = known(store, "m").history
        assert attempt.results == results
        assert (attempt.number, attempt.at, attempt.event) == (1, settled_at, Event.RETRY)
        assert (attempt.relay, attempt.reason) == ("mx.example.org:25", "c: 450 busy")

    @clause(SupportsBrowse, Guarantee.LEASES, Guarantee.REFUNDS)
    def test_an_attempt_that_never_reported_back_is_a_gap_in_the_history(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, retry(claim))
        take(store)
        clock.advance(LEASE)
        (claim,) = take(store)
        settle(store, claim, released(claim))
        (claim,) = take(store)
        settle(store, claim, dead(claim))

        history = known(store, "a").history
        assert [(attempt.number, attempt.event) for attempt in history] == [
            (1, Event.RETRY),
            (3, Event.DEAD),
        ]
        assert known(store, "a").summary.attempts == 3

    @clause(SupportsBrowse)
    def test_what_ended_without_a_delivery_is_in_the_history_too(self, store: Whole) -> None:
        put(store, "a", "b", "c")
        a, b, c = take(store)
        settle(store, a, Dead(fates={"a@example.org": Fate.FAILED}, reason="gave up by age"))
        settle(store, b, Held(fates={"b@example.org": Fate.UNCERTAIN}, reason="poison"))
        settle(store, c, expired(c))

        attempts = [known(store, name).history[0] for name in "abc"]
        assert [attempt.event for attempt in attempts] == [Event.DEAD, Event.HELD, Event.EXPIRED]
        assert [attempt.reason for attempt in attempts] == [
            "gave up by age",
            "poison",
            "expires_at has passed",
        ]
        assert [dict(attempt.results) for attempt in attempts] == [{}, {}, {}]

    @clause(SupportsBrowse, Guarantee.REFUNDS)
    def test_a_released_claim_leaves_no_trace_but_its_reason(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, released(claim))

        record = known(store, "a")
        assert record.history == ()
        assert (record.summary.attempts, record.summary.lost) == (0, 0)
        assert record.summary.reason == "the relay is down"

    @clause(Guarantee.REFUNDS)
    def test_a_released_claim_leaves_the_fates_that_its_verdict_has_though_a_claim_was_lost_before(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, mail("a", "x@example.org", "y@example.org"))
        take(store)
        clock.advance(LEASE)
        (claim,) = take(store)
        fates = {"x@example.org": Fate.WAITING, "y@example.org": Fate.FAILED}
        settle(store, claim, Released(delay=dt.timedelta(0), fates=fates))

        (again,) = take(store)
        assert (dict(again.fates), again.lost) == (fates, 1)

    def test_one_message_s_failure_changes_no_other(self, store: Whole) -> None:
        put(store, "a", "b", "c")
        a, b, c = take(store)
        settle(store, b, dead(b))
        settle(store, a, Released(delay=dt.timedelta(0), fates=a.fates))
        settle(store, c, Released(delay=dt.timedelta(0), fates=c.fates))

        assert ids(take(store)) == ["a", "c"]

    @clause(SupportsBrowse)
    def test_a_verdict_that_forgets_a_recipient_is_refused_whole(self, store: Whole) -> None:
        put(store, mail("a", "x@example.org", "y@example.org"), "b")
        a, b = take(store)
        before = (store.get("a"), store.get("b"))
        half = Delivered(fates={"x@example.org": Fate.ACCEPTED})

        with raises(ConfigurationError, "a", "y@example.org"):
            store.settle([Settlement(b, delivered(b)), Settlement(a, half)])

        assert (store.get("a"), store.get("b")) == before

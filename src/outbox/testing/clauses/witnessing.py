"""What is known of a message stays known: its history, whole and word by word, and why it stands where it stands."""

from __future__ import annotations

import attrs

from outbox.lifecycle import Claim, Event, Retry
from outbox.outcome import Outcome, TempFailed
from outbox.protocols import SupportsBrowse, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    SECOND,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    known,
    mail,
    put,
    retry,
    settle,
    statuses,
    take,
)

__all__ = ["WitnessClauses"]


class WitnessClauses(Clauses):
    """Whoever looks sees all that was learned."""

    @clause(SupportsBrowse)
    def test_no_attempt_drops_out_of_the_history(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        for _ in range(9):
            (claim,) = take(store)
            settle(store, claim, retry(claim))
            clock.advance(SECOND)
        (claim,) = take(store)
        settle(store, claim, dead(claim))

        history = known(store, "a").history
        assert [(attempt.number, attempt.event) for attempt in history] == [
            *((number, Event.RETRY) for number in range(1, 10)),
            (10, Event.DEAD),
        ]
        assert [attempt.at for attempt in history] == [clock.now() - n * SECOND for n in range(9, -1, -1)]

    @clause(SupportsBrowse)
    def test_a_long_reply_and_a_long_reason_are_kept_to_their_last_word(
        self, store: Whole, reopen: Reopen
    ) -> None:
        reply = "451 " + "4.7.1 the mailbox is over its quota, see the page for größe; " * 30 + "end"
        result = TempFailed(reply)
        put(store, mail("a", "x@example.org"))
        (claim,) = take(store)
        outcome = Outcome.same(claim.recipients, result)
        settle(store, claim, attrs.evolve(retry(claim), reason=result.reply, outcome=outcome))
        if self.persistent:
            store = reopen()

        record = known(store, "a")
        (attempt,) = record.history
        assert dict(attempt.results) == {"x@example.org": result}
        assert attempt.reason == record.summary.reason == result.reply

    @clause(SupportsBrowse)
    def test_what_was_said_at_a_failed_attempt_comes_back_word_for_word(
        self, store: Whole, clock: ManualClock, reopen: Reopen
    ) -> None:
        said = "     0 -- connected\n    12 S: 220 größe \\x1b[2J\n\n    13 C: QUIT"
        put(store, "a")
        for dialogue in (said, ""):
            (claim,) = take(store)
            settle(store, claim, _retried(claim, dialogue))
            clock.advance(SECOND)
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        if self.persistent:
            store = reopen()

        assert [attempt.dialogue for attempt in known(store, "a").history] == [said, "", ""]

    @clause(SupportsBrowse)
    def test_a_message_that_is_tried_again_and_again_keeps_only_what_was_said_last(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b")
        for number in range(3):
            for claim in take(store):
                settle(store, claim, _retried(claim, f"at try {number} of {claim.message.id}"))
            clock.advance(SECOND)

        for name in "ab":
            said = [attempt.dialogue for attempt in known(store, name).history]
            assert said == ["", "", f"at try 2 of {name}"]

    @clause(SupportsBrowse)
    def test_a_claim_does_not_hide_why_the_last_attempt_failed(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, retry(claim))
        take(store)

        assert known(store, "a").summary.reason == "451 later"

    @clause(SupportsBrowse, SupportsManage)
    def test_what_was_tried_before_a_requeue_stays_in_the_history(self, store: Whole) -> None:
        put(store, "a")
        for _ in range(12):
            for verdict in (retry, dead):
                (claim,) = take(store)
                settle(store, claim, verdict(claim))
            assert statuses(store.requeue(["a"])) == ["done"]

        history = known(store, "a").history
        assert [(attempt.number, attempt.event) for attempt in history] == [
            (1, Event.RETRY),
            (2, Event.DEAD),
        ] * 12

    @clause(SupportsBrowse, SupportsManage)
    def test_no_command_takes_anything_from_the_history(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, retry(claim))
        before = known(store, "a").history
        for command in (store.cancel, store.requeue, store.cancel):
            assert statuses(command(["a"])) == ["done"]
            assert known(store, "a").history == before


def _retried(claim: Claim, dialogue: str) -> Retry:
    outcome = Outcome(results={r: TempFailed("451 later") for r in claim.recipients}, dialogue=dialogue)
    return attrs.evolve(retry(claim), outcome=outcome)

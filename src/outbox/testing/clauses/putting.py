"""What ``put`` promises."""

from __future__ import annotations

from outbox.clock import Clock
from outbox.errors import ConflictError
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.protocols import Guarantee, SupportsBrowse, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    SECOND,
    VERDICTS,
    Reopen,
    Whole,
    clause,
    delivered,
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

__all__ = ["PutClauses"]


class PutClauses:
    """All or none, durable, and each id once."""

    def test_what_is_put_comes_out_as_it_went_in(self, store: Whole, clock: Clock) -> None:
        message = Message(
            id="0193-a_b",
            recipients=("zoe@example.org", "bücher@example.org", "a@example.org"),
            content=bytes(range(256)) * 20,
            sender="",
            queue="mail.bulk",
            priority=-7,
            attributes={"tenant": "blue ✓", "empty": ""},
            not_before=clock.now(),
            expires_at=clock.now() + DAY,
        )
        store.put([message])

        (claim,) = take(store, 1, "mail.bulk")

        assert claim.message == message
        assert claim.message.attributes == message.attributes
        assert claim.recipients == message.recipients

    @clause(Guarantee.AT_MOST_ONCE)
    def test_a_message_at_most_once_comes_out_as_one(self, store: Whole) -> None:
        put(store, mail("a", at_most_once=True), "b")

        assert {claim.message.id: claim.message.at_most_once for claim in take(store)} == {
            "a": True,
            "b": False,
        }

    def test_content_may_be_empty_and_may_be_large(self, store: Whole) -> None:
        large = b"\x00\r\n." * 300_000
        put(store, mail("a", content=b""), mail("b", content=large))

        assert [claim.message.content for claim in take(store)] == [b"", large]

    def test_putting_nothing_is_harmless(self, store: Whole) -> None:
        assert list(store.put([])) == []
        assert take(store) == []

    @clause(Guarantee.DEDUPLICATION)
    def test_each_message_is_answered_in_order(self, store: Whole) -> None:
        put(store, "b")

        results = store.put([mail("c"), mail("b"), mail("a")])

        assert list(results) == [PutResult("c", "stored"), PutResult("b", "known"), PutResult("a", "stored")]

    @clause(Guarantee.DEDUPLICATION)
    def test_a_known_id_is_stored_once_and_the_first_content_stands(self, store: Whole) -> None:
        put(store, mail("a", content=b"first"))

        assert list(store.put([mail("a", content=b"second", priority=5)])) == [PutResult("a", "known")]
        (claim,) = take(store)
        assert claim.message.content == b"first"
        assert claim.message.priority == 0

    @clause(Guarantee.DEDUPLICATION)
    def test_an_id_twice_in_one_batch_is_stored_once(self, store: Whole) -> None:
        results = store.put([mail("a", content=b"first"), mail("a", content=b"second")])

        assert [result.status for result in results] == ["stored", "known"]
        assert [claim.message.content for claim in take(store)] == [b"first"]

    @clause(Guarantee.DEDUPLICATION)
    def test_another_sender_recipient_or_queue_under_a_known_id_is_a_conflict(self, store: Whole) -> None:
        put(store, mail("known-id", "x@example.org", "y@example.org"))

        for other in (
            mail("known-id", "x@example.org", "y@example.org", sender="other@example.org"),
            mail("known-id", "x@example.org"),
            mail("known-id", "y@example.org", "x@example.org"),
            mail("known-id", "x@example.org", "y@example.org", queue="mail.bulk"),
        ):
            with raises(ConflictError, "known-id"):
                store.put([other])

    @clause(Guarantee.DEDUPLICATION)
    def test_a_conflict_stores_nothing_of_its_batch(self, store: Whole) -> None:
        put(store, "b")

        with raises(ConflictError, "b"):
            store.put([mail("a"), mail("b", "other@example.org"), mail("c")])

        assert ids(take(store)) == ["b"]

    @clause(Guarantee.DEDUPLICATION)
    def test_a_conflict_within_a_batch_stores_nothing_of_it(self, store: Whole) -> None:
        with raises(ConflictError, "b"):
            store.put([mail("a"), mail("b"), mail("b", "other@example.org")])

        assert take(store) == []

    @clause(Guarantee.DEDUPLICATION)
    def test_an_id_is_known_under_a_lease(self, store: Whole) -> None:
        put(store, "a")
        take(store)

        assert [result.status for result in store.put([mail("a")])] == ["known"]

    @clause(Guarantee.DEDUPLICATION)
    def test_an_id_is_known_however_its_message_was_settled(self, store: Whole) -> None:
        put(store, *VERDICTS)
        for claim, verdict in zip(take(store), [VERDICTS[s] for s in sorted(VERDICTS)], strict=True):
            settle(store, claim, verdict(claim))

        assert {result.status for result in store.put([mail(state) for state in VERDICTS])} == {"known"}
        assert take(store) == []

    @clause(Guarantee.DEDUPLICATION, SupportsManage)
    def test_the_id_of_a_cancelled_message_is_known(self, store: Whole) -> None:
        put(store, "a")
        store.cancel(["a"])

        assert [result.status for result in store.put([mail("a")])] == ["known"]
        assert take(store) == []

    @clause(Guarantee.DEDUPLICATION)
    def test_another_envelope_under_the_id_of_a_delivered_message_is_a_conflict(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        with raises(ConflictError, "a"):
            store.put([mail("a", "other@example.org")])

    @clause(Guarantee.DEDUPLICATION)
    def test_another_envelope_is_a_conflict_however_the_first_message_stands(self, store: Whole) -> None:
        put(store, *VERDICTS, "retried", "claimed")
        for claim in take(store):
            if claim.message.id == "retried":
                settle(store, claim, retry(claim, SECOND))
            for state, verdict in VERDICTS.items():
                if claim.message.id == state:
                    settle(store, claim, verdict(claim))

        for name in (*VERDICTS, "retried", "claimed"):
            with raises(ConflictError, name):
                store.put([mail(name, "other@example.org")])

    @clause(Guarantee.DEDUPLICATION)
    def test_a_put_of_what_is_known_changes_nothing_of_it(self, store: Whole, clock: ManualClock) -> None:
        later = mail("later", not_before=clock.now() + SECOND)
        retried = mail("retried", attributes={"k": "first"})
        put(store, later, retried)
        (claim,) = take(store)
        settle(store, claim, retry(claim, SECOND))
        assert statuses(store.put([mail("later"), mail("retried", content=b"second")])) == ["known"] * 2

        assert take(store) == []
        clock.advance(SECOND)
        claims = take(store)
        assert [claim.message for claim in claims] == [later, retried]
        assert claims[1].message.attributes == {"k": "first"}

    @clause(Guarantee.DEDUPLICATION)
    def test_how_long_an_id_is_remembered_counts_from_the_delivery(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(remember=DAY)
        put(store, "a")
        clock.advance(DAY)
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        clock.advance(DAY - SECOND)
        assert statuses(store.put([mail("a")])) == ["known"]
        clock.advance(SECOND)
        assert statuses(store.put([mail("a")])) == ["stored"]

    @clause(Guarantee.DEDUPLICATION)
    def test_a_delivered_id_is_forgotten_when_it_need_not_be_remembered_any_more(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(remember=DAY)
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        clock.advance(DAY - SECOND)
        assert [result.status for result in store.put([mail("a")])] == ["known"]
        clock.advance(SECOND)
        assert [result.status for result in store.put([mail("a")])] == ["stored"]

    @clause(Guarantee.DEDUPLICATION, SupportsMaintain)
    def test_a_delivered_id_is_remembered_anew_after_it_was_forgotten(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(remember=DAY)
        for _ in range(2):
            put(store, "a")
            (claim,) = take(store)
            settle(store, claim, delivered(claim))
            clock.advance(DAY)

        assert store.prune() == 1
        assert [result.status for result in store.put([mail("a")])] == ["stored"]

    @clause(SupportsBrowse)
    def test_a_fresh_message_stands_as_it_was_put(self, store: Whole, clock: Clock) -> None:
        put(store, mail("a", "x@example.org", "y@example.org", priority=3, content=b"12345"))

        summary = summaries(store)["a"]

        assert (summary.id, summary.queue, summary.priority, summary.size) == ("a", "mail", 3, 5)
        assert summary.sender == "sender@example.org"
        assert summary.recipients == ("x@example.org", "y@example.org")
        assert summary.submitted_at == summary.due_at == clock.now()
        assert (summary.attempts, summary.lost, summary.reason) == (0, 0, "")
        assert summary.leased_until is None
        assert summary.settled_at is None
        assert states(store) == {"a": "queued"}

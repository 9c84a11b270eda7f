"""How long what is settled stays, and what of it: the settings of :class:`outbox.stores.retention.Retention`."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any

from outbox.errors import ConfigurationError
from outbox.lifecycle import Held, State
from outbox.protocols import Guarantee, SupportsBrowse, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    SECOND,
    VERDICTS,
    ZERO,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    held,
    ids,
    known,
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

__all__ = ["RetainClauses"]


def deliver(store: Whole, *names: str) -> None:
    """Put these, and settle them as delivered in one batch."""
    put(store, *names)
    for claim in take(store):
        settle(store, claim, delivered(claim))


def end(store: Whole) -> None:
    """One message in each state that waits for a person."""
    put(store, "dead", "held", "expired", "cancelled")
    store.cancel(["cancelled"])
    for claim in take(store):
        settle(store, claim, next(VERDICTS[s] for s in VERDICTS if s == claim.message.id)(claim))


class RetainClauses(Clauses):
    """Kept for as long as was said, and no longer."""

    # -- ids

    @clause(SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_of_too_many_remembered_ids_pruning_forgets_the_oldest(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(remember=DAY, remember_at_most=2)
        for name in "edcba":
            deliver(store, name)
            clock.advance(SECOND)

        assert store.prune() == 3
        assert store.prune() == 0
        assert statuses(store.put([mail(name) for name in "abcde"])) == ["known"] * 2 + ["stored"] * 3

    @clause(SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_as_many_ids_are_remembered_as_was_said_also_of_those_settled_at_one_instant(
        self, reopen: Reopen
    ) -> None:
        store = reopen(remember=DAY, remember_at_most=3)
        deliver(store, *"abcde")

        assert store.prune() == 2
        assert sorted(statuses(store.put([mail(name) for name in "abcde"]))) == ["known"] * 3 + ["stored"] * 2

    @clause(SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_forgetting_takes_no_more_at_once_than_the_limit(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(remember=DAY, remember_at_most=1)
        for name in "abcd":
            deliver(store, name)
            clock.advance(SECOND)

        assert [store.prune(limit=2), store.prune(limit=2)] == [2, 1]
        assert statuses(store.put([mail("d")])) == ["known"]

    @clause(Guarantee.DEDUPLICATION)
    def test_where_no_id_is_to_be_remembered_none_is(self, reopen: Reopen) -> None:
        nothing: list[dict[str, Any]] = [{"remember": ZERO}, {"remember_at_most": 0}]
        for settings in nothing:
            store = reopen(**settings)
            deliver(store, "a")

            assert statuses(store.put([mail("a")])) == ["stored"]
            (claim,) = take(store)
            settle(store, claim, delivered(claim))

    # -- records of what was delivered

    @clause(SupportsBrowse)
    def test_without_its_content_a_delivered_record_keeps_all_else(self, reopen: Reopen) -> None:
        store = reopen(keep_delivered=DAY, keep_content=False)
        message = mail("a", "x@example.org", "y@example.org", content=b"x" * 5000, attributes={"k": "v"})
        put(store, message)
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        for again in (False, True):
            if again and self.persistent:
                store = reopen(keep_delivered=DAY, keep_content=False)
            record = known(store, "a")
            assert record.message.content == b""
            assert record.summary.size == 5000
            assert record.summary == summaries(store)["a"]
            assert record.message.recipients == message.recipients
            assert (record.message.sender, record.message.attributes) == (message.sender, message.attributes)
            assert [attempt.event for attempt in record.history] == ["delivered"]

    @clause(SupportsBrowse, SupportsManage)
    def test_only_what_was_delivered_loses_its_content(self, reopen: Reopen) -> None:
        store = reopen(keep_delivered=DAY, keep_content=False)
        end(store)

        for name in states(store):
            assert known(store, name).message == mail(name)
        store.requeue(["dead"])
        (claim,) = take(store)
        assert claim.message == mail("dead")

    @clause(SupportsBrowse)
    def test_a_delivered_record_keeps_its_content_unless_that_was_said(self, reopen: Reopen) -> None:
        store = reopen(keep_delivered=DAY)
        deliver(store, "a")

        assert known(store, "a").message == mail("a")

    # -- what waits for a person

    @clause(SupportsMaintain, SupportsBrowse, SupportsManage)
    def test_what_failed_is_discarded_when_its_time_is_over(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(discard_after=DAY)
        end(store)
        put(store, "queued")

        clock.advance(DAY - SECOND)
        assert store.prune() == 0
        assert len(states(store)) == 5
        clock.advance(SECOND)
        assert store.prune() == 4
        assert store.prune() == 0
        assert states(store) == {"queued": "queued"}

    @clause(SupportsMaintain, SupportsBrowse)
    def test_discarding_takes_no_more_at_once_than_the_limit(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(discard_after=DAY)
        for name in "edcba":
            put(store, name)
            (claim,) = take(store)
            settle(store, claim, dead(claim))
            clock.advance(SECOND)
        clock.advance(DAY)

        assert store.prune(limit=2) == 2
        assert list(summaries(store)) == ["a", "b", "c"]
        assert store.prune(limit=0) == 0
        assert store.prune(limit=9) == 3

    @clause(SupportsMaintain, SupportsManage, Guarantee.DEDUPLICATION)
    def test_the_id_of_what_was_discarded_is_known_where_somebody_has_or_may_have_it(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(discard_after=DAY, remember=2 * DAY)
        end(store)
        clock.advance(DAY)
        store.prune()

        again = [mail(name) for name in ("held", "dead", "expired", "cancelled")]
        assert statuses(store.put(again)) == ["known", "stored", "stored", "stored"]

    @clause(SupportsMaintain, SupportsBrowse, SupportsManage)
    def test_a_requeued_message_is_not_discarded_for_what_it_was(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(discard_after=DAY)
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        clock.advance(DAY - SECOND)
        store.requeue(["a"])
        clock.advance(DAY)

        assert store.prune() == 0
        (claim,) = take(store)
        settle(store, claim, held(claim))
        clock.advance(DAY - SECOND)
        assert store.prune() == 0
        assert states(store) == {"a": "held"}

    @clause(SupportsMaintain, SupportsBrowse)
    def test_pruning_touches_nothing_that_is_in_the_queue(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(remember=ZERO, discard_after=ZERO)
        put(store, "claimed", mail("later", not_before=clock.now() + 9 * DAY), mail("ready", priority=-1))
        take(store, 1)
        before = summaries(store)
        clock.advance(DAY)

        assert store.prune() == 0
        assert summaries(store) == before

    @clause(SupportsMaintain)
    def test_what_waits_is_never_pruned_however_long_it_waits(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(remember=ZERO, discard_after=ZERO)
        put(store, "claimed", "retried", mail("scheduled", not_before=clock.now() + 9 * DAY))
        claim = take(store)[1]
        settle(store, claim, retry(claim))
        for _ in range(8):
            clock.advance(50 * DAY)
            assert store.prune() == 0

        assert sorted(name for _ in range(3) for name in ids(take(store))) == [
            "claimed",
            "retried",
            "scheduled",
        ]

    @clause(SupportsMaintain, SupportsBrowse)
    def test_what_is_discarded_leaves_nothing_to_its_successor(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(discard_after=DAY)
        put(store, mail("a", content=b"old"))
        (claim,) = take(store)
        settle(store, claim, Held(fates=claim.fates, reason="look"))
        clock.advance(DAY)
        store.prune()
        put(store, mail("a", content=b"new"))

        record = known(store, "a")
        assert (record.message.content, record.history) == (b"new", ())
        assert (record.summary.attempts, record.summary.reason) == (0, "")
        assert ids(take(store)) == ["a"]

    # -- settings

    def test_a_retention_that_makes_no_sense_is_refused(self, reopen: Reopen) -> None:
        for name in ("remember", "keep_delivered", "discard_after", "remember_at_most"):
            nonsense: dict[str, Any] = {name: -1 if name == "remember_at_most" else -SECOND}
            with raises(ConfigurationError, name):
                reopen(**nonsense)

    @clause(SupportsMaintain)
    def test_a_store_that_is_up_to_date_has_nothing_to_migrate(self, store: Whole) -> None:
        put(store, "a")

        assert list(store.migrate()) == []
        assert ids(take(store)) == ["a"]

    @clause(SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_for_ever_is_as_good_a_time_as_any(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(
            remember=dt.timedelta.max,
            remember_at_most=sys.maxsize,
            keep_delivered=dt.timedelta.max,
            discard_after=dt.timedelta.max,
        )
        put(store, "delivered", "dead")
        for claim in take(store):
            settle(store, claim, VERDICTS[State(claim.message.id)](claim))
        clock.advance(1000 * DAY)

        assert store.prune() == 0
        assert statuses(store.put([mail("delivered"), mail("dead")])) == ["known", "known"]

    @clause(SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_an_id_can_be_known_for_ever(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(remember=dt.timedelta.max, remember_at_most=sys.maxsize)
        put(store, "a")
        for claim in take(store):
            settle(store, claim, delivered(claim))
        clock.advance(1000 * DAY)

        assert store.prune(limit=sys.maxsize) == 0
        assert statuses(store.put([mail("a")])) == ["known"]

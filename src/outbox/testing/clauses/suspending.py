"""What a suspension promises: nothing of the queue is handed out, and nothing of it is lost."""

from __future__ import annotations

import datetime as dt
from typing import Final

from outbox.errors import StoreUnavailable
from outbox.protocols import (
    Guarantee,
    SupportsBrowse,
    SupportsExchange,
    SupportsMaintain,
    SupportsSuspend,
    SupportsWait,
    Suspension,
)
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    LONG,
    SECOND,
    SHORT,
    Clauses,
    Reopen,
    Whole,
    clause,
    delivered,
    ids,
    line,
    mail,
    put,
    raises,
    retry,
    settle,
    summaries,
    take,
)

__all__ = ["SuspendClauses"]

_HOUR = dt.timedelta(hours=1)
MAIL: Final = Suspension(kind="queue", value="mail", reason="the relay is moved")


class SuspendClauses(Clauses):
    """A person stops a queue, and it goes on where it stopped."""

    @clause(SupportsSuspend)
    def test_a_suspended_queue_gives_no_claims_and_the_others_go_on(self, store: Whole) -> None:
        put(store, "a", mail("b", queue="mail.bulk"))
        store.suspend(MAIL)

        assert take(store) == []
        assert ids(take(store, 10, "mail", "mail.bulk")) == ["b"]

    @clause(SupportsSuspend, SupportsExchange)
    def test_an_exchange_takes_nothing_of_a_suspended_queue(self, store: Whole) -> None:
        put(store, "a")
        store.suspend(MAIL)

        assert list(store.exchange([], limit=1, lease=LEASE, queues=["mail"]).claims) == []

    @clause(SupportsSuspend)
    def test_what_is_put_in_a_suspended_queue_waits(self, store: Whole) -> None:
        store.suspend(MAIL)
        put(store, "a")
        assert take(store) == []

        assert store.unsuspend("queue", "mail") is True
        assert ids(take(store)) == ["a"]

    @clause(SupportsSuspend, SupportsBrowse)
    def test_a_suspension_changes_no_message(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", mail("b", priority=3))
        before = summaries(store)
        store.suspend(MAIL)
        clock.advance(_HOUR)
        take(store)

        assert summaries(store) == before

    @clause(SupportsSuspend, Guarantee.ORDER)
    def test_a_queue_goes_on_in_its_order(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("late", not_before=clock.now() + SECOND), "b", mail("first", priority=1))
        store.suspend(MAIL)
        clock.advance(_HOUR)
        put(store, "last")
        take(store)
        store.unsuspend("queue", "mail")

        assert ids(line(store)) == ["first", "b", "late", "last"]

    @clause(SupportsSuspend, Guarantee.LEASES)
    def test_who_has_a_claim_already_may_finish(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a", "b")
        a, b = take(store)
        store.suspend(MAIL)

        assert list(store.extend([a], lease=LEASE)) == []
        settle(store, a, delivered(a))
        settle(store, b, retry(b))
        clock.advance(LEASE)
        assert take(store) == []

    @clause(SupportsSuspend, Guarantee.LEASES)
    def test_a_lease_that_runs_out_in_a_suspended_queue_waits_too(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        take(store)
        store.suspend(MAIL)
        clock.advance(LEASE)
        assert take(store) == []

        store.unsuspend("queue", "mail")
        (claim,) = take(store)
        assert (claim.attempt, claim.lost) == (2, 1)

    @clause(SupportsSuspend)
    def test_a_suspension_ends_by_itself_when_its_time_comes(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        store.suspend(Suspension(kind="queue", value="mail", until=clock.now() + _HOUR))

        clock.advance(_HOUR - SECOND)
        assert take(store) == []
        assert len(store.suspensions()) == 1
        clock.advance(SECOND)
        assert list(store.suspensions()) == []
        assert ids(take(store)) == ["a"]
        assert store.unsuspend("queue", "mail") is False

    @clause(SupportsSuspend)
    def test_a_suspension_without_an_end_stays(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        store.suspend(MAIL)
        clock.advance(1000 * dt.timedelta(days=1))

        assert take(store) == []
        assert list(store.suspensions()) == [MAIL]

    @clause(SupportsSuspend)
    def test_taking_back_says_whether_there_was_anything(self, store: Whole) -> None:
        store.suspend(MAIL)

        assert store.unsuspend("queue", "other") is False
        assert store.unsuspend("relay", "mail") is False
        assert store.unsuspend("queue", "mail") is True
        assert store.unsuspend("queue", "mail") is False
        assert list(store.suspensions()) == []

    @clause(SupportsSuspend)
    def test_suspensions_are_listed_whole_and_sorted(self, store: Whole, clock: ManualClock) -> None:
        elsewhere = dt.timezone(dt.timedelta(hours=5, minutes=30))
        given = [
            Suspension(kind="queue", value="mail.bulk"),
            Suspension(kind="relay", value="mx.example.org:25", until=clock.now() + _HOUR),
            Suspension(kind="attribute", value="tenant=blue ✓", reason="they did not pay"),
            Suspension(
                kind="domain", value="example.org", until=(clock.now() + SECOND).astimezone(elsewhere)
            ),
            Suspension(kind="queue", value="mail"),
        ]
        for suspension in given:
            store.suspend(suspension)

        assert list(store.suspensions()) == sorted(given, key=lambda each: (each.kind, each.value))

    @clause(SupportsSuspend)
    def test_one_of_the_same_kind_and_value_is_replaced(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        store.suspend(MAIL)
        shorter = Suspension(kind="queue", value="mail", until=clock.now() + SECOND, reason="not so long")
        store.suspend(shorter)

        assert list(store.suspensions()) == [shorter]
        clock.advance(SECOND)
        assert ids(take(store)) == ["a"]

    @clause(SupportsSuspend)
    def test_the_other_kinds_stop_no_claim(self, store: Whole) -> None:
        put(store, "a")
        store.suspend(Suspension(kind="relay", value="mail"))
        store.suspend(Suspension(kind="domain", value="example.org"))
        store.suspend(Suspension(kind="attribute", value="queue=mail"))

        assert ids(take(store)) == ["a"]

    @clause(SupportsSuspend)
    def test_a_suspension_survives_opening_again(self, store: Whole, reopen: Reopen) -> None:
        self.require_persistence()
        put(store, "a", mail("b", queue="other"))
        store.suspend(MAIL)
        store.suspend(Suspension(kind="queue", value="other"))
        store.unsuspend("queue", "other")

        for crash in (False, True):
            store = reopen(crash=crash)
            assert list(store.suspensions()) == [MAIL]
            assert take(store) == []
        assert ids(take(store, 10, "mail", "other")) == ["b"]

    @clause(SupportsSuspend, SupportsWait)
    def test_a_suspended_queue_has_nothing_that_is_due_next(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        for until in (clock.now() + _HOUR, None):
            store.suspend(Suspension(kind="queue", value="mail", until=until))
            assert store.next_due(["mail"]) is None
        put(store, mail("b", queue="other"))
        assert store.next_due(["mail", "other"]) == dt.timedelta(0)
        store.unsuspend("queue", "mail")
        assert store.next_due(["mail"]) == dt.timedelta(0)

    @clause(SupportsSuspend, SupportsBrowse)
    def test_what_is_suspended_is_counted_and_not_as_due(self, store: Whole) -> None:
        put(store, "a", "b")
        store.suspend(MAIL)

        (count,) = store.count()
        assert (count.number, count.due, count.oldest_due_at) == (2, 0, None)
        store.unsuspend("queue", "mail")
        (count,) = store.count()
        assert (count.number, count.due) == (2, 2)

    @clause(SupportsSuspend, SupportsWait)
    def test_the_end_of_a_suspension_is_news(self, store: Whole) -> None:
        put(store, "a")
        store.suspend(MAIL)
        while store.wait(SHORT):
            pass
        assert take(store) == []
        store.unsuspend("queue", "mail")

        assert store.wait(LONG) is True

    @clause(SupportsSuspend, SupportsMaintain)
    def test_pruning_takes_no_suspension_that_is_in_force(self, store: Whole, clock: ManualClock) -> None:
        for kind in ("attribute", "domain", "queue", "relay"):
            for value, until in (("ever", None), ("long", clock.now() + 90 * DAY)):
                store.suspend(Suspension(kind=kind, value=value, until=until))
        before = list(store.suspensions())
        assert len(before) == 8
        clock.advance(60 * DAY)
        store.prune()

        assert list(store.suspensions()) == before

    @clause(SupportsSuspend)
    def test_a_closed_store_suspends_nothing(self, store: Whole) -> None:
        store.close()
        for verb in (
            lambda: store.suspend(MAIL),
            lambda: store.unsuspend("queue", "mail"),
            store.suspensions,
        ):
            with raises(StoreUnavailable, "closed"):
                verb()

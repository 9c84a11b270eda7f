"""How a thread learns of news, and when the next message is due."""

from __future__ import annotations

import datetime as dt
import threading

from outbox.errors import StoreUnavailable
from outbox.protocols import Guarantee, SupportsManage, SupportsWait
from outbox.testing.clock import ManualClock

from .crowding import together
from .scene import (
    LEASE,
    LONG,
    SECOND,
    SHORT,
    Whole,
    clause,
    delivered,
    mail,
    put,
    released,
    retry,
    settle,
    take,
)

__all__ = ["WaitClauses"]


def at_rest(store: Whole) -> bool:
    """Whether there is no news any more; some of what was done already may be told late, for it is a hint only."""
    return any(not store.wait(SHORT) for _ in range(3))


class WaitClauses:
    """Nothing slips between an empty claim and the wait."""

    @clause(SupportsWait)
    def test_a_wait_ends_when_its_time_is_over(self, store: Whole) -> None:
        take(store)

        assert store.wait(SHORT) is False
        assert store.wait(dt.timedelta(0)) is False

    @clause(SupportsWait)
    def test_what_was_put_since_the_last_claim_ends_the_wait_at_once(self, store: Whole) -> None:
        assert take(store) == []
        put(store, "a")

        assert store.wait(LONG) is True

    @clause(SupportsWait)
    def test_each_piece_of_news_ends_a_wait_once(self, store: Whole) -> None:
        take(store)
        put(store, "a")

        assert store.wait(LONG) is True
        assert store.wait(SHORT) is False

    @clause(SupportsWait)
    def test_what_was_put_before_the_claim_is_no_news(self, store: Whole) -> None:
        put(store, "a")
        take(store)

        assert at_rest(store)

    @clause(SupportsWait)
    def test_a_put_of_another_thread_ends_the_wait(self, store: Whole) -> None:
        waiting, heard = threading.Event(), []

        def act(thread: int) -> None:
            if thread:
                waiting.wait()
                put(store, "a")
            else:
                take(store)
                waiting.set()
                heard.append(store.wait(LONG))

        together(2, act)
        assert heard == [True]

    @clause(SupportsWait)
    def test_wake_ends_every_wait(self, store: Whole) -> None:
        claimed = threading.Barrier(4)
        heard = []

        def act(thread: int) -> None:
            if thread:
                take(store)
                claimed.wait()
                heard.append(store.wait(LONG))
            else:
                claimed.wait()
                store.wake()

        together(4, act)
        assert heard == [True] * 3

    @clause(SupportsWait)
    def test_closing_ends_every_wait(self, store: Whole) -> None:
        claimed = threading.Barrier(3)
        heard = []

        def act(thread: int) -> None:
            if thread == 0:
                claimed.wait()
                store.close()
                return
            take(store)
            claimed.wait()
            try:
                heard.append(store.wait(LONG))
            except StoreUnavailable:
                heard.append(True)

        together(3, act)
        assert heard == [True] * 2

    @clause(SupportsWait)
    def test_a_retry_is_news(self, store: Whole) -> None:
        put(store, "a")
        for verdict in (retry, released):
            (claim,) = take(store)
            assert at_rest(store)
            settle(store, claim, verdict(claim))

            assert store.wait(LONG) is True

    @clause(SupportsWait, SupportsManage)
    def test_a_requeue_is_news(self, store: Whole) -> None:
        put(store, "a")
        store.cancel(["a"])
        take(store)
        store.requeue(["a"])

        assert store.wait(LONG) is True

    @clause(SupportsWait)
    def test_the_next_due_is_the_earliest_of_what_can_be_claimed(
        self, store: Whole, clock: ManualClock
    ) -> None:
        now = clock.now()
        assert store.next_due(["mail"]) is None
        put(store, mail("a", not_before=now + 60 * SECOND), mail("b", not_before=now + 30 * SECOND))
        put(store, mail("c", queue="other"))

        assert store.next_due(["mail"]) == 30 * SECOND
        assert store.next_due(["mail", "other"]) == dt.timedelta(0)
        assert store.next_due(["nobody"]) is None
        clock.advance(40 * SECOND)
        assert store.next_due(["mail"]) == dt.timedelta(0)
        take(store)
        assert store.next_due(["mail"]) == 20 * SECOND

    @clause(SupportsWait, Guarantee.LEASES)
    def test_a_lease_that_runs_out_is_due(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        (claim,) = take(store, lease=60 * SECOND)

        assert store.next_due(["mail"]) == 60 * SECOND
        clock.advance(50 * SECOND)
        store.extend([claim], lease=LEASE)
        assert store.next_due(["mail"]) == LEASE
        clock.advance(2 * LEASE)
        assert store.next_due(["mail"]) == dt.timedelta(0)
        settle(store, claim, delivered(claim))
        assert store.next_due(["mail"]) is None

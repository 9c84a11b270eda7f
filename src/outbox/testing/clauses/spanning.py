"""Long spans and small differences: what is far off is not brought near, and what is close together not made one."""

from __future__ import annotations

import datetime as dt

from outbox.protocols import Guarantee, SupportsSuspend, Suspension
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    SECOND,
    Whole,
    all_of,
    clause,
    ids,
    line,
    mail,
    put,
    released,
    retry,
    settle,
    take,
)

__all__ = ["SpanClauses"]

MICRO = dt.timedelta(microseconds=1)
YEAR = 365 * DAY


class SpanClauses:
    """A span is as long as was said, be it a year, and as short, be it a microsecond."""

    @clause(Guarantee.LEASES)
    def test_a_long_lease_is_not_cut_short(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("a", expires_at=clock.now() + DAY), "b")
        claims = take(store, lease=40 * DAY)
        store.extend(claims[1:], lease=80 * DAY)

        clock.advance(40 * DAY - MICRO)
        assert take(store) == []
        clock.advance(MICRO)
        assert ids(take(store, lease=YEAR)) == ["a"]
        clock.advance(40 * DAY - MICRO)
        assert take(store) == []
        clock.advance(MICRO)
        assert ids(take(store)) == ["b"]

    @clause(Guarantee.DELAYS, Guarantee.RETENTION)
    def test_a_long_delay_is_not_cut_short(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        for verdict in (retry, released):
            (claim,) = take(store)
            settle(store, claim, verdict(claim, YEAR))

            for step in (DAY, YEAR - DAY - MICRO):
                clock.advance(step)
                assert take(store) == []
            clock.advance(MICRO)
            (claim,) = take(store)
            settle(store, claim, retry(claim))

    @clause(Guarantee.DELAYS, Guarantee.RETENTION)
    def test_what_is_scheduled_for_long_after_waits_as_long(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("a", not_before=clock.now() + 3 * YEAR))

        for step in (DAY, YEAR, 2 * YEAR - DAY - MICRO):
            clock.advance(step)
            assert take(store) == []
        clock.advance(MICRO)
        assert ids(take(store)) == ["a"]

    @clause(Guarantee.ORDER)
    def test_of_two_that_were_due_a_microsecond_apart_the_earlier_goes_first(
        self, store: Whole, clock: ManualClock
    ) -> None:
        names = ["d", "a", "c", "b"]
        for name in names:
            put(store, name)
            clock.advance(MICRO)

        assert ids(line(store)) == names

    @clause(Guarantee.ORDER)
    def test_every_step_of_priority_counts(self, store: Whole) -> None:
        steps = (100, 99, 50, 11, 10, 1, 0, -1, -10, -11, -50, -99, -100)
        put(store, *(mail(f"m{n:02}", priority=priority) for n, priority in enumerate(steps[::-1])))

        assert [claim.message.priority for claim in all_of(store)] == list(steps)

    @clause(Guarantee.ORDER)
    def test_ids_are_in_the_order_of_their_characters(self, store: Whole) -> None:
        names = ["-", "-a", "0", "9", "_", "_a", "a-b", "a0", "a_a", "aa"]
        put(store, *names[::-1])

        assert ids(line(store)) == sorted(names)

    @clause(SupportsSuspend)
    def test_a_suspension_lasts_to_the_microsecond(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        until = clock.now() + LEASE + SECOND - MICRO
        store.suspend(Suspension(kind="queue", value="mail", until=until))

        assert [each.until for each in store.suspensions()] == [until]
        clock.advance(LEASE + SECOND - 2 * MICRO)
        assert take(store) == []
        clock.advance(MICRO)
        assert ids(take(store)) == ["a"]

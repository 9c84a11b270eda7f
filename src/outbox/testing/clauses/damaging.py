"""What holds when a record is damaged: it is held for a person, and stops no other and no command."""

from __future__ import annotations

import datetime as dt

from outbox.lifecycle import Settlement, State
from outbox.protocols import SupportsBrowse, SupportsExchange, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    ids,
    mail,
    put,
    retry,
    settle,
    states,
    statuses,
    take,
)

__all__ = ["DamageClauses"]

_DAY = dt.timedelta(days=1)


class DamageClauses(Clauses):
    """A record that cannot be read stops no other."""

    @clause(SupportsBrowse)
    def test_what_cannot_be_read_when_its_retry_is_due_is_held_and_stops_no_other(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, retry(claim, SECOND))
        self.corrupt(store, "a")
        clock.advance(SECOND)
        put(store, "b")

        assert ids(take(store)) == ["b"]
        assert states(store)["a"] == State.HELD

    @clause(SupportsBrowse)
    def test_what_cannot_be_read_when_its_not_before_has_come_is_held_and_stops_no_other(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, mail("a", not_before=clock.now() + SECOND), mail("b", not_before=clock.now() + SECOND))
        self.corrupt(store, "a")
        clock.advance(SECOND)

        assert ids(take(store)) == ["b"]
        assert states(store)["a"] == State.HELD

    @clause(SupportsBrowse)
    def test_what_cannot_be_read_when_its_lease_has_run_out_is_held_and_stops_no_other(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        take(store)
        self.corrupt(store, "a")
        clock.advance(LEASE)
        put(store, "b")

        found = [*take(store, lease=_DAY), *take(store, lease=_DAY)]

        assert ids(found) == ["b"]
        assert states(store)["a"] == State.HELD

    @clause(SupportsBrowse)
    def test_a_verdict_is_written_beside_one_on_what_cannot_be_read_any_more(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", "b")
        claims = take(store)
        self.corrupt(store, "a")

        assert list(store.settle([Settlement(claim, delivered(claim)) for claim in claims])) == []
        clock.advance(LEASE)
        assert take(store) == []

    @clause(SupportsExchange)
    def test_an_exchange_settles_what_cannot_be_read_any_more(self, store: Whole) -> None:
        put(store, "a", "b")
        claims = take(store)
        self.corrupt(store, "a")
        put(store, "c")

        exchanged = store.exchange(
            [Settlement(claim, delivered(claim)) for claim in claims], limit=9, lease=LEASE, queues=["mail"]
        )

        assert (list(exchanged.lost), ids(exchanged.claims)) == ([], ["c"])

    @clause(SupportsBrowse, SupportsManage)
    def test_a_command_does_for_the_others_what_it_says(self, store: Whole) -> None:
        put(store, "a", "b", "c")
        self.corrupt(store, "b")
        take(store)
        assert states(store)["b"] == State.HELD

        assert statuses(store.requeue(["b", "x"])) == ["done", "unknown"]
        assert take(store) == []
        assert states(store)["b"] == State.HELD
        assert statuses(store.purge(["b", "a"])) == ["done", "leased"]
        assert list(states(store)) == ["a", "c"]

    @clause(SupportsBrowse, SupportsMaintain)
    def test_what_cannot_be_read_is_pruned_when_its_time_has_come(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(discard_after=_DAY)
        put(store, "a", "b")
        for claim in take(store):
            settle(store, claim, dead(claim))
        self.corrupt(store, "a")
        clock.advance(_DAY)

        assert store.prune() == 2
        assert states(store) == {}

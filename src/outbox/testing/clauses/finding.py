"""What a filter finds: the same as whoever looks at every message of the list."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Final

import attrs

from outbox.ages import SupportsAges, domains
from outbox.filters import Filter, SupportsFind
from outbox.lifecycle import Fate, State
from outbox.protocols import SupportsBrowse, SupportsHold, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import SECOND, Whole, clause, dead, delivered, held, mail, put, retry, settle, summaries, take

__all__ = ["FindClauses"]

HOUR: Final = dt.timedelta(hours=1)


def _crowd(store: Whole, clock: ManualClock) -> None:
    """Messages of many kinds; the young ones are an hour younger."""
    put(
        store,
        mail("dead", "Ann@Example.NET", attributes={"tenant": "blue"}),
        mail("held", "bob@example.org", sender=""),
        mail("retried", "ann@example.net", "eve@example.com", attributes={"tenant": "red", "n": "1"}),
        mail("gone"),
    )
    claims = {claim.message.id: claim for claim in take(store)}
    settle(store, claims["dead"], attrs.evolve(dead(claims["dead"]), reason="550 5.7.1 Blocked by policy"))
    settle(store, claims["held"], held(claims["held"]))
    settle(store, claims["retried"], retry(claims["retried"], HOUR))
    settle(store, claims["gone"], delivered(claims["gone"]))
    clock.advance(HOUR)
    put(
        store,
        mail("bulk", "zoë@münchen.example", queue="bulk", sender="Owner@Example.ORG"),
        mail("quoted", '"a \\" b"@example.net', attributes={"tenant": 'blu"e ✓', "n": "1"}),
        mail("young", "x@sub.example.net"),
    )


class FindClauses:
    """Whoever filters is shown what fits, and all of it."""

    @clause(SupportsFind, SupportsBrowse)
    def test_a_filter_finds_what_fits_of_the_list_and_nothing_else(
        self, store: Whole, clock: ManualClock
    ) -> None:
        _crowd(store, clock)
        everything = summaries(store)
        before = clock.now() - HOUR
        for sought, names in (
            (Filter(), "bulk dead held quoted retried young"),
            (Filter(states=[State.DEAD]), "dead"),
            (Filter(states=[State.QUEUED, State.DEAD]), "bulk dead quoted retried young"),
            (Filter(states=[State.HELD, State.DEAD]), "dead held"),
            (Filter(queues=["bulk"]), "bulk"),
            (Filter(queues=["mail"], submitted_before=before), "dead held retried"),
            (Filter(submitted_before=before - SECOND), ""),
            (Filter(settled_since=before), "dead held"),
            (Filter(settled_since=before, states=[State.DEAD, State.QUEUED]), "dead"),
            (Filter(settled_since=before, states=[State.DEAD, State.HELD], senders=[""]), "held"),
            (Filter(settled_since=before + SECOND, states=[State.DEAD, State.HELD]), ""),
            (Filter(recipients=["ANN@example.net"]), "dead retried"),
            (Filter(recipients=["ZOË@münchen.example"]), "bulk"),
            (Filter(recipients=['"a \\" b"@example.net']), "quoted"),
            (Filter(recipients=["nn@example.net"]), ""),
            (Filter(domains=["EXAMPLE.net"]), "dead quoted retried"),
            (Filter(domains=["münchen.example", "example.com"]), "bulk retried"),
            (Filter(senders=["owner@example.org"]), "bulk"),
            (Filter(senders=[""]), "held"),
            (Filter(reasons=["blocked 5.7.1", "nothing such"]), "dead"),
            (Filter(reasons=["blocked 5.7.2"]), ""),
            (Filter(reasons=["550"]), "dead"),
            (Filter(reasons=["policy 5.7.1", "50"]), "dead"),
            (Filter(reasons=["50"]), ""),
            (Filter(reasons=["5.7", "7.1 BY"]), "dead"),
            (Filter(reasons=["block by"]), ""),
            (Filter(attributes={"tenant": ["blue", 'blu"e ✓']}), "dead quoted"),
            (Filter(attributes={"tenant": ["red", "blue"], "n": ["1"]}), "retried"),
            (Filter(attributes={"n": ["blue"]}), ""),
            (Filter(states=[State.DELIVERED]), ""),
        ):
            found = list(store.find(sought))
            assert [summary.id for summary in found] == names.split(), sought
            assert found == [everything[name] for name in names.split()]

    @clause(SupportsFind, SupportsHold)
    def test_what_a_person_holds_is_found_apart(self, store: Whole, clock: ManualClock) -> None:
        _crowd(store, clock)
        store.hold(["young"], reason="Wrong prices")

        assert [s.id for s in store.find(Filter(by_hand=True))] == ["young"]
        assert [s.id for s in store.find(Filter(states=[State.HELD], by_hand=False))] == ["held"]
        assert [s.id for s in store.find(Filter(reasons=["wrong"]))] == ["young"]

    @clause(SupportsFind)
    def test_the_next_ones_are_found_behind_an_id(self, store: Whole, clock: ManualClock) -> None:
        _crowd(store, clock)

        assert [s.id for s in store.find(Filter(), after="held")] == ["quoted", "retried", "young"]
        assert [s.id for s in store.find(Filter(domains=["example.net"]), after="dear")] == [
            "quoted",
            "retried",
        ]
        assert list(store.find(Filter(), after="zzz")) == []

    @clause(SupportsFind, SupportsManage)
    def test_each_is_found_once_also_where_it_is_changed_meanwhile(
        self, store: Whole, clock: ManualClock
    ) -> None:
        _crowd(store, clock)
        found = []
        for summary in store.find(Filter()):
            found.append(summary.id)
            store.requeue([summary.id], uncertain=True)

        assert sorted(found) == ["bulk", "dead", "held", "quoted", "retried", "young"]

    @clause(SupportsAges, SupportsBrowse)
    def test_what_waits_is_as_old_and_goes_as_far_as_a_list_shows(
        self, store: Whole, clock: ManualClock
    ) -> None:
        _crowd(store, clock)
        put(store, mail("two", "a@EXAMPLE.net", "b@example.net", "c@example.com"))
        (claim,) = [each for each in take(store) if each.message.id == "two"]
        settle(
            store,
            claim,
            attrs.evolve(retry(claim, HOUR), fates={**claim.fates, "c@example.com": Fate.ACCEPTED}),
        )
        now = clock.now()
        borders = [now, now - HOUR / 2, now - HOUR, now - 2 * HOUR]

        expected = Counter[tuple[int, frozenset[str]]]()
        for summary in summaries(store).values():
            if summary.state in (State.QUEUED, State.CLAIMED):
                age = sum(summary.submitted_at <= border for border in borders)
                expected[age, domains(r for r, fate in summary.fates.items() if fate.open)] += 1
        counted = Counter[tuple[int, frozenset[str]]]()
        for group in store.ages(borders):
            counted[group.age, group.domains] += group.number
        assert counted == expected
        assert sum(group.number for group in store.ages([])) == expected.total()

    @clause(SupportsFind, SupportsBrowse)
    def test_a_list_tells_the_attributes(self, store: Whole, clock: ManualClock) -> None:
        _crowd(store, clock)
        found = summaries(store)

        assert found["retried"].attributes == {"tenant": "red", "n": "1"}
        assert found["young"].attributes == {}
        assert found["quoted"].attributes == {"tenant": 'blu"e ✓', "n": "1"}
        assert set(found["dead"].fates.values()) == {Fate.FAILED}

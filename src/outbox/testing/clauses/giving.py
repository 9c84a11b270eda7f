"""What a store promises that messages come to from another, and of the ids that it knows of those that left."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter

import attrs

from outbox.errors import ConflictError, StoreFull
from outbox.lifecycle import Settlement
from outbox.moving import Batch, Remembered, SupportsMove
from outbox.protocols import Guarantee, SupportsBrowse, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .crowding import together
from .scene import (
    DAY,
    LEASE,
    LONG,
    SECOND,
    Beside,
    Clauses,
    Reopen,
    Whole,
    clause,
    delivered,
    ids,
    mail,
    put,
    raises,
    settle,
    states,
    statuses,
    take,
)
from .travelling import ELSEWHERE, HOUR, deliver, everything, move, taken

__all__ = ["GiveClauses"]


class GiveClauses(Clauses):
    """A batch arrives once, and an id stays known wherever its message is."""

    # -- in

    @clause(SupportsMove, SupportsBrowse)
    def test_a_batch_is_given_once(self, store: Whole, beside: Beside) -> None:
        other = beside()
        put(store, "a", "b")
        batch = taken(store, to=other.identity())

        assert other.last_given(batch.source) == ""
        assert list(other.give(batch)) == []
        assert other.last_given(batch.source) == batch.name
        for claim in take(other):
            settle(other, claim, delivered(claim))
        assert list(other.give(batch)) == []
        assert states(other) == {}

    @clause(SupportsMove, SupportsManage, SupportsBrowse)
    def test_what_was_given_and_purged_is_not_there_again_when_it_is_given_again(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside()
        put(store, "a")
        batch = taken(store, to=other.identity())
        other.give(batch)
        other.cancel(["a"])
        other.purge(["a"])

        assert list(other.give(batch)) == []
        assert states(other) == {}

    @clause(SupportsMove, SupportsBrowse)
    def test_what_is_here_already_is_refused_and_nothing_of_it_is_written(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside()
        put(store, "a", "b")
        put(other, mail("a", priority=3))
        before = everything(other)["a"]
        batch = taken(store, to=other.identity())

        assert list(other.give(batch)) == ["a"]
        assert list(other.give(batch)) == ["a"]
        assert everything(other)["a"] == before
        assert set(states(other)) == {"a", "b"}
        store.conclude(batch.name, back=["a"])
        assert ids(take(store)) == ["a"]

    @clause(SupportsMove)
    def test_a_batch_that_comes_after_a_later_one_of_its_store_is_refused(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside()
        put(store, "a", "b")
        first = taken(store, limit=1, to=other.identity())
        other.give(first)
        store.conclude(first.name)
        second = taken(store, limit=1, to=other.identity())
        other.give(second)

        with raises(ConflictError, "later"):
            other.give(first)
        assert other.last_given(first.source) == second.name

    @clause(SupportsMove)
    def test_batches_of_several_stores_are_told_apart(self, store: Whole) -> None:
        one = Batch(name="000000000000000007-aaaaaaaa", source="one")
        two = Batch(name="000000000000000003-bbbbbbbb", source="two")

        store.give(one)
        store.give(two)
        assert (store.last_given("one"), store.last_given("two"), store.last_given("three")) == (
            one.name,
            two.name,
            "",
        )

    @clause(SupportsMove)
    def test_what_was_given_is_there_after_a_crash_and_is_not_given_again(
        self, reopen: Reopen, beside: Beside
    ) -> None:
        self.require_persistence()
        store, other = reopen(), beside()
        put(other, "a", "b")
        batch = taken(other, to=store.identity())
        store.give(batch)

        store = reopen(crash=True)
        assert store.last_given(batch.source) == batch.name
        assert list(store.give(batch)) == []
        assert ids(take(store)) == ["a", "b"]

    @clause(SupportsMove)
    def test_a_store_is_told_from_others_by_an_identity_that_stays(
        self, reopen: Reopen, beside: Beside
    ) -> None:
        store = reopen()
        identity = store.identity()

        assert "" != identity != beside().identity()
        if self.persistent:
            assert reopen(crash=True).identity() == identity

    @clause(SupportsMove, SupportsBrowse)
    def test_two_who_move_the_same_messages_at_once_move_each_of_them_once(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside()
        names = [f"m{number:02}" for number in range(30)]
        put(store, *names)
        both = threading.Barrier(2)
        sent: Counter[str] = Counter()

        def work(_: int) -> None:
            batch = store.take(to=other.identity(), limit=4)
            # The first batch is in the hands of both of them.
            both.wait(LONG.total_seconds())
            while batch is not None:
                # The other one may be further already.
                with contextlib.suppress(ConflictError):
                    back = other.give(batch)
                    for claim in take(other):
                        settle(other, claim, delivered(claim))
                        sent[claim.message.id] += 1
                    store.conclude(batch.name, back=back)
                batch = store.take(to=other.identity(), limit=4)

        together(2, work)
        sent.update(ids(take(other)))

        assert (states(store), sent) == ({}, Counter(names))

    @clause(SupportsMove, SupportsBrowse)
    def test_nothing_of_a_batch_arrives_once_it_was_given_without_its_records(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside(max_messages=1)
        put(other, "here")
        put(store, "a", "b")
        batch = taken(store, to=other.identity())
        closed = attrs.evolve(batch, records=(), unreadable=["a", "b"])

        assert list(other.give(closed)) == ["a", "b"]
        assert list(other.give(batch)) == ["a", "b"]
        assert set(states(other)) == {"here"}

    @clause(SupportsMove, SupportsBrowse)
    def test_what_was_refused_of_a_batch_is_told_to_who_gives_it_again_without_its_records(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside()
        put(store, "a", "b")
        put(other, "a")
        batch = taken(store, to=other.identity())
        other.give(batch)

        assert list(other.give(attrs.evolve(batch, records=(), unreadable=["a", "b"]))) == ["a"]
        assert set(states(other)) == {"a", "b"}

    @clause(SupportsMove)
    def test_a_batch_that_has_arrived_is_known_where_there_is_no_room_left(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside(max_messages=2)
        put(store, "a", "b")
        batch = taken(store, to=other.identity())
        other.give(batch)

        assert list(other.give(batch)) == []

    @clause(SupportsMove)
    def test_a_batch_is_named_after_one_that_the_other_store_has_accepted(self, store: Whole) -> None:
        put(store, "a", "b")
        late = "900000000000000000-aaaaaaaa"

        batch = store.take(to=ELSEWHERE, limit=1, after=late)
        assert batch is not None
        assert batch.name > late
        store.conclude(batch.name)
        assert taken(store).name > batch.name

    @clause(SupportsMove)
    def test_where_there_is_no_room_nothing_is_given(self, store: Whole, beside: Beside) -> None:
        other = beside(max_messages=2)
        put(store, "a", "b", "c")
        batch = taken(store, to=other.identity())

        with raises(StoreFull, "max_messages"):
            other.give(batch)
        assert other.last_given(batch.source) == ""
        assert take(other) == []

    @clause(SupportsMove, Guarantee.FENCING)
    def test_a_claim_of_the_store_that_was_left_holds_nothing_in_the_other(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        other = beside()
        put(store, "a")
        (claim,) = take(store)
        clock.advance(LEASE)
        assert move(store, other) == []

        assert list(other.settle([Settlement(claim, delivered(claim))])) == [claim]

    # -- ids

    @clause(SupportsMove, Guarantee.DEDUPLICATION)
    def test_the_ids_that_are_known_are_told_in_pages_by_when_they_were_settled(
        self, store: Whole, clock: ManualClock
    ) -> None:
        for name in "badc":
            deliver(store, name)
            clock.advance(SECOND)
        deliver(store, "e", "f")

        first = list(store.remembered(limit=3))
        rest = list(store.remembered(after=first[-1], limit=3))
        assert [each.id for each in [*first, *rest]] == ["b", "a", "d", "c", "e", "f"]
        assert first[0].digest == mail("b").envelope_digest
        assert first[1].settled_at - first[0].settled_at == SECOND
        assert list(store.remembered(after=rest[-1])) == []

    @clause(SupportsMove, Guarantee.DEDUPLICATION)
    def test_an_id_that_is_known_is_known_in_the_other_store_for_as_long_as_it_would_have_been(
        self, reopen: Reopen, beside: Beside, clock: ManualClock
    ) -> None:
        store, other = reopen(remember=DAY), beside(remember=DAY)
        deliver(store, "a")
        clock.advance(HOUR)
        other.remember(store.remembered())
        other.remember(store.remembered())

        assert statuses(other.put([mail("a")])) == ["known"]
        with raises(ConflictError):
            other.put([mail("a", "somebody-else@example.org")])
        clock.advance(DAY - HOUR - SECOND)
        assert statuses(other.put([mail("a")])) == ["known"]
        clock.advance(2 * SECOND)
        assert statuses(other.put([mail("a")])) == ["stored"]

    @clause(SupportsMove, Guarantee.DEDUPLICATION)
    def test_the_id_of_what_has_left_is_told_on_when_it_came_to_its_end_elsewhere(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        other = beside()
        put(store, "a", "b")
        assert move(store, other) == []
        clock.advance(HOUR)
        (claim,) = take(other, 1)
        settle(other, claim, delivered(claim))

        assert list(store.remembered()) == []
        store.remember(other.remembered())
        assert list(store.remembered()) == list(other.remembered()) != []
        assert statuses(store.put([mail("a"), mail("b")])) == ["known", "known"]

    @clause(SupportsMove, SupportsManage, Guarantee.DEDUPLICATION)
    def test_what_has_left_is_told_from_what_is_here_and_from_what_came_to_its_end_here(
        self, store: Whole, beside: Beside
    ) -> None:
        other = beside()
        deliver(store, "delivered")
        put(store, "gone", "back", "purged")
        store.cancel(["purged"])
        store.purge(["purged"])
        assert move(store, other) == []
        (claim,) = [claim for claim in take(other) if claim.message.id == "gone"]
        assert [store.has_left(id) for id in ("gone", "back")] == [True, True]
        assert [other.has_left(id) for id in ("gone", "back")] == [False, False]
        assert [store.has_left(id) for id in ("delivered", "purged", "never")] == [False, False, False]

        settle(other, claim, delivered(claim))
        store.remember(other.remembered())
        assert not store.has_left("gone"), "it came to its end there, and that is known"
        assert store.has_left("back")

    @clause(SupportsMove, Guarantee.DEDUPLICATION)
    def test_what_has_left_and_came_back_has_not_left(self, store: Whole, beside: Beside) -> None:
        other = beside()
        put(store, "a")
        assert move(store, other) == []
        assert move(other, store) == []

        assert (store.has_left("a"), other.has_left("a")) == (False, True)

    @clause(SupportsMove, SupportsMaintain, Guarantee.DEDUPLICATION)
    def test_what_came_back_counts_among_the_remembered_no_more(self, reopen: Reopen, beside: Beside) -> None:
        store, other = reopen(remember_at_most=1), beside()
        deliver(store, "delivered")
        put(store, "a", "b", "c")
        assert move(store, other) == []
        assert move(other, store) == []

        assert store.prune() == 0
        assert statuses(store.put([mail("delivered"), mail("a")])) == ["known", "known"]

    @clause(SupportsMove, SupportsBrowse)
    def test_an_id_is_remembered_of_no_message_that_is_there(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        store.remember([Remembered("a", mail("a").envelope_digest, clock.now())])

        assert ids(take(store)) == ["a"]

    @clause(SupportsMove, SupportsBrowse)
    def test_a_message_stands_again_where_its_id_was_remembered(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        other = beside()
        put(store, "a")
        other.remember([Remembered("a", mail("a").envelope_digest, clock.now())])

        assert move(store, other) == []
        assert ids(take(other)) == ["a"]

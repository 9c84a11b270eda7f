"""What a store promises that messages can be moved from and to: see :class:`outbox.moving.SupportsMove`."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections import Counter
from collections.abc import Sequence

import attrs

from outbox.errors import ConfigurationError, ConflictError, StoreFull
from outbox.lifecycle import Fate, Record, Settlement, State
from outbox.moving import Batch, Remembered, SupportsMove
from outbox.protocols import Guarantee, SupportsBrowse, SupportsHold, SupportsMaintain, SupportsManage
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
    dead,
    delivered,
    held,
    ids,
    known,
    line,
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

__all__ = ["MoveClauses"]

HOUR = dt.timedelta(hours=1)
ELSEWHERE = "the identity of another store"


def move(source: Whole, destination: Whole, *, limit: int = 2) -> list[str]:
    """Move all that can be moved, in small batches; the ids that the destination refused."""
    refused: list[str] = []
    while (
        batch := source.take(to=destination.identity(), limit=limit, leave=refused)
    ) is not None and batch.records:
        again = list(destination.give(batch))
        source.conclude(batch.name, back=again)
        refused += again
    return refused


def taken(store: Whole, *, to: str = ELSEWHERE, limit: int = 100, leave: Sequence[str] = ()) -> Batch:
    """The batch under way, or a new one; there is one."""
    batch = store.take(to=to, limit=limit, leave=leave)
    assert batch is not None
    return batch


def names(batch: Batch) -> list[str]:
    return sorted(record.message.id for record in batch.records)


def everything(store: Whole) -> dict[str, Record]:
    return {id: known(store, id) for id in summaries(store)}


def fill(store: Whole, clock: ManualClock) -> None:
    """Messages in every state but delivered, with all that a record can tell; "lost" is under a lease that ran out."""
    two = ("x@example.org", "y@example.org")
    put(
        store,
        mail("lost", *two),
        "dead",
        "held",
        mail("tried", *two, attributes={"list": "news"}),
        "cancelled",
    )
    claims = {claim.message.id: claim for claim in take(store)}
    settle(store, claims["dead"], dead(claims["dead"]))
    settle(store, claims["held"], held(claims["held"]))
    fates = {"x@example.org": Fate.ACCEPTED, "y@example.org": Fate.WAITING}
    settle(store, claims["tried"], attrs.evolve(retry(claims["tried"], HOUR), fates=fates))
    settle(store, claims["cancelled"], retry(claims["cancelled"]))
    store.cancel(["cancelled"])
    clock.advance(LEASE + SECOND)
    put(
        store,
        mail("later", not_before=clock.now() + DAY),
        mail("urgent", priority=7),
        "plain",
        mail("other", queue="other"),
    )
    clock.advance(SECOND)
    put(store, "second", mail("at-once", at_most_once=True))


MAIL = ("mail", "other")
"""The queues of what :func:`fill` puts."""


class MoveClauses(Clauses):
    """A message that is moved stands in one of two stores at any time, as it stood before."""

    # -- as it stood

    @clause(SupportsMove, SupportsBrowse, SupportsManage)
    def test_a_message_that_was_moved_is_in_the_other_store_what_it_was_in_all(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        fill(store, clock)
        before, other = everything(store), beside()

        assert move(store, other) == []
        assert everything(other) == before
        assert states(store) == {}
        assert take(store, 100, *MAIL) == []

    @clause(SupportsMove, SupportsBrowse, SupportsManage)
    def test_there_and_back_it_is_what_it_was_in_all(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        fill(store, clock)
        before, other = everything(store), beside()

        assert move(store, other, limit=3) == []
        assert move(other, store, limit=4) == []
        assert everything(store) == before
        assert states(other) == {}

    @clause(SupportsMove, SupportsBrowse)
    def test_a_delivered_message_that_is_kept_is_moved_with_its_history(
        self, reopen: Reopen, beside: Beside
    ) -> None:
        store, other = reopen(keep_delivered=DAY), beside(keep_delivered=DAY)
        deliver(store, "a")
        before = everything(store)

        assert move(store, other) == []
        assert everything(other) == before
        assert known(other, "a").history
        assert statuses(other.put([mail("a")])) == ["known"]

    @clause(SupportsMove, SupportsBrowse, SupportsMaintain)
    def test_a_message_that_is_kept_without_its_content_is_moved_without_it(
        self, reopen: Reopen, beside: Beside
    ) -> None:
        store = reopen(keep_delivered=DAY, keep_content=False)
        other = beside(keep_delivered=DAY, keep_content=False)
        deliver(store, "a")
        before = everything(store)

        assert move(store, other) == []
        assert everything(other) == before
        assert (known(other, "a").message.content, known(other, "a").summary.size > 0) == (b"", True)

    @clause(SupportsMove, SupportsHold, SupportsBrowse, Guarantee.DELAYS)
    def test_what_a_person_holds_is_held_there_too_and_goes_on_as_it_was(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        due, other = clock.now() + HOUR, beside()
        put(store, mail("a", not_before=due))
        store.hold(["a"], reason="wrong prices")
        before = everything(store)

        assert move(store, other) == []
        assert everything(other) == before
        assert statuses(other.release(["a"])) == ["done"]
        assert summaries(other)["a"].due_at == due

    @clause(SupportsMove, Guarantee.ORDER)
    def test_messages_come_in_the_other_store_in_the_order_in_which_they_would_have_come(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        other = beside()
        for number in range(7):
            put(store, mail(f"m{number}", priority=number % 3))
            clock.advance(SECOND)

        assert move(store, other) == []
        assert ids(line(other)) == ["m2", "m5", "m1", "m4", "m0", "m3", "m6"]

    @clause(SupportsMove, Guarantee.DELAYS)
    def test_nothing_is_due_in_the_other_store_before_its_time(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        other = beside()
        put(store, mail("a", not_before=clock.now() + HOUR))

        assert move(store, other) == []
        assert take(other) == []
        clock.advance(HOUR)
        assert ids(take(other)) == ["a"]

    @clause(SupportsMove)
    def test_a_lease_that_ran_out_is_lost_in_the_other_store_too(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        other = beside()
        put(store, "a")
        take(store)
        clock.advance(LEASE)

        assert move(store, other) == []
        (claim,) = take(other)
        assert (claim.attempt, claim.lost) == (2, 1)
        assert set(claim.fates.values()) == {Fate.DOUBTFUL}
        assert claim.age >= LEASE

    @clause(SupportsMove)
    def test_age_attempts_and_fates_go_on_in_the_other_store(
        self, store: Whole, beside: Beside, clock: ManualClock
    ) -> None:
        other = beside()
        put(store, mail("a", "x@example.org", "y@example.org"))
        (claim,) = take(store)
        fates = {"x@example.org": Fate.ACCEPTED, "y@example.org": Fate.DOUBTFUL}
        settle(store, claim, attrs.evolve(retry(claim), fates=fates))

        assert move(store, other) == []
        clock.advance(HOUR)
        (claim,) = take(other)
        assert (claim.attempt, claim.age, dict(claim.fates)) == (2, HOUR, fates)

    # -- who has it

    @clause(SupportsMove)
    def test_what_is_under_a_lease_is_not_taken(self, store: Whole) -> None:
        put(store, "a", "b")
        (claim,) = line(store, 1)

        assert names(taken(store)) == sorted({"a", "b"} - {claim.message.id})
        settle(store, claim, delivered(claim))

    @clause(SupportsMove)
    def test_what_is_taken_is_claimed_by_nobody_however_long_it_is_under_way(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a", mail("b", not_before=clock.now() + HOUR))
        taken(store)

        assert take(store) == []
        clock.advance(1000 * DAY)
        assert take(store) == []

    @clause(SupportsMove, Guarantee.FENCING)
    def test_who_had_a_lease_that_ran_out_can_neither_settle_nor_extend_what_was_taken(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        clock.advance(LEASE)
        batch = taken(store)

        assert list(store.extend([claim], lease=LEASE)) == [claim]
        assert list(store.settle([Settlement(claim, delivered(claim))])) == [claim]
        assert names(taken(store)) == names(batch) == ["a"]
        store.conclude(batch.name, back=["a"])
        assert list(store.settle([Settlement(claim, delivered(claim))])) == [claim]

    @clause(SupportsMove, SupportsManage, SupportsHold)
    def test_what_is_under_way_is_steered_by_nobody(self, store: Whole) -> None:
        put(store, "queued", "dead")
        claims = {claim.message.id: claim for claim in take(store)}
        settle(store, claims["dead"], dead(claims["dead"]))
        settle(store, claims["queued"], retry(claims["queued"]))
        batch = taken(store)

        for command in (store.requeue, store.cancel, store.purge, store.hold, store.release):
            assert "done" not in statuses(command(["queued", "dead"]))
        assert names(taken(store)) == ["dead", "queued"]
        store.conclude(batch.name, back=["queued", "dead"])
        assert statuses(store.requeue(["dead"])) == ["done"]

    @clause(SupportsMove, SupportsMaintain, SupportsBrowse)
    def test_what_is_under_way_is_not_pruned(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(discard_after=DAY)
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        taken(store)
        clock.advance(2 * DAY)
        store.prune()

        (record,) = taken(store).records
        assert (record.message.id, record.summary.state) == ("a", State.DEAD)

    @clause(SupportsMove, SupportsBrowse)
    def test_a_list_shows_what_is_under_way_as_claimed(self, store: Whole) -> None:
        put(store, "a", "b")
        taken(store, limit=1)

        assert sorted(states(store).values()) == [State.CLAIMED, State.QUEUED]
        assert sum(group.number for group in store.count()) == 2

    @clause(SupportsMove)
    def test_what_is_under_way_is_known(self, store: Whole) -> None:
        put(store, "a")
        taken(store)

        assert statuses(store.put([mail("a")])) == ["known"]

    # -- batches

    @clause(SupportsMove)
    def test_the_batch_under_way_is_taken_again_until_it_is_concluded(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        self.require_persistence()
        store = reopen()
        fill_some(store, 5)
        batch = taken(store, limit=2)
        clock.advance(HOUR)

        store = reopen(crash=True)
        again = taken(store, limit=4)
        assert (again.name, again.source, len(batch.records)) == (batch.name, batch.source, 2)
        assert sorted(again.records, key=_id) == sorted(batch.records, key=_id)
        store.conclude(batch.name)
        following = taken(store, limit=4)
        assert following.name > batch.name
        assert not set(names(following)) & set(names(batch))
        assert len(following.records) == 3

    @clause(SupportsMove)
    def test_with_no_limit_to_take_only_a_batch_that_is_under_way_is_found(self, store: Whole) -> None:
        put(store, "a")

        assert store.take(to=ELSEWHERE, limit=0) is None
        batch = taken(store)
        assert taken(store, limit=0) == batch
        store.conclude(batch.name)
        assert store.take(to=ELSEWHERE, limit=0) is None

    @clause(SupportsMove)
    def test_a_batch_leads_to_one_store_and_is_not_taken_to_another(self, store: Whole) -> None:
        put(store, "a", "b")
        batch = taken(store, limit=1, to="one")

        with raises(ConfigurationError, "on their way to another store"):
            store.take(to="two", limit=1)
        assert store.take(to="", limit=0) == batch
        store.conclude(batch.name)
        assert len(taken(store, limit=1, to="two").records) == 1

    @clause(SupportsMove)
    def test_a_batch_has_no_more_than_its_limits_but_always_one(self, store: Whole) -> None:
        put(store, *(mail(f"m{number}", content=b"x" * 400) for number in range(6)))

        batch = taken(store, limit=2)
        assert len(batch.records) == 2
        store.conclude(batch.name)
        some = store.take(to=ELSEWHERE, limit=100, max_bytes=900)
        assert some is not None
        assert len(some.records) == 2
        store.conclude(some.name)
        one = store.take(to=ELSEWHERE, limit=100, max_bytes=1)
        assert one is not None
        assert len(one.records) == 1

    @clause(SupportsMove)
    def test_what_is_to_be_left_is_not_taken(self, store: Whole) -> None:
        put(store, "a", "b", "c")

        batch = taken(store, leave=["a", "c"])
        assert names(batch) == ["b"]
        store.conclude(batch.name)
        assert store.take(to=ELSEWHERE, limit=9, leave=["a", "c"]) is None
        assert ids(take(store)) == ["a", "c"]

    @clause(SupportsMove)
    def test_what_is_due_is_taken_before_what_is_not(self, store: Whole, clock: ManualClock) -> None:
        put(store, mail("a", not_before=clock.now() + HOUR), "b")

        assert names(taken(store, limit=1)) == ["b"]

    @clause(SupportsMove)
    def test_of_an_empty_store_nothing_is_taken(self, store: Whole) -> None:
        assert store.take(to=ELSEWHERE, limit=9) is None

    @clause(SupportsMove)
    def test_concluding_what_is_not_under_way_changes_nothing(self, store: Whole) -> None:
        put(store, "a", "b")
        batch = taken(store, limit=1)
        store.conclude(batch.name)
        following = taken(store, limit=1)

        store.conclude(batch.name)
        store.conclude("")
        assert taken(store) == following

    @clause(SupportsMove)
    def test_what_comes_back_stands_as_it_stood_when_it_was_taken(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        self.require_persistence()
        store = reopen()
        fill(store, clock)
        before = everything(store)
        batch = taken(store)
        assert names(batch) == sorted(before)
        store = reopen(crash=True)

        store.conclude(batch.name, back=["dead", "tried", "lost"])
        assert everything(store) == {id: before[id] for id in ("dead", "tried", "lost")}
        assert ids(take(store)) == ["lost"]

    @clause(SupportsMove, Guarantee.DEDUPLICATION)
    def test_the_id_of_what_has_left_stays_known_for_as_long_as_that_of_a_delivered_message(
        self, reopen: Reopen, beside: Beside, clock: ManualClock
    ) -> None:
        store = reopen(remember=DAY)
        put(store, "a")
        assert move(store, beside()) == []

        clock.advance(DAY - SECOND)
        assert statuses(store.put([mail("a")])) == ["known"]
        with raises(ConflictError):
            store.put([mail("a", "somebody-else@example.org")])
        clock.advance(2 * SECOND)
        assert statuses(store.put([mail("a")])) == ["stored"]

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


def deliver(store: Whole, *names: str) -> None:
    """Put these, and settle them as delivered."""
    put(store, *names)
    for claim in take(store):
        settle(store, claim, delivered(claim))


def fill_some(store: Whole, number: int) -> None:
    put(store, *(f"m{each}" for each in range(number)))


def _id(record: Record) -> str:
    return record.message.id

"""What a store promises that messages can be moved from and to: see :class:`outbox.moving.SupportsMove`."""

from __future__ import annotations

import attrs

from outbox.errors import ConfigurationError, ConflictError
from outbox.lifecycle import Fate, Settlement, State
from outbox.moving import SupportsMove
from outbox.protocols import Guarantee, SupportsBrowse, SupportsHold, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    SECOND,
    Beside,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
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
from .travelling import ELSEWHERE, HOUR, MAIL, deliver, everything, fill, fill_some, id_of, move, names, taken

__all__ = ["MoveClauses"]


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
        assert sorted(again.records, key=id_of) == sorted(batch.records, key=id_of)
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

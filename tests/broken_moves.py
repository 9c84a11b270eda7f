"""Memory stores that part with messages, or accept them, wrongly, each in one way."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Sequence
from typing import Any

import attrs
from breaking import DAY, caught_by, changed

from outbox.lifecycle import Record, State
from outbox.moving import Batch, Remembered
from outbox.stores.carrying import Given
from outbox.stores.instants import moment
from outbox.stores.limits import Load
from outbox.stores.memory import MemoryStore

AS_IT_WAS = "test_a_message_that_was_moved_is_in_the_other_store_what_it_was_in_all"


class Spoiling(MemoryStore):
    """Spoils what comes in."""

    def give(self, batch: Batch, /) -> Sequence[str]:
        return super().give(attrs.evolve(batch, records=[self.spoilt(record) for record in batch.records]))

    def spoilt(self, record: Record) -> Record:
        raise NotImplementedError


@caught_by(AS_IT_WAS)
class ForgetsHistory(Spoiling):
    def spoilt(self, record: Record) -> Record:
        return attrs.evolve(record, history=())


@caught_by("test_age_attempts_and_fates_go_on_in_the_other_store")
class CountsAnew(Spoiling):
    def spoilt(self, record: Record) -> Record:
        return attrs.evolve(record, summary=attrs.evolve(record.summary, attempts=0))


@caught_by("test_a_lease_that_ran_out_is_lost_in_the_other_store_too")
class ForgivesALostLease(Spoiling):
    def spoilt(self, record: Record) -> Record:
        summary = record.summary
        if summary.state is not State.CLAIMED:
            return record
        due = attrs.evolve(summary, state=State.QUEUED, due_at=summary.leased_until, leased_until=None)
        return attrs.evolve(record, summary=due)


@caught_by("test_nothing_is_due_in_the_other_store_before_its_time")
class DueAtOnce(Spoiling):
    def spoilt(self, record: Record) -> Record:
        due = record.summary.due_at and record.summary.submitted_at
        return attrs.evolve(record, summary=attrs.evolve(record.summary, due_at=due))


@caught_by("test_what_a_person_holds_is_held_there_too_and_goes_on_as_it_was")
class HeldByNobody(Spoiling):
    def spoilt(self, record: Record) -> Record:
        return attrs.evolve(record, summary=attrs.evolve(record.summary, resumes_at=None))


@caught_by("test_a_message_that_is_kept_without_its_content_is_moved_without_it")
class ForgetsSizes(Spoiling):
    def spoilt(self, record: Record) -> Record:
        size = len(record.message.content)
        return attrs.evolve(record, summary=attrs.evolve(record.summary, size=size))


class Taking(MemoryStore):
    """Spoils what was taken."""

    def take(self, **asked: Any) -> Batch | None:
        new = self.anew(self._ferry)
        batch = super().take(**asked)
        if batch is not None and new:
            self.after(batch)
        return batch

    @staticmethod
    def anew(ferry: Any) -> bool:
        return not ferry._stood

    def after(self, batch: Batch) -> None:
        raise NotImplementedError


@caught_by("test_what_is_taken_is_claimed_by_nobody_however_long_it_is_under_way")
class TakesForADay(Taking):
    def after(self, batch: Batch) -> None:
        for record in batch.records:
            row = self._shelf.rows[record.message.id]
            changed(row, due=self._now() + DAY)
            self._shelf._lanes.schedule(row)


@caught_by("test_who_had_a_lease_that_ran_out_can_neither_settle_nor_extend_what_was_taken")
class KeepsTheToken(MemoryStore):
    def take(self, **asked: Any) -> Batch | None:
        before = {id: row.generation for id, row in self._shelf.rows.items()}
        batch = super().take(**asked)
        for record in batch.records if batch else ():
            self._shelf.rows[record.message.id].generation = before[record.message.id]
        return batch


@caught_by("test_what_is_under_way_is_steered_by_nobody")
class LeavesItSteerable(Taking):
    def after(self, batch: Batch) -> None:
        for record in batch.records:
            changed(self._shelf.rows[record.message.id], state=State.DEAD)


@caught_by("test_what_is_under_way_is_not_pruned")
class PrunesWhatIsUnderWay(Taking):
    def after(self, batch: Batch) -> None:
        for record in batch.records:
            changed(self._shelf.rows[record.message.id], state=State.DEAD, settled=self._now())


@caught_by("test_what_is_under_a_lease_is_not_taken")
class TakesFromWorkers(MemoryStore):
    def take(self, **asked: Any) -> Batch | None:
        for row in self._shelf.rows.values():
            if row.standing.leased(self._now()):
                changed(row, due=self._now())
        return super().take(**asked)


@caught_by("test_a_batch_leads_to_one_store_and_is_not_taken_to_another")
class TakesToAnybody(MemoryStore):
    def take(self, *, to: str, **asked: Any) -> Batch | None:
        return super().take(to="", **asked)


@caught_by("test_with_no_limit_to_take_only_a_batch_that_is_under_way_is_found")
class TakesOneAtLeast(MemoryStore):
    def take(self, *, limit: int, **asked: Any) -> Batch | None:
        return super().take(limit=max(1, limit), **asked)


@caught_by("test_a_batch_has_no_more_than_its_limits_but_always_one")
class TakesByNumberAlone(MemoryStore):
    def take(self, *, max_bytes: int = 0, **asked: Any) -> Batch | None:
        return super().take(**asked)


@caught_by("test_what_is_to_be_left_is_not_taken")
class LeavesNothing(MemoryStore):
    def take(self, *, leave: Collection[str] = (), **asked: Any) -> Batch | None:
        return super().take(**asked)


@caught_by("test_concluding_what_is_not_under_way_changes_nothing")
class ConcludesAnything(MemoryStore):
    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        super().conclude(self._ferry._name, back=back)


@caught_by("test_the_id_of_what_has_left_stays_known_for_as_long_as_that_of_a_delivered_message")
class ForgetsWhatHasLeft(MemoryStore):
    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        super().conclude(name, back=back)
        for id in list(self._shelf._tombstones._stones):
            self._shelf._tombstones.forget(id)


@caught_by("test_what_has_left_is_told_from_what_is_here_and_from_what_came_to_its_end_here")
class TakesAnyKnownIdForLeft(MemoryStore):
    def has_left(self, id: str, /) -> bool:
        return id in self._shelf._tombstones._stones


@caught_by("test_what_has_left_and_came_back_has_not_left")
class NotesForGoodWhatHasLeft(MemoryStore):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._left: set[str] = set()

    def take(self, **asked: Any) -> Batch | None:
        batch = super().take(**asked)
        self._left.update(record.message.id for record in (batch.records if batch else ()))
        return batch

    def has_left(self, id: str, /) -> bool:
        return id in self._left


@caught_by("test_a_batch_is_given_once")
class AcceptsTwice(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        if self.last_given(batch.source) == batch.name:
            self._ferry._given.clear()
        return super().give(batch)


@caught_by("test_what_is_here_already_is_refused_and_nothing_of_it_is_written")
class ForgetsWhatItRefused(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        again = self.last_given(batch.source) == batch.name
        return [] if again else super().give(batch)


@caught_by("test_what_is_here_already_is_refused_and_nothing_of_it_is_written")
class Overwrites(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        if self.last_given(batch.source) != batch.name:
            for record in batch.records:
                self._shelf.rows.pop(record.message.id, None)
        return super().give(batch)


@caught_by("test_a_batch_that_comes_after_a_later_one_of_its_store_is_refused")
class AcceptsTheLate(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        if batch.name < self.last_given(batch.source):
            self._ferry._given[batch.source] = Given()
        return super().give(batch)


@caught_by("test_batches_of_several_stores_are_told_apart")
class KnowsOneSource(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        return super().give(attrs.evolve(batch, source="one"))


@caught_by("test_a_store_is_told_from_others_by_an_identity_that_stays")
class LikeAnyOther(MemoryStore):
    def identity(self) -> str:
        return "a store"


@caught_by("test_the_ids_that_are_known_are_told_in_pages_by_when_they_were_settled")
class TellsByName(MemoryStore):
    def remembered(self, **asked: Any) -> Sequence[Remembered]:
        return sorted(super().remembered(**asked), key=lambda each: each.id)


@caught_by("test_an_id_that_is_known_is_known_in_the_other_store_for_as_long_as_it_would_have_been")
class RemembersAnew(MemoryStore):
    def remember(self, known: Sequence[Remembered], /) -> None:
        now = moment(self._now())
        super().remember([attrs.evolve(each, settled_at=now) for each in known])


@caught_by("test_where_there_is_no_room_nothing_is_given")
class TakesInTheRest(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        limits, self._shelf._limits = self._shelf._limits, type(self._shelf._limits)()
        try:
            return super().give(batch)
        finally:
            self._shelf._limits = limits


@caught_by("test_what_is_due_is_taken_before_what_is_not")
class TakesTheLastFirst(MemoryStore):
    def take(self, **asked: Any) -> Batch | None:
        there = self._ferry._there
        self._ferry._there = lambda *args: reversed(list(there(*args)))  # type: ignore[method-assign]
        return super().take(**asked)


@caught_by("test_there_and_back_it_is_what_it_was_in_all")
class GivesBackTooSoon(MemoryStore):
    """It says that a message which left is known, and lets it not come back."""

    def give(self, batch: Batch, /) -> Sequence[str]:
        stones = self._shelf._tombstones._stones
        here = [record.message.id for record in batch.records if record.message.id in stones]
        rest = [record for record in batch.records if record.message.id not in here]
        return [*super().give(attrs.evolve(batch, records=rest)), *here]


@caught_by("test_two_who_move_the_same_messages_at_once_move_each_of_them_once")
class LooksBeforeItLocks(MemoryStore):
    """Two who give at once both find that the batch is new."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._both = threading.Barrier(2)
        self._calls = itertools.count()
        self._alone = threading.Lock()

    def give(self, batch: Batch, /) -> Sequence[str]:
        known = self.last_given(batch.source) >= batch.name
        if next(self._calls) < 2:
            self._both.wait(30)
        with self._alone:
            if not known:
                self._ferry._given.clear()
            return super().give(batch)


@caught_by("test_nothing_of_a_batch_arrives_once_it_was_given_without_its_records")
class NotesNoEmptyBatch(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        return super().give(batch) if batch.records else batch.unreadable


@caught_by("test_what_was_refused_of_a_batch_is_told_to_who_gives_it_again_without_its_records")
class RepeatsWhatItIsTold(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        answer = super().give(batch)
        return answer if batch.records else batch.unreadable


@caught_by("test_a_batch_that_has_arrived_is_known_where_there_is_no_room_left")
class AsksForRoomFirst(MemoryStore):
    def give(self, batch: Batch, /) -> Sequence[str]:
        self._shelf._limits.require_room(self._shelf._load, Load.of(r.summary.size for r in batch.records))
        return super().give(batch)


@caught_by("test_a_batch_is_named_after_one_that_the_other_store_has_accepted")
class NamesByItsOwnClock(MemoryStore):
    def take(self, *, after: str = "", **asked: Any) -> Batch | None:
        return super().take(**asked)


@caught_by("test_the_id_of_what_has_left_is_told_on_when_it_came_to_its_end_elsewhere")
class LeftForEver(MemoryStore):
    def remember(self, known: Sequence[Remembered], /) -> None:
        stones = self._shelf._tombstones._stones
        super().remember([each for each in known if each.id not in stones])

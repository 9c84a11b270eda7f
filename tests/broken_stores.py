"""Memory stores that are broken, each in one way: in what they write, what they know, and what a person's word does.

Whoever adds a clause adds the store that breaks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from breaking import DAY, caught_by, changed

from outbox.lifecycle import Dead, Delivered, Fate, Released, State
from outbox.protocols import Change
from outbox.stores.memory import MemoryStore
from outbox.stores.shelf import Shelf

# -- what a verdict writes


def writes(name: str, clause: str, fates: Callable[[Any, Any], Sequence[Fate]]) -> None:
    """A store that writes *fates* of the row and the verdict."""

    class Writes(Shelf):
        def settle(self, settlements: Any, _: Any, now: int) -> Any:
            rows = [self.rows.get(each.claim.message.id) for each in settlements]
            wrong = [
                tuple(fates(row, s.verdict)) if row else () for row, s in zip(rows, settlements, strict=True)
            ]
            return super().settle(settlements, wrong, now)

    Writes.__name__ = name
    caught_by(clause)(Writes)


def right(row: Any, verdict: Any) -> list[Fate]:
    return [verdict.fates[recipient] for recipient in row.message.recipients]


def all_are(fate: Fate, kind: type) -> Callable[[Any, Any], Sequence[Fate]]:
    return lambda row, verdict: [fate if isinstance(verdict, kind) else each for each in right(row, verdict)]


LAST = "test_the_fates_that_a_last_verdict_names_are_those_of_the_record"
BACK = "test_the_fates_that_a_verdict_back_into_the_queue_names_are_those_of_the_next_claim"
writes(
    "DeadAllFailed", "test_a_requeue_of_what_died_is_for_those_who_failed_alone", all_are(Fate.FAILED, Dead)
)
writes("DeliveredAllAccepted", LAST, all_are(Fate.ACCEPTED, Delivered))
writes("ByPosition", BACK, lambda _, verdict: list(verdict.fates.values()))
writes("ByPositionAtTheEnd", LAST, lambda _, verdict: list(verdict.fates.values()))
writes(
    "ReleasedKeepsFates",
    BACK,
    lambda row, verdict: row.standing.fates if isinstance(verdict, Released) else right(row, verdict),
)


def after_settle(name: str, clause: str, spoil: Callable[[Any, Any, int], None]) -> None:
    """A store that spoils a row, by the verdict, once it is written."""

    class After(Shelf):
        def settle(self, settlements: Any, fates: Any, now: int) -> Any:
            stale = super().settle(settlements, fates, now)
            for each in settlements:
                row = self.rows.get(each.claim.message.id)
                if row is not None and each.claim not in stale:
                    spoil(row, each.verdict, now)
            return stale

    After.__name__ = name
    caught_by(clause)(After)


def younger(row: Any, verdict: Any, now: int) -> None:
    if isinstance(verdict, Released):
        changed(row, since=now)


def cut(row: Any, _: Any, __: int) -> None:
    row.history = [
        attrs.evolve(each, results={r: attrs.evolve(v, reply=v.reply[:200]) for r, v in each.results.items()})
        for each in row.history
    ]


def last_two(row: Any, _: Any, __: int) -> None:
    row.history = row.history[-2:]


def speechless(row: Any, _: Any, __: int) -> None:
    row.history = [attrs.evolve(each, dialogue=each.dialogue[:20]) for each in row.history]


class Talkative(Shelf):
    """Keeps what was said at every attempt."""

    def settle(self, settlements: Any, fates: Any, now: int) -> Any:
        rows = [self.rows.get(each.claim.message.id) for each in settlements]
        before = [list(row.history) if row else [] for row in rows]
        stale = super().settle(settlements, fates, now)
        for row, history in zip(rows, before, strict=True):
            if row:
                row.history[: len(history)] = history
        return stale


caught_by("test_a_message_that_is_tried_again_and_again_keeps_only_what_was_said_last")(Talkative)
after_settle("Speechless", "test_what_was_said_at_a_failed_attempt_comes_back_word_for_word", speechless)
after_settle("YoungerWhenReleased", "test_nothing_but_a_person_s_word_makes_it_younger", younger)
after_settle("ShortReplies", "test_a_long_reply_and_a_long_reason_are_kept_to_their_last_word", cut)
after_settle("ShortHistory", "test_no_attempt_drops_out_of_the_history", last_two)


@caught_by("test_a_long_delay_is_not_cut_short")
class ShortDelay(Shelf):
    def stand(self, row: Any, standing: Any, now: int) -> None:
        if standing.state is State.QUEUED:
            standing = attrs.evolve(standing, due=min(standing.due, now + DAY))
        super().stand(row, standing, now)


@caught_by("test_however_it_ended_it_makes_room")
class HeldTakesRoom(Shelf):
    def stand(self, row: Any, standing: Any, now: int) -> None:
        load = self._load
        super().stand(row, standing, now)
        if standing.state is State.HELD:
            self._load = load


# -- what is known


def on_put(name: str, spoil: Callable[[Any, Any, int], None]) -> None:
    """A store in which a put of what is known changes it."""

    class OnPut(Shelf):
        def put(self, drafts: Any, now: int) -> Any:
            new, results = super().put(drafts, now)
            for draft, result in zip(drafts, results, strict=True):
                row = self.rows.get(draft.id)
                if row is not None and result.status == "known" and row.standing.state is State.QUEUED:
                    spoil(row, draft, now)
                    self._lanes.enqueue(row, now)
            return new, results

    OnPut.__name__ = name
    caught_by("test_a_put_of_what_is_known_changes_nothing_of_it")(OnPut)


def replaced(row: Any, draft: Any, _: int) -> None:
    if row.standing.attempts:
        row.message = draft.message


def due_now(row: Any, _: Any, now: int) -> None:
    changed(row, due=now)


on_put("Replaced", replaced)
on_put("DueNow", due_now)


@caught_by("test_another_envelope_is_a_conflict_however_the_first_message_stands")
class NoConflictOnceEnded(Shelf):
    def _known(self, drafts: Any, now: int) -> Any:
        known = super()._known(drafts, now)
        ended = {
            d.id: d.envelope_digest
            for d in drafts
            if d.id in self.rows and not self.rows[d.id].standing.queued
        }
        return known | ended


@caught_by("test_how_long_an_id_is_remembered_counts_from_the_delivery")
class RememberedSinceThePut(Shelf):
    def discard(self, row: Any, now: int) -> None:
        changed(row, settled=row.standing.submitted)
        super().discard(row, now)


@caught_by("test_what_is_scheduled_for_long_after_waits_as_long")
class ThirtyDays(Shelf):
    def _add(self, draft: Any, now: int) -> Any:
        row = super()._add(draft, now)
        changed(row, due=min(row.standing.due, now + 30 * DAY))
        self._lanes.enqueue(row, now)
        return row


def frees(name: str, clause: str, free: Callable[[Any], bool]) -> None:
    """A store in which too many ids are free again once the message is removed."""

    class Frees(Shelf):
        def discard(self, row: Any, now: int) -> None:
            super().discard(row, now)
            if free(row.standing):
                self._tombstones.forget(row.id)

    Frees.__name__ = name
    caught_by(clause)(Frees)


def died(standing: Any) -> bool:
    return standing.state is State.DEAD


frees("FreesTheDead", "test_the_purged_id_of_what_died_stays_known_where_one_has_it", died)
frees("FreesTheDiscarded", "test_the_discarded_id_of_what_died_stays_known_where_one_has_it", died)


@caught_by("test_the_purged_id_of_a_kept_delivered_message_stays_known")
class FreesTheKept(Shelf):
    def purge(self, ids: Sequence[str], now: int, *more: Any) -> Any:
        kept = [id for id in ids if id in self.rows and self.rows[id].standing.state is State.DELIVERED]
        changes = super().purge(ids, now, *more)
        for id in kept:
            self._tombstones.forget(id)
        return changes


# -- what a person's word and time do


@caught_by("test_a_requeue_forgets_how_often_it_was_lost_and_not_that_it_may_have_been_sent")
class StillLost(MemoryStore):
    def requeue(self, ids: Sequence[str], /, *, uncertain: bool = False, **more: Any) -> Any:
        lost = {id: row.standing.lost for id, row in self._shelf.rows.items()}
        changes = super().requeue(ids, uncertain=uncertain, **more)
        for change in changes:
            if change.status == "done":
                changed(self._shelf.rows[change.id], lost=lost[change.id])
        return changes


@caught_by("test_a_message_under_a_live_lease_is_left_alone_and_says_until_when")
class RequeuesTheLeased(MemoryStore):
    def requeue(self, ids: Sequence[str], /, *, uncertain: bool = False, **more: Any) -> Any:
        for id in ids if uncertain else ():
            changed(self._shelf.rows[id], due=self._now())
        return super().requeue(ids, uncertain=uncertain, **more)


@caught_by("test_a_command_leaves_alone_what_is_no_longer_what_it_was_chosen_for")
class PurgesWhatHasChanged(MemoryStore):
    def purge(self, ids: Sequence[str], /, *, expected: Any = None) -> Any:
        return super().purge(ids)


@caught_by("test_no_command_takes_anything_from_the_history")
class WipesTheHistory(MemoryStore):
    def cancel(self, ids: Sequence[str], /, **more: Any) -> Any:
        for id in ids:
            self._shelf.rows[id].history.clear()
        return super().cancel(ids, **more)


@caught_by("test_an_id_that_cannot_be_helped_stops_no_other")
class StopsAtTheLeased(MemoryStore):
    def cancel(self, ids: Sequence[str], /, **more: Any) -> Any:
        changes: list[Change] = []
        for id in ids:
            stopped = any(change.status == "leased" for change in changes)
            changes += [Change(id=id, status="unknown")] if stopped else super().cancel([id], **more)
        return changes


@caught_by("test_what_waits_is_never_pruned_however_long_it_waits")
class SixtyDays(Shelf):
    def prune(self, limit: int, now: int) -> int:
        for row in list(self.rows.values()):
            if row.standing.queued and row.standing.submitted < now - 60 * DAY:
                self.discard(row, now)
        return super().prune(limit, now)


@caught_by("test_pruning_takes_no_suspension_that_is_in_force")
class PrunesSuspensions(Shelf):
    def prune(self, limit: int, now: int) -> int:
        self._suspensions = {
            name: each
            for name, each in self._suspensions.items()
            if each.until is None or each.kind == "queue"
        }
        return super().prune(limit, now)


@caught_by("test_a_suspension_lasts_to_the_microsecond")
class WholeSeconds(Shelf):
    def suspend(self, suspension: Any) -> None:
        until = suspension.until and suspension.until.replace(microsecond=0)
        super().suspend(attrs.evolve(suspension, until=until))


@caught_by("test_closing_ends_every_wait")
class WaitsForEver(MemoryStore):
    def close(self) -> None:
        self._closed = True

"""Memory stores that hold, release or find wrongly, each in one way."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from breaking import caught_by, changed

from outbox.ages import Group, domains
from outbox.filters import Filter
from outbox.lifecycle import Fate, State
from outbox.protocols import Change, Expected
from outbox.stores.memory import MemoryStore

WHAT_IT_WAS = "test_a_released_message_is_what_it_was_before_but_for_the_reason"


class Holding(MemoryStore):
    """Spoils the rows that were held or released."""

    def hold(self, ids: Sequence[str], /, *, reason: str = "", **more: Any) -> Sequence[Change]:
        return self._spoilt(super().hold(ids, reason=reason, **more), self.after_hold)

    def release(self, ids: Sequence[str], /, **more: Any) -> Sequence[Change]:
        return self._spoilt(super().release(ids, **more), self.after_release)

    def _spoilt(self, changes: Sequence[Change], spoil: Any) -> Sequence[Change]:
        for change in changes:
            if change.status == "done":
                spoil(self._shelf.rows[change.id])
        return changes

    def after_hold(self, row: Any) -> None: ...

    def after_release(self, row: Any) -> None: ...


@caught_by("test_a_list_tells_what_a_person_holds_and_why_from_what_a_verdict_has_held")
class HoldsWithoutSayingWho(Holding):
    def after_hold(self, row: Any) -> None:
        changed(row, resumes=None)


@caught_by(WHAT_IT_WAS)
class ReleasesAnew(Holding):
    def after_release(self, row: Any) -> None:
        changed(row, attempts=0)


@caught_by("test_attempts_go_on_and_the_age_has_grown_while_it_was_held")
class ReleasesYoung(Holding):
    def after_release(self, row: Any) -> None:
        changed(row, since=self._now())


@caught_by("test_an_uncertain_recipient_is_not_sent_to_again_by_a_release")
class ReleasesTheUncertain(Holding):
    def after_release(self, row: Any) -> None:
        fates = row.standing.fates
        changed(row, fates=tuple(Fate.DOUBTFUL if fate is Fate.UNCERTAIN else fate for fate in fates))


@caught_by("test_an_expired_lease_can_be_held_and_the_doubt_stays")
class HoldsWithoutDoubt(Holding):
    def after_hold(self, row: Any) -> None:
        fates = row.standing.fates
        changed(row, fates=tuple(Fate.WAITING if fate is Fate.DOUBTFUL else fate for fate in fates))


@caught_by("test_what_a_verdict_has_held_is_not_released")
class ReleasesAnything(MemoryStore):
    def release(self, ids: Sequence[str], /, **more: Any) -> Sequence[Change]:
        for id in ids:
            row = self._shelf.rows.get(id)
            if row is not None and row.standing.state is State.HELD and row.standing.resumes is None:
                changed(row, resumes=row.standing.due)
        return super().release(ids, **more)


@caught_by("test_what_a_worker_has_can_neither_be_held_nor_released_and_says_until_when")
class HoldsUnderALease(MemoryStore):
    def hold(self, ids: Sequence[str], /, *, reason: str = "", **more: Any) -> Sequence[Change]:
        for id in ids:
            row = self._shelf.rows.get(id)
            if row is not None and row.standing.state is State.CLAIMED:
                changed(row, due=0)
        return super().hold(ids, reason=reason, **more)


@caught_by("test_what_a_person_holds_meanwhile_is_left_alone_where_it_was_not_chosen_as_that")
class AsksOnlyForTheState(MemoryStore):
    def requeue(
        self, ids: Sequence[str], /, *, uncertain: bool = False, expected: Expected | None = None
    ) -> Sequence[Change]:
        loose = None if expected is None else attrs.evolve(expected, by_hand=None)
        return super().requeue(ids, uncertain=uncertain, expected=loose)


@caught_by("test_a_release_is_news")
class ReleasesSilently(MemoryStore):
    def release(self, ids: Sequence[str], /, **more: Any) -> Sequence[Change]:
        tell, self._news.tell = self._news.tell, lambda: None  # type: ignore[method-assign]  # that is what is broken
        try:
            return super().release(ids, **more)
        finally:
            self._news.tell = tell  # type: ignore[method-assign]  # as it was


@caught_by("test_a_filter_finds_what_fits_of_the_list_and_nothing_else")
class FindsNoAttributes(MemoryStore):
    def find(self, sought: Filter, /, *, after: str = "") -> Any:
        return super().find(attrs.evolve(sought, attributes={}), after=after)


@caught_by("test_the_next_ones_are_found_behind_an_id")
class FindsFromTheBeginning(MemoryStore):
    def find(self, sought: Filter, /, *, after: str = "") -> Any:
        return super().find(sought)


@caught_by("test_a_list_tells_the_attributes")
class ListsNoAttributes(MemoryStore):
    def browse(self, **order: Any) -> Any:
        return [attrs.evolve(summary, attributes={}) for summary in super().browse(**order)]


@caught_by("test_what_waits_is_as_old_and_goes_as_far_as_a_list_shows")
class CountsWhoHasItAlready(MemoryStore):
    def ages(self, borders: Sequence[dt.datetime], /) -> Iterator[Group]:
        for summary in self.find(Filter(states=(State.QUEUED, State.CLAIMED))):
            age = sum(summary.submitted_at <= border for border in borders)
            yield Group(1, age, domains(summary.recipients))

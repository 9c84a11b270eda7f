"""Memory stores that keep wrongly who is here, each in one way."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import attrs
from breaking import caught_by

from outbox.protocols import Presence
from outbox.stores.memory import MemoryStore
from outbox.stores.presence import Said

_DAY = 86_400 * 1_000_000


@caught_by("test_what_is_announced_is_seen_with_its_age_and_what_is_left")
class CountsAgesFromTheEnd(MemoryStore):
    def announced(self) -> Sequence[Presence]:
        return [attrs.evolve(each, age=each.left) for each in super().announced()]


@caught_by("test_what_is_announced_anew_takes_the_place_of_what_was")
class KeepsTheFirstWord(MemoryStore):
    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        if name not in self._said:
            super().announce(name, text, for_=for_)


@caught_by("test_who_withdraws_is_gone_and_who_never_was_here_may_too")
class ForgetsNobody(MemoryStore):
    def withdraw(self, name: str, /) -> None: ...


@caught_by("test_who_fell_silent_is_seen_as_such_for_a_day")
class ForgetsWhoFellSilent(MemoryStore):
    def announced(self) -> Sequence[Presence]:
        return [each for each in super().announced() if each.left > dt.timedelta(0)]


@caught_by("test_no_more_than_two_hundred_are_kept_and_those_that_hold_longest")
class KeepsAll(MemoryStore):
    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        kept = dict(self._said)
        super().announce(name, text, for_=for_)
        now = self._now()
        self._said = {**{key: each for key, each in kept.items() if each.until + _DAY >= now}, **self._said}


@caught_by("test_what_nobody_can_say_of_himself_is_refused")
class TakesAnyName(MemoryStore):
    def announce(self, name: Any, text: Any, /, *, for_: dt.timedelta) -> None:
        now = self._now()
        self._said[name] = Said(
            name, text, now, now + max(1, min(for_ // dt.timedelta(microseconds=1), _DAY))
        )


@caught_by("test_who_is_here_changes_no_message_and_is_no_news")
class WakesForWhoIsHere(MemoryStore):
    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        super().announce(name, text, for_=for_)
        self._news.tell()

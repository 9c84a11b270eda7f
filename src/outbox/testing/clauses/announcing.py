"""What a presence promises: it is seen by whoever looks, it ends, and it changes nothing."""

from __future__ import annotations

import datetime as dt
from typing import Final

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.protocols import SupportsBrowse, SupportsPresence, SupportsWait
from outbox.testing.clock import ManualClock

from .scene import DAY, SECOND, Clauses, Reopen, Whole, clause, put, raises, summaries, take

__all__ = ["AnnounceClauses"]

_MINUTE: Final = 60 * SECOND
_ALL: Final = 200


class AnnounceClauses(Clauses):
    """A runner says that it is here; and nothing depends on it."""

    @clause(SupportsPresence)
    def test_what_is_announced_is_seen_with_its_age_and_what_is_left(
        self, store: Whole, clock: ManualClock
    ) -> None:
        store.announce("b", "two", for_=_MINUTE)
        clock.advance(20 * SECOND)
        store.announce("a", 'on\u00e9, "quoted"\nand \u2603', for_=_MINUTE)

        first, second = store.announced()

        assert (first.name, first.text) == ("a", 'on\u00e9, "quoted"\nand \u2603')
        assert (first.age, first.left) == (dt.timedelta(0), _MINUTE)
        assert (second.name, second.age, second.left) == ("b", 20 * SECOND, 40 * SECOND)

    @clause(SupportsPresence)
    def test_what_is_announced_anew_takes_the_place_of_what_was(
        self, store: Whole, clock: ManualClock
    ) -> None:
        store.announce("a", "well", for_=_MINUTE)
        clock.advance(30 * SECOND)
        store.announce("a", "not so well", for_=2 * _MINUTE)

        (only,) = store.announced()
        assert (only.text, only.age, only.left) == ("not so well", dt.timedelta(0), 2 * _MINUTE)

    @clause(SupportsPresence)
    def test_who_withdraws_is_gone_and_who_never_was_here_may_too(self, store: Whole) -> None:
        store.announce("a", "here", for_=_MINUTE)
        store.announce("b", "here", for_=_MINUTE)

        store.withdraw("a")
        store.withdraw("a")
        store.withdraw("nobody")
        store.withdraw("../b")

        assert [each.name for each in store.announced()] == ["b"]

    @clause(SupportsPresence)
    def test_who_fell_silent_is_seen_as_such_for_a_day(self, store: Whole, clock: ManualClock) -> None:
        store.announce("a", "here", for_=_MINUTE)
        clock.advance(DAY)
        store.announce("b", "here", for_=_MINUTE)
        assert [(each.name, each.left) for each in store.announced()] == [
            ("a", _MINUTE - DAY),
            ("b", _MINUTE),
        ]

        clock.advance(2 * _MINUTE)
        store.announce("b", "here", for_=_MINUTE)
        assert [each.name for each in store.announced()] == ["b"]

    @clause(SupportsPresence)
    def test_no_more_than_two_hundred_are_kept_and_those_that_hold_longest(
        self, store: Whole, clock: ManualClock
    ) -> None:
        for number in range(_ALL + 1):
            store.announce(f"n{number:04}", "", for_=_MINUTE)
            clock.advance(SECOND)

        names = [each.name for each in store.announced()]
        assert (len(names), names[0], names[-1]) == (_ALL, "n0001", f"n{_ALL:04}")

    @clause(SupportsPresence)
    def test_what_nobody_can_say_of_himself_is_refused(self, store: Whole) -> None:
        for name, text, lasting in (
            ("", "text", _MINUTE),
            ("A/b", "text", _MINUTE),
            ("a", "no \0 text", _MINUTE),
            ("a", "no \ud800 text", _MINUTE),
            ("a", "x" * ((16 << 10) + 1), _MINUTE),
            ("a", "text", dt.timedelta(0)),
        ):
            with raises(ConfigurationError):
                store.announce(name, text, for_=lasting)
        store.announce("a", "x" * (16 << 10), for_=dt.timedelta.max)

        (only,) = store.announced()
        assert len(only.text) == 16 << 10

    @clause(SupportsPresence, SupportsBrowse, SupportsWait)
    def test_who_is_here_changes_no_message_and_is_no_news(self, store: Whole) -> None:
        put(store, "a")
        before = summaries(store)
        take(store)
        assert take(store) == []
        store.announce("a", "here", for_=_MINUTE)

        assert store.wait(dt.timedelta(0)) is False
        store.withdraw("a")
        assert summaries(store).keys() == before.keys()

    @clause(SupportsPresence)
    def test_what_is_announced_is_there_for_whoever_opens_the_store_next(
        self, store: Whole, reopen: Reopen
    ) -> None:
        self.require_persistence()
        store.announce("a", "here", for_=_MINUTE)

        other = reopen(crash=True)

        assert [each.text for each in other.announced()] == ["here"]

    @clause(SupportsPresence)
    def test_a_closed_store_hears_nothing(self, store: Whole) -> None:
        store.close()
        with raises(StoreUnavailable):
            store.announce("a", "here", for_=_MINUTE)
        with raises(StoreUnavailable):
            store.withdraw("a")
        with raises(StoreUnavailable):
            store.announced()

"""What a register promises: all who share the store change it by turns, and each sees what stands there and when."""

from __future__ import annotations

import threading
from typing import Final, Protocol, cast

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.protocols import SupportsBrowse, SupportsRegister, SupportsWait
from outbox.testing.clock import ManualClock

from .scene import DAY, SECOND, ZERO, Clauses, Reopen, Whole, clause, put, raises, summaries, take

__all__ = ["RegisterClauses"]

_THREADS: Final = 4
_TURNS: Final = 25
_LONGEST: Final = 1 << 10


class Keeping(Whole, SupportsRegister, Protocol):
    """A store that keeps registers beside all else."""


class RegisterClauses(Clauses):
    """Small texts that several change; and no message depends on them."""

    @clause(SupportsRegister)
    def test_a_register_that_nobody_has_written_is_empty_and_tells_the_time(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        found = store.register("a")
        assert (found.text, found.at) == (None, clock.now())

        clock.advance(20 * SECOND)
        assert store.register("a").at == clock.now()

    @clause(SupportsRegister)
    def test_what_was_swapped_in_stands_there_until_it_is_swapped_again(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        assert store.swap("a", None, "one") is None
        assert store.swap("b", None, "other") is None
        assert store.swap("a", "one", 'tw\u00f6, "2"\n\u2603') is None
        clock.advance(SECOND)

        assert (store.register("a").text, store.register("a").at) == ('tw\u00f6, "2"\n\u2603', clock.now())
        assert store.register("b").text == "other"

    @clause(SupportsRegister)
    def test_a_swap_of_what_does_not_stand_there_changes_nothing_and_says_what_does(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        missing = store.swap("a", "one", "two")
        assert missing is not None
        assert (missing.text, missing.at) == (None, clock.now())

        store.swap("a", None, "one")
        for old in (None, "two", "", "one ", "ON"):
            clock.advance(SECOND)
            stands = store.swap("a", old, "three")
            assert stands is not None
            assert (stands.text, stands.at) == ("one", clock.now())
        assert store.register("a").text == "one"

    @clause(SupportsRegister)
    def test_of_any_number_who_swap_the_same_at_once_one_succeeds(self, store: Keeping) -> None:
        store.swap("a", None, "0")
        failures: list[BaseException] = []

        def count() -> None:
            try:
                for _ in range(_TURNS):
                    found = store.register("a")
                    while (stands := store.swap("a", found.text, str(int(found.text or 0) + 1))) is not None:
                        found = stands
            except BaseException as error:  # noqa: BLE001 - told to the clause
                failures.append(error)

        threads = [threading.Thread(target=count) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not failures
        assert store.register("a").text == str(_THREADS * _TURNS)

    @clause(SupportsRegister)
    def test_of_two_who_begin_one_register_one_succeeds(self, store: Keeping) -> None:
        assert store.swap("a", None, "mine") is None

        stands = store.swap("a", None, "yours")

        assert stands is not None
        assert stands.text == "mine"

    @clause(SupportsRegister)
    def test_a_register_is_kept_for_two_days_whoever_begins_others(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        store.swap("a", None, "kept")
        clock.advance(2 * DAY - SECOND)
        for number in range(3):
            store.swap(f"n{number}", None, "new")

        assert store.register("a").text == "kept"

    @clause(SupportsRegister)
    def test_what_no_register_can_be_called_or_hold_is_refused(self, store: Keeping) -> None:
        for name, text in (
            ("", "text"),
            ("A/b", "text"),
            ("a", ""),
            ("a", "no \0 text"),
            ("a", "no \ud800 text"),
            ("a", "x" * (_LONGEST + 1)),
        ):
            with raises(ConfigurationError):
                store.swap(name, None, text)
        with raises(ConfigurationError):
            store.register("A/b")

        assert store.swap("a", None, "x" * _LONGEST) is None
        assert store.register("a").text == "x" * _LONGEST

    @clause(SupportsRegister, SupportsBrowse, SupportsWait)
    def test_a_register_changes_no_message_and_is_no_news(self, store: Keeping) -> None:
        put(store, "a")
        before = summaries(store)
        take(store)
        assert take(store) == []
        store.swap("a", None, "one")

        assert not store.wait(ZERO)
        assert summaries(store).keys() == before.keys()

    @clause(SupportsRegister)
    def test_a_register_is_there_for_whoever_opens_the_store_next(
        self, store: Keeping, reopen: Reopen
    ) -> None:
        self.require_persistence()
        store.swap("a", None, "one")

        other = cast("Keeping", reopen(crash=True))

        assert other.register("a").text == "one"
        assert other.swap("a", "one", "two") is None

    @clause(SupportsRegister)
    def test_a_closed_store_keeps_no_register(self, store: Keeping) -> None:
        store.close()
        with raises(StoreUnavailable):
            store.register("a")
        with raises(StoreUnavailable):
            store.swap("a", None, "one")

"""What a register promises: all who share the store change it by turns, and each sees what stands there and when."""

from __future__ import annotations

import threading
from typing import Final, Protocol, cast

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.protocols import Register, SupportsBrowse, SupportsRegister, SupportsWait, Swap
from outbox.testing.clock import ManualClock

from .scene import DAY, SECOND, ZERO, Clauses, Reopen, Whole, clause, put, raises, summaries, take

__all__ = ["RegisterClauses"]

_THREADS: Final = 4
_TURNS: Final = 25
_LONGEST: Final = 1 << 10
_MANY: Final = 500


class Keeping(Whole, SupportsRegister, Protocol):
    """A store that keeps registers beside all else."""


def _look(store: SupportsRegister, name: str) -> Register:
    return store.registers([name])[name]


def _swap(store: SupportsRegister, name: str, old: str | None, new: str) -> Register | None:
    """What stands there, where it was not written."""
    return store.swap({name: Swap(old, new)}).get(name)


class RegisterClauses(Clauses):
    """Small texts that several change; and no message depends on them."""

    @clause(SupportsRegister)
    def test_a_register_that_nobody_has_written_is_empty_and_tells_the_time(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        found = _look(store, "a")
        assert (found.text, found.at) == (None, clock.now())

        clock.advance(20 * SECOND)
        assert _look(store, "a").at == clock.now()

    @clause(SupportsRegister)
    def test_what_was_swapped_in_stands_there_until_it_is_swapped_again(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        assert _swap(store, "a", None, "one") is None
        assert _swap(store, "b", None, "other") is None
        assert _swap(store, "a", "one", 'tw\u00f6, "2"\n\u2603') is None
        clock.advance(SECOND)

        assert (_look(store, "a").text, _look(store, "a").at) == ('tw\u00f6, "2"\n\u2603', clock.now())
        assert _look(store, "b").text == "other"

    @clause(SupportsRegister)
    def test_a_swap_of_what_does_not_stand_there_changes_nothing_and_says_what_does(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        missing = _swap(store, "a", "one", "two")
        assert missing is not None
        assert (missing.text, missing.at) == (None, clock.now())

        _swap(store, "a", None, "one")
        for old in (None, "two", "", "one ", "ON"):
            clock.advance(SECOND)
            stands = _swap(store, "a", old, "three")
            assert stands is not None
            assert (stands.text, stands.at) == ("one", clock.now())
        assert _look(store, "a").text == "one"

    @clause(SupportsRegister)
    def test_of_registers_that_are_swapped_at_once_each_is_by_itself(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        assert store.swap({"a": Swap(None, "one"), "b": Swap(None, "other")}) == {}
        clock.advance(SECOND)

        stands = store.swap(
            {
                "a": Swap("one", "two"),
                "b": Swap("one", "three"),
                "c": Swap("one", "four"),
                "d": Swap(None, "five"),
                "e": Swap("", "six"),
            }
        )

        assert stands == {
            name: Register(text, clock.now()) for name, text in (("b", "other"), ("c", None), ("e", None))
        }
        found = store.registers(["d", "a", "c", "b"])
        assert {name: each.text for name, each in found.items()} == {
            "a": "two",
            "b": "other",
            "c": None,
            "d": "five",
        }
        assert {each.at for each in found.values()} == {clock.now()}

    @clause(SupportsRegister)
    def test_hundreds_of_registers_are_asked_and_swapped_at_once(self, store: Keeping) -> None:
        names = [f"n{number}" for number in range(_MANY)]

        assert store.swap({name: Swap(None, f"of {name}") for name in names}) == {}
        assert store.swap({name: Swap(f"of {name}", f"by {name}") for name in names[::2]}) == {}

        found = store.registers(names)
        assert [found[name].text for name in names[:2]] == ["by n0", "of n1"]
        assert all(found[name].text == f"by {name}" for name in names[::2])
        assert all(found[name].text == f"of {name}" for name in names[1::2])

    @clause(SupportsRegister)
    def test_of_none_there_is_nothing_to_say(self, store: Keeping) -> None:
        assert store.registers([]) == {}
        assert store.swap({}) == {}

    @clause(SupportsRegister)
    def test_whoever_swaps_several_at_once_waits_for_nobody_who_waits_for_him(self, store: Keeping) -> None:
        names = [f"n{number}" for number in range(20)]
        failures: list[BaseException] = []

        def count(order: list[str]) -> None:
            try:
                for _ in range(_TURNS):
                    left = store.registers(order)
                    while left:
                        left = store.swap(
                            {
                                name: Swap(left[name].text, str(int(left[name].text or 0) + 1))
                                for name in order
                                if name in left
                            }
                        )
            except BaseException as error:  # noqa: BLE001 - told to the clause
                failures.append(error)

        threads = [
            threading.Thread(target=count, args=(names[::-1] if number % 2 else names,))
            for number in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not failures
        assert {each.text for each in store.registers(names).values()} == {str(_THREADS * _TURNS)}

    @clause(SupportsRegister)
    def test_of_any_number_who_swap_the_same_at_once_one_succeeds(self, store: Keeping) -> None:
        _swap(store, "a", None, "0")
        failures: list[BaseException] = []

        def count() -> None:
            try:
                for _ in range(_TURNS):
                    found = _look(store, "a")
                    while (
                        stands := _swap(store, "a", found.text, str(int(found.text or 0) + 1))
                    ) is not None:
                        found = stands
            except BaseException as error:  # noqa: BLE001 - told to the clause
                failures.append(error)

        threads = [threading.Thread(target=count) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not failures
        assert _look(store, "a").text == str(_THREADS * _TURNS)

    @clause(SupportsRegister)
    def test_of_two_who_begin_one_register_one_succeeds(self, store: Keeping) -> None:
        assert _swap(store, "a", None, "mine") is None

        stands = _swap(store, "a", None, "yours")

        assert stands is not None
        assert stands.text == "mine"

    @clause(SupportsRegister)
    def test_a_register_is_kept_for_two_days_whoever_begins_others(
        self, store: Keeping, clock: ManualClock
    ) -> None:
        _swap(store, "a", None, "kept")
        clock.advance(2 * DAY - SECOND)
        for number in range(3):
            _swap(store, f"n{number}", None, "new")

        assert _look(store, "a").text == "kept"

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
                _swap(store, name, None, text)
        with raises(ConfigurationError):
            _look(store, "A/b")

        with raises(ConfigurationError):
            store.swap({"a": Swap(None, "text"), "A/b": Swap(None, "text")})
        assert _look(store, "a").text is None, "nothing is written"

        assert _swap(store, "a", None, "x" * _LONGEST) is None
        assert _look(store, "a").text == "x" * _LONGEST

    @clause(SupportsRegister, SupportsBrowse, SupportsWait)
    def test_a_register_changes_no_message_and_is_no_news(self, store: Keeping) -> None:
        put(store, "a")
        before = summaries(store)
        take(store)
        assert take(store) == []
        _swap(store, "a", None, "one")

        assert not store.wait(ZERO)
        assert summaries(store).keys() == before.keys()

    @clause(SupportsRegister)
    def test_a_register_is_there_for_whoever_opens_the_store_next(
        self, store: Keeping, reopen: Reopen
    ) -> None:
        self.require_persistence()
        _swap(store, "a", None, "one")

        other = cast("Keeping", reopen(crash=True))

        assert _look(other, "a").text == "one"
        assert _swap(other, "a", "one", "two") is None

    @clause(SupportsRegister)
    def test_a_closed_store_keeps_no_register(self, store: Keeping) -> None:
        store.close()
        with raises(StoreUnavailable):
            _look(store, "a")
        with raises(StoreUnavailable):
            _swap(store, "a", None, "one")

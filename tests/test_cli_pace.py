"""How much a command changes at once, and the turns it leaves to those who deliver."""

from __future__ import annotations

import datetime as dt

import pytest

from outbox.cli import pace
from outbox.cli.pace import STEP, Pace
from outbox.testing.clock import ManualClock


def paced(clock: ManualClock, seconds: list[float]) -> tuple[list[int], list[float]]:
    """The sizes of the steps, and the pauses behind them, where they take so long."""
    pauses: list[float] = []
    sizes: list[int] = []
    own = Pace(clock, pauses.append)
    for each in seconds:
        sizes.append(own.number)
        with own.step():
            clock.advance(dt.timedelta(seconds=each))
        own.rest()
    return sizes, pauses


def test_the_step_is_some_hundreds() -> None:
    assert 100 <= STEP <= 1000


def test_steps_that_take_long_become_smaller_and_grow_again(clock: ManualClock) -> None:
    sizes, _ = paced(clock, [5.0, 0.1, 0.05, 0.0, 0.0, 0.0])
    assert sizes == [200, 100, 50, 50, 100, 200]


def test_no_step_is_of_nothing_and_none_of_more_than_the_most(clock: ManualClock) -> None:
    sizes, _ = paced(clock, [60.0] * 9 + [0.0] * 9)
    assert min(sizes) == 10
    assert sizes[9:] == [10, 20, 40, 80, 160, 200, 200, 200, 200]


def test_after_each_step_others_have_a_turn_in_which_each_of_them_looks(clock: ManualClock) -> None:
    """Whoever waits for a write looks whether it is his turn after a millisecond at most."""
    from outbox.stores.sqlite import connection  # noqa: PLC0415 - of which this is said

    _, pauses = paced(clock, [0.0, 0.04, 9.0])
    assert pauses == pytest.approx([pace._SHORTEST, 0.02, pace._LONGEST])
    assert min(pauses) >= 2 * max(connection._PAUSES)

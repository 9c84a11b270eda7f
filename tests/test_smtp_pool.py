"""Connections at rest: the latest first, none beyond its time, and none of another process."""

from __future__ import annotations

import datetime as dt
import os

import attrs
import pytest

from outbox.errors import ConfigurationError
from outbox.testing.clock import ManualClock
from outbox.transports.smtp.pool import Limits, Pool


@attrs.define(eq=False)
class Line:
    usable: bool = True
    messages: int = 0
    opened_at: float = 0.0
    rested_at: float = 0.0

    def close(self) -> None:
        self.usable = False


def seconds(number: float) -> dt.timedelta:
    return dt.timedelta(seconds=number)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pool(clock: ManualClock) -> Pool[Line]:
    return Pool(Limits(max_messages=3, max_age=seconds(300), idle=seconds(30)), clock)


def test_the_connection_used_last_is_used_next(pool: Pool[Line]) -> None:
    first, second = Line(), Line()
    assert pool.give(first)
    assert pool.give(second)

    assert [pool.take(), pool.take(), pool.take()] == [second, first, None]


def test_one_that_is_lost_or_has_carried_enough_is_not_kept(pool: Pool[Line]) -> None:
    assert not pool.give(Line(usable=False))
    assert not pool.give(Line(messages=3))
    assert pool.take() is None


def test_one_that_is_too_old_is_not_kept(pool: Pool[Line], clock: ManualClock) -> None:
    line = Line()
    clock.advance(seconds(299))
    assert pool.give(line)
    clock.advance(seconds(1))

    assert pool.take() is None
    assert not pool.give(Line())


def test_one_that_has_idled_too_long_is_left_and_not_used(pool: Pool[Line], clock: ManualClock) -> None:
    old, young = Line(), Line()
    pool.give(old)
    clock.advance(seconds(20))
    pool.give(young)
    clock.advance(seconds(10))

    assert pool.expired() == [old]
    assert pool.expired() == []
    clock.advance(seconds(20))
    assert pool.take() is None
    assert pool.expired() == [young]


def test_a_closed_pool_gives_all_back_and_keeps_none(pool: Pool[Line]) -> None:
    line = Line()
    pool.give(line)

    assert pool.close() == [line]
    assert pool.close() == []
    assert not pool.give(Line())
    assert pool.take() is None


def test_a_child_closes_what_it_inherited_and_uses_none(
    pool: Pool[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = Line()
    pool.give(inherited)
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert pool.take() is None
    assert not inherited.usable
    mine = Line()
    assert pool.give(mine)
    assert pool.take() is mine


@pytest.mark.parametrize(
    "limits",
    [{"max_messages": 0}, {"max_age": seconds(-1)}, {"idle": seconds(-1)}],
    ids=lambda d: next(iter(d)),
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Limits(**limits)  # type: ignore[arg-type]  # each by its own name

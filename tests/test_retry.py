"""When to try again and when to stop."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from outbox.errors import ConfigurationError
from outbox.retry import RetryPolicy

unhurried = settings(deadline=None)
SECOND, MINUTE, HOUR, DAY = (dt.timedelta(seconds=n) for n in (1, 60, 3600, 86400))
ZERO = dt.timedelta(0)


def waits(policy: RetryPolicy, number: int, age: dt.timedelta = ZERO) -> list[dt.timedelta | None]:
    rng = random.Random(4)
    return [policy.next_wait(attempt, age=age, rng=rng) for attempt in range(1, number + 1)]


def steady(**fields: Any) -> RetryPolicy:
    return RetryPolicy(wait_jitter=0, **fields)


# -- exponential


def test_the_waits_double_up_to_the_longest() -> None:
    expected = [MINUTE * 2**n for n in range(7)] + [2 * HOUR, 2 * HOUR]
    assert waits(steady(), 9) == expected


def test_the_growth_can_be_chosen() -> None:
    policy = steady(wait_initial=SECOND, wait_exp_base=3, wait_max=HOUR)
    assert waits(policy, 4) == [SECOND, 3 * SECOND, 9 * SECOND, 27 * SECOND]
    assert waits(steady(wait_exp_base=1), 3) == [MINUTE] * 3


def test_a_very_late_attempt_overflows_nothing() -> None:
    rng = random.Random(1)
    assert steady(timeout=None).next_wait(10**9, age=ZERO, rng=rng) == 2 * HOUR
    assert steady(timeout=None, wait_exp_base=1e300).next_wait(3, age=ZERO, rng=rng) == 2 * HOUR


def test_it_gives_up_after_so_many_attempts_the_first_included() -> None:
    assert waits(steady(attempts=3), 4) == [MINUTE, 2 * MINUTE, None, None]
    assert waits(steady(attempts=1), 1) == [None]


def test_without_a_count_it_goes_on_for_four_days() -> None:
    rng = random.Random(1)
    policy = RetryPolicy()

    assert policy.timeout == 4 * DAY
    assert policy.next_wait(10_000, age=4 * DAY - SECOND, rng=rng) == SECOND
    assert policy.next_wait(1, age=4 * DAY, rng=rng) is None


def test_the_last_wait_ends_at_the_timeout() -> None:
    policy = steady(timeout=HOUR, wait_initial=30 * MINUTE)
    assert policy.next_wait(2, age=50 * MINUTE, rng=random.Random(1)) == 10 * MINUTE


# -- schedule


def test_a_schedule_of_n_steps_is_n_retries() -> None:
    policy = steady(schedule=[MINUTE, HOUR])
    assert waits(policy, 4) == [MINUTE, HOUR, None, None]
    assert waits(steady(schedule=[]), 1) == [None]


def test_a_schedule_has_no_timeout_unless_one_is_given() -> None:
    assert steady(schedule=[MINUTE]).timeout is None
    assert waits(steady(schedule=[MINUTE]), 1, age=400 * DAY) == [MINUTE]
    assert waits(steady(schedule=[MINUTE], timeout=DAY), 1, age=DAY) == [None]


def test_attempts_can_cut_a_schedule_short() -> None:
    assert waits(steady(schedule=[MINUTE] * 5, attempts=2), 3) == [MINUTE, None, None]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1m", [MINUTE]),
        ("1m, 5m*2, 1h*3", [MINUTE, 5 * MINUTE, 5 * MINUTE, HOUR, HOUR, HOUR]),
        ("0s,1.5s ,2d", [ZERO, 1.5 * SECOND, 2 * DAY]),
        ("1h*0", []),
    ],
)
def test_a_schedule_can_be_read_from_text(text: str, steps: list[dt.timedelta]) -> None:
    assert RetryPolicy.parse(text).schedule == tuple(steps)


@pytest.mark.parametrize(
    "text", ["", "1", "m", "-1m", "1m;2m", "1m,", "5m*", "5m*99999", "1w", "٣m", "1m 2m", "1e3s"]
)
def test_a_step_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a step"):
        RetryPolicy.parse(text)


@pytest.mark.parametrize(
    "wrong", [{"timeout": 5}, {"wait_initial": "1m"}, {"attempts": "3"}, {"schedule": [60]}, {"schedule": 60}]
)
def test_a_setting_of_the_wrong_type_says_what_it_should_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="RetryPolicy"):
        RetryPolicy(**wrong)


def test_a_step_longer_than_can_be_counted_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'99999999999d' is too long"):
        RetryPolicy.parse("1m, 99999999999d")


def test_a_parsed_policy_can_hold_what_is_uncertain() -> None:
    assert RetryPolicy.parse("1m").uncertain == "retry"
    assert RetryPolicy.parse("1m", uncertain="hold").uncertain == "hold"


# -- the rules of a policy


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"wait_initial": ZERO}, "wait_initial must be positive"),
        ({"wait_initial": HOUR, "wait_max": MINUTE}, "wait_max must not be less"),
        ({"wait_exp_base": 0.5}, "wait_exp_base must be at least 1"),
        ({"wait_jitter": 1}, "wait_jitter must be from 0 to less than 1"),
        ({"wait_jitter": -0.1}, "wait_jitter"),
        ({"timeout": ZERO}, "timeout must be positive"),
        ({"schedule": [MINUTE, -SECOND]}, "a step of schedule must not be negative"),
        ({"uncertain": "maybe"}, "uncertain must be"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RetryPolicy(**bad)


SPANS = st.timedeltas(SECOND, 10 * DAY)
POLICIES = st.builds(
    lambda initial, more, **fields: RetryPolicy(wait_initial=initial, wait_max=initial + more, **fields),
    initial=SPANS,
    more=st.timedeltas(ZERO, 10 * DAY),
    attempts=st.none() | st.integers(1, 50),
    wait_exp_base=st.floats(1, 10),
    wait_jitter=st.floats(0, 0.99),
    schedule=st.none() | st.lists(st.timedeltas(ZERO, DAY), max_size=5),
    timeout=st.none() | SPANS,
)


@unhurried
@given(POLICIES, st.integers(1, 200), st.timedeltas(ZERO, 20 * DAY), st.randoms(use_true_random=False))
def test_a_wait_is_within_its_bounds_or_it_is_over(
    policy: RetryPolicy, attempt: int, age: dt.timedelta, rng: random.Random
) -> None:
    wait = policy.next_wait(attempt, age=age, rng=rng)

    over = (
        (policy.attempts is not None and attempt >= policy.attempts)
        or (policy.timeout is not None and age >= policy.timeout)
        or (policy.schedule is not None and attempt > len(policy.schedule))
    )
    assert (wait is None) == over
    if wait is None:
        return
    assert wait >= ZERO
    if policy.timeout is not None:
        assert age + wait <= policy.timeout
    longest = policy.wait_max if policy.schedule is None else policy.schedule[attempt - 1]
    assert wait <= longest * (1 + policy.wait_jitter) + dt.timedelta(microseconds=2)


@unhurried
@given(st.floats(0.01, 0.99), st.integers())
def test_the_jitter_spreads_to_both_sides(jitter: float, seed: int) -> None:
    rng = random.Random(seed)
    policy = RetryPolicy(wait_jitter=jitter, timeout=None)
    drawn = [policy.next_wait(1, age=ZERO, rng=rng) for _ in range(50)]

    for wait in drawn:
        assert wait is not None
        assert MINUTE * (1 - jitter) <= wait <= MINUTE * (1 + jitter)
    assert min(w for w in drawn if w) < MINUTE < max(w for w in drawn if w)


@unhurried
@given(POLICIES, st.integers(1, 60), st.timedeltas(ZERO, 20 * DAY))
def test_the_same_die_gives_the_same_wait(policy: RetryPolicy, attempt: int, age: dt.timedelta) -> None:
    assert policy.next_wait(attempt, age=age, rng=random.Random(7)) == policy.next_wait(
        attempt, age=age, rng=random.Random(7)
    )

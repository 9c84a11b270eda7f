"""What holds of the relays whatever befalls them, in whatever order."""

from __future__ import annotations

import datetime as dt
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.relay import Go, RelayLimits, Relays, Wait

DOWN = RelayUnavailable("mx:25", "connection refused")
BUSY = RelayUnavailable("mx:25", "busy", retry_after=dt.timedelta(minutes=10))
WRONG = RelayMisconfigured("mx:25", "535 bad credentials")
LIMITS = st.builds(
    RelayLimits,
    connections=st.none() | st.integers(1, 5),
    per_second=st.none() | st.floats(0.1, 50),
    per_hour=st.none() | st.floats(1, 500),
    new_connections_per_minute=st.none() | st.floats(0.5, 60),
)
KEYS = st.sampled_from("ab")
STEPS = st.one_of(
    st.tuples(st.just("pass"), st.just("a"), st.floats(0, 90)),
    st.tuples(st.just("admit"), KEYS, st.integers(1, 120)),
    st.tuples(st.just("end"), KEYS, st.sampled_from(["well", "cut", DOWN, BUSY, WRONG, "untried"])),
)


class Steady(random.Random):
    """A die that always shows the same: what is drawn for one key is no news for another."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Scene:
    """Relays, and who is under way to them."""

    def __init__(self, limits: RelayLimits, only: str = "ab") -> None:
        self.relays = Relays(Steady(), limits=limits)
        self.only = only
        self.now = 100.0
        # Whoever is asked first: the process begins here, and with it all rates.
        self.relays.admit("the first", self.now, "m")
        self.under_way: dict[str, list[tuple[str, Go]]] = {"a": [], "b": []}
        self.messages = 0
        self.answers: list[tuple[str, str]] = []
        self.sent: dict[str, list[tuple[float, int]]] = {"a": [], "b": []}

    def step(self, what: str, key: str, how: Any) -> None:
        if what == "pass":
            self.now += how
        elif key in self.only:
            # In words: of the faults in them no two are equal.
            self.answers.append((key, repr(self.admit(key, how) if what == "admit" else self.end(key, how))))

    def admit(self, key: str, wanted: int) -> Any:
        message = f"{key}{len(self.answers) if len(self.only) == 1 else self._own(key)}"
        admission = self.relays.admit(key, self.now, message, wanted)
        if isinstance(admission, Go):
            assert 1 <= admission.number <= wanted
            assert admission.number == 1 or not admission.probe
            self.under_way[key].append((message, admission))
        return admission

    def end(self, key: str, how: Any) -> Any:
        if not self.under_way[key]:
            return None
        message, go = self.under_way[key].pop(0)
        unused = go.number if how == "untried" else 0
        result = self._report(key, message, how)
        self.relays.leave(key, self.now, go, unused=unused, well=how in ("well", "untried"))
        self.sent[key].append((go.at, go.number - unused))
        return result

    def _report(self, key: str, message: str, how: Any) -> Any:
        if isinstance(how, RelayFault):
            return self.relays.failed(key, how, self.now, message)
        if how == "cut":
            return self.relays.cut(key, self.now, message)
        if how == "well":
            return self.relays.answered(key, message)
        return self.relays.abandon(key, message)

    def _own(self, key: str) -> int:
        return sum(each == key for each, _ in self.answers)


def played(limits: RelayLimits, steps: list[tuple[str, str, Any]], only: str = "ab") -> Scene:
    scene = Scene(limits, only)
    for step in steps:
        scene.step(*step)
    return scene


@settings(max_examples=100, deadline=None)
@given(LIMITS, st.lists(STEPS, max_size=40))
def test_never_more_connections_are_taken_than_may_be(
    limits: RelayLimits, steps: list[tuple[str, str, Any]]
) -> None:
    scene = Scene(limits)
    for step in steps:
        scene.step(*step)
        for taken in scene.under_way.values():
            assert len(taken) <= (limits.connections or 20)


@settings(max_examples=100, deadline=None)
@given(LIMITS, st.lists(STEPS, max_size=40))
def test_never_more_messages_go_than_may_in_any_window(
    limits: RelayLimits, steps: list[tuple[str, str, Any]]
) -> None:
    scene = played(limits, steps)
    for key in "ab":
        sent = sorted(scene.sent[key] + [(go.at, go.number) for _, go in scene.under_way[key]])
        for said, period, share in ((limits.per_second, 1, 1.0), (limits.per_hour, 3600, 0.1)):
            rate = said or math.inf
            for first, (begin, _) in enumerate(sent if said else ()):
                went = 0
                for end, number in sent[first:]:
                    went += number
                    assert went <= max(1, math.floor(rate * share)) + (end - begin) * rate / period + 0.001


@settings(max_examples=100, deadline=None)
@given(LIMITS, st.lists(STEPS, max_size=40))
def test_every_wait_ends_and_who_comes_then_gets_on(
    limits: RelayLimits, steps: list[tuple[str, str, Any]]
) -> None:
    scene = played(limits, steps)
    for key in "ab":
        while scene.under_way[key]:
            scene.end(key, "untried")
        waits = 0
        while isinstance(admission := scene.relays.admit(key, scene.now, "new", 1), Wait):
            assert dt.timedelta(0) < admission.delay <= dt.timedelta(days=1)
            scene.now += admission.delay.total_seconds()
            waits += 1
            assert waits < 4


@settings(max_examples=100, deadline=None)
@given(LIMITS, st.lists(STEPS, max_size=40))
def test_what_befalls_one_relay_is_no_other_s_business(
    limits: RelayLimits, steps: list[tuple[str, str, Any]]
) -> None:
    together, alone = played(limits, steps), played(limits, steps, only="a")
    assert [answer for key, answer in together.answers if key == "a"] == [a for _, a in alone.answers]


def test_of_a_million_relays_the_latest_ten_thousand_are_known() -> None:
    relays = Relays(random.Random(1))
    most = 0
    for number in range(50_000):
        key = f"mx{number}.example"
        relays.admit(key, number * 0.01, "m")
        relays.answered(key, "m") if number % 3 else relays.failed(key, DOWN, number * 0.01, "m")
        most = max(most, len(relays))
    assert most <= 10_001
    assert isinstance(relays.admit("mx49999.example", 500.0, "n"), Go)


def test_none_is_forgotten_while_something_is_under_way_there() -> None:
    relays = Relays(random.Random(1))
    relays.admit("busy", 0.0, "m", wanted=1)
    relays.answered("busy", "m")
    for number in range(25_000):
        relays.admit(f"mx{number}", 0.0, "m")
        relays.answered(f"mx{number}", "m")
    assert isinstance(relays.admit("busy", 0.0, "n", wanted=1), Wait), "its one connection is taken"


@pytest.mark.parametrize("per_hour", [1.0, 100.0])
def test_none_is_forgotten_before_its_limit_has_forgotten_what_it_took(per_hour: float) -> None:
    relays = Relays(random.Random(1), limits={"slow": RelayLimits(per_hour=per_hour)})
    relays.admit("slow", 0.0, "m")
    relays.answered("slow", "m")
    for number in range(25_000):
        relays.admit(f"mx{number}", 0.0, "m")
        relays.answered(f"mx{number}", "m")
    assert isinstance(relays.admit("slow", 1.0, "n"), Wait)
    assert len(relays) <= 10_002

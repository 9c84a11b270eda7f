"""How fast a relay is spoken to: never more than is said, and in the long run all of it."""

import datetime as dt
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, strategies as st

from outbox.errors import ConfigurationError, RelayMisconfigured, RelayUnavailable
from outbox.relay import Go, RelayLimits, Relays, Wait, limits_by_key
from outbox.relay.rates import Rate
from outbox.relay.spreading import place_behind, strewn

NUMBERS = st.floats(0.01, 10_000)
STEPS = st.lists(st.tuples(st.floats(0, 500), st.integers(1, 50), st.integers(0, 50)), max_size=40)


def proven(limits: RelayLimits, now: float = 0.0) -> Relays:
    relays = Relays(random.Random(1), limits=limits)
    go = relays.admit("mx", now, "probe", wanted=1)
    assert isinstance(go, Go)
    relays.answered("mx", "probe")
    relays.leave("mx", now, go)
    return relays


def most_in(sent: Iterable[tuple[float, int]], rate: Rate) -> float:
    """By how many the worst window passes what it may hold."""
    sent = list(sent)
    moments = range(len(sent))
    return max(
        (
            sum(number for _, number in sent[i : j + 1])
            - rate.burst
            - (sent[j][0] - sent[i][0]) / rate.interval
            for i, j in itertools.combinations_with_replacement(moments, 2)
        ),
        default=0,
    )


@given(NUMBERS, st.sampled_from([1.0, 60.0, 3600.0, 86400.0]), STEPS)
def test_no_window_sees_more_than_the_rate_and_the_burst(
    number: float, period: float, steps: list[tuple[float, int, int]]
) -> None:
    rate = Rate.of(number, period, number / 10, 0.0)
    now, sent = 0.0, []
    for pause, wanted, _ in steps:
        now += pause * rate.interval / 10
        taken = max(0, min(wanted, rate.free(now)))
        if taken:
            rate.take(taken, now)
            sent.append((now, taken))
    assert most_in(sent, rate) < 0.001


@given(NUMBERS, STEPS)
def test_nor_where_what_was_taken_is_given_back_unused(
    number: float, steps: list[tuple[float, int, int]]
) -> None:
    rate = Rate.of(number, 60.0, number / 10, 0.0)
    now, sent = 0.0, []
    held: list[tuple[float, int]] = []
    for pause, wanted, unused in steps:
        now += pause * rate.interval / 10
        taken = max(0, min(wanted, rate.free(now)))
        if taken:
            rate.take(taken, now)
            held.append((now, taken))
        if held and unused % 2:
            since, of = held.pop(unused % len(held))
            rate.give_back(min(unused, of), since, now)
            sent.append((since, of - min(unused, of)))
    assert most_in(sorted([*sent, *held]), rate) < 0.001


@given(NUMBERS, st.integers(0, 1000), st.floats(0, 1e6))
def test_who_comes_when_the_wait_is_over_may_go(number: float, taken: int, now: float) -> None:
    rate = Rate.of(number, 3600.0, number / 10, 0.0)
    rate.take(taken, now)
    wait = rate.wait(now)
    assert rate.free(now) >= 1 or wait > 0
    assert math.isfinite(wait)
    assert rate.free(now + wait + 1e-6) >= 1


@pytest.mark.parametrize(
    ("limits", "an_hour"),
    [
        (RelayLimits(per_second=10), 36_000),
        (RelayLimits(per_second=0.5), 1_800),
        (RelayLimits(per_hour=100), 100),
        (RelayLimits(per_day=2400), 100),
        (RelayLimits(per_second=10, per_hour=100), 100),
    ],
    ids=str,
)
def test_in_the_long_run_all_that_may_go_does(limits: RelayLimits, an_hour: int) -> None:
    relays, now, sent, hours = proven(limits), 0.0, 1, 3
    while now < hours * 3600:
        admission = relays.admit("mx", now, "m", wanted=100)
        if isinstance(admission, Go):
            sent += admission.number
            relays.answered("mx", "m")
            relays.leave("mx", now, admission)
        else:
            assert admission.fault is None
            now += admission.delay.total_seconds()
    assert hours * an_hour <= sent <= hours * an_hour + an_hour / 10 + 2


def test_a_process_that_starts_has_one_message_and_not_the_whole_burst() -> None:
    relays = proven(RelayLimits(per_hour=100), now=1000.0)
    assert isinstance(relays.admit("mx", 1000.0, "m", wanted=1), Wait)
    assert relays.admit("mx", 1036.0, "m", wanted=100) == Go(number=1)


def test_a_relay_that_is_met_later_has_what_the_process_gained_since_it_began() -> None:
    relays = proven(RelayLimits(per_hour=100))
    relays.admit("late", 3600.0, "m")
    relays.answered("late", "m")
    assert relays.admit("late", 3600.0, "n", wanted=1) == Go()


def test_after_a_quiet_time_the_burst_goes_at_once() -> None:
    relays = proven(RelayLimits(per_hour=100))
    for _ in range(10):
        go = relays.admit("mx", 0.0, "m", wanted=1)
        if isinstance(go, Go):
            relays.leave("mx", 0.0, go)
    sent = 0
    while isinstance(go := relays.admit("mx", 3600.0, "m", wanted=100), Go):
        sent += go.number
        relays.leave("mx", 3600.0, go)
    assert sent == 10


def test_what_was_not_handed_over_counts_for_no_rate() -> None:
    relays = proven(RelayLimits(per_second=100))
    go = relays.admit("mx", 10.0, "m", wanted=2)
    assert go == Go(number=2)
    assert isinstance(go, Go)
    relays.leave("mx", 10.0, go, unused=1)
    free = relays._relays["mx"].rates.free(10.0, 1000)
    assert free == 99


def test_a_relay_at_its_limit_is_closed_for_all_until_the_next_may_go() -> None:
    relays = proven(RelayLimits(per_second=1))
    closed = relays.closed_for("mx", 0.5)
    assert isinstance(closed, Wait)
    assert closed.delay == dt.timedelta(seconds=0.5)
    assert closed.limited
    assert relays.closed_for("mx", 1.0) is None


def test_one_relay_s_limit_is_not_another_s() -> None:
    slow = RelayLimits(per_hour=1)
    relays = Relays(random.Random(1), limits={"slow": slow})
    for key in ("slow", "quick"):
        relays.admit(key, 0.0, "m")
        relays.answered(key, "m")
    assert isinstance(relays.admit("slow", 0.0, "n"), Wait)
    assert isinstance(relays.admit("quick", 0.0, "n"), Go)


def test_connections_are_opened_no_faster_than_is_said() -> None:
    relays = proven(RelayLimits(new_connections_per_minute=6))
    again = relays.admit("mx", 1.0, "m", wanted=1)
    assert isinstance(again, Go), "the connection of the probe is still there"
    other = relays.admit("mx", 1.0, "n", wanted=1)
    assert isinstance(other, Wait)
    assert other.delay == dt.timedelta(seconds=9)
    assert isinstance(relays.admit("mx", 10.0, "n", wanted=1), Go)


def test_a_connection_that_was_left_long_ago_has_to_be_opened_anew() -> None:
    relays = proven(RelayLimits(new_connections_per_minute=0.5))
    assert isinstance(relays.admit("mx", 30.0, "m", wanted=1), Wait)


def test_where_no_more_may_be_opened_the_next_goes_over_one_that_is_left() -> None:
    relays = proven(RelayLimits(new_connections_per_minute=6))
    taken = relays.admit("mx", 1.0, "m", wanted=1)
    other = relays.admit("mx", 1.0, "n", wanted=1)
    assert isinstance(taken, Go)
    assert isinstance(other, Wait)
    assert other.full, "those who wait are kept, for the one connection serves them"
    assert not other.limited
    assert relays.closed_for("mx", 1.0) is None, "the relay is well"
    relays.leave("mx", 1.0, taken)
    assert isinstance(relays.admit("mx", 1.0, "n", wanted=1), Go)


def test_where_none_is_open_and_none_may_be_opened_the_relay_is_closed_until_one_may() -> None:
    relays = proven(RelayLimits(new_connections_per_minute=0.5))
    closed = relays.closed_for("mx", 30.0)
    assert isinstance(closed, Wait)
    assert closed.limited
    assert closed.delay == dt.timedelta(seconds=90)
    assert relays.put_off("mx", 30.0) >= closed.delay, "nor does anybody come back before"
    assert relays.closed_for("mx", 120.0) is None


# --- what a relay asks for ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RelayUnavailable, RelayMisconfigured])
def test_a_relay_that_says_for_how_long_is_left_alone_for_so_long(
    kind: type[RelayUnavailable | RelayMisconfigured],
) -> None:
    fault = kind("mx:25", "429 too many", retry_after=dt.timedelta(hours=2))
    pause = Relays(random.Random(1)).failed("mx", fault, 0.0, "t")
    assert pause.delay == dt.timedelta(hours=2)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(dt.timedelta(0), 4, 6), (dt.timedelta(seconds=-9), 4, 6), (dt.timedelta(days=900), 86400, 86400)],
)
def test_but_neither_for_no_time_nor_for_ever(asked: dt.timedelta, least: float, most: float) -> None:
    fault = RelayUnavailable("mx:25", "busy", retry_after=asked)
    pause = Relays(random.Random(1)).failed("mx", fault, 0.0, "t").delay.total_seconds()
    assert least <= pause <= most


BUSY = RelayUnavailable("mx:25", "421 leave me alone", retry_after=dt.timedelta(hours=1))


def seconds_closed(relays: Relays, now: float) -> float:
    closed = relays.closed_for("mx", now)
    return 0.0 if closed is None else closed.delay.total_seconds()


def test_a_message_that_was_under_way_when_it_asked_does_not_end_its_rest() -> None:
    relays = proven(RelayLimits())
    relays.failed("mx", BUSY, 0.0, "t")
    assert not relays.answered("mx", "m")
    assert seconds_closed(relays, 1.0) == 3599


def test_it_is_heard_also_where_another_connection_failed_before() -> None:
    relays = proven(RelayLimits())
    relays.failed("mx", RelayUnavailable("mx:25", "lost"), 0.0, "t")
    later = relays.failed("mx", BUSY, 1.0, "u")
    assert later.delay == dt.timedelta(hours=1)
    assert not later.news
    assert seconds_closed(relays, 1.0) == 3600
    assert not relays.failed("mx", RelayUnavailable("mx:25", "lost"), 60.0, "v").news, "it is the same pause"


def test_when_the_time_is_over_one_message_probes_and_its_answer_ends_the_rest() -> None:
    relays = proven(RelayLimits())
    relays.failed("mx", BUSY, 0.0, "t")
    assert relays.admit("mx", 3600.0, "m", wanted=9) == Go(probe=True)
    assert relays.answered("mx", "m")
    assert seconds_closed(relays, 3600.0) == 0


def test_what_it_asked_for_an_hour_ago_is_no_matter_at_the_next_fault() -> None:
    relays = proven(RelayLimits())
    relays.failed("mx", BUSY, 0.0, "t")
    relays.admit("mx", 3600.0, "m", wanted=1)
    relays.failed("mx", RelayUnavailable("mx:25", "lost"), 3600.0, "m")
    assert relays.answered("mx", "under way since before"), "that shows that it is back"


def test_what_a_stranger_s_fault_says_of_it_may_be_anything() -> None:
    fault = RelayUnavailable("mx:25", "busy")
    fault.retry_after = "soon"  # type: ignore[assignment]  # a stranger's
    assert Relays(random.Random(1)).failed("mx", fault, 0.0, "t").delay <= dt.timedelta(seconds=6)


# --- those who come back --------------------------------------------------------------------------


def places(number: int, opens: float, pace: float) -> list[float]:
    last, found = -math.inf, []
    for _ in range(number):
        last = place_behind(last, opens, pace)
        found.append(last)
    return found


def test_thousands_come_back_as_the_relay_is_going_to_take_them() -> None:
    came = [int(place - 100) for place in places(5000, 100.0, 200.0)]
    by_second = [came.count(second) for second in range(30)]
    assert by_second[0] <= 2
    assert all(later <= 2 * sooner + 2 for sooner, later in itertools.pairwise(by_second))
    assert max(by_second) <= 201
    assert min(by_second[10:]) >= 199
    assert max(came) < 40


@given(st.floats(0, 1e9), st.floats(0.001, 1e5), st.integers(1, 300))
def test_nobody_comes_back_before_it_opens_nor_before_another(opens: float, pace: float, number: int) -> None:
    found = places(number, opens, pace)
    assert found[0] == opens
    assert found == sorted(found)


@given(st.floats(0, 1e7), st.randoms(use_true_random=False))
def test_and_nobody_much_later_than_is_said(behind: float, rng: random.Random) -> None:
    assert 0 <= strewn(behind, 0.0, 900.0, rng) <= 990, "a tenth beside its place"


def test_those_of_a_paused_relay_are_given_back_for_different_times() -> None:
    relays = Relays(random.Random(1))
    relays.failed("mx", RelayUnavailable("mx:25", "refused"), 0.0, "t")
    delays = [relays.put_off("mx", 0.0).total_seconds() for _ in range(100_000)]
    by_second = [0] * 2000
    for delay in delays:
        by_second[int(delay)] += 1
    assert min(delays) >= 4
    assert sum(by_second[:8]) < 32, "one in the first second, and then twice as many in each"
    assert max(by_second) < 200
    assert sum(by_second[:600]) > 50_000, "nor do they come later than the relay could take them"


def test_while_a_probe_hangs_those_who_come_back_come_no_faster_than_is_said() -> None:
    relays = Relays(random.Random(1))
    relays.admit("mx", 0.0, "probe", wanted=1)
    waiting = [1.0 + number / 5000 for number in range(10_000)]
    heapq.heapify(waiting)
    came: Counter[int] = Counter()
    while waiting[0] < 25.0:
        now = heapq.heappop(waiting)
        came[int(now)] += 1
        heapq.heappush(waiting, now + relays.put_off("mx", now).total_seconds())
    # The first two seconds are those in which they come for the first time.
    assert max(came[second] for second in range(3, 25)) < 250
    assert sum(came.values()) < 10_000 + 25 * 200


# --- what can be said -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"connections": 0},
        {"connections": 2.5},
        {"connections": True},
        {"per_second": 0},
        {"per_hour": -1},
        {"per_day": math.inf},
        {"per_day": math.nan},
        {"per_second": "10"},
        {"new_connections_per_minute": False},
        {"per_second": 10**400},
        {"new_connections_per_minute": 10**400},
        {"per_second": 5e-324},
        {"per_day": 1e-320},
        {"per_day": 10**5000},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_limit_that_is_none_is_refused_by_its_name(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        RelayLimits(**settings)  # type: ignore[arg-type]  # that is what is refused


def test_several_processes_share_what_one_would_have() -> None:
    limits = RelayLimits(connections=10, per_second=1, per_day=100)
    assert limits.among(4) == RelayLimits(connections=2, per_second=0.25, per_day=25)
    assert RelayLimits(connections=2).among(4) == RelayLimits(connections=1)


@pytest.mark.parametrize(
    "limits",
    [
        RelayLimits(per_second=1.7e308),
        RelayLimits(per_hour=1e308),
        RelayLimits(per_day=1e-300),
        RelayLimits(connections=10**30),
    ],
    ids=str,
)
def test_whatever_is_not_refused_can_be_kept(limits: RelayLimits) -> None:
    relays = proven(limits)
    assert isinstance(relays.admit("mx", 1.0, "m", wanted=100), Go | Wait)
    assert relays.put_off("mx", 1.0) >= dt.timedelta(0)


@pytest.mark.parametrize("processes", [0, -1])
def test_no_process_has_a_share_of_nothing(processes: int) -> None:
    with pytest.raises(ConfigurationError, match=f"among {processes}"):
        RelayLimits(per_hour=10).among(processes)


@pytest.mark.parametrize("given", [5, "10/s", {"mx": 5}, {5: RelayLimits()}])
def test_limits_that_are_none_are_refused(given: object) -> None:
    with pytest.raises(ConfigurationError, match="pass RelayLimits"):
        limits_by_key(given)  # type: ignore[arg-type]  # that is what is refused

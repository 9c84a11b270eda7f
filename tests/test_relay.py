"""The breakers: which relay may be spoken to now."""

import datetime as dt
import random

import pytest

from outbox.errors import RelayMisconfigured, RelayUnavailable
from outbox.relay import UNANSWERED, Go, Relays, Wait

DOWN = RelayUnavailable("mx:25", "connection refused")
WRONG = RelayMisconfigured("mx:25", "535 bad credentials")


@pytest.fixture
def relays() -> Relays:
    return Relays(random.Random(1))


def test_an_unknown_relay_is_tried_with_one_message(relays: Relays) -> None:
    assert relays.admit("mx", 0.0, "m") == Go(probe=True)
    second = relays.admit("mx", 0.5, "n")
    assert isinstance(second, Wait)
    assert second.probing
    assert relays.closed_for("mx", 0.5) == second


def test_once_it_answered_all_go(relays: Relays) -> None:
    relays.admit("mx", 0.0, "m")
    assert not relays.answered("mx", "m"), "no pause was ended"
    assert relays.admit("mx", 0.0, "n") == Go()


def test_an_unknown_relay_that_keeps_the_first_waiting_is_tried_with_a_further_one(relays: Relays) -> None:
    relays.admit("mx", 0.0, "m")
    assert isinstance(relays.admit("mx", UNANSWERED - 1, "n"), Wait)
    assert relays.admit("mx", UNANSWERED, "n") == Go(probe=True)
    assert isinstance(relays.admit("mx", UNANSWERED + 1, "o"), Wait)


def test_a_first_message_that_comes_to_nothing_leaves_its_place_to_another(relays: Relays) -> None:
    relays.admit("mx", 0.0, "m")
    relays.abandon("mx", "m")
    assert relays.admit("mx", 0.0, "n") == Go(probe=True)


def test_who_waits_longer_is_told_to_wait_longer(relays: Relays) -> None:
    relays.admit("mx", 0.0, "m")
    waits = [relays.admit("mx", now, "n") for now in (0.1, 20.0)]
    assert [w.delay.total_seconds() for w in waits if isinstance(w, Wait)] == [1, 20]


def test_a_relay_that_failed_is_left_alone_for_about_five_seconds(relays: Relays) -> None:
    wait = relays.failed("mx", DOWN, 100.0, "t").delay
    assert 4.0 <= wait.total_seconds() <= 6.0
    admission = relays.admit("mx", 101.0, "m")
    assert isinstance(admission, Wait)
    assert admission.delay == wait - dt.timedelta(seconds=1)
    assert "connection refused" in admission.reason


def test_one_relay_s_fault_closes_no_other(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    assert isinstance(relays.admit("other", 0.0, "m"), Go)


def test_after_the_pause_one_message_probes_and_the_others_wait(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    assert relays.closed_for("mx", 10.0) is None
    assert relays.admit("mx", 10.0, "m") == Go(probe=True)
    assert isinstance(relays.admit("mx", 10.0, "m"), Wait)
    assert isinstance(relays.closed_for("mx", 10.0), Wait)


def test_asking_whether_it_is_closed_takes_no_probe(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    assert relays.closed_for("mx", 10.0) is None
    assert relays.closed_for("mx", 10.0) is None
    assert relays.admit("mx", 10.0, "m") == Go(probe=True)


def test_a_probe_that_is_answered_opens_the_relay(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    relays.admit("mx", 10.0, "m")
    assert relays.answered("mx", "m")
    assert relays.admit("mx", 10.0, "m") == Go()
    assert not relays.answered("mx", "m"), "it was open already"


def test_each_failed_probe_doubles_the_pause_up_to_five_minutes(relays: Relays) -> None:
    now, pauses = 0.0, []
    for number in range(12):
        assert isinstance(relays.admit("mx", now, f"m{number}"), Go)
        pauses.append(relays.failed("mx", DOWN, now, f"m{number}").delay.total_seconds())
        now += pauses[-1] + 0.001
    assert pauses[1] > pauses[0]
    assert pauses[3] > pauses[1]
    assert 240 <= pauses[-1] <= 360
    assert max(pauses) <= 360


def test_workers_that_were_under_way_when_it_failed_count_as_one_failure(relays: Relays) -> None:
    waits = [relays.failed("mx", DOWN, 0.0, "t") for _ in range(8)]
    assert waits[-1].delay.total_seconds() <= 6.0
    assert [w.news for w in waits] == [True] + [False] * 7


def test_a_failure_that_only_a_person_can_mend_counts_beside_one_that_time_mends(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    graver = relays.failed("mx", WRONG, 0.0, "u")
    assert graver.news
    assert graver.delay.total_seconds() >= 48
    assert not relays.failed("mx", DOWN, 0.0, "v").news
    closed = relays.closed_for("mx", 1.0)
    assert closed is not None
    assert closed.fault == WRONG


def test_what_was_under_way_when_the_password_was_refused_ends_no_pause(relays: Relays) -> None:
    relays.failed("mx", WRONG, 0.0, "t")
    assert not relays.answered("mx", "of a connection that was there before")
    assert isinstance(relays.admit("mx", 1.0, "m"), Wait)
    relays.admit("mx", 100.0, "m")
    assert relays.answered("mx", "m")


def test_what_was_under_way_when_a_relay_went_away_shows_that_it_is_back(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    assert relays.answered("mx", "m")


def test_a_misconfigured_relay_is_probed_slowly(relays: Relays) -> None:
    assert relays.failed("mx", WRONG, 0.0, "t").delay.total_seconds() >= 48


def test_a_thousand_failures_do_not_overflow(relays: Relays) -> None:
    now = 0.0
    for number in range(1000):
        relays.admit("mx", now, f"m{number}")
        now += relays.failed("mx", DOWN, now, f"m{number}").delay.total_seconds()
    assert now < 1000 * 361


def test_a_failure_reported_late_in_a_pause_never_asks_for_no_wait_at_all(relays: Relays) -> None:
    pause = relays.failed("mx", DOWN, 0.0, "t").delay.total_seconds()
    assert relays.failed("mx", DOWN, pause - 0.001, "t").delay >= dt.timedelta(seconds=1)


def test_a_probe_that_comes_to_nothing_leaves_its_place_to_another(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    assert relays.admit("mx", 10.0, "m") == Go(probe=True)
    relays.abandon("mx", "another")
    assert isinstance(relays.admit("mx", 10.0, "n"), Wait)
    relays.abandon("mx", "m")
    assert relays.admit("mx", 10.0, "n") == Go(probe=True)


def test_the_message_that_tripped_it_lets_another_probe(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    behind = relays.admit("mx", 10.0, "t")
    assert isinstance(behind, Wait)
    assert behind.delay > dt.timedelta(0)
    assert relays.admit("mx", 10.0, "m") == Go(probe=True)


def test_so_does_every_message_that_met_the_fault_since_the_relay_was_well(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    relays.admit("mx", 10.0, "u")
    relays.failed("mx", DOWN, 10.0, "u")
    assert isinstance(relays.admit("mx", 100.0, "t"), Wait)
    assert isinstance(relays.admit("mx", 100.0, "u"), Wait)
    assert relays.admit("mx", 100.0, "m") == Go(probe=True)


def test_the_message_that_tripped_it_probes_where_there_is_no_other(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    relays.admit("mx", 10.0, "t")
    assert relays.admit("mx", 11.0, "t") == Go(probe=True)


def test_it_does_so_again_after_each_pause(relays: Relays) -> None:
    relays.failed("mx", DOWN, 0.0, "t")
    assert isinstance(relays.admit("mx", 10.0, "t"), Wait)
    relays.admit("mx", 10.0, "m")
    relays.failed("mx", DOWN, 10.0, "m")
    assert isinstance(relays.admit("mx", 100.0, "t"), Wait)


def test_of_those_that_met_the_fault_the_latest_hundred_are_remembered(relays: Relays) -> None:
    for number in range(101):
        relays.failed("mx", DOWN, 0.0, f"m{number}")
    assert isinstance(relays.admit("mx", 10.0, "m1"), Wait)
    assert relays.admit("mx", 10.0, "m0") == Go(probe=True)


def test_a_hasty_run_lets_another_message_probe_at_once_after_the_first_fault() -> None:
    relays = Relays(random.Random(1), hasty=True)
    relays.failed("mx", DOWN, 0.0, "t")
    assert relays.admit("mx", 0.0, "m") == Go(probe=True)
    relays.failed("mx", DOWN, 0.0, "m")
    assert isinstance(relays.admit("mx", 0.0, "n"), Wait)


def test_a_hasty_run_asks_no_second_time_what_only_a_person_can_mend() -> None:
    relays = Relays(random.Random(1), hasty=True)
    relays.admit("mx", 0.0, "t")
    assert relays.failed("mx", WRONG, 0.0, "t").delay.total_seconds() >= 48
    assert isinstance(relays.admit("mx", 1.0, "m"), Wait)

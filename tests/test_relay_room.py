"""Over how many connections a relay is spoken to, and how many messages go at a time."""

import random

import pytest

from outbox.errors import RelayUnavailable
from outbox.relay import Go, RelayLimits, Relays, Wait

DOWN = RelayUnavailable("mx:25", "connection refused")


def relays_of(limits: RelayLimits | None = None) -> Relays:
    return Relays(random.Random(1), limits=limits)


def prove(relays: Relays, now: float = 0.0, message: str = "probe") -> None:
    go = relays.admit("mx", now, message, wanted=100)
    assert isinstance(go, Go)
    relays.answered("mx", message)
    relays.leave("mx", now, go)


def fill(relays: Relays, now: float) -> list[Go]:
    """Take every connection that is there."""
    taken: list[Go] = []
    while isinstance(go := relays.admit("mx", now, f"m{len(taken)}", wanted=100), Go):
        taken.append(go)
    return taken


def one_round(relays: Relays, now: float) -> list[Go]:
    """Take every connection, and give each back well."""
    taken = fill(relays, now)
    for go in taken:
        relays.leave("mx", now, go)
    return taken


@pytest.fixture
def relays() -> Relays:
    return relays_of()


def test_a_probe_is_one_message_however_many_are_wanted(relays: Relays) -> None:
    assert relays.admit("mx", 0.0, "m", wanted=100) == Go(probe=True, number=1)


def test_connections_and_messages_double_for_each_round_that_went_well(relays: Relays) -> None:
    prove(relays)
    rounds = [one_round(relays, 0.0) for _ in range(8)]
    assert [len(taken) for taken in rounds] == [2, 4, 8, 16, 20, 20, 20, 20]
    assert [taken[0].number for taken in rounds] == [2, 4, 8, 16, 32, 64, 100, 100]


def test_nobody_is_given_more_than_he_wants(relays: Relays) -> None:
    prove(relays)
    for _ in range(8):
        one_round(relays, 0.0)
    assert relays.admit("mx", 0.0, "m", wanted=7) == Go(number=7)


def test_who_finds_all_connections_taken_waits_for_one_that_is_left(relays: Relays) -> None:
    prove(relays)
    first, _ = fill(relays, 0.0)
    full = relays.admit("mx", 0.0, "m", wanted=1)
    assert isinstance(full, Wait)
    assert full.full
    assert relays.closed_for("mx", 0.0) is None, "the relay is well"
    relays.leave("mx", 0.0, first)
    assert isinstance(relays.admit("mx", 0.0, "m", wanted=1), Go)


def test_who_asks_for_one_message_and_never_leaves_takes_no_connection(relays: Relays) -> None:
    prove(relays)
    assert [relays.admit("mx", 0.0, f"m{number}") for number in range(50)] == [Go()] * 50


def test_the_number_that_is_said_is_never_passed() -> None:
    relays = relays_of(RelayLimits(connections=3))
    prove(relays)
    assert [len(one_round(relays, 0.0)) for _ in range(4)] == [2, 3, 3, 3]


def test_not_even_by_further_probes_of_a_relay_that_never_answers() -> None:
    relays = relays_of(RelayLimits(connections=2))
    asked = [relays.admit("mx", 31.0 * number, f"m{number}", wanted=1) for number in range(5)]
    assert [isinstance(each, Go) for each in asked] == [True, True, False, False, False]
    assert isinstance(asked[-1], Wait)
    assert asked[-1].full


def test_a_relay_that_never_answers_holds_two_connections_at_most(relays: Relays) -> None:
    asked = [relays.admit("mx", 31.0 * number, f"m{number}", wanted=1) for number in range(9)]
    assert sum(isinstance(each, Go) for each in asked) == 2


def test_what_hangs_there_from_before_keeps_no_probe_away(relays: Relays) -> None:
    prove(relays)
    one_round(relays, 0.0)
    fill(relays, 0.0)
    relays.failed("mx", DOWN, 0.0, "m0")
    assert relays.admit("mx", 10.0, "n", wanted=1) == Go(probe=True)


def test_after_a_pause_it_begins_with_one_and_doubles_each_second(relays: Relays) -> None:
    prove(relays)
    for _ in range(8):
        one_round(relays, 0.0)
    relays.failed("mx", DOWN, 0.0, "t")
    prove(relays, 10.0)
    again = [one_round(relays, now) for now in (10.1, 10.5, 11.1, 11.2, 12.2, 12.3, 13.3, 13.4)]
    assert [(len(taken), taken[0].number) for taken in again] == [
        *[(2, 2)] * 3,
        *[(4, 4)] * 2,
        *[(8, 8)] * 2,
        (10, 16),
    ]


def test_beyond_half_of_what_it_had_when_it_failed_it_gets_one_more_each_thirty_seconds(
    relays: Relays,
) -> None:
    prove(relays)
    for _ in range(8):
        one_round(relays, 0.0)
    relays.failed("mx", DOWN, 0.0, "t")
    prove(relays, 10.0)
    widths = {}
    for second in range(10, 400):
        widths[second] = len(one_round(relays, second))
    assert widths[20] == 10
    assert widths[60] in {11, 12}
    assert widths[399] == 20, "the failure is forgotten"


def hung_and_back(limits: RelayLimits | None = None) -> tuple[Relays, list[Go]]:
    """A relay that failed and is back, while two connections of before hang."""
    relays = relays_of(limits)
    prove(relays)
    for _ in range(4):
        one_round(relays, 0.0)
    old = [relays.admit("mx", 0.0, f"old{number}", wanted=1) for number in range(2)]
    relays.failed("mx", DOWN, 0.0, "t")
    prove(relays, 10.0, "n")
    return relays, [go for go in old if isinstance(go, Go)]


def test_what_hangs_there_from_before_it_failed_keeps_nothing_from_a_relay_that_is_back() -> None:
    relays, old = hung_and_back()
    assert len(old) == 2
    assert [len(one_round(relays, now)) for now in (11.0, 12.0, 13.0, 14.0)] == [2, 4, 8, 10]


def test_when_that_ends_it_makes_no_further_room() -> None:
    relays, old = hung_and_back()
    now = fill(relays, 10.5)
    for go in old:
        relays.leave("mx", 10.5, go)
    assert isinstance(relays.admit("mx", 10.5, "o", wanted=1), Wait)
    for go in now:
        relays.leave("mx", 10.5, go)
    assert len(fill(relays, 10.5)) == len(now)


def test_but_the_number_that_is_said_holds_for_all_of_them() -> None:
    relays, old = hung_and_back(RelayLimits(connections=3))
    assert {len(one_round(relays, 10.0 + 31.0 * number)) for number in range(4)} == {1}
    relays.leave("mx", 200.0, old[0], well=False)
    assert len(one_round(relays, 200.0)) == 2


def test_batches_over_which_nothing_went_prove_nothing(relays: Relays) -> None:
    prove(relays)
    for _ in range(5):
        for go in fill(relays, 0.0):
            relays.leave("mx", 0.0, go, unused=go.number)
    assert len(fill(relays, 0.0)) == 2


def run_in_vain(relays: Relays, now: float = 0.0) -> None:
    """One of whose messages nobody was accepted or refused."""
    go = relays.admit("mx", now, "m", wanted=100)
    assert isinstance(go, Go)
    relays.answered("mx", "m")
    relays.leave("mx", now, go, in_vain=True)


def test_a_relay_that_puts_everybody_off_is_given_no_more_room(relays: Relays) -> None:
    for _ in range(40):
        run_in_vain(relays)
    assert [go.number for go in fill(relays, 0.0)] == [1]


def test_three_runs_in_a_row_in_which_it_put_everybody_off_halve_it(relays: Relays) -> None:
    prove(relays)
    for _ in range(4):
        one_round(relays, 0.0)
    for _ in range(2):
        run_in_vain(relays)
    one = relays.admit("mx", 0.0, "m", wanted=100)
    assert one == Go(number=32)
    assert isinstance(one, Go)
    relays.leave("mx", 0.0, one)
    for _ in range(2):
        run_in_vain(relays)
    assert relays.admit("mx", 0.0, "n", wanted=100) == Go(number=32), "one that was answered ends the row"
    run_in_vain(relays)
    assert relays.admit("mx", 0.0, "n", wanted=100) == Go(number=16)


def test_leaving_once_too_often_makes_no_room(relays: Relays) -> None:
    prove(relays)
    for _ in range(5):
        relays.leave("mx", 0.0, Go())
    assert len(fill(relays, 0.0)) == 2


# --- connections that are lost in the middle ------------------------------------------------------


def test_a_message_that_loses_its_connection_again_and_again_pauses_nothing(relays: Relays) -> None:
    prove(relays)
    assert [relays.cut("mx", 0.0, "t") for _ in range(5)] == [None] * 5
    assert len(fill(relays, 0.0)) == 2, "nor does it cost the others their connections"


def test_three_messages_in_a_row_that_lose_it_pause_the_relay(relays: Relays) -> None:
    prove(relays)
    assert relays.cut("mx", 0.0, "t", "mx:25") is None
    assert relays.cut("mx", 0.0, "u", "mx:25") is None
    pause = relays.cut("mx", 0.0, "v", "mx:25")
    assert pause is not None
    assert pause.news
    assert "mx:25: 3 messages in a row" in str(pause.fault)
    assert isinstance(relays.closed_for("mx", 1.0), Wait)


def test_one_that_is_answered_ends_the_row(relays: Relays) -> None:
    prove(relays)
    relays.cut("mx", 0.0, "t")
    relays.cut("mx", 0.0, "u")
    relays.answered("mx", "m")
    assert relays.cut("mx", 0.0, "v") is None


def test_from_the_second_in_a_row_on_there_is_half_the_room(relays: Relays) -> None:
    prove(relays)
    for _ in range(3):
        one_round(relays, 0.0)
    relays.cut("mx", 0.0, "t")
    assert len(one_round(relays, 0.0)) == 16
    relays.cut("mx", 0.0, "u")
    assert len(one_round(relays, 0.0)) < 16


def test_none_of_the_three_is_the_probe_while_there_is_another(relays: Relays) -> None:
    prove(relays)
    for message in "tuv":
        relays.cut("mx", 0.0, message)
    assert all(isinstance(relays.admit("mx", 10.0, message, wanted=1), Wait) for message in "tuv")
    assert relays.admit("mx", 10.0, "m", wanted=1) == Go(probe=True)


def test_a_probe_that_is_cut_off_after_three_others_pauses_it_for_longer(relays: Relays) -> None:
    prove(relays)
    pause = None
    for message in "tuv":
        pause = relays.cut("mx", 0.0, message)
    relays.admit("mx", 10.0, "m", wanted=1)
    longer = relays.cut("mx", 10.0, "m")
    assert pause is not None
    assert longer is not None
    assert longer.news
    assert longer.delay > pause.delay


def test_a_first_message_that_is_cut_off_leaves_its_place_to_another(relays: Relays) -> None:
    relays.admit("mx", 0.0, "t", wanted=1)
    assert relays.cut("mx", 0.0, "t") is None
    assert isinstance(relays.admit("mx", 0.0, "t", wanted=1), Wait)
    assert relays.admit("mx", 0.0, "m", wanted=1) == Go(probe=True)


def test_a_clock_may_begin_anywhere(relays: Relays) -> None:
    prove(relays, -1e6)
    assert len(one_round(relays, -1e6)) == 2

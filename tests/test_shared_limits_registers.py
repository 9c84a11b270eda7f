"""What stands in the register of a shared limit, and what one may draw of it."""

from __future__ import annotations

import math

import pytest
from examples import examples
from hypothesis import given, settings, strategies as st
from shared_limits import NANO, NOW, Sent, order, passed, permits

from outbox import RelayLimits
from outbox.relay import Order, draw
from outbox.relay.bucket import Bucket
from outbox.relay.rates import Rate
from outbox.relay.sharing import Unspent
from outbox.stores.names import require_register


def test_a_register_that_was_lost_begins_with_one_message_and_not_with_the_whole_burst() -> None:
    number, opens, _ = permits(order(1), None, NOW)
    assert (number, opens) == (1, 0.0)
    number, opens, _ = permits(order(), None, NOW)
    assert opens == pytest.approx((number - 1) / 200)


@pytest.mark.parametrize(
    "text", ["", "something else", "outbox-limits-2 per_second=1", "outbox-limits-1 per_second=x", "x" * 999]
)
def test_a_register_that_nobody_can_read_is_one_that_nobody_has_written(text: str) -> None:
    assert permits(order(), text, NOW) == permits(order(), None, NOW)


def test_the_longer_the_line_the_fewer_are_drawn_and_one_that_is_too_long_is_not_joined() -> None:
    text, drawn, opens = None, [], 0.0
    for _ in range(1000):
        number, opens, then = permits(order(), text, NOW)
        if then is None:
            break
        text = then
        drawn.append(number)
    assert len(drawn) < 200
    assert drawn == sorted(drawn, reverse=True)
    assert drawn[-1] == 1
    assert 0 < opens < 0.01, "so long does it take until there is a place in it again"
    assert permits(order(), text, NOW + round(opens * NANO) + 1)[0] == 1


def test_a_clock_that_was_set_back_costs_no_more_than_an_empty_bucket() -> None:
    _, _, text = permits(order(), None, NOW)
    number, opens, _ = permits(order(1), text, NOW - 3600 * NANO)
    if not number:
        number, opens, _ = permits(order(1), text, NOW - 3600 * NANO + round(opens * NANO) + 1)
    assert number == 1
    assert opens <= 0.51


def test_a_process_that_has_one_limit_keeps_what_another_counts_for_its_own() -> None:
    hour = RelayLimits(per_hour=1000, shared=True)
    _, _, text = permits(order(5, hour), None, NOW)
    _, _, both = permits(order(5), text, NOW)
    assert text is not None
    assert both is not None
    assert text.partition(" ")[2] in both


def test_what_is_given_back_is_there_again_but_for_what_has_come_since() -> None:
    slow = RelayLimits(per_hour=360, shared=True)
    _, _, text = permits(order(1, slow), None, NOW)
    number, _, _ = permits(order(1, slow), text, NOW)
    assert number == 0, "the next is ten seconds away"
    back = order(1, slow, messages_back=(Unspent(1, NOW),))
    assert permits(back, text, NOW + NANO // 10)[0] == 1


def test_what_is_given_back_of_a_bucket_that_lacked_as_much_all_the_time_comes_back_whole() -> None:
    text: str | None = None
    drawn = []
    for _ in range(6):
        number, _, text = permits(order(), text, NOW)
        drawn.append(number)
    later = NOW + NANO // 5
    first, _, without = permits(order(1), text, later)
    _, opens, _ = permits(order(1), without, later)
    _, earlier, _ = permits(order(1, messages_back=(Unspent(drawn[-1], NOW),)), without, later)
    assert first == 1
    assert opens - earlier == pytest.approx(drawn[-1] / 200)


def test_what_the_bucket_lacked_comes_back_once_and_not_for_each_who_gives_back() -> None:
    """A quarter of a second's worth had room all the time: the other portion would have found the bucket full."""
    text: str | None = None
    for _ in range(30):
        _, _, text = permits(order(), text, NOW)
    later = NOW + 3 * NANO // 10
    back = order(0, messages_back=(Unspent(50, NOW),))

    _, _, once = permits(back, text, later)
    assert once is not None
    assert permits(back, once, later)[2] is None


def test_what_the_bucket_lacked_of_the_stretch_before_comes_back_once_too() -> None:
    bucket = Bucket(Rate(0.005, 100, 0.25), turned=-1.0, lacked=0.25, before=0.05)
    assert bucket.give_back(10, -1.5) == pytest.approx(0.05)
    assert bucket.give_back(10, -1.5) == 0


GIVEN_BACK = st.lists(
    st.tuples(
        st.floats(0, 1.5),
        st.integers(1, 60),
        st.integers(0, 3),
        st.integers(0, 60),
        st.sampled_from([0.0, 0.1, 0.4]),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from([200.0, 20.0, 3.0]), GIVEN_BACK)
def test_what_is_given_back_can_never_be_had_twice(
    per_second: float, steps: list[tuple[float, int, int, int, float]]
) -> None:
    limits = RelayLimits(per_second=per_second, shared=True)
    text, at = None, NOW
    drawn: list[tuple[float, int, int]] = []
    for pause, wanted, which, unused, trip in steps:
        at += round(pause * 1_000_000) * 1000
        back: tuple[Unspent, ...] = ()
        if which and len(drawn) >= which and at - drawn[-which][2] < 3 * NANO:
            opens, number, since = drawn[-which]
            part = min(unused, number)
            drawn[-which] = (opens, number - part, since)
            back = (Unspent(part, since),) if part else ()
        draft = draw(Order(limits=limits, messages=wanted, messages_back=back), text, at, trip=trip)
        text = text if draft.text is None else draft.text
        if draft.messages.number:
            drawn.append(((at - NOW) / NANO + draft.messages.opens, draft.messages.number, at))
    sent = [Sent(opens, number, 0) for opens, number, _ in sorted(drawn)]
    burst = max(1, math.floor(per_second / 2))
    assert passed(sent, burst, per_second) < 0.01


def test_the_slowest_limit_that_can_be_shared_lets_one_go_a_day() -> None:
    slow = RelayLimits(per_day=1, shared=True)
    number, _, text = permits(order(1, slow), None, NOW)
    assert number == 1
    assert permits(order(1, slow), text, NOW + 86_399 * NANO)[0] == 0
    assert permits(order(1, slow), text, NOW + 86_400 * NANO)[0] == 1


@pytest.mark.parametrize("word", [":".join(["9" * 100] * 4), "9" * 400 + ":0:0:0", "0:0:0:" + "9" * 400])
def test_a_number_that_no_clock_has_is_one_that_nobody_can_read(word: str) -> None:
    text = f"outbox-limits-1 per_second={word}"
    assert permits(order(), text, NOW) == permits(order(), None, NOW)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.builds(
                "{}={}".format,
                st.sampled_from(["per_second", "per_hour", "x"]),
                st.lists(st.integers().map(str) | st.text(max_size=5), min_size=3, max_size=5).map(":".join),
            ),
        )
    )
)
def test_whatever_stands_in_a_register_can_be_drawn_from_and_written_anew(words: list[str]) -> None:
    """One register that could not would keep all that are asked for with it from being drawn from."""
    draft = draw(order(messages_back=(Unspent(3, NOW - NANO),)), " ".join(["outbox-limits-1", *words]), NOW)
    if draft.text is not None:
        require_register("a", draft.text)
        assert draw(order(1), draft.text, NOW + NANO).messages.number <= 1


def test_what_others_count_is_let_go_where_the_register_has_no_room_for_it() -> None:
    _, _, own = permits(order(1), None, NOW)
    crowded = f"outbox-limits-1 per_week={'9' * 995}"
    assert len(crowded) <= 1024
    assert permits(order(1), crowded, NOW) == (1, 0.0, own)


@pytest.mark.parametrize("back", [7, 30, 3600])
def test_a_clock_that_was_set_back_by_little_keeps_nobody_for_as_long(back: int) -> None:
    _, _, text = permits(order(), None, NOW)
    number, opens, _ = permits(order(1), text, NOW - back * NANO)
    assert number == 1
    assert opens <= 0.51


def test_a_clock_that_was_set_back_lets_nobody_go_before_his_turn_and_the_wait_runs_out() -> None:
    slow = RelayLimits(per_hour=10, shared=True)
    _, _, text = permits(order(1, slow), None, NOW)
    earlier = NOW - 400 * NANO
    number, opens, text = permits(order(1, slow), text, earlier)
    assert number == 0
    assert 350 < opens <= 360
    assert text is not None, "otherwise the next look would begin the wait anew"
    number, opens, then = permits(order(1, slow), text, earlier + 200 * NANO)
    assert (number, then) == (0, None)
    assert 150 < opens <= 160
    assert permits(order(1, slow), text, earlier + 360 * NANO)[0] == 1

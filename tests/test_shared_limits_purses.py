"""What one process holds of shared limits, and when it asks for more."""

from __future__ import annotations

import copy
import math
import random

import pytest
from examples import examples
from hypothesis import given, settings, strategies as st
from shared_limits import NOW, SHARED

from outbox import RelayLimits
from outbox.relay import Go, Order, Relays, Wait, draw
from outbox.relay.agenda import Agenda
from outbox.relay.purse import Purse, Purses
from outbox.relay.sharing import Draft, Drawn, Permits, Unspent


def drawing(relays: Relays, now: float, number: int, *, opens: float = 0.0) -> None:
    (asked,) = relays.orders(now).values()
    assert asked.messages
    relays.drawn("mx", Drawn(Draft("text", Permits(number, opens)), now, now, NOW), now)


def proven(limits: RelayLimits = SHARED) -> Relays:
    relays = Relays(random.Random(1), limits=limits)
    assert isinstance(relays.admit("mx", 0.0, "m", wanted=1), Wait)
    drawing(relays, 0.0, 1)
    go = relays.admit("mx", 0.0, "m", wanted=1)
    assert isinstance(go, Go)
    relays.answered("mx", "m")
    relays.leave("mx", 0.0, go)
    return relays


def test_who_has_drawn_nothing_waits_until_he_has_and_the_relay_is_not_closed_meanwhile() -> None:
    relays = Relays(random.Random(1), limits=SHARED)
    answer = relays.admit("mx", 0.0, "m", wanted=1)
    assert isinstance(answer, Wait)
    assert answer.drawing
    assert answer.limited
    assert relays.closed_for("mx", 0.0) is None, "nobody knows yet"


def test_nobody_draws_for_a_relay_that_nobody_wants_to_speak_to() -> None:
    relays = Relays(random.Random(1), limits=SHARED)
    assert relays.closed_for("mx", 0.0) is None
    assert relays.orders(0.0) == {}
    assert relays.next_order == math.inf


def test_what_comes_later_is_waited_for_and_what_was_not_used_in_time_is_given_back() -> None:
    relays = proven()
    assert isinstance(relays.admit("mx", 10.0, "n", wanted=5), Wait)
    drawing(relays, 10.0, 5, opens=0.2)
    closed = relays.closed_for("mx", 10.0)
    assert closed is not None
    assert closed.delay.total_seconds() == pytest.approx(0.2)

    assert relays.closed_for("mx", 10.3) is None
    assert relays.next_order == pytest.approx(10.7)
    assert isinstance(relays.admit("mx", 10.75, "n", wanted=5), Wait)
    (back,) = relays.orders(10.8).values()
    assert back.messages_back == (Unspent(5, NOW),)


def test_what_was_admitted_and_not_handed_over_is_of_use_for_as_long_as_it_was() -> None:
    relays = proven()
    for number in range(3):
        go = relays.admit("mx", 1.0, "n", wanted=1)
        if isinstance(go, Wait):
            drawing(relays, 1.0, 2)
            continue
        relays.leave("mx", 1.1, go, unused=1)
        assert relays.closed_for("mx", 1.1) is None, number
        assert isinstance(relays.admit("mx", 1.2, "o", wanted=1), Go)
        return


def test_a_message_that_no_limit_keeps_is_paid_for_afterwards() -> None:
    relays = proven()
    relays.insist("mx", 5.0, "now")
    (asked,) = relays.orders(5.0).values()
    assert asked.messages == 1 + 2, "one for it, and the others for who comes next"


def test_of_a_connection_and_a_message_both_are_drawn() -> None:
    both = RelayLimits(per_second=10, new_connections_per_minute=60, shared=True)
    relays = Relays(random.Random(1), limits=both)
    assert isinstance(relays.admit("mx", 0.0, "m", wanted=1), Wait)
    (asked,) = relays.orders(0.0).values()
    assert (asked.messages, asked.connections) == (1, 1)
    draft = draw(asked, None, NOW)
    assert (draft.messages.number, draft.connections.number) == (1, 1)
    relays.drawn("mx", Drawn(draft, 0.0, 0.0, NOW), 0.0)
    assert isinstance(relays.admit("mx", 0.0, "m", wanted=1), Go)


def test_what_was_spent_and_can_no_more_be_given_back_is_forgotten() -> None:
    """Who sends one by one gives nothing back, and nobody gives back a connection."""
    purse = Purse(0.01, 0.5)
    for second in range(1000):
        assert purse.lacks(second)
        purse.lay(Permits(1), second, second, NOW, 0.0)
        purse.take(1, second)
        assert len(purse._spent) <= 1
    purse.spoil(1001)
    assert not purse._spent


def test_a_relay_that_was_refused_is_looked_at_no_more_until_somebody_wants_to_go_there() -> None:
    relays = Relays(random.Random(1), limits=SHARED)
    for number in range(100):
        relays.admit(f"r{number}", 0.0, "m", wanted=1)
    for key in relays.orders(0.0):
        relays.refused(key, 100.0, 0.0)
    assert relays.orders(1.0) == {}
    assert relays.next_order == math.inf
    assert relays.closed_for("r1", 1.0) is not None
    relays.admit("r1", 101.0, "m", wanted=1)
    assert list(relays.orders(101.0)) == ["r1"]


def test_what_is_owed_is_asked_for_again_where_the_register_could_not_be_asked() -> None:
    relays = proven()
    relays.insist("mx", 5.0, "now")
    assert relays.orders(5.0)
    relays.refused("mx", 6.0, 5.0)
    assert relays.orders(5.5) == {}
    assert relays.next_order == 6.0
    (asked,) = relays.orders(6.5).values()
    assert asked.messages >= 1


def test_what_comes_back_unused_is_given_back_in_its_time_though_nobody_asks_any_more() -> None:
    relays = proven()
    assert isinstance(relays.admit("mx", 10.0, "n", wanted=5), Wait)
    drawing(relays, 10.0, 2)
    go = relays.admit("mx", 10.1, "n", wanted=5)
    assert isinstance(go, Go)
    assert go.number == 2
    relays.leave("mx", 10.2, go, unused=2)
    assert relays.next_order == pytest.approx(10.5)


def test_an_order_that_nobody_answers_is_looked_at_again_after_half_a_minute() -> None:
    relays = proven()
    assert isinstance(relays.admit("mx", 10.0, "n", wanted=5), Wait)
    assert relays.orders(10.0)
    assert relays.next_order == pytest.approx(40.0)
    assert relays.orders(40.0)


def test_what_is_drawn_is_in_vain_where_nothing_of_any_kind_is_used_and_no_debt_is_paid_by_it() -> None:
    both = Purses.of(RelayLimits(per_second=10, new_connections_per_minute=60, shared=True))
    assert both.messages is not None
    assert both.connections is not None
    for number in range(1, 4):
        for purse in (both.messages, both.connections):
            purse.lay(Permits(1), number, number, NOW, 0.0)
        assert both.vain == number
    both.messages.take(1, 3.1)
    assert both.vain == 0
    both.messages.take(1, 9.0)
    both.messages.lay(Permits(1), 9.1, 9.1, NOW, 0.0)
    assert both.vain == 0, "whoever went already is paid for"


def test_what_is_owed_and_was_not_drawn_at_once_is_asked_for_again() -> None:
    purse = Purse(0.01, 0.5)
    purse.take(5, 0.0)
    assert purse.ask(0.0) == 2 + 5
    purse.lay(Permits(2), 0.1, 0.1, NOW, 0.0)
    assert purse.ask(0.1) == 2 + 3
    purse.lay(Permits(4), 0.2, 0.2, NOW, 0.0)
    assert purse.ask(0.2) == 0


@pytest.mark.parametrize("back", [False, True])
def test_who_had_enough_draws_nothing_when_that_has_run_out(*, back: bool) -> None:
    purse = Purse(0.01, 0.5)
    purse.lay(Permits(2 if back else 10), 0.0, 0.0, NOW, 0.0)
    purse.take(1, 0.1)
    purse.take(1, 0.2)
    if back:
        assert purse.ask(0.2)
        purse.give_back(1, 0.1, 0.2)
        purse.give_back(1, 0.2, 0.2)
    assert purse.due(0.3) == 0.5
    assert purse.ask(0.5) == 0


WHAT = st.tuples(
    st.sampled_from(["admit", "insist", "join", "leave", "order", "send", "drawn", "refused", "pass"]),
    st.sampled_from("abc"),
    st.sampled_from([0.001, 0.1, 0.3, 0.6, 2.0, 40.0]),
)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.sampled_from([SHARED, RelayLimits(per_second=2, new_connections_per_minute=20, shared=True)]),
    st.lists(WHAT, max_size=40),
)
def test_whoever_draws_is_never_late_for_an_order_and_looks_at_nothing_again_and_again(
    limits: RelayLimits, steps: list[tuple[str, str, float]]
) -> None:
    relays, now = Relays(random.Random(1), limits=limits), 0.0
    gone: list[tuple[str, Go]] = []
    asked: dict[str, Order] = {}
    texts: dict[str, str | None] = {}
    for what, key, seconds in steps:
        if what == "admit":
            answer = relays.admit(key, now, f"m{now}", wanted=3)
            gone += [(key, answer)] if isinstance(answer, Go) else []
            relays.answered(key, f"m{now}")
        elif what in ("insist", "join"):
            gone.append(
                (key, relays.insist(key, now, "i", 1) if what == "insist" else relays.join(key, now, 1))
            )
            relays.answered(key, "i")
        elif what == "leave" and gone:
            left, go = gone.pop()
            relays.leave(left, now, go, unused=go.number)
        elif what in ("order", "send"):
            asked |= relays.orders(now, None if what == "order" else [key])
            assert what == "send" or relays.next_order > now, "otherwise he would look all the time"
        elif what == "drawn" and key in asked:
            at = NOW + round(now * 1e6) * 1000
            draft = draw(asked.pop(key), texts.get(key), at)
            texts[key] = draft.text or texts.get(key)
            relays.drawn(key, Drawn(draft, now, now, at), now)
        elif what == "refused" and key in asked:
            del asked[key]
            relays.refused(key, now + seconds, now)
        elif what == "pass":
            now += seconds
        purses = copy.deepcopy([relay.purses for relay in relays._relays.values()])
        if any(each is not None and each.order(now) for each in purses):
            assert relays.next_order <= now


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("put"), st.integers(0, 5), st.sampled_from([-math.inf, 0.0, 1.0, 2.5, 4.0, math.inf])
            ),
            st.tuples(st.just("take"), st.just(0), st.sampled_from([0.0, 1.0, 3.0, 5.0])),
        ),
        max_size=50,
    )
)
def test_an_agenda_knows_of_each_key_the_last_moment_that_was_said(
    steps: list[tuple[str, int, float]],
) -> None:
    agenda, plain = Agenda(), dict[str, float]()
    for what, number, moment in steps:
        if what == "put":
            agenda.put(str(number), moment)
            plain[str(number)] = moment
        else:
            come = sorted((at, key) for key, at in plain.items() if at <= moment)
            assert agenda.take(moment) == [key for _, key in come]
            plain = {key: at for key, at in plain.items() if at > moment}
        assert agenda.soonest == min(plain.values(), default=math.inf)
        assert len(agenda) == sum(at < math.inf for at in plain.values())


def test_an_agenda_does_not_grow_by_what_is_said_of_one_key_again_and_again() -> None:
    agenda = Agenda()
    for number in range(10_000):
        agenda.put("a", number)
    assert len(agenda._heap) < 200

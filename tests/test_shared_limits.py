"""What several processes may send together: never more than is said, in the end all of it, and to each his part."""

from __future__ import annotations

import datetime as dt
import logging
import math
import random
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest
from examples import examples
from hypothesis import given, settings, strategies as st
from shared_limits import Host, Sent, Town, passed, worst_window

from outbox import MemoryStore, Message, Outbox, RelayLimits, Runner, SQLiteStore, drawing as drawing_module
from outbox.breakers import Breakers
from outbox.bulletin import RelayBulletin
from outbox.cli.runners import relay_phrase
from outbox.drawing import Purser, register_of
from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.protocols import Register, Swap
from outbox.relay import Go, Order, Relays, Wait, draw, purse as purse_module
from outbox.relay.agenda import Agenda
from outbox.relay.bucket import Bucket
from outbox.relay.purse import Purse, Purses
from outbox.relay.rates import Rate
from outbox.relay.sharing import Draft, Drawn, Permits, Unspent
from outbox.stores.names import require_register
from outbox.testing import ManualClock
from outbox.transports.function import FunctionTransport

SHARED = RelayLimits(per_second=200, shared=True)
NANO = 1_000_000_000
NOW = 1_750_000_000 * NANO


def town_of(hosts: int, limits: RelayLimits = SHARED, *, latency: float = 0.002, **settings: Any) -> Town:
    town = Town(7, latency=latency)
    for number in range(hosts):
        Host(town, number, limits, **settings)
    return town


# -- many processes


@pytest.mark.parametrize(("hosts", "latency"), [(1, 0.002), (3, 0.002), (10, 0.002), (10, 0.03), (40, 0.002)])
def test_together_they_send_what_is_said_and_each_about_the_same(hosts: int, latency: float) -> None:
    town = town_of(hosts, latency=latency)
    town.run(22.0)

    steady = sum(each.number for each in town.sent if each.at >= 2.0) / 20
    shares = [town.total(number) for number in range(hosts)]
    assert 0.95 * 200 <= steady <= 1.05 * 200
    assert worst_window(town.sent, SHARED) < 0.001
    # Where the store is far away it is luck who comes between two others.
    assert max(shares) < (1.5 if latency < 0.01 else 4) * min(shares)


def test_the_more_there_are_the_less_each_asks_for_and_the_store_is_asked_seldom() -> None:
    for hosts in (1, 10):
        town = town_of(hosts)
        town.run(5.0)
        assert town.asked < 80 * 5


def test_who_alone_wants_has_all_of_it_also_where_others_have_been() -> None:
    town = Town(3)
    Host(town, 0, SHARED)
    others = [Host(town, number, SHARED, backlog=100) for number in range(1, 5)]
    town.run(20.0)

    assert all(not each.backlog for each in others)
    assert 0.95 * 200 <= sum(each.number for each in town.sent if each.at >= 10.0) / 10 <= 1.05 * 200


@pytest.mark.parametrize(
    ("limits", "seconds", "number"),
    [
        (RelayLimits(per_second=5, shared=True), 60, 300),
        (RelayLimits(per_second=0.5, shared=True), 400, 200),
        (RelayLimits(per_hour=720, shared=True), 1000, 200),
        (RelayLimits(per_second=50, per_hour=36_000, shared=True), 60, 600),
    ],
    ids=str,
)
def test_slow_limits_are_kept_and_reached_too(limits: RelayLimits, seconds: float, number: int) -> None:
    town = town_of(10, limits)
    town.run(seconds)

    assert 0.95 * number <= town.total() <= number + 0.1 * (limits.per_hour or 0) + 2
    assert worst_window(town.sent, limits) < 0.001


def test_a_process_that_dies_takes_its_portion_and_no_more_with_it() -> None:
    town = Town(5)
    hosts = [Host(town, number, SHARED) for number in range(6)]
    for number, host in enumerate(hosts[:5]):
        town.after(5.0 + number, host.crash)
    town.run(30.0)

    assert 0.95 * 200 <= sum(each.number for each in town.sent if each.at >= 10.0) / 20 <= 1.05 * 200
    assert worst_window(town.sent, SHARED) < 0.001


def test_while_the_store_cannot_be_asked_nothing_goes_and_then_it_does_again() -> None:
    town = town_of(4)
    town.run(5.0)
    town.down = True
    town.run(10.0)
    town.down = False
    town.run(20.0)

    late = [each for each in town.sent if 5.0 + 1.2 < each.at < 10.0]
    assert not late, "what was drawn before it is of use for a moment, and no longer"
    assert 0.95 * 200 <= sum(each.number for each in town.sent if each.at >= 13.0) / 7 <= 1.05 * 200
    assert worst_window(town.sent, SHARED) < 0.001


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "crash", "submit", "down", "up", "forget", "pass"]),
        st.integers(0, 5),
        st.floats(0.01, 3.0),
    ),
    max_size=12,
)
LIMITS = st.sampled_from(
    [
        SHARED,
        RelayLimits(per_second=3, shared=True),
        RelayLimits(per_second=40, per_hour=3_000, shared=True),
        RelayLimits(per_hour=600, per_day=9_000, shared=True),
    ]
)


@settings(max_examples=examples(30), deadline=None)
@given(LIMITS, STEPS, st.integers(0, 1000), st.sampled_from([0.001, 0.02, 0.2]))
def test_whatever_befalls_them_no_window_sees_more_than_is_said(
    limits: RelayLimits, steps: list[tuple[str, int, float]], seed: int, latency: float
) -> None:
    town = Town(seed, latency=latency)
    hosts = [Host(town, 0, limits, backlog=0)]
    for what, which, pause in steps:
        host = hosts[which % len(hosts)]
        if what == "join":
            hosts.append(Host(town, len(hosts), limits, took=pause / 10))
        elif what == "crash":
            host.crash()
        elif what == "submit":
            host.submit(10 * which)
        elif what in ("down", "up"):
            town.down = what == "down"
        town.run(town.now + pause)
    assert worst_window(town.sent, limits) < 0.001


@pytest.mark.parametrize(("hosts", "latency", "least"), [(1, 0.1, 50), (1, 0.125, 40), (10, 0.125, 50)])
def test_a_store_that_is_far_away_slows_them_down_and_stops_nobody(
    hosts: int, latency: float, least: float
) -> None:
    town = town_of(hosts, latency=latency)
    town.run(22.0)
    assert sum(each.number for each in town.sent if each.at >= 2.0) / 20 >= least
    assert worst_window(town.sent, SHARED) < 0.001


# -- the register


def permits(order: Order, text: str | None, at: int) -> tuple[int, float, str | None]:
    draft = draw(order, text, at)
    return draft.messages.number, draft.messages.opens, draft.text


def order(messages: int = 1000, limits: RelayLimits = SHARED, **more: Any) -> Order:
    return Order(limits=limits, messages=messages, **more)


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


def test_who_has_half_the_limit_counts_each_of_his_messages_twice() -> None:
    """Two files that do not agree: together they send less than the greater says, and more than the less."""
    half = RelayLimits(per_second=100, shared=True)
    town = Town(11)
    Host(town, 0, SHARED)
    Host(town, 1, half)
    town.run(22.0)
    steady = sum(each.number for each in town.sent if each.at >= 2.0) / 20
    assert 100 < steady < 200


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


# -- one process


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


# -- what a user says


def test_shared_limits_need_a_rate_and_a_store_that_keeps_a_register(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="shared says nothing without a rate"):
        RelayLimits(connections=4, shared=True)
    with pytest.raises(ConfigurationError, match="shared is 1"):
        RelayLimits(per_second=1, shared=1)  # type: ignore[arg-type]  # what a user may say
    with closing(SQLiteStore(tmp_path / "mail.db")) as store:
        transport = FunctionTransport(lambda *_: None)
        with pytest.raises(
            ConfigurationError, match=r"SQLiteStore cannot keep what several.*PostgreSQL or Redis"
        ):
            Runner(store, transport, limits=SHARED)
        with pytest.raises(ConfigurationError, match="SQLiteStore cannot keep what several"):
            Outbox(store, transport, limits=SHARED).drain()


@pytest.mark.parametrize(
    ("name", "said"),
    [("per_second", 1e-6), ("per_hour", 0.04), ("per_day", 0.3), ("new_connections_per_minute", 1e-4)],
)
def test_a_limit_that_a_store_may_have_forgotten_by_the_next_message_cannot_be_shared(
    name: str, said: Any
) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} is {said} and shared: .* less than one a day"):
        RelayLimits(**{"shared": True, "connections": 1, name: said})
    RelayLimits(**{"connections": 1, name: said})
    RelayLimits(shared=True, per_hour=1 / 24, per_second=1 / 86_400)


def test_what_is_shared_need_not_be_divided_among_processes() -> None:
    limits = RelayLimits(connections=8, per_second=10, shared=True)
    assert limits.among(4) == RelayLimits(connections=2, per_second=10, shared=True)


class _Named:
    name = "smtp.example.org:587"


def test_the_register_is_that_of_the_relay_by_the_name_that_people_call_it() -> None:
    transport: Any = _Named()
    assert register_of("", transport) == register_of("smtp.example.org:587", transport)
    assert register_of("", transport) != register_of("corp.example", transport)
    assert len(register_of("\ud800" * 500, transport)) < 64


# -- runners


def messages(number: int) -> list[Message]:
    return [Message(id=f"m{n}", recipients=["ann@example.org"], content=b"x") for n in range(number)]


def test_a_runner_delivers_within_a_shared_limit_and_counts_it_in_the_store() -> None:
    with closing(MemoryStore()) as store:
        store.put(messages(20))
        tally = Runner(store, FunctionTransport(lambda *_: None), limits=SHARED).drain()
        assert tally.delivered == 20
        (text,) = store._registers.values()
        assert text.startswith("outbox-limits-1 per_second=")


def test_two_runners_on_one_store_have_one_limit_and_a_message_that_is_sent_counts_too() -> None:
    slow = RelayLimits(per_hour=10, shared=True)
    with closing(MemoryStore()) as store:
        runners = [Runner(store, FunctionTransport(lambda *_: None), limits=slow) for _ in range(2)]
        first = runners[0].send(messages(1)[0])
        assert first.delivered
        then = runners[1].send(Message(id="n", recipients=["ann@example.org"], content=b"x"))
        assert not then.delivered
        assert then.verdict is not None


class _Failing(MemoryStore):
    down = True

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        if self.down:
            raise StoreUnavailable("the store is away")
        return super().registers(names)


def test_a_store_that_cannot_be_asked_is_told_of_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    breakers = Breakers(clock, random.Random(1), limits=SHARED)
    transport: Any = _Named()
    with closing(_Failing(clock=clock)) as store, caplog.at_level(logging.INFO, "outbox.runner"):
        purser = Purser(store, transport, breakers, clock, random.Random(1))
        for _ in range(3):
            assert isinstance(breakers.admit([""], "m", patience=0, wanted=1), dict)
            purser.draw([""])
            closed = breakers.closed_for("")
            assert closed is not None
            assert closed.limited
            clock.advance(closed.delay)
        store.down = False
        breakers.admit([""], "m", patience=0, wanted=1)
        purser.draw([""])
        breakers.admit([""], "m", patience=0, wanted=1)
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(" ")[0] for text in said] == ["the", "the"]
    assert "nothing does until it can be" in said[0]
    assert "can be asked again" in said[1]


def test_status_says_that_a_limit_is_shared() -> None:
    clock = ManualClock()
    breakers = Breakers(clock, random.Random(1), limits=RelayLimits(per_hour=1, shared=True))
    transport: Any = _Named()
    with closing(MemoryStore(clock=clock)) as store:
        purser = Purser(store, transport, breakers, clock, random.Random(1))
        for message in ("m", "n"):
            breakers.admit([""], message, patience=0, wanted=1)
            purser.draw([""])
            answer = breakers.admit([""], message, patience=0, wanted=1)
            assert isinstance(answer, dict)
            if isinstance(answer[""], Go):
                breakers.answered("", message)
                breakers.leave("", answer[""])
        (condition,) = breakers.conditions()
        assert condition.shared
        said = RelayBulletin(
            name="mx", state="well", limited_for=condition.limited_for, shared=condition.shared
        )
        clock.advance(dt.timedelta(seconds=1))
        runner: Any = _Looked()
        assert relay_phrase(runner, said).startswith(
            "is at its limit ([limits], shared by all who deliver from"
        )


class _Looked:
    age = dt.timedelta(0)

    def opens_in(self, _relay: object) -> dt.timedelta:
        return dt.timedelta(0)


# -- what befalls whoever draws


EACH = {"*": SHARED}
THREE = ("a", "b", "c")


class _Counted(MemoryStore):
    """Raises what is to be raised of registers, once, and counts how often it is asked."""

    error: BaseException | None = None
    asked = 0
    swapped = 0

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        self.asked += 1
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super().registers(names)

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        self.swapped += 1
        return super().swap(swaps)


def office(
    store_class: type[_Counted] = _Counted,
) -> tuple[ManualClock, Breakers, _Counted, Purser]:
    clock = ManualClock()
    breakers = Breakers(clock, random.Random(1), limits=EACH)
    store = store_class(clock=clock)
    transport: Any = _Named()
    return clock, breakers, store, Purser(store, transport, breakers, clock, random.Random(1))


def wanting(breakers: Breakers, keys: Sequence[str] = THREE) -> None:
    for key in keys:
        breakers.admit([key], f"m-{key}", patience=0, wanted=1)


def ordered(breakers: Breakers) -> list[str]:
    return sorted(breakers.await_orders(0.0, lambda: True))


def test_an_exception_while_one_relay_is_drawn_for_leaves_no_other_waiting_for_an_answer() -> None:
    clock, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        store.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            purser.serve(lambda: False)
        clock.advance(dt.timedelta(seconds=10))
        wanting(breakers)
        assert ordered(breakers) == list(THREE)


def test_an_exception_leaves_those_waiting_no_longer_who_were_not_asked_for_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    clock, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        store.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            purser.serve(lambda: False)
        wanting(breakers, THREE[1:])
        assert ordered(breakers) == ["b", "c"]
        clock.advance(dt.timedelta(seconds=10))
        wanting(breakers)
        assert "a" in ordered(breakers)


def test_an_exception_once_it_was_drawn_leaves_no_relay_waiting_for_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, breakers, store, purser = office()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with closing(store):
        wanting(breakers)
        with monkeypatch.context() as patched:
            patched.setattr(breakers, "drawn", interrupted)
            with pytest.raises(KeyboardInterrupt):
                purser.serve(lambda: False)
        clock.advance(dt.timedelta(seconds=10))
        wanting(breakers)
        assert ordered(breakers) == list(THREE)


def test_an_order_that_nobody_answers_is_asked_anew_after_a_while() -> None:
    clock, breakers, store, _ = office()
    with closing(store):
        wanting(breakers)
        assert ordered(breakers) == list(THREE)
        clock.advance(dt.timedelta(seconds=1))
        wanting(breakers)
        assert ordered(breakers) == [], "it is under way"
        clock.advance(dt.timedelta(seconds=60))
        wanting(breakers)
        assert ordered(breakers) == list(THREE)


class _Bells(Breakers):
    """Counts how often those who wait are woken."""

    rung = 0

    def _condition(self) -> threading.Condition:
        condition = super()._condition()
        ring = condition.notify_all

        def counted() -> None:
            self.rung += 1
            ring()

        condition.notify_all = counted  # type: ignore[method-assign]  # of this one
        return condition


def test_an_admission_wakes_whoever_draws_where_there_is_something_to_draw_that_was_not_there_before() -> (
    None
):
    clock = ManualClock()
    breakers = _Bells(clock, random.Random(1), limits=EACH)
    transport: Any = _Named()
    keys = [f"mx{number}" for number in range(300)]
    with closing(MemoryStore(clock=clock)) as store:
        purser = Purser(store, transport, breakers, clock, random.Random(1))
        wanting(breakers, keys)
        assert breakers.rung == 1, "he draws for all of them"
        purser.serve(lambda: False)
        breakers.rung = 0
        for key in keys:
            answer = breakers.admit([key], f"m-{key}", patience=0, wanted=1)
            assert isinstance(answer, dict)
            assert isinstance(answer[key], Go)
            breakers.answered(key, f"m-{key}")
            breakers.leave(key, answer[key])
        woken = breakers.rung
        for _ in range(10):
            wanting(breakers, keys)
    assert woken - len(keys) <= 1, "each report ends a probe, and wakes those who wait for it"
    assert breakers.rung - woken <= 1


def test_whoever_draws_looks_at_those_relays_alone_that_want_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, breakers, store, purser = office()
    keys = [f"mx{number}" for number in range(300)]
    looked_at = 0
    order_of = Purses.order

    def counted(purses: Purses, now: float) -> Order | None:
        nonlocal looked_at
        looked_at += 1
        return order_of(purses, now)

    with closing(store):
        wanting(breakers, keys)
        purser.serve(lambda: False)
        monkeypatch.setattr(Purses, "order", counted)
        wanting(breakers, ["another"])
        assert ordered(breakers) == ["another"]
        assert looked_at == 1
        clock.advance(dt.timedelta(seconds=1))
        assert ordered(breakers) == sorted(keys), "what nobody has used is given back"
        assert looked_at == 301


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


class _NeverAsked(MemoryStore):
    """Gives mail and no register; after five times it does."""

    asked = 0

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        self.asked += 1
        if self.asked <= 5:
            raise StoreUnavailable("no right to the registers")
        return super().registers(names)


@pytest.mark.parametrize("several", [False, True])
def test_a_drain_ends_where_the_register_cannot_be_asked_and_raises_why(
    monkeypatch: pytest.MonkeyPatch, *, several: bool
) -> None:
    monkeypatch.setattr(drawing_module, "_back_off", lambda failures: 0.001 if failures < 5 else 9.0)
    with closing(_NeverAsked()) as store:
        store.put(messages(5))
        transport: Any = _ByDomain() if several else FunctionTransport(lambda *_: None)
        with pytest.raises(StoreUnavailable, match="no right to the registers") as raised:
            Runner(store, transport, limits=EACH).drain()
        assert "delivered=0" in raised.value.__notes__[0]
        assert store.asked == 5
        claims = store.claim(limit=10, lease=dt.timedelta(seconds=1), queues=["mail"])
        assert len(claims) == 5, "nothing is held under a lease"


def test_a_drain_that_could_not_ask_for_a_moment_delivers_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_back_off", lambda _: 0.001)
    with closing(_NeverAsked()) as store:
        store.asked = 1
        store.put(messages(5))
        assert Runner(store, FunctionTransport(lambda *_: None), limits=EACH).drain().delivered == 5


class _ByDomain(FunctionTransport):
    def __init__(self) -> None:
        super().__init__(lambda *_: None)

    def relay(self, _message: Message, recipient: str) -> str:
        return recipient.partition("@")[2]


def test_hundreds_of_relays_are_drawn_for_in_two_round_trips() -> None:
    clock, breakers, store, purser = office()
    keys = [f"mx{number}.example" for number in range(300)]
    with closing(store):
        wanting(breakers, keys)
        purser.serve(lambda: False)
        assert (store.asked, store.swapped) == (1, 1)
        assert not any(breakers.closed_for(key) for key in keys)
        clock.advance(dt.timedelta(seconds=5))
        wanting(breakers, keys)
        purser.draw(keys)
        assert (store.asked, store.swapped) == (2, 2)


def test_those_whom_another_was_faster_than_are_asked_for_again_together_and_the_others_go() -> None:
    """Of the registers every third has changed meanwhile, and then every ninth."""
    clock, breakers, store, purser = office(_Overtaken)
    keys = [f"mx{number}.example" for number in range(300)]
    told: list[int] = []
    with closing(store):
        wanting(breakers, keys)
        purser.serve(lambda: False, lambda: told.append(sum(waits(breakers, clock, key) for key in keys)))
        assert (store.asked, store.swapped) == (1, 3)
        assert isinstance(store, _Overtaken)
        assert store.sizes == [300, 100, 33]
        assert told == [100, 33, 0], "who was answered goes at once"
        assert not any(breakers.closed_for(key) for key in keys)


def waits(breakers: Breakers, clock: ManualClock, key: str) -> bool:
    """Whether an order for this relay is under way."""
    return breakers._known.relays.asking(key, clock.monotonic())


class _Overtaken(_Counted):
    """Somebody else has always written every third of them, twice."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sizes: list[int] = []

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        self.sizes.append(len(swaps))
        if len(self.sizes) <= 2:
            for name in list(swaps)[2::3]:
                _, _, self._registers[name] = permits(order(1), self._registers.get(name), NOW)  # type: ignore[assignment]  # there is one to draw
        return super().swap(swaps)


def test_two_keys_that_have_one_register_are_both_answered() -> None:
    """Nobody calls a relay by what a lone surrogate is written as; if he does, it is drawn for twice."""
    clock, breakers, store, purser = office()
    twins = ["\ud800", "\\ud800"]
    with closing(store):
        wanting(breakers, twins)
        purser.serve(lambda: False)
        assert store.asked == 2
        clock.advance(dt.timedelta(milliseconds=20))
        assert not any(breakers.closed_for(key) for key in twins)


def test_who_sends_draws_for_his_own_relays_and_for_no_others() -> None:
    _, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        purser.draw(["b"])
        assert store.asked == 1
        assert breakers.closed_for("b") is None
        assert ordered(breakers) == ["a", "c"]


def test_where_the_store_cannot_be_asked_for_some_relays_it_is_not_asked_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    _, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        store.error = StoreUnavailable("away")
        purser.serve(lambda: False)
        assert store.asked == 1
        assert all(breakers.closed_for(key) for key in THREE)
        wanting(breakers)
        assert ordered(breakers) == []


def test_whoever_draws_stops_between_two_portions_of_many_relays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    _, breakers, store, purser = office()
    with closing(store):
        wanting(breakers)
        purser.serve(lambda: store.asked > 0)
        assert store.asked == 1
        wanting(breakers)
        assert ordered(breakers) == ["b", "c"]


class _Slow(_Counted):
    """Each look at registers takes six seconds."""

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        found = super().registers(names)
        self.clock.advance(dt.timedelta(seconds=6))
        return found

    clock: ManualClock


def test_who_sends_begins_to_ask_no_further_register_after_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing_module, "_TOGETHER", 1)
    clock, breakers, store, purser = office(_Slow)
    assert isinstance(store, _Slow)
    store.clock = clock
    with closing(store):
        wanting(breakers)
        purser.draw(THREE)
        assert store.asked == 1


class _Far(_Counted):
    """Each way to it and back takes so many seconds."""

    seconds: tuple[float, float] = (0.6, 0.6)
    clock: ManualClock

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        found = super().registers(names)
        self.clock.advance(dt.timedelta(seconds=self.seconds[0]))
        return found

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        stands = super().swap(swaps)
        self.clock.advance(dt.timedelta(seconds=self.seconds[1]))
        return stands


def tried(breakers: Breakers, purser: Purser, clock: ManualClock) -> bool:
    """Whether a message went, after a draw where it had to be drawn for."""
    breakers.admit(["a"], "m", patience=0, wanted=1)
    purser.draw(["a"])
    answer = breakers.admit(["a"], "m", patience=0, wanted=1)
    assert isinstance(answer, dict)
    go = answer["a"]
    if isinstance(go, Go):
        breakers.answered("a", "m")
        breakers.leave("a", go)
    clock.advance(dt.timedelta(seconds=6))
    return isinstance(go, Go)


@pytest.mark.parametrize("seconds", [(0.6, 0.6), (0.0, 1.2), (1.1, 0.1)])
def test_a_store_that_is_too_far_away_is_told_of_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture, seconds: tuple[float, float]
) -> None:
    clock, breakers, store, purser = office(_Far)
    assert isinstance(store, _Far)
    store.clock, store.seconds = clock, seconds
    with closing(store), caplog.at_level(logging.INFO, "outbox.runner"):
        assert not any(tried(breakers, purser, clock) for _ in range(12))
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith(
            "the store is too far away to share limits, and little or nothing goes: it took 1.20 s"
        )
        assert "to a, and that is of use for 0.5 s" in said
        assert isinstance(purser.given_up, StoreUnavailable)
        store.seconds = (0.002, 0.002)
        assert all(tried(breakers, purser, clock) for _ in range(3))
    assert len(caplog.records) == 2
    assert "answers in time" in caplog.records[1].getMessage()


@pytest.mark.parametrize("seconds", [0.002, 0.2, 0.4])
def test_a_store_that_is_not_too_far_away_is_told_of_at_no_time(
    caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    clock, breakers, store, purser = office(_Far)
    assert isinstance(store, _Far)
    store.clock, store.seconds = clock, (seconds, seconds)
    with closing(store), caplog.at_level(logging.INFO, "outbox.runner"):
        assert all(tried(breakers, purser, clock) for _ in range(12))
    assert not caplog.records


def test_permits_that_nobody_wants_any_more_are_no_fault_of_a_store_that_is_near(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, breakers, store, purser = office()
    with closing(store), caplog.at_level(logging.INFO, "outbox.runner"):
        for _ in range(12):
            wanting(breakers)
            purser.draw(THREE)
            clock.advance(dt.timedelta(seconds=6))
    assert not caplog.records


class _FarInTruth(_Counted):
    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        time.sleep(0.03)
        return super().registers(names)


def test_a_drain_ends_where_the_store_is_too_far_away_and_raises_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purse_module, "LATE", 0.01)
    monkeypatch.setattr(drawing_module, "_FAR", 0.005)
    with closing(_FarInTruth()) as store:
        store.put(messages(5))
        with pytest.raises(StoreUnavailable, match="too far away to share limits: it took 0"):
            Runner(store, FunctionTransport(lambda *_: None), limits=EACH).drain()
        assert len(store.claim(limit=10, lease=dt.timedelta(seconds=1), queues=["mail"])) == 5


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


def test_a_relay_that_was_refused_is_looked_at_no_more_until_somebody_wants_to_go_there() -> None:
    relays = Relays(random.Random(1), limits=EACH)
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

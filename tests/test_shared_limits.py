"""What several processes may send together: never more than is said, in the end all of it, and to each his part."""

from __future__ import annotations

import datetime as dt
import random
from contextlib import closing
from typing import Any

import pytest
from drawing_office import Named, messages
from examples import examples
from hypothesis import given, settings, strategies as st
from shared_limits import SHARED, Host, Town, worst_window

from outbox import MemoryStore, Message, Outbox, RelayLimits, Runner, SQLiteStore
from outbox.breakers import Breakers
from outbox.bulletin import RelayBulletin
from outbox.cli.runners import relay_phrase
from outbox.drawing import Purser, register_of
from outbox.errors import ConfigurationError
from outbox.relay import Go
from outbox.testing import ManualClock
from outbox.transports.function import FunctionTransport


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


def test_who_has_half_the_limit_counts_each_of_his_messages_twice() -> None:
    """Two files that do not agree: together they send less than the greater says, and more than the less."""
    half = RelayLimits(per_second=100, shared=True)
    town = Town(11)
    Host(town, 0, SHARED)
    Host(town, 1, half)
    town.run(22.0)
    steady = sum(each.number for each in town.sent if each.at >= 2.0) / 20
    assert 100 < steady < 200


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


def test_the_register_is_that_of_the_relay_by_the_name_that_people_call_it() -> None:
    transport: Any = Named()
    assert register_of("", transport) == register_of("smtp.example.org:587", transport)
    assert register_of("", transport) != register_of("corp.example", transport)
    assert len(register_of("\ud800" * 500, transport)) < 64


# -- runners


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


def test_status_says_that_a_limit_is_shared() -> None:
    clock = ManualClock()
    breakers = Breakers(clock, random.Random(1), limits=RelayLimits(per_hour=1, shared=True))
    transport: Any = Named()
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

"""How a Redis store stands, at a glance: as a count where there is little, and with no more work where there is much."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis_server import Server, started

from outbox.lifecycle import Settlement, State
from outbox.protocols import QueueCount, SupportsGlance, Suspension
from outbox.stores.redis import RedisStore
from outbox.testing.clauses.scene import dead, delivered, mail, put, retry, settle, take
from outbox.testing.clock import ManualClock

HOUR = dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with contextlib.closing(server.client()) as client:
        yield client
        client.flushall()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(server: Server, client: Any, clock: ManualClock) -> Iterator[RedisStore]:
    with contextlib.closing(RedisStore(server.url, clock=clock, keep_delivered=24 * HOUR)) as store:
        yield store


def many(store: RedisStore, number: int, **fields: Any) -> None:
    for first in range(0, number, 500):
        some = range(first, min(first + 500, number))
        put(store, *(mail(f"m{place:05}", content=b"", **fields) for place in some))


def test_a_glance_at_little_is_a_count(store: RedisStore, clock: ManualClock, client: Any) -> None:
    assert isinstance(store, SupportsGlance)
    assert list(store.glance().counts) == list(store.count()) == []
    many(store, 30)
    put(store, *(mail(f"later{n}", not_before=clock.now() + 2 * HOUR) for n in range(5)))
    put(
        store,
        *(mail(f"bulk{n}", queue="mail.bulk", priority=n) for n in range(3)),
        mail("other", queue="other"),
    )
    store.suspend(Suspension(kind="queue", value="other"))
    for verdict in (dead, delivered, retry):
        for claim in take(store, 4):
            settle(store, claim, verdict(claim))
    take(store, 3)
    clock.advance(HOUR)
    take(store, 1)
    client.hset("{outbox}:row", "m00029", "what nobody wrote")

    glance = store.glance()
    assert list(glance.counts) == list(store.count())
    assert glance.at_most == sum(each.number for each in glance.counts)


def test_a_glance_at_much_tells_the_least_that_there_is_and_since_when(
    store: RedisStore, clock: ManualClock
) -> None:
    put(store, "first")
    first = clock.now()
    clock.advance(HOUR)
    many(store, 200, priority=9)

    glance = store.glance(most=10)
    assert list(glance.counts) == [
        QueueCount(
            queue="mail",
            state=State.QUEUED,
            number=201,
            due=201,
            oldest_at=None,
            oldest_due_at=first,
            more=True,
        )
    ]
    assert glance.at_most == 201


def test_of_what_is_scheduled_or_over_the_first_are_counted(store: RedisStore, clock: ManualClock) -> None:
    many(store, 50)
    store.settle([Settlement(claim, dead(claim)) for claim in take(store, 50)])
    put(store, *(mail(f"later{n}", not_before=clock.now() + HOUR) for n in range(50)))

    found = store.glance(most=10)
    assert [(each.state, each.number, each.due, each.more) for each in found.counts] == [
        (State.DEAD, 10, 0, True),
        (State.QUEUED, 10, 0, True),
    ]
    assert found.at_most == 100


def calls(client: Any) -> int:
    stats: Any = client.info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name != "cmdstat_info")


@pytest.mark.parametrize(
    "prepare",
    [
        many,
        lambda store, number: many(store, number, not_before=dt.datetime(2900, 1, 1, tzinfo=dt.UTC)),
    ],
)
def test_a_glance_asks_no_more_of_much_than_of_little(
    store: RedisStore, client: Any, prepare: Callable[[RedisStore, int], None]
) -> None:
    asked = []
    store.glance(most=10)  # so that the script is known
    for number in (20, 3000):
        prepare(store, number)
        before = calls(client)
        store.glance(most=10)
        asked.append(calls(client) - before)

    assert asked[0] == asked[1]


def test_a_place_that_is_none_ends_no_glance(store: RedisStore, client: Any) -> None:
    put(store, "a")
    client.zadd("{outbox}:ready:mail", {"garbage": 0, "0": 0, "100:x": 0})

    assert [each.number for each in store.glance().counts] == [1]

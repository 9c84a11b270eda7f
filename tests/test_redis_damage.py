"""What is damaged in a Redis store is held by its name and with the reason, and keeps nothing else from going on."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Any, Final

import pytest
from examples import examples
from hypothesis import HealthCheck, example, given, settings, strategies as st
from redis_server import Server, started

from outbox.errors import ConflictError, CorruptRecord, StoreFull
from outbox.lifecycle import Claim, Fate, Released, Settlement, State
from outbox.stores.redis import RedisStore, claiming
from outbox.stores.redis.rows import Row
from outbox.stores.redis.scripts import PUT, Script
from outbox.testing.clauses.scene import LEASE, dead, delivered, ids, mail, put, settle, take

ROW: Final = (
    b"mail\t0\t5\tab12\t3\tff\tqueued\tw\t1700000000000000\t1700000000000000\t1700000000000000\t\t2\t1\t\twhy"
)
DAY: Final = dt.timedelta(days=1)
PLACES: Final = {
    "queue": 0,
    "priority": 1,
    "digest": 3,
    "generation": 4,
    "state": 6,
    "fates": 7,
    "due": 8,
    "settled": 11,
    "attempts": 12,
}
ODD: Final = [
    ("queue", b"other"),
    ("queue", b"\xff"),
    ("priority", b"101"),
    ("digest", b"abc"),
    ("generation", b"9" * 40),
    ("state", b"lost"),
    ("state", b"held"),
    ("due", b"999999999999999999"),
    ("due", b"-99999999999999999"),
    ("settled", b"1700000000000000"),
    ("attempts", b"9" * 5000),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with contextlib.closing(server.client()) as client:
        yield client
        client.config_set("maxmemory", "0")
        client.flushall()


@pytest.fixture
def store(server: Server, client: Any) -> Iterator[RedisStore]:
    with contextlib.closing(RedisStore(server.url, discard_after=DAY, keep_delivered=DAY)) as store:
        yield store


def spoil(client: Any, id: str, field: str, value: bytes) -> None:
    fields = client.hget("{outbox}:row", id).split(b"\t")
    fields[PLACES[field]] = value
    client.hset("{outbox}:row", id, b"\t".join(fields))


def states(store: RedisStore) -> dict[str, State]:
    return {summary.id: summary.state for summary in store.browse()}


def counted(store: RedisStore) -> dict[State, int]:
    return {row.state: row.number for row in store.count()}


# -- both languages read the same rows


@pytest.fixture(scope="module")
def lua(server: Server) -> Script:
    """Whether the scripts can read a row."""
    common = PUT.text.partition("-- Messages into the store")[0]
    text = common + "\nlocal row = parse(ARGV[2])\nreturn row and render(row) or ''"
    return Script("parse", text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def fields() -> st.SearchStrategy[bytes]:
    digits = st.integers(0, 20).flatmap(
        lambda size: st.sampled_from([b"0", b"1", b"9"]).map(lambda d: d * size)
    )
    edges = [
        *(
            b"253402300799999999",
            b"253402300800000000",
            b"-62135596800000000",
            b"-62135596800000001",
            b"-",
            b"-0",
        ),
        *(
            b"+5",
            b" 5",
            b"1_0",
            "٣".encode(),
            b"-100",
            b"-101",
            b"100",
            b"000",
            b"x" * 64,
            b"x" * 65,
            b"abc",
            b"ABCD",
        ),
        *(
            b"held",
            b"delivered",
            b"claimed",
            b"queued",
            b"lost",
            b"wdafu",
            b"x",
            b"",
            b"\xff",
            b"\n",
            b"\0",
            b"a\tb",
        ),
    ]
    return st.one_of(
        st.sampled_from(edges), digits, digits.map(lambda text: b"-" + text), st.binary(max_size=8)
    )


@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(changes={8: b"-000000000000000000"})
@example(changes={2: b"111111111111111"})
@example(changes={12: b"111111111111111"})
@given(changes=st.dictionaries(st.integers(0, 15), fields(), max_size=3))
def test_a_row_that_the_scripts_read_is_one_that_python_reads_and_the_other_way_round(
    store: RedisStore, lua: Script, changes: dict[int, bytes]
) -> None:
    parts = ROW.split(b"\t")
    for place, value in changes.items():
        parts[place] = value
    text = b"\t".join(parts)
    read: bytes = store._caller.run(lua, {}, content=[text])
    try:
        row = Row.read("m", text)
    except CorruptRecord:
        assert read == b""
    else:
        assert read != b""
        assert Row.read("m", read) == row


# -- what it keeps from nothing


@pytest.mark.parametrize(("field", "value"), ODD)
def test_a_row_of_which_one_field_is_damaged_is_held_and_its_neighbours_are_claimed(
    store: RedisStore, client: Any, field: str, value: bytes
) -> None:
    put(store, "a", "b")
    spoil(client, "a", field, value)

    assert ids(take(store)) == ["b"]
    if (field, value) != ("state", b"held"):
        assert states(store)["a"] is State.HELD
        assert store.browse()[0].reason == "its row cannot be read"
    assert counted(store)[State.HELD] == 1
    assert store.purge(["a"])[0].status == "done"
    assert take(store) == []


@pytest.mark.parametrize(("field", "value"), ODD)
def test_what_is_damaged_while_it_is_scheduled_is_held_when_it_is_due(
    store: RedisStore, client: Any, field: str, value: bytes
) -> None:
    put(store, "a", "b", "c")
    for claim in take(store, lease=dt.timedelta(microseconds=1)):
        spoil(client, claim.message.id, field, value)

    assert take(store) == []
    assert set(states(store).values()) == {State.HELD}


def test_a_damaged_row_under_a_lease_makes_no_other_settle_or_extension_fail(
    store: RedisStore, client: Any
) -> None:
    put(store, "a", "b")
    a, b = take(store)
    spoil(client, "a", "queue", b"other")

    assert store.extend([a, b], lease=LEASE) == [a]
    assert store.settle([dead_one(a), dead_one(b)]) == [a]
    assert states(store)["b"] is State.DEAD


def dead_one(claim: Claim) -> Settlement:
    return Settlement(claim, dead(claim))


@pytest.mark.parametrize(("field", "value"), [each for each in ODD if each[0] != "settled"])
def test_a_settled_row_that_is_damaged_keeps_no_other_from_being_pruned(
    server: Server, store: RedisStore, client: Any, field: str, value: bytes
) -> None:
    put(store, "a", "b", "c")
    for claim in take(store):
        settle(store, claim, dead(claim))
    spoil(client, "b", field, value)
    with contextlib.closing(RedisStore(server.url, discard_after=dt.timedelta(0))) as impatient:
        assert impatient.prune() >= 2

    assert set(states(store)) <= {"b"}
    assert set(states(store).values()) <= {State.HELD}


def test_what_is_told_of_a_damaged_row_is_what_can_be_read_of_it(store: RedisStore, client: Any) -> None:
    put(store, "a")
    take(store)
    spoil(client, "a", "generation", b"odd")
    (change,) = store.cancel(["a"])

    assert change.status == "done"
    (summary,) = store.browse()
    assert (summary.queue, summary.fates) == ("mail", dict.fromkeys(summary.recipients, Fate.UNCERTAIN))
    assert store.put([mail("a")])[0].status == "known"


def test_a_reason_that_is_no_text_is_told_with_what_it_is(store: RedisStore, client: Any) -> None:
    put(store, "a")
    client.hset("{outbox}:row", "a", client.hget("{outbox}:row", "a") + b"\xff")

    assert store.browse()[0].reason == "\\xff"
    assert store.hold(["a"], reason="mine")[0].status == "done"
    assert states(store) == {"a": State.HELD}


def test_a_row_that_python_alone_refuses_is_held_too(
    store: RedisStore, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", "b")

    def read(id: str, text: bytes) -> Row:
        if id == "a" and b"\theld\t" not in text:
            raise CorruptRecord("a: its row cannot be read")
        return Row.read(id, text)

    with monkeypatch.context() as patched:
        patched.setattr(claiming, "Row", type("Stricter", (), {"read": staticmethod(read)}))
        assert ids(take(store)) == ["b"]

    assert states(store)["a"] is State.HELD


def test_a_place_that_leads_to_no_message_is_given_up(store: RedisStore, client: Any) -> None:
    put(store, "a", "b")
    client.hdel("{outbox}:row", "a")
    client.hdel("{outbox}:envelope", "a")
    client.zadd("{outbox}:dead", {"ghost": 0, "b": 0})

    assert ids(take(store)) == ["b"]
    assert store.prune() == 0
    assert list(states(store)) == ["b"]
    assert client.zcard("{outbox}:dead") == 0


def test_an_id_whose_memory_is_damaged_is_not_taken_for_a_new_one(store: RedisStore, client: Any) -> None:
    for text in (b"\tabc\t1700000000000000", b"\tno hex", b"\t\t"):
        client.hset("{outbox}:row", "a", text)
        with pytest.raises(ConflictError):
            put(store, "a")


@pytest.mark.parametrize("spared", [b"", b"x"])
def test_a_row_whose_queue_is_gone_is_none_that_is_remembered_but_held(
    store: RedisStore, client: Any, spared: bytes
) -> None:
    put(store, "a", "b")
    _, _, rest = client.hget("{outbox}:row", "a").partition(b"\t")
    client.hset("{outbox}:row", "a", (b"" if not spared else b"\tab\t") + b"\t" + rest)
    assert [summary.id for summary in store.browse()] == ["a", "b"]

    assert ids(take(store)) == ["b"]
    assert states(store)["a"] is State.HELD
    assert counted(store)[State.HELD] == 1


def test_what_is_remembered_of_an_id_takes_no_message_with_it_when_it_is_forgotten(
    server: Server, store: RedisStore, client: Any
) -> None:
    put(store, "a")
    client.zadd("{outbox}:gone", {"a": 1})
    with contextlib.closing(RedisStore(server.url, remember=dt.timedelta(0))) as impatient:
        impatient.prune()

    assert ids(take(store)) == ["a"]


def test_attempts_that_were_damaged_are_never_less_than_none(store: RedisStore, client: Any) -> None:
    put(store, "a")
    (claim,) = take(store)
    spoil(client, "a", "attempts", b"0")
    settle(store, claim, Released(delay=dt.timedelta(0), fates=dict(claim.fates)))

    assert [taken.attempt for taken in take(store)] == [1]


# -- a server without memory


def test_a_put_that_finds_no_memory_has_written_nothing(server: Server, client: Any) -> None:
    """Also where it comes upon an id that need not be remembered any more: to forget one asks for none."""
    with contextlib.closing(RedisStore(server.url, remember=dt.timedelta(microseconds=1))) as store:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))
        before = {key: client.dump(key) for key in client.keys("*")}
        client.config_set("maxmemory", "1mb")

        with pytest.raises(StoreFull):
            put(store, "a")
        assert {key: client.dump(key) for key in client.keys("*")} == before

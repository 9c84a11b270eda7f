"""A move between two stores, killed at every boundary between two steps: the same set, the same order, nothing doubled."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from moves import Killed, contents, fill, moved, seamed
from postgres_places import Places
from redis_places import open_redis

from outbox.errors import ConfigurationError, ConflictError, InvalidMessage, StoreFull, UnsupportedError
from outbox.lifecycle import Claim, Settlement, State, Verdict
from outbox.mover import Move
from outbox.moving import Batch
from outbox.protocols import Suspension
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import LEASE, delivered, ids, mail, put, retry, states, statuses, take
from outbox.testing.clock import ManualClock

Open = Callable[..., Any]


def memory(**settings: Any) -> Any:
    return MemoryStore(**settings)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_(tmp_path: Path, clock: ManualClock) -> Iterator[Open]:
    """A store by its name, the same contents each time."""
    opened: list[SQLiteStore] = []

    def open_(name: str, **settings: Any) -> SQLiteStore:
        opened.append(SQLiteStore(tmp_path / f"{name}.db", clock=clock, **settings))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def opening(
    open_: Open, tmp_path: Path, clock: ManualClock, postgres: Places
) -> Iterator[Mapping[str, Open]]:
    """The same in each kind of store."""
    opened: list[Any] = []

    def kept(store: Any) -> Any:
        opened.append(store)
        return store

    yield {
        "memory": lambda _: memory(),
        "sqlite": open_,
        "filesystem": lambda name: FilesystemStore(tmp_path / name),
        "postgres": lambda name: kept(postgres.open(tmp_path / name, clock=clock, max_connections=4)),
        "redis": lambda name: kept(open_redis(tmp_path / name, clock=clock)),
    }
    for store in opened:
        store.close()


def killed_at(number: int) -> Callable[[int], None]:
    def at(moment: int) -> None:
        if moment == number:
            raise Killed

    return at


def run(source: Any, destination: Any, at: Callable[[int], None], limit: int) -> bool:
    """Move until it is done, or killed: whether it was done."""
    try:
        moved(*seamed(source, destination, at), limit=limit)
    except Killed:
        return False
    return True


# -- killed


def test_killed_at_any_boundary_between_two_steps_it_goes_on_where_it_was(clock: ManualClock) -> None:
    moment, done = 0, False
    while not done:
        moment += 1
        source, destination = memory(clock=clock), memory(clock=clock)
        fill(source, clock, 12)
        source.suspend(Suspension(kind="queue", value="bulk"))
        before = contents(source)

        done = run(source, destination, killed_at(moment), limit=5)
        moved(source, destination, limit=5)
        assert contents(destination) == before, moment
        assert states(source) == {}, moment
    # Every batch passes it six times, and there is more than one.
    assert moment > 20


def test_killed_at_any_boundary_it_can_be_turned_round(clock: ManualClock) -> None:
    moment, done = 0, False
    while not done:
        moment += 1
        source, destination = memory(clock=clock), memory(clock=clock)
        fill(source, clock, 12)
        before = contents(source)

        done = run(source, destination, killed_at(moment), limit=5)
        moved(destination, source, limit=4, joins=True)
        assert contents(source) == before, moment
        assert states(destination) == {}, moment


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_two_thousand_messages_there_and_back_killed_at_one_boundary_after_the_other(
    kind: str, open_: Open, opening: Mapping[str, Open], clock: ManualClock
) -> None:
    def opened(name: str) -> Any:
        return (open_ if name == "one" else opening[kind])(name)

    stores = "one", "other"
    fill(opened("one"), clock, 2000)
    before = contents(opened("one"))
    assert len(before.records) + len(before.known) == 2000

    for here, there in (stores, stores[::-1]):
        kills = 0
        # As a process finds them that knows nothing of the one before.
        while not run(opened(here), opened(there), killed_at(kills + 1), limit=100):
            kills += 1
        assert kills > 12
        assert contents(opened(there)) == before
        assert contents(opened(there)).order == before.order
        assert states(opened(here)) == {}


# -- in company


MADE: Sequence[Callable[[Claim], Verdict]] = (delivered, retry)


def test_who_delivers_at_either_end_meanwhile_delivers_each_message_once(clock: ManualClock) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, *(f"m{number:02}" for number in range(40)))
    sent: list[str] = []

    def work(store: Any) -> None:
        """Claim two, deliver one of them, and let the other go on later."""
        claims = take(store, 2)
        verdicts = [made(claim) for claim, made in zip(claims, MADE, strict=False)]
        store.settle([Settlement(*pair) for pair in zip(claims, verdicts, strict=True)])
        sent.extend(claim.message.id for claim in claims[:1])

    for _ in Move(
        *seamed(source, destination, lambda moment: work((source, destination)[moment % 2])), limit=3
    ).steps():
        clock.advance(LEASE / 1000)
    while states(destination):
        work(destination)
    assert states(source) == {}
    assert sorted(sent) == [f"m{number:02}" for number in range(40)]


def test_what_workers_have_is_waited_for_and_moved_when_they_are_done(clock: ManualClock) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, "a", "b", "c")
    claims = take(source, 2)

    steps = Move(source, destination).steps()
    assert next(steps).moved == 1
    for _ in range(3):
        waits = next(steps)
        assert (waits.moved, waits.leased, waits.until) == (1, 2, clock.now() + LEASE)
    source.settle([Settlement(claims[0], delivered(claims[0])), Settlement(claims[1], retry(claims[1]))])
    assert {step.moved for step in steps} == {2}
    assert sorted(states(destination)) == ["b", "c"]
    assert statuses(destination.put([mail("a")])) == ["known"]


def test_two_who_move_the_same_messages_double_none_and_lose_none(clock: ManualClock) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, *(f"m{number}" for number in range(9)))
    late: list[Any] = []

    def overtaken(moment: int) -> None:
        # Between its take and its give another one moves all there is, and more comes.
        if moment == 6:
            put(source, "x")
            moved(source, destination)
            for claim in take(destination):
                destination.settle([Settlement(claim, delivered(claim))])
                late.append(claim.message.id)

    with pytest.raises(ConflictError, match="another program"):
        moved(*seamed(source, destination, overtaken), limit=4)
    assert len(late) == 10
    assert states(source) == states(destination) == {}


# -- what does not go


def test_a_store_is_not_moved_to_itself_nor_to_its_copy(open_: Open) -> None:
    with pytest.raises(ConfigurationError, match="the same store"):
        Move(open_("one"), open_("one"))


class Narrow:
    """The five verbs, and no more."""

    def __init__(self) -> None:
        self.inner = memory()
        self.put, self.claim, self.extend = self.inner.put, self.inner.claim, self.inner.extend
        self.settle, self.close = self.inner.settle, self.inner.close


@pytest.mark.parametrize("end", ["from", "to"])
def test_a_store_that_lacks_what_a_move_needs_is_named(end: str) -> None:
    stores = (Narrow(), memory()) if end == "from" else (memory(), Narrow())
    with pytest.raises(
        UnsupportedError, match=f"{end} this store \\(Narrow\\): it is not SupportsMove"
    ) as told:
        Move(*stores)
    assert "let runners empty the old one: see docs/moving.md" in str(told.value)


def test_messages_are_joined_with_others_only_where_that_was_said() -> None:
    source, destination = memory(), memory()
    put(source, "a")
    put(destination, "b")

    with pytest.raises(ConfigurationError, match="--join"):
        moved(source, destination)
    assert (sorted(states(source)), sorted(states(destination))) == (["a"], ["b"])
    assert moved(source, destination, joins=True).moved == 1
    assert sorted(states(destination)) == ["a", "b"]


def test_a_move_goes_on_where_the_destination_has_put_on_messages_of_its_own() -> None:
    source, destination = memory(), memory()
    put(source, "a")
    moved(source, destination)
    put(source, "b")
    put(destination, "c")

    assert moved(source, destination).moved == 1
    assert sorted(states(destination)) == ["a", "b", "c"]


def test_of_two_messages_of_one_id_each_stays_where_it_is() -> None:
    source, destination = memory(), memory()
    put(source, "a", "b", "c")
    put(destination, "b")

    move = moved(source, destination, joins=True, limit=1)
    assert (move.moved, move.refused) == (2, ["b"])
    assert states(source) == {"b": State.QUEUED}


def test_a_store_that_has_most_of_them_already_is_no_place_for_the_rest() -> None:
    source, destination = memory(), memory()
    names = [f"m{number:04}" for number in range(1200)]
    put(source, *names)
    put(destination, *names)

    with pytest.raises(ConflictError, match="is it a copy"):
        moved(source, destination, joins=True, limit=400)
    assert set(states(source).values()) == {State.QUEUED}
    assert len(states(source)) == 1200


def test_where_the_destination_is_full_the_last_batch_stands_as_it_stood() -> None:
    source, destination = memory(), memory(max_messages=5)
    put(source, *(f"m{number}" for number in range(9)))

    with pytest.raises(StoreFull):
        moved(source, destination, limit=2)
    assert len(states(destination)) == 4
    assert set(states(source).values()) == {State.QUEUED}
    take(destination)
    assert len(take(source)) == 5


class FullAfterwards(MemoryStore):
    """Has accepted what it is given when the disk is full."""

    full = False

    def give(self, batch: Batch, /) -> Sequence[str]:
        refused = super().give(batch)
        if self.full:
            raise StoreFull("the disk is full")
        return refused


def test_what_a_full_destination_has_accepted_is_not_given_back() -> None:
    source, destination = memory(), FullAfterwards()
    put(source, "a", "b")
    destination.full = True

    with pytest.raises(StoreFull):
        moved(source, destination)
    assert (take(source), sorted(ids(take(destination)))) == ([], ["a", "b"])
    destination.full = False
    moved(source, destination)
    assert states(source) == {}


class FullForNow(MemoryStore):
    """Has no room for any message until it is told so."""

    full = True

    def give(self, batch: Batch, /) -> Sequence[str]:
        if self.full and batch.records:
            raise StoreFull("there is no room")
        return super().give(batch)


class Overtaken(MemoryStore):
    """Before what was taken from it comes back, another mover finds room at the destination."""

    meanwhile: Callable[[], None]

    def conclude(self, name: str, /, *, back: Collection[str] = ()) -> None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        super().conclude(name, back=back)


def test_what_a_full_destination_gives_back_arrives_by_no_other_mover() -> None:
    source, destination = Overtaken(), FullForNow()
    put(source, "a", "b")

    def another() -> None:
        destination.full = False
        batch = source.take(to=destination.identity(), limit=0)
        assert batch is not None
        destination.give(batch)

    source.meanwhile = another
    with pytest.raises(StoreFull):
        moved(source, destination)
    assert (ids(take(source)), ids(take(destination))) == (["a", "b"], [])


class Narrowminded(MemoryStore):
    """Takes no message of more than a hundred bytes."""

    def give(self, batch: Batch, /) -> Sequence[str]:
        large = [record.message.id for record in batch.records if len(record.message.content) > 100]
        if large:
            raise InvalidMessage(f"{large[0]} is too large")
        return super().give(batch)


def narrowminded() -> Any:
    return Narrowminded()


@pytest.mark.parametrize("limit", [500, 7, 1])
def test_what_the_destination_cannot_hold_stays_and_is_named_and_the_others_go(limit: int) -> None:
    source, destination = memory(), narrowminded()
    names = [f"m{number:02}" for number in range(40)]
    large = {"m03", "m04", "m29"}
    put(source, *(mail(name, content=b"x" * (200 if name in large else 50)) for name in names))

    move = moved(source, destination, limit=limit)
    assert set(move.unfit) == large
    assert all("too large" in why for why in move.unfit.values())
    assert (move.moved, move.refused, move.unreadable) == (37, [], [])
    assert states(source) == dict.fromkeys(large, State.QUEUED)
    assert sorted(states(destination)) == sorted(set(names) - large)


def test_what_a_killed_run_left_under_way_and_the_destination_cannot_hold_stands_again() -> None:
    source, destination = memory(), narrowminded()
    put(source, "a", mail("b", content=b"x" * 200))
    source.take(to=destination.identity(), limit=2)

    move = moved(source, destination)
    assert (list(move.unfit), sorted(states(source)), sorted(states(destination))) == (["b"], ["b"], ["a"])


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_a_message_that_is_larger_than_a_database_holds_is_left(
    kind: str, opening: Mapping[str, Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, destination = memory(), opening[kind]("other")
    put(source, "a", mail("b", content=b"x" * 200))
    monkeypatch.setattr(f"outbox.stores.{kind}.putting._MOST_CONTENT", 100)

    assert "200 bytes" in moved(source, destination).unfit["b"]
    assert (sorted(states(source)), sorted(states(destination))) == (["b"], ["a"])


def test_a_source_that_is_restored_with_a_batch_under_way_that_has_long_arrived_goes_on(
    open_: Open, tmp_path: Path
) -> None:
    source, destination = open_("one"), memory()
    put(source, "a", "b", "c")
    taken = source.take(to=destination.identity(), limit=1)
    source.close()
    (tmp_path / "backup.db").write_bytes((tmp_path / "one.db").read_bytes())
    assert moved(open_("one"), destination).moved == 3

    restored = open_("backup")
    assert restored.take(to="", limit=0).name == taken.name
    assert moved(restored, destination).refused == ["a", "b", "c"]
    assert set(states(restored).values()) == {State.QUEUED}


def test_a_source_that_is_restored_under_a_clock_that_was_set_back_goes_on(
    open_: Open, clock: ManualClock, tmp_path: Path
) -> None:
    early = clock.now()
    clock.advance(LEASE)
    source, destination = open_("one"), memory(clock=clock)
    source.close()
    (tmp_path / "backup.db").write_bytes((tmp_path / "one.db").read_bytes())
    source = open_("one")
    put(source, "a")
    moved(source, destination)

    restored = SQLiteStore(tmp_path / "backup.db", clock=ManualClock(early))
    put(restored, "b")
    assert moved(restored, destination).moved == 1
    restored.close()
    assert ids(take(destination)) == ["a", "b"]


def test_what_a_worker_lets_go_while_the_move_looks_for_the_last_is_moved_too(clock: ManualClock) -> None:
    class Released(MemoryStore):
        """Lets go what a worker has, when nothing else is left to be taken."""

        held: Sequence[Claim] = ()

        def take(self, **asked: Any) -> Batch | None:
            batch = super().take(**asked)
            if batch is None and self.held and asked["limit"]:
                claims, self.held = self.held, ()
                self.settle([Settlement(claim, retry(claim)) for claim in claims])
            return batch

    source, destination = Released(clock=clock), memory(clock=clock)
    put(source, "a", "b")
    source.held = take(source, 1)

    assert list(Move(source, destination).steps())[-1].moved == 2
    assert sorted(states(destination)) == ["a", "b"]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "filesystem", "postgres", "redis"])
def test_what_could_not_be_read_when_a_batch_arrived_did_not_arrive_whatever_can_be_read_later(
    kind: str, opening: Mapping[str, Open]
) -> None:
    source = memory()
    destination = opening[kind]("other")
    put(source, "a", "b")
    batch = source.take(to=destination.identity(), limit=2)
    assert batch is not None
    halved = attrs.evolve(batch, records=batch.records[:1], unreadable=["b"])

    assert list(destination.give(halved)) == ["b"]
    # The mover was killed, and the next can read it.
    assert list(destination.give(batch)) == ["b"]
    moved(source, destination)
    assert states(source) == {"b": State.QUEUED}
    moved(source, destination)
    assert sorted(states(destination)) == ["a", "b"]
    destination.close()


def test_what_is_left_behind_under_a_lease_that_ran_out_is_not_waited_for(clock: ManualClock) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, "a")
    put(destination, "a")
    take(source)
    clock.advance(2 * LEASE)

    move = Move(source, destination, joins=True)
    assert [step.leased for step in move.steps()] == [0]
    assert move.refused == ["a"]


def test_what_is_suspended_is_so_in_the_other_store_before_anything_arrives(clock: ManualClock) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, "a")
    source.suspend(Suspension(kind="queue", value="mail", reason="a mistake in the template"))
    seen: list[int] = []

    moved(*seamed(source, destination, lambda _: seen.append(len(take(destination)))))
    assert set(seen) == {0}
    assert destination.suspensions() == source.suspensions()
    destination.unsuspend("queue", "mail")
    assert ids(take(destination)) == ["a"]


def test_what_was_let_go_on_meanwhile_is_not_suspended_again_by_the_next_run(clock: ManualClock) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, "a")
    source.suspend(Suspension(kind="queue", value="mail"))
    moved(source, destination)
    destination.unsuspend("queue", "mail")
    put(source, "b")

    moved(source, destination)
    assert ids(take(destination)) == ["a", "b"]


def test_what_is_suspended_while_a_move_runs_is_so_in_the_other_store_before_the_next_batch(
    clock: ManualClock,
) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, "a", "b", "c")
    steps = Move(source, destination, limit=1).steps()
    next(steps)
    source.suspend(Suspension(kind="domain", value="example.org"))
    next(steps)

    assert destination.suspensions() == source.suspensions()
    destination.unsuspend("domain", "example.org")
    assert list(steps)[-1].moved == 3
    assert destination.suspensions() == []


def test_what_is_suspended_in_the_source_alone_is_named_by_the_next_run(clock: ManualClock) -> None:
    source, destination = memory(clock=clock), memory(clock=clock)
    put(source, "a")
    assert moved(source, destination).unsuspended == []
    late = Suspension(kind="queue", value="mail")
    source.suspend(late)
    put(source, "b")

    assert moved(source, destination).unsuspended == [late]
    destination.suspend(late)
    assert moved(source, destination).unsuspended == []


class Unstoppable(Narrow):
    """It can be moved to, and nothing in it can be suspended."""

    def __init__(self) -> None:
        super().__init__()
        for name in [
            "get",
            "browse",
            "count",
            "identity",
            "take",
            "give",
            "last_given",
            "conclude",
            "abandon",
            "has_left",
            "remembered",
            "remember",
        ]:
            setattr(self, name, getattr(self.inner, name))


def test_a_store_that_keeps_no_suspension_gets_nothing_of_one_that_has_some() -> None:
    source, destination = memory(), Unstoppable()
    put(source, "a")
    source.suspend(Suspension(kind="queue", value="mail"))

    with pytest.raises(UnsupportedError, match="queue mail"):
        moved(source, destination)
    assert sorted(states(source)) == ["a"]


def test_what_cannot_be_read_stays_and_is_named_and_the_others_go(open_: Open) -> None:
    source, destination = open_("one"), open_("other")
    put(source, "a", "b", "c")

    with sqlite3.connect(source._database.path) as sql:
        sql.execute(
            "UPDATE outbox_body SET content = 'x' WHERE number = (SELECT body FROM outbox_message WHERE id = 'b')"
        )
    sql.close()

    move = moved(source, destination, limit=1)
    assert (move.moved, move.unreadable) == (2, ["b"])
    assert sorted(states(destination)) == ["a", "c"]
    assert sorted(states(source)) == ["b"]


def test_a_batch_of_less_than_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        Move(memory(), memory(), limit=0)

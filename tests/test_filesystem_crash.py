"""The filesystem store when it is killed, when the power goes, and when the disk fails: at every call."""

from __future__ import annotations

import datetime as dt
import errno
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from model_disk import Killed, ModelDisk, tree

from outbox.errors import AmbiguousPut, ConflictError, StoreError, StoreUnavailable
from outbox.lifecycle import Claim, Settlement, State, Verdict
from outbox.protocols import Suspension
from outbox.stores.filesystem import FilesystemStore
from outbox.testing.clauses.scene import (
    LEASE,
    ZERO,
    dead,
    delivered,
    ids,
    mail,
    put,
    retry,
    settle,
    statuses,
    take,
)
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")

DAY = dt.timedelta(days=1)
FAULTS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE)
ROUNDS = 60
"""Losses of power for each script and each place where it is interrupted, on a sample of the places."""


class World:
    """A spool on a model disk, and what its users were told of it."""

    def __init__(self, disk: ModelDisk | None = None) -> None:
        self.disk = disk or ModelDisk()
        self.clock = ManualClock()
        self.stored: set[str] = set()
        self.tried: set[str] = set()
        self.ended: dict[str, set[State | None]] = {}
        self.received: set[str] = set()
        self.remembered: set[str] = set()
        self.claims: list[Claim] = []
        self.suspended: list[list[Suspension]] = [[]]
        self.settings: dict[str, Any] = {}
        self.store = self.open()

    def open(self, **settings: Any) -> FilesystemStore:
        self.settings |= settings
        return FilesystemStore("spool", clock=self.clock, disk=self.disk, **self.settings)

    def put(self, *names: str) -> None:
        self.tried.update(names)
        put(self.store, *names)
        self.stored.update(names)

    def again(self) -> None:
        """Another process opens it."""
        self.disk.step = lambda _: None
        self.store = self.open()

    def interrupt(self, number: int, error: Callable[[], BaseException], only: str = "") -> None:
        """The call of this number from now on fails, and in a killed process every later one."""
        left = number

        def step(name: str) -> None:
            nonlocal left
            if only and name != only:
                return
            left -= 1
            if left == 0 or (left < 0 and isinstance(error(), Killed)):
                raise error()

        self.disk.step = step


Script: TypeAlias = Callable[[World], Iterator[None]]


def putting(world: World) -> Iterator[None]:
    yield
    world.put("a")
    world.put("b", "c", "d")
    world.put("c")


def claiming(world: World) -> Iterator[None]:
    world.put("a", "b", "c")
    put_later(world, "later", 5)
    world.clock.advance(dt.timedelta(seconds=10))
    yield
    world.claims += take(world.store, 2)
    world.store.extend(world.claims, lease=2 * LEASE)
    world.claims += take(world.store, 5)


def put_later(world: World, name: str, seconds: int) -> None:
    world.tried.add(name)
    world.store.put([mail(name, not_before=world.clock.now() + dt.timedelta(seconds=seconds))])
    world.stored.add(name)


def settling(world: World) -> Iterator[None]:
    world.put("a", "b", "c", "d")
    world.claims = claims = take(world.store)
    yield
    verdicts: list[Verdict] = [delivered(claims[0]), dead(claims[1]), retry(claims[2]), delivered(claims[3])]
    states = [None, State.DEAD, State.QUEUED, None]
    world.received = {"a", "d"}
    for claim, verdict, state in zip(claims, verdicts, states, strict=True):
        world.ended[claim.message.id] = {State.CLAIMED, State.QUEUED, state}
        settle(world.store, claim, verdict)
        world.ended[claim.message.id] = {state}
        if state is None:
            world.remembered.add(claim.message.id)


def steering(world: World) -> Iterator[None]:
    world.put("a", "b", "c")
    claims = take(world.store, 2)
    for claim in claims:
        settle(world.store, claim, dead(claim))
    yield
    world.ended["a"] = {State.DEAD, State.QUEUED}
    world.store.requeue(["a"])
    world.ended["a"] = {State.QUEUED}
    world.ended["c"] = {State.QUEUED, State.CANCELLED}
    world.store.cancel(["c"])
    world.ended["c"] = {State.CANCELLED}
    world.ended["b"] = {State.DEAD, None}
    world.store.purge(["b"])
    world.ended["b"] = {None}


def pruning(world: World) -> Iterator[None]:
    world.put("a", "b", "c")
    for claim in take(world.store, 2):
        settle(world.store, claim, delivered(claim))
        world.ended[claim.message.id] = {None}
    world.received = {"a", "b"}
    world.clock.advance(8 * DAY)
    yield
    world.store.prune()
    world.ended["a"] = {None, State.QUEUED}
    world.put("a")
    world.ended["a"] = {State.QUEUED}


def handing_over(world: World) -> Iterator[None]:
    world.put("a")
    yield
    world.tried.update("bc")
    claims = world.store.put_claimed([mail("a"), mail("b"), mail("c")], lease=LEASE)
    world.stored.update("bc")
    world.claims += claims
    world.received = {"b"}
    world.ended["b"] = {State.CLAIMED, None}
    settle(world.store, claims[0], delivered(claims[0]))
    world.ended["b"] = {None}
    world.remembered = {"b"}


def keeping(world: World) -> Iterator[None]:
    """Records without their content, and records that are discarded."""
    world.store = world.open(keep_delivered=DAY, keep_content=False, discard_after=DAY)
    world.put("a", "b", "c")
    a, b, _ = take(world.store)
    settle(world.store, b, dead(b))
    yield
    world.received = {"a"}
    world.ended["a"] = {State.CLAIMED, State.QUEUED, State.DELIVERED}
    settle(world.store, a, delivered(a))
    world.ended["a"] = {State.DELIVERED}
    world.remembered = {"a"}
    world.clock.advance(DAY)
    world.ended |= {"a": {State.DELIVERED, None}, "b": {State.DEAD, None}}
    world.store.prune()
    world.ended |= {"a": {None}, "b": {None}}


def suspending(world: World) -> Iterator[None]:
    first = Suspension(kind="queue", value="mail", reason="a test")
    second = Suspension(kind="queue", value="mail", until=world.clock.now() + DAY)
    world.put("a")
    yield
    for before, after in (([], [first]), ([first], [second])):
        world.suspended = [before, after]
        world.store.suspend(after[0])
        world.suspended = [after]
    world.suspended = [[second], []]
    world.store.unsuspend("queue", "mail")
    world.suspended = [[]]


SCRIPTS = [putting, claiming, settling, steering, pruning, handing_over, keeping, suspending]


def run(script: Script, prepare: Callable[[World], None]) -> tuple[World, bool]:
    """Let the script run up to its ``yield``, prepare the world, and let it run on; whether it came to its end."""
    world = World()
    steps = script(world)
    next(steps)
    prepare(world)
    try:
        next(steps, None)
    except (Killed, StoreError):
        return world, False
    return world, True


def killed_at(number: int) -> Callable[[World], None]:
    return lambda world: world.interrupt(number, Killed)


def failing_at(number: int, fault: int) -> Callable[[World], None]:
    return lambda world: world.interrupt(number, lambda: OSError(fault, os.strerror(fault)))


def places(script: Script) -> int:
    world, _ = run(script, lambda world: world.disk.calls.clear())
    calls = world.disk.calls
    return sum(calls.values()) - calls["entry"]


def require_sound(world: World, said: str) -> None:
    """What every user of the spool may rely on, after whatever happened."""
    store = world.store
    found = {summary.id: summary.state for summary in store.browse(limit=1000)}
    assert len(found) == sum(count.number for count in store.count()), said
    for id in world.stored:
        allowed = world.ended.get(id, set(State) - {State.DELIVERED})
        assert found.get(id) in allowed, f"{said}: {id} is {found.get(id)}, not one of {allowed}"
    assert set(found) <= world.tried, said
    for id, state in found.items():
        record = store.get(id)
        assert record is not None, said
        kept = state is not State.DELIVERED or world.settings.get("keep_content", True)
        assert record.message.content == (mail(id).content if kept else b""), said
    require_one_ticket_each(world, said)
    assert list(store.suspensions()) in world.suspended, said
    for suspension in store.suspensions():
        store.unsuspend(suspension.kind, suspension.value)
    assert [f.text for f in store.check() if f.level == "error"] == [], said
    require_deliverable(world, said)


def require_one_ticket_each(world: World, said: str) -> None:
    tickets = [path for path in tree(world.disk) if path.startswith(("queues/", "remembered/"))]
    names = [path.rpartition("/")[2].split(",")[1] for path in tickets if "/remembered/" not in path]
    live = [n for n, p in zip(names, tickets, strict=True) if not p.startswith("remembered/")]
    assert len(live) == len(set(live)), f"{said}: {tickets}"


def require_deliverable(world: World, said: str) -> None:
    """Whatever waits can be claimed and settled, and an old token changes nothing."""
    world.clock.advance(3 * LEASE)
    there = {summary.id for summary in world.store.browse(limit=1000)}
    waiting = {s.id for s in world.store.browse(states=[State.QUEUED, State.CLAIMED], limit=1000)}
    seen: set[str] = set()
    while claims := take(world.store):
        assert seen.isdisjoint(ids(claims)), said
        seen.update(ids(claims))
        stale = [claim for claim in world.claims if claim.message.id in ids(claims)]
        answer = world.store.settle([Settlement(claim, dead(claim)) for claim in stale])
        assert list(answer) == stale, said
        for claim in claims:
            settle(world.store, claim, delivered(claim))
    assert seen == waiting, said
    # And each id can be put again: what nobody has received is not known, or it is stored by that.
    answers = world.store.put([mail(id) for id in sorted(world.tried)])
    known = {answer.id for answer in answers if answer.status == "known"}
    assert known <= seen | there | world.received | set(ids(take(world.store))), said
    assert world.remembered <= known, f"{said}: a delivered id is not known any more, and would be sent again"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_kill_at_any_call_leaves_every_message_whole_and_in_one_place(script: Script) -> None:
    for number in range(1, places(script) + 1):
        world, _ = run(script, killed_at(number))
        world.again()
        require_sound(world, f"{script.__name__} killed at call {number}")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_loss_of_power_at_any_call_loses_nothing_that_was_acknowledged(script: Script) -> None:
    rng = random.Random(4)
    total = places(script)
    for number in [*range(1, total + 2), *rng.choices(range(1, total + 2), k=ROUNDS)]:
        world, _ = run(script, killed_at(number))
        world.disk.lose_power(rng)
        world.again()
        require_sound(world, f"{script.__name__} without power from call {number}")


@pytest.mark.parametrize("fault", FAULTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("script", SCRIPTS)
def test_an_error_at_any_call_is_told_and_loses_nothing(script: Script, fault: int) -> None:
    for number in range(1, places(script) + 1):
        world, _ = run(script, failing_at(number, fault))
        world.again()
        require_sound(world, f"{script.__name__} with {errno.errorcode[fault]} at call {number}")


def test_a_put_that_failed_left_nothing_unless_it_says_that_it_cannot_tell() -> None:
    for number in range(1, 200):
        world = World()
        world.interrupt(number, lambda: OSError(errno.ENOSPC, "no space left"))
        try:
            world.put("a", "b", "c")
        except AmbiguousPut:
            continue
        except StoreError:
            world.again()
            assert list(world.store.browse()) == [], f"at call {number}"
            assert [result.status for result in world.store.put([mail("b", "other@example.org")])] == [
                "stored"
            ]
        else:
            if number > sum(world.disk.calls.values()):
                return
    raise AssertionError("the put never came to its end")


def test_a_claim_that_could_not_read_gives_back_what_it_had_taken() -> None:
    world = World()
    world.put("a", "b", "c")
    reads = iter(range(100))

    def step(name: str) -> None:
        if name == "read" and next(reads) == 1:
            raise OSError(errno.EMFILE, "too many open files")

    world.disk.step = step
    with pytest.raises(StoreUnavailable, match="ulimit"):
        take(world.store)
    world.disk.step = lambda _: None

    assert {(s.state, s.attempts) for s in world.store.browse()} == {(State.QUEUED, 0)}
    assert ids(take(world.store)) == ["a", "b", "c"]


# -- what others do meanwhile


def purging(world: World) -> Callable[[], object]:
    """Of what nobody has received."""
    put(world.store, "a")
    world.store.cancel(["a"])
    return lambda: world.store.purge(["a"])


def forgetting(world: World) -> Callable[[], object]:
    put(world.store, "a")
    (claim,) = take(world.store)
    settle(world.store, claim, delivered(claim))
    world.clock.advance(8 * DAY)
    return world.store.prune


def delivering(world: World) -> Callable[[], object]:
    """Where no id is to be remembered."""
    world.store = world.open(remember=ZERO)
    put(world.store, "a")
    (claim,) = take(world.store)
    return lambda: settle(world.store, claim, delivered(claim))


@pytest.mark.parametrize("prepare", [purging, forgetting, delivering])
def test_a_put_amid_a_removal_is_refused_nothing_and_loses_nothing(
    prepare: Callable[[World], Callable[[], object]],
) -> None:
    """Also where the file system gives the number of a removed file to the next one."""
    for number in range(1, 100):
        world = World(ModelDisk(logged=False, frugal=True))
        remove = prepare(world)
        put(world.store, "b")
        other = world.open()
        answers: list[str] = []
        calls = iter(range(1, 1000))

        def step(_: str, world: World = world, other: FilesystemStore = other) -> None:
            if not world.disk.locked and next(calls) == number:  # noqa: B023 - called before the next turn
                with pytest.raises(ConflictError):
                    other.put([mail("a"), mail("b", "other@example.org")])
                answers.extend(statuses(other.put([mail("a")])))  # noqa: B023 - called before the next turn

        world.disk.step = step
        remove()
        world.disk.step = lambda _: None
        if not answers:
            return
        said = f"put at call {number}"
        assert [f.text for f in world.store.check() if f.level == "error"] == [], said
        if answers == ["stored"]:
            assert statuses(world.store.put([mail("a")])) == ["known"], said
            assert sorted(ids(take(world.store))) == ["a", "b"], said
        else:
            assert ids(take(world.store)) == ["b"], said
            assert statuses(world.store.put([mail("a")])) == ["stored"], said
    raise AssertionError("the removal never came to its end")


def test_a_put_amid_a_handing_over_finds_the_message_known_and_it_is_delivered_once() -> None:
    for number in range(1, 100):
        world = World(ModelDisk(logged=False))
        other = world.open()
        put(world.store, "before")
        answers: list[str] = []
        calls = iter(range(1, 1000))

        def step(_: str, world: World = world, other: FilesystemStore = other) -> None:
            if not world.disk.locked and next(calls) == number:  # noqa: B023 - called before the next turn
                answers.extend(statuses(other.put([mail("a")])))  # noqa: B023 - called before the next turn

        world.disk.step = step
        claims = world.store.put_claimed([mail("a")], lease=LEASE)
        world.disk.step = lambda _: None
        if not answers:
            return
        waiting = ids(take(world.store))
        assert sorted([*waiting, *ids(claims)]) == ["a", "before"], f"put at call {number}"
        assert answers == ["known"] or ids(claims) == [], f"put at call {number}"
        for claim in claims:
            settle(world.store, claim, delivered(claim))
    raise AssertionError("the put never came to its end")


def test_what_was_handed_over_and_answered_known_is_not_taken_back() -> None:
    world = World(ModelDisk(logged=False))
    other = world.open()
    put(world.store, "before")
    renames = iter(range(1, 100))

    def step(name: str) -> None:
        if name == "rename" and next(renames) == 2:
            world.disk.step = lambda _: None
            assert statuses(other.put([mail("a")])) == ["known"]
            raise OSError(errno.ENOSPC, "no space left")

    world.disk.step = step
    with pytest.raises(AmbiguousPut):
        world.store.put_claimed([mail("a"), mail("b")], lease=LEASE)

    assert ids(take(world.store)) == ["before"]
    world.clock.advance(LEASE)
    found = [id for _ in range(3) for id in ids(take(world.store))]
    assert sorted(found) == ["a", "before"]
    assert statuses(world.store.put([mail("b")])) == ["stored"]

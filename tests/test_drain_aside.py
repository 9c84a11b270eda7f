"""What a drain cannot send: it is neither charged for it, nor kept in memory, nor counted for its limit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pytest
from claims import a_claim
from test_desk import DOWN, SECOND, Scene, delivered, ids

from outbox.errors import RelayUnavailable
from outbox.lifecycle import Claim, Released, Settlement, State
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome
from outbox.stores.memory import MemoryStore
from outbox.transports.route import RouteTransport

LARGE = bytes(1 << 20)


@pytest.fixture
def scene() -> Scene:
    """A drain, whose relay "down" is; a worker is at work at another for as long as a test lasts."""
    scene = Scene(draining=True, several=True)
    scene.answers["down"] = DOWN
    scene.collect()
    scene.stocked(a_claim(999), lane=("slow",)).run("hand")
    scene.pull("hand")
    return scene


def delays(scene: Scene) -> Sequence[float]:
    return [verdict.delay.total_seconds() for verdict in scene.written() if isinstance(verdict, Released)]


def refused(claim: Claim) -> Settlement:
    return Settlement(claim, Released(delay=dt.timedelta(0), fates=claim.fates))


# -- when it is given back


def test_what_a_drain_could_not_send_is_given_back_after_a_second_and_not_due_for_25(scene: Scene) -> None:
    scene.stocked(a_claim(1), lane=("down",), closed=DOWN)
    assert 0.0 < scene.rests() <= 1.0
    scene.now = 3.0
    assert delays(scene) == pytest.approx([22.0], abs=0.1)


@pytest.mark.parametrize(("lasted", "due"), [(24.0, 25.0), (25.1, 50.0), (70.0, 100.0), (700.0, 800.0)])
def test_a_drain_that_lasts_tries_the_same_less_and_less_often(
    scene: Scene, lasted: float, due: float
) -> None:
    scene.now = lasted
    scene.stocked(a_claim(1), lane=("down",), closed=DOWN)
    scene.rests()
    scene.now += 1.0
    again = due if scene.now < due else 2 * due
    assert [scene.now + delay for delay in delays(scene)] == pytest.approx([again])


@pytest.mark.parametrize("many", [[a_claim(n) for n in range(256)], [a_claim(1, content=LARGE)]])
def test_of_what_a_drain_could_not_send_there_is_never_much_in_memory(
    scene: Scene, many: Sequence[Claim]
) -> None:
    scene.stocked(*many, lane=("down",), closed=DOWN)
    assert len(delays(scene)) == len(many), "at once"


def test_a_longer_delay_of_its_own_stays(scene: Scene) -> None:
    scene.stocked(a_claim(1), lane=("down",)).desk.withhold(
        [Settlement(a_claim(1), Released(delay=600 * SECOND, fates={}))]
    )
    scene.rests()
    scene.now = 2.0
    assert delays(scene) == [600.0]


def test_what_is_given_back_at_the_end_of_a_drain_is_due_at_once() -> None:
    scene = Scene(workers=1, draining=True)
    scene.collect()
    scene.stocked(a_claim(1)).run()
    scene.desk.note(refused(scene.pull()), worker="w")
    scene.desk.drop("w", scene.now)
    scene.desk.claimed([], scene.now, scene.now)
    assert scene.take() is None
    scene.desk.leave("w")
    scene.desk.depart()
    assert delays(scene) == [0.0]


def test_a_drain_gives_back_what_it_could_not_send_before_a_suspect_has_its_turn(scene: Scene) -> None:
    scene.desk.note(delivered(a_claim(999)), worker="hand")
    scene.desk.drop("hand", scene.now)
    scene.written()
    scene.stocked(a_claim(1), lane=("down",), closed=DOWN).stocked(a_claim(2, lost=1), lane=("good",))
    scene.take()
    work = scene.work()
    assert ids(work) == ["m1"]
    scene.take()
    scene.desk.written()
    assert scene.run().first == "m2"


# -- its limit


def test_what_a_drain_could_not_send_does_not_count_for_its_limit() -> None:
    scene = Scene(draining=True, limit=2, several=True)
    scene.take(size=100)
    assert scene.claims(a_claim(1), a_claim(2), lane=("down",), closed=DOWN).limit == 2
    assert scene.claims(a_claim(3), lane=("good",)).limit == 2
    scene.run()
    scene.desk.note(delivered(scene.pull()), worker="w")
    scene.desk.drop("w", scene.now)
    scene.take(size=100)
    assert scene.work().limit == 1


# -- the whole


class Down:
    def deliver(self, _message: Message, _recipients: Sequence[str], /) -> Outcome:
        raise RelayUnavailable("down:25", "connection refused")

    def close(self) -> None:
        """Nothing is open."""


class Watched:
    """A good relay that looks what else is claimed while it has the poison."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.seen: list[str] = []
        self.beside: list[str] = []

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.seen.append(message.id)
        if message.id == "poison":
            self.beside = [each.id for each in self._store.browse(states=[State.CLAIMED])]
        return Outcome.same(recipients, Accepted("250 ok"))

    def close(self) -> None:
        """Nothing is open."""


def drained(store: MemoryStore) -> tuple[Outbox, Watched]:
    good = Watched(store)
    return Outbox(store, RouteTransport(domains={"down.example": Down(), "good.example": good})), good


def a_message(id: str, host: str, priority: int = 0) -> Message:
    return Message(id=id, recipients=[f"to@{host}.example"], content=b"x", priority=priority)


def test_a_message_that_may_kill_a_drain_has_nobody_beside_it_that_could_not_be_sent() -> None:
    store = MemoryStore()
    store.put([*(a_message(f"a{n}", "down") for n in range(4)), a_message("poison", "good")])
    for _ in range(5):
        # Whoever had them was killed, and came to nothing.
        store.claim(limit=1, lease=dt.timedelta(0), queues=["mail"])
    outbox, good = drained(store)
    tally = outbox.drain()
    assert (good.beside, tally.delivered, tally.released) == (["poison"], 1, 4)
    assert {each.state for each in store.browse()} == {State.QUEUED}


def test_a_drain_with_a_limit_comes_past_what_it_cannot_send() -> None:
    store = MemoryStore()
    store.put([a_message(f"a{n}", "down", priority=1) for n in range(10)])
    store.put([a_message(f"b{n}", "good") for n in range(10)])
    outbox, good = drained(store)
    assert [outbox.drain(limit=5).delivered for _ in range(2)] == [5, 5]
    assert len(good.seen) == 10


def test_the_next_drain_delivers_at_once_what_a_short_one_could_not() -> None:
    store = MemoryStore()
    store.put([a_message(f"a{n}", "down") for n in range(20)])
    outbox, _ = drained(store)
    assert outbox.drain().released == 20
    good = Watched(store)
    assert Outbox(store, good).drain().delivered == 20

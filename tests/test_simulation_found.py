"""What the simulation found, each without it: small enough to be seen at a glance."""

import datetime as dt
import random
from collections.abc import Collection, Generator, Iterable, Sequence
from typing import Any

from outbox import actions as act, delivery
from outbox.breakers import Breakers
from outbox.desk import Desk
from outbox.errors import RelayUnavailable
from outbox.leases import Leases
from outbox.lifecycle import Claim, Delivered, Fate, Released, Settlement
from outbox.message import Message
from outbox.outcome import Accepted, Outcome
from outbox.performer import Orders
from outbox.protocols import Delivery
from outbox.relay import Go, Wait
from outbox.shift import Hand, Shift
from outbox.slips import Later, Run, Spoiled, Work
from outbox.stores.memory import MemoryStore
from outbox.testing import ManualClock

LANE = ("",)
LEASE = dt.timedelta(seconds=60)
ZERO = dt.timedelta(0)


def a_claim(name: str = "m1", *, expires_in: dt.timedelta | None = None) -> Claim:
    message = Message(id=name, recipients=["to@example.org"], content=b"x")
    fates = {"to@example.org": Fate.WAITING}
    return Claim(message=message, fates=fates, attempt=1, lost=0, age=ZERO, expires_in=expires_in, token="1")


def test_a_runner_claims_again_when_the_pause_of_its_relay_is_over() -> None:
    """It took the pause for the end of what is due, and listened for news that never came."""
    desk = Desk(workers=1, leases=Leases(LEASE), several=False)
    assert isinstance(desk.take("worker", 1, 0.0, lambda *_: Go()), Later)
    paused = Wait(dt.timedelta(seconds=5), "down", fault=RelayUnavailable("relay", "down"))
    assert desk.collect(0.0, paused) == Later(5.0)
    assert not desk.dry
    assert isinstance(desk.collect(5.0), Work)


def test_who_was_admitted_to_a_relay_keeps_his_message_though_its_limit_is_reached_by_that() -> None:
    """The next who asked was refused, and gave back what the first had not pulled yet: again and again."""
    leases = Leases(LEASE)
    desk, claim = Desk(workers=2, leases=leases, several=False), a_claim()
    limited = Wait(dt.timedelta(seconds=2), "its limit is reached", limited=True)
    for collects in (False, True):
        desk.claimed([claim], 0.0, 0.0)
        desk.deal(LANE, claim, 0.0)
        assert isinstance(desk.take("first", 1, 0.0, lambda *_: Go(number=1)), Run)
        assert isinstance(desk.take("second", 1, 0.0, lambda *_: limited), Later)
        if collects:
            desk.collect(0.0, limited)
        assert desk.pull("first", 0.0) == claim
        desk.note(Settlement(claim, Delivered(fates={})), ZERO, "first")
        desk.drop("first", 0.0)


def test_a_claim_that_came_too_late_to_be_delivered_is_given_back_at_once() -> None:
    """It was left to run out: a whole lease later it was doubtful, though nobody had handed it over."""
    claim = a_claim()
    script = delivery.clerk(delivery.Setup(policy=lambda _: None, rng=random.Random(1)))  # type: ignore[arg-type, return-value]  # nothing is judged
    assert isinstance(next(script), act.Collect)
    asked = script.send(Work(spoiled=[Spoiled(claim, None)]))
    assert isinstance(asked, act.Note)
    assert asked.settlement.claim == claim
    assert isinstance(asked.settlement.verdict, Released)


class PullsAhead:
    """Pulls a second message while it is at the first."""

    def __init__(self) -> None:
        self.handed: list[str] = []

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        pulling = iter(deliveries)
        delivery = next(pulling, None)
        while delivery is not None:
            self.handed.append(delivery.message.id)
            outcome = Outcome.same(delivery.recipients, Accepted("250 ok"))
            delivery = next(pulling, None)
            yield outcome

    def deliver(self, _message: Message, _recipients: Sequence[str], /) -> Outcome:
        raise AssertionError("it has batches")

    def close(self) -> None:
        """Nothing is open."""


class Open(Breakers):
    """Lets as many go as ask."""

    def admit(
        self, keys: Collection[str], message: str, *, patience: float, wanted: int | None = None
    ) -> dict[str, Go]:
        return dict.fromkeys(keys, Go(number=wanted or 1))


def handed_over(clock: ManualClock, claims: Sequence[Claim], later: dt.timedelta) -> list[str]:
    """What is handed over where so much time passes behind the first message."""
    transport = PullsAhead()
    rng = random.Random(1)
    breakers = Open(clock, rng)
    orders = Orders(
        store=MemoryStore(clock=clock),
        transport=transport,
        retry={},
        queues=["mail"],
        workers=1,
        lease=LEASE,
        listeners=[],
        clock=clock,
        rng=rng,
        breakers=breakers,
    )
    shift, hand = Shift(orders, limit=None, draining=False), Hand()
    desk: Any = shift._desk
    desk.claimed(claims, clock.monotonic(), clock.monotonic())
    for claim in claims:
        desk.deal(LANE, claim, clock.monotonic())
    assert isinstance(shift.perform(act.Take(len(claims)), hand), Run)
    shift.perform(act.Begin(), hand)
    first = shift.perform(act.Report(), hand)
    clock.advance(later)
    assert first is not None
    shift.perform(act.Report(), hand)
    shift.perform(act.Drop(), hand)
    return transport.handed


def test_what_was_pulled_ahead_is_not_handed_over_after_its_lease_was_lost() -> None:
    """The lease was asked for when it was pulled, and the message before it may take longer than that."""
    claims = [a_claim("m1"), a_claim("m2")]
    assert handed_over(ManualClock(), claims, LEASE) == ["m1"]
    assert handed_over(ManualClock(), claims, LEASE / 2) == ["m1", "m2"]


def test_what_was_pulled_ahead_is_not_handed_over_after_it_expired() -> None:
    second = dt.timedelta(seconds=1)
    claims = [a_claim("m1"), a_claim("m2", expires_in=second)]
    assert handed_over(ManualClock(), claims, second) == ["m1"]
    assert handed_over(ManualClock(), claims, second / 2) == ["m1", "m2"]

"""A claim's way to its relays: what is not begun any more is not begun, and no probe is left behind."""

import datetime as dt
import random
from collections.abc import Mapping

import pytest
from relays import Relay, a_message

from outbox.breakers import Breakers
from outbox.errands import Errand, Errands
from outbox.errors import RelayFault, RelayUnavailable
from outbox.events import Notice
from outbox.lifecycle import Claim, Fate
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Untried
from outbox.protocols import Transport
from outbox.relay import Wait
from outbox.testing.clock import ManualClock
from outbox.transports.route import RouteTransport

ANN, BOB = "ann@a.example", "bob@b.example"
MINUTE = dt.timedelta(minutes=1)
DOWN = RelayUnavailable("a:25", "connection refused")


def a_claim(*recipients: str, id: str = "m1") -> Claim:
    message = a_message(*recipients, id=id)
    fates: Mapping[str, Fate] = dict.fromkeys(message.recipients, Fate.WAITING)
    return Claim(message=message, fates=fates, attempt=1, lost=0, age=dt.timedelta(0), token="t")


class Scene:
    """Two relays behind a route, and a clock that stands still."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.clock = ManualClock()
        self.a, self.b = Relay("a:25"), Relay("b:25")
        route = RouteTransport(domains={"a.example": self.a, "b.example": self.b}, clock=self.clock)
        self.told: list[Notice] = []
        self.errands = Errands(
            transport or route,
            self.clock,
            Breakers(self.clock, random.Random(1)),
            tell=self.told.append,
        )

    def run(self, claim: Claim, *, goes_on: bool = True) -> Outcome | RelayFault | Wait:
        errand = Errand()
        closed = self.errands.admit(claim, claim.recipients, errand)
        return closed or self.errands.deliver(claim, errand, lambda _: goes_on).report


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_may_not_go_on_is_not_handed_to_the_next_relay(scene: Scene) -> None:
    outcome = scene.run(a_claim(ANN, BOB), goes_on=False)

    assert outcome == Outcome(results={ANN: Accepted("250 ok"), BOB: Untried()}, relay="a:25")
    assert scene.b.seen == []


def test_a_probe_that_was_not_begun_is_left_to_the_next_message(scene: Scene) -> None:
    scene.a.answer = scene.b.answer = DOWN
    scene.run(a_claim(ANN, BOB))
    scene.clock.advance(MINUTE)
    scene.a.answer = scene.b.answer = Accepted()
    scene.run(a_claim(ANN, BOB, id="m2"), goes_on=False)

    assert isinstance(scene.run(a_claim(BOB, id="m3")), Outcome)


def test_where_all_are_paused_the_first_that_opens_is_waited_for(scene: Scene) -> None:
    scene.b.answer = DOWN
    scene.run(a_claim(BOB))
    scene.clock.advance(dt.timedelta(seconds=3))
    scene.a.answer = DOWN
    scene.run(a_claim(ANN, id="m2"))
    wait = scene.run(a_claim(ANN, BOB, id="m3"))
    alone = scene.run(a_claim(BOB, id="m4"))

    assert isinstance(wait, Wait)
    assert isinstance(alone, Wait)
    assert wait.delay == alone.delay


def test_a_relay_that_has_no_name_keeps_back_its_own_mail_alone() -> None:
    class HalfNamed(Relay):
        def relay(self, message: Message, recipient: str, /) -> str:
            return "b" if recipient == BOB else ""

    half = HalfNamed("a:25", DOWN)
    scene = Scene(half)
    scene.run(a_claim(ANN))

    assert isinstance(scene.run(a_claim(ANN, id="m2")), Wait)
    assert scene.errands.open() is None

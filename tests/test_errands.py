"""A claim's way to its relays: what is not begun any more is not begun, and no probe is left behind."""

import datetime as dt
import itertools
import random
from collections.abc import Mapping

import pytest
from relays import Relay, a_message

from outbox.breakers import Breakers
from outbox.errands import Errand, Errands
from outbox.errors import RelayFault, RelayUnavailable
from outbox.events import Notice
from outbox.judge import judge
from outbox.lifecycle import Claim, Fate, Released, Retry, Verdict
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Untried
from outbox.protocols import Transport
from outbox.relay import Wait
from outbox.retry import RetryPolicy
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

    def run(self, claim: Claim, *, relays: int = 9) -> Outcome | RelayFault | Wait:
        """It goes on for so many relays."""
        errand = Errand()
        closed = self.errands.admit(claim, claim.recipients, errand)
        answers = itertools.chain(itertools.repeat(True, relays), itertools.repeat(False))
        return closed or self.errands.deliver(claim, errand, lambda _: next(answers)).report


def judged(outcome: Outcome) -> Verdict:
    return judge(a_claim(*outcome.results), outcome, RetryPolicy(), random.Random(1))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_may_not_go_on_is_not_handed_to_the_next_relay(scene: Scene) -> None:
    outcome = scene.run(a_claim(ANN, BOB), relays=1)

    assert isinstance(outcome, Outcome)
    assert outcome.results[ANN] == Accepted("250 ok")
    assert isinstance(outcome.results[BOB], Untried)
    assert scene.b.seen == []


def test_whom_the_last_attempt_was_not_begun_for_is_not_given_up_by_it(scene: Scene) -> None:
    outcome = scene.run(a_claim(ANN, BOB), relays=1)

    assert isinstance(outcome, Outcome)
    verdict = judge(a_claim(ANN, BOB), outcome, RetryPolicy(attempts=1), random.Random(1))
    assert isinstance(verdict, Retry)
    assert verdict.fates == {ANN: Fate.ACCEPTED, BOB: Fate.WAITING}


def test_what_may_not_go_on_is_not_handed_to_the_first_relay_either_and_costs_no_attempt(
    scene: Scene,
) -> None:
    """It was taken up a few steps before: a process that was stopped in between had lost its lease."""
    scene.b.answer = DOWN
    scene.run(a_claim(BOB))
    outcome = scene.run(a_claim(ANN, BOB), relays=0)

    assert isinstance(outcome, Outcome)
    assert (scene.a.seen, scene.b.seen) == ([], [(BOB,)])
    assert outcome.results.keys() == {ANN, BOB}, "also whose relay is paused"
    assert isinstance(judged(outcome), Released)


def test_a_probe_that_nobody_was_asked_for_is_left_to_the_next_message(scene: Scene) -> None:
    scene.a.answer = DOWN
    scene.run(a_claim(ANN))
    scene.clock.advance(MINUTE)
    scene.a.answer = Accepted()
    scene.run(a_claim(ANN, id="m2"), relays=0)

    assert isinstance(scene.run(a_claim(ANN, id="m3")), Outcome)


def test_a_probe_that_was_not_begun_is_left_to_the_next_message(scene: Scene) -> None:
    scene.a.answer = scene.b.answer = DOWN
    scene.run(a_claim(ANN, BOB))
    scene.clock.advance(MINUTE)
    scene.a.answer = scene.b.answer = Accepted()
    scene.run(a_claim(ANN, BOB, id="m2"), relays=1)

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


def test_of_very_many_relays_that_failed_the_faults_of_the_latest_thousand_are_kept(scene: Scene) -> None:
    errand = Errand()
    for number in (*range(1, 1001), 1, 1001):
        fault = RelayUnavailable(f"mx{number}", "no route to host")
        scene.errands.report(errand, f"mx{number}", fault, "m")
    assert len(scene.errands.faults) == 1000
    assert {"mx1", "mx3", "mx1001"} < set(scene.errands.faults)
    assert "mx2" not in scene.errands.faults

"""A worker's life, driven by hand: each action it asks for is answered by the test."""

import datetime as dt
import itertools
import random
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from outbox import delivery as act
from outbox.errors import RelayUnavailable, StoreFull, StoreUnavailable
from outbox.events import LeaseLost, Settled
from outbox.lifecycle import Claim, Delivered, Expired, Fate, Held, Released, Retry, Settlement
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, TempFailed
from outbox.relay import Wait
from outbox.retry import RetryPolicy

ZERO = dt.timedelta(0)
QUICK = dt.timedelta(milliseconds=1)
SLOW = dt.timedelta(seconds=1)


def a_claim(number: int = 1, *, lost: int = 0) -> Claim:
    message = Message(id=f"m{number}", recipients=["to@example.org"], content=b"x")
    return Claim(
        message=message, fates={"to@example.org": Fate.WAITING}, attempt=1, lost=lost, age=ZERO, token="1"
    )


def accepted(claim: Claim, took: dt.timedelta = QUICK) -> act.Handed:
    return act.Handed(Outcome.same(claim.recipients, Accepted("250 ok")), took)


class Life:
    """A worker whose actions the test answers; each call says what it must ask for now."""

    def __init__(
        self,
        *,
        store_tries: int | None = None,
        policy: RetryPolicy | None = None,
        draining: bool = False,
    ) -> None:
        setup = act.Setup(
            policy=lambda _: policy or RetryPolicy(),
            rng=random.Random(1),
            store_tries=store_tries,
            draining=draining,
        )
        self.script = act.work(setup)
        self.action: Any = next(self.script)

    def asks(self, kind: type) -> Any:
        assert isinstance(self.action, kind), self.action
        return self.action

    def gets(self, answer: Any) -> None:
        self.action = self.script.send(answer)

    def fails(self, error: Exception) -> None:
        self.action = self.script.throw(error)

    def claims(self, *claims: Claim) -> int:
        self.asks(act.Proceed)
        self.gets(True)
        self.asks(act.Open)
        self.gets(None)
        limit: int = self.asks(act.ClaimDue).limit
        self.gets(claims)
        return limit

    def takes_up(self, claim: Claim, since: dt.timedelta = ZERO) -> None:
        assert self.asks(act.TakeUp).claim == claim
        self.gets(since)

    def delivers(self, claim: Claim, handed: act.Handed | None = None) -> Any:
        self.takes_up(claim)
        assert self.asks(act.Admit).claim == claim
        self.gets(None)
        assert self.asks(act.Deliver).claim == claim
        self.gets(handed or accepted(claim))
        (settlement,) = self.asks(act.Settle).settlements
        assert settlement.claim == claim
        self.gets(())
        assert isinstance(self.asks(act.Tell).notice, Settled)
        self.gets(None)
        return settlement.verdict


def test_a_claim_is_delivered_then_settled_then_told() -> None:
    life, claim = Life(), a_claim()
    life.claims(claim)
    assert isinstance(life.delivers(claim), Delivered)
    life.asks(act.Proceed)


def test_a_worker_that_may_not_proceed_ends() -> None:
    life = Life()
    with pytest.raises(StopIteration):
        life.gets(False)


def test_batches_double_while_messages_are_quick_and_shrink_when_one_is_slow() -> None:
    life, limits = Life(), []
    for took in [QUICK] * 8 + [SLOW] * 2:
        claim = a_claim()
        limits.append(life.claims(claim))
        life.delivers(claim, accepted(claim, took))
    assert limits == [1, 2, 4, 8, 16, 32, 64, 100, 100, 50]


def test_each_message_is_settled_before_the_next_one_is_handed_over() -> None:
    life = Life()
    first, second = a_claim(1), a_claim(2)
    life.claims(first, second)
    life.delivers(first)
    life.delivers(second)


def test_a_closed_relay_costs_no_claim() -> None:
    life = Life()
    life.asks(act.Proceed)
    life.gets(True)
    closed = Wait(SLOW, "down")
    life.asks(act.Open)
    life.gets(closed)
    assert life.asks(act.Idle).closed == closed


def test_what_the_relay_may_not_get_now_is_released_in_one_settle() -> None:
    life = Life()
    claims = [a_claim(n) for n in range(3)]
    life.claims(*claims)
    for claim in claims:
        life.takes_up(claim)
        life.asks(act.Admit)
        life.gets(Wait(SLOW, "down"))
    verdicts = [s.verdict for s in life.asks(act.Settle).settlements]
    assert [type(v) for v in verdicts] == [Released] * 3
    assert {v.delay for v in verdicts} == {SLOW}


def test_what_waited_for_another_s_probe_is_asked_for_anew() -> None:
    life, claim = Life(), a_claim()
    life.claims(claim)
    life.takes_up(claim)
    life.gets(Wait(SLOW, "another message tries this relay first", probing=True))
    life.asks(act.AwaitProbe)
    life.gets(True)
    life.delivers(claim)


def test_what_is_not_worth_waiting_for_is_given_back() -> None:
    life, claim = Life(), a_claim()
    life.claims(claim)
    life.takes_up(claim)
    life.gets(Wait(SLOW, "another message tries this relay first", probing=True))
    life.asks(act.AwaitProbe)
    life.gets(False)
    (settlement,) = life.asks(act.Settle).settlements
    assert isinstance(settlement.verdict, Released)


def test_a_relay_fault_costs_the_message_no_attempt() -> None:
    life, claim = Life(), a_claim()
    life.claims(claim)
    fault = RelayUnavailable("mx:25", "refused")
    verdict = life.delivers(claim, act.Handed(fault, QUICK, SLOW))
    assert verdict == Released(delay=SLOW, fates=claim.fates, reason="mx:25: refused")


def test_a_stop_releases_what_was_not_begun() -> None:
    life = Life()
    first, second, third = (a_claim(n) for n in range(3))
    life.claims(first, second, third)
    life.delivers(first)
    for _ in range(2):
        life.asks(act.TakeUp)
        life.gets(act.Stop.STOPPING)
    settlements = life.asks(act.Settle).settlements
    assert [s.claim for s in settlements] == [second, third]
    assert all(isinstance(s.verdict, Released) for s in settlements)


def test_a_claim_whose_lease_was_lost_is_neither_delivered_nor_settled() -> None:
    life = Life()
    first, second = a_claim(1), a_claim(2)
    life.claims(first, second)
    life.asks(act.TakeUp)
    life.gets(act.Stop.LOST)
    assert life.asks(act.Tell).notice == LeaseLost(first)
    life.gets(None)
    life.delivers(second)


def test_a_settle_that_came_too_late_is_told_as_a_lost_lease() -> None:
    life, claim = Life(), a_claim()
    life.claims(claim)
    life.takes_up(claim)
    life.gets(None)
    life.gets(accepted(claim))
    life.asks(act.Settle)
    life.gets([claim])
    notice = life.asks(act.Tell).notice
    assert isinstance(notice, LeaseLost)
    assert isinstance(notice.verdict, Delivered)


def test_a_suspect_is_delivered_alone() -> None:
    life, claim = Life(), a_claim(lost=1)
    life.claims(claim)
    life.asks(act.Isolate)
    life.gets(None)
    life.delivers(claim)


@pytest.mark.parametrize("crowded", [ZERO, SLOW])
def test_a_suspect_that_cannot_be_alone_is_given_back_for_as_long_as_it_is_told(
    crowded: dt.timedelta,
) -> None:
    life, claim = Life(), a_claim(lost=1)
    life.claims(claim)
    life.asks(act.Isolate)
    life.gets(crowded)
    (settlement,) = life.asks(act.Settle).settlements
    assert isinstance(settlement.verdict, Released)
    assert settlement.verdict.delay == crowded


def test_poison_is_held_and_never_handed_over() -> None:
    life, claim = Life(), a_claim(lost=4)
    life.claims(claim)
    life.gets(None)
    life.takes_up(claim)
    (settlement,) = life.asks(act.Settle).settlements
    assert isinstance(settlement.verdict, Held)


def test_what_is_not_handed_over_takes_no_admission_and_so_no_probe() -> None:
    life, claim = Life(), attrs.evolve(a_claim(), expires_in=ZERO)
    life.claims(claim)
    life.takes_up(claim)
    (settlement,) = life.asks(act.Settle).settlements
    assert isinstance(settlement.verdict, Expired)


def test_what_expires_while_others_of_its_batch_go_first_is_not_handed_over() -> None:
    life = Life()
    claim = attrs.evolve(a_claim(), expires_in=SLOW)
    life.claims(claim)
    life.takes_up(claim, since=SLOW)
    (settlement,) = life.asks(act.Settle).settlements
    assert isinstance(settlement.verdict, Expired)


def test_a_drain_gives_back_what_its_relay_refused_when_it_ends_and_not_before_the_others() -> None:
    life = Life(draining=True)
    first, second = a_claim(1), a_claim(2)
    life.claims(first)
    life.takes_up(first)
    life.gets(None)
    life.gets(act.Handed(RelayUnavailable("mx:25", "refused"), QUICK, SLOW))
    life.claims(second)
    life.delivers(second)
    life.claims()
    life.asks(act.Idle)
    life.gets(False)
    life.asks(act.Gather)
    life.gets(None)
    (settlement,) = life.asks(act.Settle).settlements
    assert settlement == Settlement(first, Released(delay=ZERO, fates=first.fates, reason="mx:25: refused"))


def test_a_delivered_message_is_settled_however_often_the_store_fails() -> None:
    life, claim = Life(), a_claim()
    life.claims(claim)
    life.takes_up(claim)
    life.gets(None)
    life.gets(accepted(claim))
    settle = life.asks(act.Settle)
    for _ in range(20):
        assert life.asks(act.Settle) == settle
        life.fails(StoreUnavailable("disk full"))
        assert life.asks(act.Tell).notice.claims == (claim,), "it says whose verdict is not written"
        life.gets(None)
        assert life.asks(act.Rest).within_grace, "a stop leaves it the grace time"
        life.gets(True)
    assert life.asks(act.Settle) == settle
    life.gets(())
    assert isinstance(life.asks(act.Tell).notice, Settled)


def test_a_failing_claim_is_not_retried_when_stopping() -> None:
    life = Life()
    life.asks(act.Proceed)
    life.gets(True)
    life.gets(None)
    life.asks(act.ClaimDue)
    life.fails(StoreUnavailable("gone"))
    life.gets(None)
    assert not life.asks(act.Rest).within_grace
    life.gets(False)
    life.asks(act.Idle)


def test_a_drain_gives_a_failing_store_up_and_says_so() -> None:
    life = Life(store_tries=2)
    life.gets(True)
    life.gets(None)
    life.asks(act.ClaimDue)
    life.fails(StoreUnavailable("gone"))
    life.gets(None)
    life.gets(True)
    life.asks(act.ClaimDue)
    with pytest.raises(StoreUnavailable, match="gone"):
        life.fails(StoreUnavailable("gone"))


def test_a_drain_that_gives_a_settle_up_names_what_was_handed_over() -> None:
    class Odd(StoreFull):
        def __init__(self) -> None:
            super().__init__("disk full")

    life, claim = Life(store_tries=1), a_claim()
    life.claims(claim)
    life.takes_up(claim)
    life.gets(None)
    life.gets(accepted(claim))
    life.asks(act.Settle)
    with pytest.raises(StoreFull, match="disk full; handed over, and what came of it is not noted: m1"):
        life.fails(Odd())


def test_the_policy_of_the_queue_decides_the_wait() -> None:
    policy = RetryPolicy(schedule=[dt.timedelta(seconds=7)], wait_jitter=0)
    life, claim = Life(policy=policy), a_claim()
    life.claims(claim)
    outcome = Outcome.same(claim.recipients, TempFailed("451 later"))
    verdict = life.delivers(claim, act.Handed(outcome, QUICK))
    assert isinstance(verdict, Retry)
    assert verdict.delay == dt.timedelta(seconds=7)


def test_the_keeper_extends_at_a_third_of_the_lease() -> None:
    script = act.keep(dt.timedelta(seconds=9))
    assert next(script) == act.Rest(dt.timedelta(seconds=3))
    assert isinstance(script.send(True), act.ExtendAll)
    assert script.send(None) == act.Rest(dt.timedelta(seconds=3))


def test_the_keeper_survives_a_failing_store_and_does_nothing_but_extend() -> None:
    script = act.keep(dt.timedelta(minutes=5))
    for _ in range(3):
        assert next(script) == act.Rest(dt.timedelta(seconds=100))
        assert isinstance(script.send(True), act.ExtendAll)
        assert isinstance(script.throw(StoreUnavailable("gone")), act.Tell)
    assert isinstance(script.send(None), act.Rest)
    with pytest.raises(StopIteration):
        script.send(False)


def test_who_tidies_closes_connections_and_prunes_until_nothing_is_left_every_ten_seconds() -> None:
    script = act.tidy()
    assert next(script) == act.Rest(dt.timedelta(seconds=10))
    assert isinstance(script.send(True), act.CloseIdle)
    assert isinstance(script.send(None), act.Prune)
    assert isinstance(script.send(True), act.Prune)
    assert isinstance(script.send(False), act.Rest)
    script.send(True)
    script.send(None)
    assert isinstance(script.throw(StoreUnavailable("gone")), act.Tell)
    assert isinstance(script.send(None), act.Rest)
    with pytest.raises(StopIteration):
        script.send(False)


def endlessly(script: act.Script[None]) -> Iterator[act.Action[Any]]:
    """The actions of a script that is told again and again that there is more."""
    action = next(script)
    while True:
        yield action
        try:
            action = script.send(True)
        except StopIteration:
            return


def test_a_sweep_is_bounded() -> None:
    steps = itertools.islice(endlessly(act.sweep()), 1000)
    assert 1 < sum(isinstance(action, act.Prune) for action in steps) < 1000

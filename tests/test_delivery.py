"""The scripts of a worker, of the clerk and of the keepers, driven by hand: each action is answered by the test."""

import datetime as dt
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from claims import ZERO, a_claim, accepted

from outbox import actions as act, delivery
from outbox.errors import RelayUnavailable, StoreFull, StoreUnavailable
from outbox.events import LeaseLost, Settled, StoreFailed
from outbox.leases import Since
from outbox.lifecycle import Claim, Delivered, Expired, Held, Released, Retry, Settlement, Verdict
from outbox.outcome import Outcome, TempFailed
from outbox.protocols import Exchanged
from outbox.relay import Wait
from outbox.retry import RetryPolicy
from outbox.slips import Run, Spoiled, Work, released

QUICK = dt.timedelta(milliseconds=1)
SLOW = dt.timedelta(seconds=1)
ONE = ("mx",)
TWO = ("a", "b")


def handed(claim: Claim, took: dt.timedelta = QUICK) -> act.Handed:
    return act.Handed(claim, accepted(claim), took)


def a_setup(
    *,
    store_tries: int | None = None,
    policy: Callable[[str], RetryPolicy] | None = None,
    draining: bool = False,
) -> delivery.Setup:
    return delivery.Setup(
        policy=policy or (lambda _: RetryPolicy()),
        rng=random.Random(1),
        store_tries=store_tries,
        draining=draining,
    )


class Life:
    """A script whose actions the test answers; each call says what it must ask for now."""

    def __init__(self, script: act.Script[None]) -> None:
        self.script = script
        self.ended = False
        self.action: Any = next(self.script)

    def asks(self, kind: type) -> Any:
        assert not self.ended, "it has ended"
        assert isinstance(self.action, kind), self.action
        return self.action

    def gets(self, answer: Any) -> None:
        try:
            self.action = self.script.send(answer)
        except StopIteration:
            self.ended = True

    def screens(self) -> None:
        """All may be handed over, and it is still to be."""
        self.asks(act.Screen)
        self.gets(None)
        self.asks(act.TakeUp)
        self.gets(Since(ZERO, ZERO))

    def fails(self, error: Exception) -> None:
        self.action = self.script.throw(error)


class Worker(Life):
    def __init__(self, **settings: Any) -> None:
        super().__init__(delivery.work(a_setup(**settings)))

    def takes(self, number: int = 1, lane: tuple[str, ...] = ONE) -> int:
        size: int = self.asks(act.Take).size
        self.gets(Run(lane, number))
        return size

    def notes(self) -> Verdict:
        verdict: Verdict = self.asks(act.Note).settlement.verdict
        self.gets(None)
        return verdict

    def delivers(self, *reports: act.Handed) -> list[Verdict]:
        """A whole run to one relay."""
        self.asks(act.Begin)
        self.gets(None)
        verdicts = []
        for report in reports:
            self.asks(act.Report)
            self.gets(report)
            assert self.asks(act.Note).settlement.claim == report.claim
            verdicts.append(self.notes())
        self.asks(act.Report)
        self.gets(None)
        self.asks(act.Drop)
        self.gets(None)
        return verdicts

    def pulls(self, claim: Claim) -> None:
        """The one message of a run to several relays."""
        self.takes(lane=TWO)
        self.asks(act.Pull)
        self.gets(claim)

    def takes_up(self, claim: Claim, since: dt.timedelta = ZERO) -> None:
        assert self.asks(act.TakeUp).claim == claim
        self.gets(Since(since, since))


class Clerk(Life):
    def __init__(self, **settings: Any) -> None:
        super().__init__(delivery.clerk(a_setup(**settings)))

    def collects(self, *settlements: Settlement, spoiled: Sequence[Spoiled] = (), limit: int = 0) -> None:
        self.asks(act.Collect)
        self.gets(Work(noted=[(each, QUICK) for each in settlements], spoiled=spoiled, limit=limit))

    def has_written(self, *claims: Claim, lost: Sequence[Claim] = ()) -> None:
        self.asks(act.Exchange)
        self.gets(Exchanged(lost, claims))


def delivered(claim: Claim) -> Settlement:
    return Settlement(claim, Delivered(fates=claim.fates, outcome=accepted(claim)))


# -- a worker


def test_what_was_delivered_is_judged_and_noted_and_the_run_is_dropped() -> None:
    worker, claim = Worker(), a_claim()
    worker.takes()
    (verdict,) = worker.delivers(handed(claim))
    assert isinstance(verdict, Delivered)
    worker.asks(act.Take)


def test_a_worker_for_whom_there_is_nothing_any_more_ends() -> None:
    worker = Worker()
    worker.gets(None)
    assert worker.ended


def test_batches_double_while_messages_are_quick_and_shrink_when_one_is_slow() -> None:
    worker, sizes = Worker(), []
    for took in [QUICK] * 8 + [SLOW] * 2:
        sizes.append(worker.takes())
        worker.delivers(handed(a_claim(), took))
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 100, 100, 50]


def test_a_run_that_brought_nothing_says_nothing_of_how_quick_the_relay_is() -> None:
    worker = Worker()
    worker.takes()
    worker.delivers(handed(a_claim()))
    assert worker.takes() == 2
    worker.delivers()
    assert worker.takes() == 2


def test_each_message_is_noted_before_the_next_one_is_reported() -> None:
    worker = Worker()
    worker.takes(3)
    worker.delivers(*(handed(a_claim(n)) for n in range(3)))


def test_how_long_a_delivery_took_is_noted_with_it() -> None:
    worker = Worker()
    worker.takes()
    worker.asks(act.Begin)
    worker.gets(None)
    worker.gets(handed(a_claim(), SLOW))
    assert worker.asks(act.Note).took == SLOW


def test_a_relay_fault_costs_the_message_no_attempt() -> None:
    worker, claim = Worker(), a_claim()
    worker.takes()
    (verdict,) = worker.delivers(act.Handed(claim, RelayUnavailable("mx:25", "refused"), QUICK, SLOW))
    assert verdict == Released(delay=SLOW, fates=claim.fates, reason="mx:25: refused")


def test_a_drain_gives_back_what_its_relay_refused_as_it_was() -> None:
    worker, claim = Worker(draining=True), a_claim()
    worker.takes()
    (verdict,) = worker.delivers(act.Handed(claim, RelayUnavailable("mx:25", "refused"), QUICK, SLOW))
    assert verdict == Released(delay=ZERO, fates=claim.fates, reason="mx:25: refused")


def test_the_policy_of_the_queue_decides_the_wait() -> None:
    def policy(queue: str) -> RetryPolicy:
        return RetryPolicy(schedule=[{"mail": SLOW, "bulk": 7 * SLOW}[queue]], wait_jitter=0)

    worker = Worker(policy=policy)
    claims = [a_claim(1), a_claim(2, queue="bulk")]
    worker.takes(2)
    later = [Outcome.same(claim.recipients, TempFailed("451 later")) for claim in claims]
    verdicts = worker.delivers(*map(act.Handed, claims, later, [QUICK, QUICK]))
    assert [v.delay for v in verdicts if isinstance(v, Retry)] == [SLOW, 7 * SLOW]


# -- a message for several relays


def test_a_message_for_several_relays_asks_them_and_is_delivered_to_each() -> None:
    worker, claim = Worker(), a_claim()
    worker.pulls(claim)
    worker.takes_up(claim)
    worker.screens()
    assert worker.asks(act.Admit).recipients == claim.recipients
    worker.gets(None)
    assert worker.asks(act.Deliver).claim == claim
    worker.gets(handed(claim))
    assert isinstance(worker.notes(), Delivered)
    worker.asks(act.Drop)


def test_where_there_is_nothing_to_pull_nothing_is_asked_of_any_relay() -> None:
    worker = Worker()
    worker.takes(lane=TWO)
    worker.asks(act.Pull)
    worker.gets(None)
    worker.asks(act.Drop)


def test_what_waited_for_another_s_probe_is_asked_for_anew() -> None:
    worker, claim = Worker(), a_claim()
    worker.pulls(claim)
    worker.takes_up(claim)
    worker.screens()
    worker.gets(Wait(SLOW, "another message tries this relay first", probing=True))
    worker.asks(act.AwaitProbe)
    worker.gets(True)
    worker.takes_up(claim)
    worker.screens()
    worker.asks(act.Admit)


def test_what_is_not_worth_waiting_for_is_given_back() -> None:
    worker, claim = Worker(), a_claim()
    worker.pulls(claim)
    worker.takes_up(claim)
    worker.screens()
    worker.gets(Wait(SLOW, "another message tries this relay first", probing=True))
    worker.asks(act.AwaitProbe)
    worker.gets(False)
    verdict = worker.notes()
    assert isinstance(verdict, Released)
    assert verdict.delay == SLOW
    worker.asks(act.Drop)


def test_a_stop_gives_back_what_was_not_begun() -> None:
    worker, claim = Worker(), a_claim()
    worker.pulls(claim)
    worker.asks(act.TakeUp)
    worker.gets(act.Stop.STOPPING)
    assert isinstance(worker.notes(), Released)


def test_what_expires_while_it_waits_for_a_probe_is_not_handed_over_and_takes_no_admission() -> None:
    worker, claim = Worker(), a_claim(expires_in=SLOW)
    worker.pulls(claim)
    worker.takes_up(claim)
    worker.screens()
    worker.gets(Wait(SLOW, "another message tries this relay first", probing=True))
    worker.gets(True)
    worker.takes_up(claim, since=SLOW)
    assert isinstance(worker.notes(), Expired)


@pytest.mark.parametrize(
    ("since", "verdict"),
    [
        (act.Stop.STOPPING, Released),
        (Since(SLOW, SLOW), Expired),
        # Whether it has expired is the store's to say, whose clock it was counted by.
        (Since(SLOW, QUICK), Released),
        (act.Stop.LOST, None),
    ],
)
def test_what_waited_for_its_suppress_is_asked_for_anew(
    since: act.Stop | Since, verdict: type[Verdict] | None
) -> None:
    worker, claim = Worker(), a_claim(expires_in=SLOW)
    worker.pulls(claim)
    worker.takes_up(claim)
    worker.asks(act.Screen)
    worker.gets(None)
    worker.asks(act.TakeUp)
    worker.gets(since)
    if verdict is not None:
        assert isinstance(worker.notes(), verdict)
    worker.asks(act.Drop)


# -- the clerk


def test_the_clerk_writes_what_was_noted_and_claims_what_is_wanted_in_one() -> None:
    clerk, settlement = Clerk(), delivered(a_claim())
    clerk.collects(settlement, limit=7)
    exchange = clerk.asks(act.Exchange)
    assert (exchange.settlements, exchange.limit) == ([settlement], 7)


def test_what_was_claimed_is_dealt_before_anybody_is_told_of_what_was_written() -> None:
    clerk, settlement = Clerk(), delivered(a_claim(1))
    clerk.collects(settlement, limit=1)
    clerk.has_written(a_claim(2))
    assert clerk.asks(act.Deal).claims == [a_claim(2)]
    clerk.gets(None)
    assert clerk.asks(act.Tell).notice == Settled(settlement.claim, settlement.verdict, QUICK)
    clerk.gets(None)
    clerk.asks(act.Collect)


def test_a_verdict_that_came_too_late_is_told_as_a_lost_lease() -> None:
    clerk, late, early = Clerk(), delivered(a_claim(1)), delivered(a_claim(2))
    clerk.collects(late, early)
    clerk.has_written(lost=[late.claim])
    assert clerk.asks(act.Tell).notice == LeaseLost(late.claim, late.verdict)
    clerk.gets(None)
    assert isinstance(clerk.asks(act.Tell).notice, Settled)


@pytest.mark.parametrize(
    ("claim", "kind"),
    [(a_claim(lost=4), Held), (a_claim(expires_in=ZERO), Expired)],
    ids=["poison", "expired"],
)
def test_poison_and_what_is_expired_never_come_on_the_desk(claim: Claim, kind: type) -> None:
    clerk = Clerk()
    clerk.collects(limit=9)
    clerk.has_written(claim, a_claim(2))
    assert isinstance(clerk.asks(act.Note).settlement.verdict, kind)
    clerk.gets(None)
    assert clerk.asks(act.Deal).claims == [a_claim(2)]


def test_where_all_of_them_have_a_verdict_nothing_is_dealt() -> None:
    clerk = Clerk()
    clerk.collects(limit=9)
    clerk.has_written(a_claim(lost=4))
    clerk.asks(act.Note)
    clerk.gets(None)
    clerk.asks(act.Collect)


def test_of_what_spoiled_on_the_desk_the_expired_is_settled_and_the_rest_given_back_before_anything_else() -> (
    None
):
    """Where the lease was lost in truth, the store says so when it is given back."""
    clerk, lost, expired = Clerk(), a_claim(1), a_claim(2, expires_in=SLOW)
    doubtful = a_claim(3, expires_in=SLOW)
    clerk.collects(spoiled=[Spoiled(lost, None), Spoiled(doubtful, QUICK), Spoiled(expired, SLOW)])
    for claim in (lost, doubtful):
        assert clerk.asks(act.Note).settlement == released(claim)
        clerk.gets(None)
    settlement = clerk.asks(act.Note).settlement
    assert (settlement.claim, type(settlement.verdict)) == (expired, Expired)
    clerk.gets(None)
    clerk.asks(act.Exchange)


def test_the_clerk_ends_when_he_is_told_that_all_is_done() -> None:
    clerk = Clerk()
    clerk.gets(None)
    assert clerk.ended


def test_what_was_delivered_is_written_however_often_the_store_fails() -> None:
    clerk, settlement = Clerk(), delivered(a_claim())
    waits = []
    for _ in range(20):
        clerk.collects(settlement)
        clerk.asks(act.Exchange)
        clerk.fails(StoreUnavailable("disk full"))
        notice = clerk.asks(act.Tell).notice
        assert isinstance(notice, StoreFailed)
        assert notice.claims == (settlement.claim,), "it says whose verdict is not written"
        clerk.gets(None)
        rest = clerk.asks(act.Rest)
        assert rest.within_grace, "a stop leaves it the grace time"
        waits.append(rest.delay.total_seconds())
        clerk.gets(True)
    assert waits[0] < 0.3
    assert max(waits) <= 30.0
    assert waits[3] < waits[6] < waits[9], "it backs off"
    clerk.collects(settlement)
    clerk.has_written()
    assert isinstance(clerk.asks(act.Tell).notice, Settled)


def test_the_back_off_begins_anew_when_the_store_works_again() -> None:
    clerk = Clerk()
    for _ in range(2):
        waits = []
        for _try in range(9):
            clerk.collects(limit=1)
            clerk.asks(act.Exchange)
            clerk.fails(StoreUnavailable("gone"))
            clerk.gets(None)
            waits.append(clerk.asks(act.Rest).delay)
            clerk.gets(True)
        assert waits[0] < SLOW < waits[-1]
        clerk.collects(limit=1)
        clerk.has_written()


def test_a_failing_claim_is_not_waited_out_when_stopping() -> None:
    clerk = Clerk()
    clerk.collects(limit=1)
    clerk.asks(act.Exchange)
    clerk.fails(StoreUnavailable("gone"))
    clerk.gets(None)
    assert not clerk.asks(act.Rest).within_grace


def test_a_drain_gives_a_failing_store_up_and_says_so() -> None:
    clerk = Clerk(store_tries=2)
    clerk.collects(limit=1)
    clerk.fails(StoreUnavailable("gone"))
    clerk.gets(None)
    clerk.gets(True)
    clerk.collects(limit=1)
    with pytest.raises(StoreUnavailable, match=r"gone$"):
        clerk.fails(StoreUnavailable("gone"))


def test_a_drain_that_gives_up_names_what_was_handed_over_and_nothing_else() -> None:
    class Odd(StoreFull):
        def __init__(self) -> None:
            super().__init__("disk full")

    clerk = Clerk(store_tries=1)
    clerk.collects(delivered(a_claim(1)), released(a_claim(2)), delivered(a_claim(3)))
    with pytest.raises(StoreFull, match="disk full; handed over, and what came of it is not noted: m1, m3;"):
        clerk.fails(Odd())


# -- delivery in the caller's own thread


class Sending(Life):
    def __init__(self, claim: Claim, **settings: Any) -> None:
        super().__init__(delivery.deliver_now(a_setup(**settings), claim))

    def hands_over(self, claim: Claim) -> None:
        assert self.asks(act.TakeUp).claim == claim
        self.gets(Since(ZERO, ZERO))
        self.screens()
        self.asks(act.Admit)
        self.gets(None)
        self.asks(act.Deliver)
        self.gets(handed(claim))


def test_what_is_sent_now_is_delivered_then_settled_then_told() -> None:
    claim = a_claim()
    life = Sending(claim)
    life.hands_over(claim)
    (settlement,) = life.asks(act.Settle).settlements
    assert isinstance(settlement.verdict, Delivered)
    life.gets(())
    assert life.asks(act.Tell).notice == Settled(claim, settlement.verdict, QUICK)
    life.gets(None)
    assert life.ended


@pytest.mark.parametrize("taken", [False, True])
def test_what_is_sent_now_and_lost_its_lease_is_not_delivered_and_is_given_back_unless_another_has_it(
    taken: bool,
) -> None:
    claim = a_claim()
    life = Sending(claim)
    life.gets(act.Stop.LOST)
    (settlement,) = life.asks(act.Settle).settlements
    assert isinstance(settlement.verdict, Released)
    life.gets([claim] if taken else ())
    assert isinstance(life.asks(act.Tell).notice, LeaseLost if taken else Settled)
    life.gets(None)
    assert life.ended


def test_a_settle_that_came_too_late_is_told_as_a_lost_lease() -> None:
    claim = a_claim()
    life = Sending(claim)
    life.hands_over(claim)
    life.asks(act.Settle)
    life.gets([claim])
    notice = life.asks(act.Tell).notice
    assert isinstance(notice, LeaseLost)
    assert isinstance(notice.verdict, Delivered)


def test_what_is_sent_now_is_settled_again_until_the_store_has_it_or_it_gives_up() -> None:
    claim = a_claim()
    life = Sending(claim, store_tries=2)
    life.hands_over(claim)
    settle = life.asks(act.Settle)
    life.fails(StoreUnavailable("gone"))
    life.asks(act.Tell)
    life.gets(None)
    assert life.asks(act.Rest).within_grace
    life.gets(True)
    assert life.asks(act.Settle) == settle
    with pytest.raises(StoreUnavailable, match="is not noted: m1"):
        life.fails(StoreUnavailable("gone"))


# -- the keepers


def test_the_keeper_extends_at_a_third_of_the_lease() -> None:
    script = delivery.keep(dt.timedelta(seconds=9))
    assert next(script) == act.Rest(dt.timedelta(seconds=3))
    assert isinstance(script.send(True), act.ExtendAll)
    assert script.send(True) == act.Rest(dt.timedelta(seconds=3))
    assert isinstance(script.send(True), act.ExtendAll)
    assert script.send(False) == act.Rest(dt.timedelta(seconds=0.75)), (
        "what is locked may be free in a moment"
    )


def test_the_keeper_survives_a_failing_store_and_leaves_it_to_others_to_tell() -> None:
    script = delivery.keep(dt.timedelta(minutes=5))
    for _ in range(3):
        assert next(script) == act.Rest(dt.timedelta(seconds=100))
        assert isinstance(script.send(True), act.ExtendAll)
        assert isinstance(script.throw(StoreUnavailable("gone")), act.TellLater)
    assert isinstance(script.send(None), act.Rest)
    with pytest.raises(StopIteration):
        script.send(False)


def test_who_tidies_tells_what_was_left_closes_connections_and_prunes_until_nothing_is_left_every_ten_seconds() -> (
    None
):
    script = delivery.tidy()
    assert isinstance(next(script), act.Announce)
    assert script.send(None) == act.Rest(dt.timedelta(seconds=10))
    assert isinstance(script.send(True), act.Reread)
    assert isinstance(script.throw(StoreUnavailable("busy")), act.Tell)
    assert isinstance(script.send(None), act.Announce)
    assert isinstance(script.send(None), act.TellLeft)
    assert isinstance(script.send(None), act.CloseIdle)
    assert isinstance(script.send(None), act.Prune)
    assert isinstance(script.send(True), act.Prune)
    assert isinstance(script.send(False), act.Rest)
    for answer in (True, None, None, None, None):
        script.send(answer)
    assert isinstance(script.throw(StoreUnavailable("gone")), act.Tell)
    assert isinstance(script.send(None), act.Rest)
    assert isinstance(script.send(False), act.Withdraw)
    assert isinstance(script.send(None), act.TellLeft), "also what was left at the very end"
    with pytest.raises(StopIteration):
        script.send(None)


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
    steps = itertools.islice(endlessly(delivery.sweep()), 1000)
    assert 1 < sum(isinstance(action, act.Prune) for action in steps) < 1000

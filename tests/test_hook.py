"""What a hook may make of a verdict, and what it may not."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from relays import Relay, a_message
from running import the_state

from outbox.errors import ConfigurationError, RelayFault, RelayUnavailable
from outbox.judge import amendable, amended
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Held, Released, Retry, State, Verdict
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain
from outbox.stores.memory import MemoryStore

ANN, BOB = "ann@a.example", "bob@b.example"
W, D, A, F, U = Fate.WAITING, Fate.DOUBTFUL, Fate.ACCEPTED, Fate.FAILED, Fate.UNCERTAIN
MINUTE = dt.timedelta(minutes=1)
SECOND = dt.timedelta(seconds=1)
BUSY = Outcome.same([ANN, BOB], TempFailed("451 busy"))
DOWN = RelayUnavailable("a:25", "refused")


def claim(ann: Fate = W, bob: Fate = W, *, expires_in: dt.timedelta | None = None) -> Claim:
    message = Message(recipients=(ANN, BOB), content=b"x")
    fates = {ANN: ann, BOB: bob}
    return Claim(
        message=message, fates=fates, attempt=1, lost=0, age=MINUTE, expires_in=expires_in, token="t"
    )


def fates(ann: Fate, bob: Fate) -> dict[str, Fate]:
    return {ANN: ann, BOB: bob}


def a_retry(ann: Fate = W, bob: Fate = W) -> Retry:
    return Retry(delay=MINUTE, fates=fates(ann, bob), reason="451 busy", outcome=BUSY)


def refused(judged: Verdict, answer: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is the caller's to look at
        amended(claim(), BUSY, judged, answer)
    return str(caught.value)


# -- what it may


def test_it_is_asked_where_nobody_was_newly_accepted() -> None:
    assert amendable(claim(A, W), a_retry(A, W))
    assert not amendable(claim(W, W), a_retry(A, W))
    assert not amendable(claim(A, W), Delivered(fates=fates(A, A)))


def test_it_may_leave_the_verdict_as_it_is() -> None:
    judged = a_retry()
    assert amended(claim(), BUSY, judged, judged) is judged


@pytest.mark.parametrize("kind", [Dead, Held])
def test_it_may_discard_and_hold_and_what_was_said_stays_with_it(kind: type[Dead | Held]) -> None:
    verdict = amended(claim(), BUSY, a_retry(), kind(fates=fates(F, F), reason="enough"))
    assert verdict == kind(fates=fates(F, F), reason="enough", outcome=BUSY)


def test_it_may_discard_what_met_a_fault_of_its_relay() -> None:
    judged = Released(delay=MINUTE, fates=fates(W, W), reason="down")
    verdict = amended(claim(), DOWN, judged, Dead(fates=fates(F, F), reason="enough", outcome=BUSY))
    assert verdict == Dead(fates=fates(F, F), reason="enough")


def test_it_may_say_when() -> None:
    later = amended(claim(), BUSY, a_retry(), attrs.evolve(a_retry(), delay=5 * MINUTE, outcome=None))
    assert later == attrs.evolve(a_retry(), delay=5 * MINUTE)
    judged = Released(delay=MINUTE, fates=fates(W, W), reason="down")
    assert amended(claim(), DOWN, judged, attrs.evolve(judged, delay=2 * SECOND)) == attrs.evolve(
        judged, delay=2 * SECOND
    )


def test_it_may_give_one_of_them_up() -> None:
    assert amended(claim(), BUSY, a_retry(), a_retry(F, W)) == a_retry(F, W)


def test_a_second_is_the_least_wait_and_the_expiry_the_last() -> None:
    at_once = attrs.evolve(a_retry(), delay=-MINUTE)
    assert amended(claim(), BUSY, a_retry(), at_once) == attrs.evolve(a_retry(), delay=SECOND)
    never = attrs.evolve(a_retry(), delay=dt.timedelta.max)
    assert amended(claim(expires_in=5 * MINUTE), BUSY, a_retry(), never) == attrs.evolve(
        a_retry(), delay=5 * MINUTE
    )


def test_what_a_drain_gives_back_at_once_stays_due_at_once() -> None:
    judged = Released(delay=dt.timedelta(0), fates=fates(W, W), reason="down")
    other = attrs.evolve(judged, reason="still down")
    assert amended(claim(), DOWN, judged, other) == other


# -- what it may not


@pytest.mark.parametrize("answer", [None, "dead", Dead, Delivered(fates=fates(A, A))])
def test_it_can_answer_nothing_but_what_there_is_to_answer(answer: object) -> None:
    assert "cannot take the place of Retry" in refused(a_retry(), answer)


def test_an_attempt_that_was_made_is_not_given_back_and_what_was_not_is_not_charged() -> None:
    given_back = Released(delay=MINUTE, fates=fates(W, W))
    assert "cannot take the place" in refused(a_retry(), given_back)
    assert "cannot take the place" in refused(given_back, a_retry())
    assert "nothing was attempted" in refused(given_back, Released(delay=MINUTE, fates=fates(F, W)))


def test_what_was_delivered_stays_delivered() -> None:
    assert "cannot take the place" in refused(
        Delivered(fates=fates(A, A)), Held(fates=fates(A, A), reason="no")
    )


@pytest.mark.parametrize(
    ("was", "made"), [(A, F), (A, W), (W, A), (W, U), (W, D), (D, F), (D, W), (U, F), (U, D), (F, W)]
)
def test_no_fate_is_changed_but_given_up(was: Fate, made: Fate) -> None:
    assert "cannot be made" in refused(a_retry(was, W), a_retry(made, W))


def test_a_fate_that_is_no_fate_or_missing_is_refused() -> None:
    odd: Any = fates(F, F) | {BOB: "failed"}
    assert "cannot be made" in refused(a_retry(), Dead(fates=odd, reason="no"))
    assert "fates" in refused(a_retry(), Dead(fates={ANN: F}, reason="no"))
    assert "fates" in refused(a_retry(), Dead(fates=fates(F, F) | {"eve@e.example": F}, reason="no"))


def test_whom_it_may_have_reached_no_discarding_hides() -> None:
    assert "hide" in refused(a_retry(D, W), Dead(fates=fates(U, F), reason="no"))
    verdict = amended(claim(D, W), BUSY, a_retry(D, W), Held(fates=fates(U, F), reason="no"))
    assert isinstance(verdict, Held)


def test_what_goes_on_has_somebody_to_go_on_for_and_what_ends_has_nobody() -> None:
    assert "somebody to go on for" in refused(a_retry(), a_retry(F, F))
    assert "nobody waiting" in refused(a_retry(), Dead(fates=fates(F, W), reason="no"))
    assert "nobody waiting" in refused(a_retry(), Held(fates=fates(W, W), reason="no"))


def test_a_reason_is_for_the_person_who_looks() -> None:
    assert "reason" in refused(a_retry(), Dead(fates=fates(F, F), reason=""))


def test_a_delay_that_is_none_is_refused() -> None:
    odd: Any = 60
    assert "timedelta" in refused(a_retry(), attrs.evolve(a_retry(), delay=odd))


# -- at work


def give_up(_claim: Claim, _report: Outcome | RelayFault, verdict: Verdict) -> Verdict:
    if not isinstance(verdict, Retry | Released):
        return verdict
    return Dead(fates={r: fate.given_up for r, fate in verdict.fates.items()}, reason="not worth it")


def fail(*_: object) -> Verdict:
    raise SystemExit("a stranger's")


class Asked:
    def __init__(self, answer: Callable[[Claim, Outcome | RelayFault, Verdict], Verdict]) -> None:
        self.answer = answer
        self.seen: list[tuple[object, Verdict]] = []

    def __call__(self, claim: Claim, report: Outcome | RelayFault, verdict: Verdict) -> Verdict:
        self.seen.append((report, verdict))
        return self.answer(claim, report, verdict)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def outbox(store: MemoryStore, answer: Any, hook: Any) -> Outbox:
    return Outbox(store, Relay("a:25", answer), hook=hook)


@pytest.mark.parametrize("send", [False, True])
def test_a_hook_ends_what_would_be_tried_again(store: MemoryStore, send: bool) -> None:
    mail = outbox(store, TempFailed("451 busy"), give_up)
    if send:
        assert isinstance(mail.send(a_message()).verdict, Dead)
    else:
        mail.submit(a_message())
        assert mail.drain().dead == 1
    record = store.get("m1")
    assert record is not None
    assert (record.summary.state, record.summary.reason) == (State.DEAD, "not worth it")
    assert record.history[-1].results == {ANN: TempFailed("451 busy")}


def test_a_hook_is_handed_the_report_and_the_verdict_and_not_asked_of_what_was_accepted(
    store: MemoryStore,
) -> None:
    hook = Asked(give_up)
    mail = Outbox(store, Relay("a:25", answers={BOB: PermFailed("550 no")}), hook=hook)
    mail.submit_many([a_message(), a_message(ANN, BOB, id="m2"), a_message(BOB, id="m3")])
    mail.drain()
    ((report, verdict),) = hook.seen
    assert isinstance(report, Outcome)
    assert isinstance(verdict, Dead)
    assert verdict.fates == {BOB: F}


def test_a_hook_may_end_what_waits_for_a_relay_that_is_down(store: MemoryStore) -> None:
    mail = outbox(store, DOWN, give_up)
    mail.submit(a_message())
    mail.drain()
    assert the_state(store, "m1") is State.DEAD


@pytest.mark.parametrize(
    "hook", [fail, lambda *_: None, lambda c, *_: Delivered(fates=dict.fromkeys(c.fates, A))]
)
def test_where_a_hook_fails_or_answers_oddly_the_verdict_stands_and_it_is_logged(
    store: MemoryStore, hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mail = outbox(store, Uncertain("cut"), hook)
    mail.submit(a_message())
    assert mail.drain().retried == 1
    assert store.get("m1").summary.fates == {ANN: D}  # type: ignore[union-attr]  # it is there
    assert "the hook failed on m1: the verdict stands, retry" in caplog.text


def test_what_ends_the_program_ends_a_send_too(store: MemoryStore) -> None:
    with pytest.raises(SystemExit):
        outbox(store, Uncertain("cut"), fail).send(a_message())
    assert the_state(store, "m1") is State.CLAIMED


@pytest.mark.parametrize("name", ["hook", "suppress"])
def test_what_is_no_function_is_refused_where_it_is_said(store: MemoryStore, name: str) -> None:
    odd: Any = {name: "held"}
    with pytest.raises(ConfigurationError, match=f"{name} is of type str"):
        Outbox(store, Relay("a:25", Accepted()), **odd)

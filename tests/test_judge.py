"""From what was reported to what becomes of the message: every case in a table, and what holds in all of them."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from outbox.errors import RelayMisconfigured, RelayUnavailable
from outbox.judge import POISON_LIMIT, before, judge
from outbox.lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Released, Retry, Verdict
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.retry import RetryPolicy

unhurried = settings(deadline=None)
SECOND, MINUTE, HOUR, DAY = (dt.timedelta(seconds=n) for n in (1, 60, 3600, 86400))
ZERO = dt.timedelta(0)
W, D, A, F, U = Fate.WAITING, Fate.DOUBTFUL, Fate.ACCEPTED, Fate.FAILED, Fate.UNCERTAIN

STEADY = RetryPolicy(wait_jitter=0)
HOLD = RetryPolicy(wait_jitter=0, uncertain="hold")
LAST = RetryPolicy(wait_jitter=0, attempts=1)
SOFT = RetryPolicy(wait_jitter=0, soft_bounce=True)
SOFT_LAST = RetryPolicy(wait_jitter=0, soft_bounce=True, attempts=1)
LAST_HOLD = RetryPolicy(wait_jitter=0, attempts=1, uncertain="hold")


def claim(*fates: Fate, at_most_once: bool = False, **fields: Any) -> Claim:
    recipients = [f"r{n}@x" for n in range(len(fates))]
    fields = {"attempt": 1, "lost": 0, "age": ZERO, "token": "t", **fields}
    message = Message(recipients=recipients, content=b"", id="m", at_most_once=at_most_once)
    return Claim(message=message, fates=dict(zip(recipients, fates, strict=True)), **fields)


def outcome(*results: Result | None, fault: Any = None) -> Outcome:
    return Outcome(results={f"r{n}@x": result for n, result in enumerate(results) if result}, fault=fault)


def judged(held: Claim, report: Any, policy: RetryPolicy = STEADY, **more: Any) -> Verdict:
    return judge(held, report, policy, random.Random(1), **more)


def fates(verdict: Verdict) -> list[Fate]:
    return list(verdict.fates.values())


# -- one recipient: every result under every policy


@pytest.mark.parametrize(
    ("result", "policy", "at_most_once", "kind", "fate"),
    [
        (Accepted("250"), STEADY, False, Delivered, A),
        (Accepted("250"), LAST, False, Delivered, A),
        (Accepted("250"), HOLD, True, Delivered, A),
        (PermFailed("550"), STEADY, False, Dead, F),
        (PermFailed("550"), LAST, True, Dead, F),
        (PermFailed("550"), SOFT, False, Retry, W),
        (PermFailed("550"), SOFT_LAST, False, Dead, F),
        (TempFailed("451"), STEADY, False, Retry, W),
        (TempFailed("451"), LAST, False, Dead, F),
        (TempFailed("451"), HOLD, False, Retry, W),
        (TempFailed("451"), STEADY, True, Retry, W),
        (TempFailed("451"), LAST, True, Dead, F),
        (Untried(), STEADY, False, Retry, W),
        (Untried(), LAST, False, Dead, F),
        (Untried(), STEADY, True, Retry, W),
        (Uncertain("?"), STEADY, False, Retry, D),
        (Uncertain("?"), LAST, False, Held, U),
        (Uncertain("?"), HOLD, False, Held, U),
        (Uncertain("?"), LAST_HOLD, False, Held, U),
        (Uncertain("?"), STEADY, True, Held, U),
        (None, STEADY, False, Retry, D),
        (None, LAST, False, Held, U),
        (None, HOLD, False, Held, U),
        (None, STEADY, True, Held, U),
    ],
)
def test_each_result_has_its_verdict_and_fate(
    result: Result | None, policy: RetryPolicy, at_most_once: bool, kind: type[Verdict], fate: Fate
) -> None:
    verdict = judged(claim(W, at_most_once=at_most_once), outcome(result), policy)

    assert type(verdict) is kind
    assert fates(verdict) == [fate]


@pytest.mark.parametrize(
    ("result", "policy", "kind", "fate"),
    [
        (Accepted("250"), STEADY, Delivered, A),
        (PermFailed("550"), STEADY, Held, U),
        (TempFailed("451"), STEADY, Retry, D),
        (TempFailed("451"), LAST, Held, U),
        (Untried(), STEADY, Retry, D),
        (Untried(), LAST, Held, U),
        (Uncertain("?"), STEADY, Retry, D),
        (Uncertain("?"), HOLD, Held, U),
        (None, LAST, Held, U),
    ],
)
def test_who_may_have_received_an_earlier_copy_is_never_called_failed(
    result: Result | None, policy: RetryPolicy, kind: type[Verdict], fate: Fate
) -> None:
    verdict = judged(claim(D), outcome(result), policy)

    assert type(verdict) is kind
    assert fates(verdict) == [fate]


# -- several recipients


@pytest.mark.parametrize(
    ("old", "results", "kind", "new"),
    [
        ([W, W], [Accepted(), Accepted()], Delivered, [A, A]),
        ([A, W], [None, Accepted()], Delivered, [A, A]),
        ([W, W], [Accepted(), TempFailed()], Retry, [A, W]),
        ([W, W], [Accepted(), PermFailed()], Dead, [A, F]),
        ([W, W], [PermFailed(), TempFailed()], Retry, [F, W]),
        ([F, W], [None, Accepted()], Dead, [F, A]),
        ([U, W], [None, Accepted()], Held, [U, A]),
        ([U, W], [None, PermFailed()], Held, [U, F]),
        ([U, W], [None, TempFailed()], Retry, [U, W]),
        ([W, W, W], [Accepted(), Untried(), PermFailed()], Retry, [A, W, F]),
        ([D, W], [PermFailed(), PermFailed()], Held, [U, F]),
        ([D, W], [Accepted(), Uncertain()], Retry, [A, D]),
    ],
)
def test_while_somebody_waits_it_goes_on_and_then_the_gravest_decides(
    old: list[Fate], results: list[Result | None], kind: type[Verdict], new: list[Fate]
) -> None:
    verdict = judged(claim(*old), outcome(*results))

    assert type(verdict) is kind
    assert fates(verdict) == new


@pytest.mark.parametrize(
    ("old", "results", "kind", "new"),
    [
        ([W, W], [Accepted(), TempFailed()], Dead, [A, F]),
        ([W, W], [Accepted(), Uncertain()], Held, [A, U]),
        ([W, W], [TempFailed(), Uncertain()], Held, [F, U]),
        ([W, W], [PermFailed(), Untried()], Dead, [F, F]),
        ([A, W], [None, TempFailed()], Dead, [A, F]),
        ([D, W], [TempFailed(), TempFailed()], Held, [U, F]),
    ],
)
def test_giving_up_turns_those_who_wait_into_failed_or_uncertain(
    old: list[Fate], results: list[Result | None], kind: type[Verdict], new: list[Fate]
) -> None:
    verdict = judged(claim(*old), outcome(*results), LAST)

    assert type(verdict) is kind
    assert fates(verdict) == new


def test_a_result_for_somebody_who_did_not_wait_changes_nothing() -> None:
    verdict = judged(claim(A, W), outcome(PermFailed("550"), Accepted("250")))

    assert isinstance(verdict, Delivered)
    assert fates(verdict) == [A, A]


def test_a_result_for_a_stranger_is_no_fate() -> None:
    report = Outcome(results={"r0@x": Accepted(), "stranger@x": PermFailed()})

    assert judged(claim(W), report).fates == {"r0@x": A}


# -- words


def test_the_reason_is_the_gravest_reply_and_whose_it_is() -> None:
    report = outcome(Accepted("250 ok"), TempFailed("451 later"), PermFailed("550 gone"))

    assert getattr(judged(claim(W, W, W), report), "reason") == "r2@x: 550 gone"  # noqa: B009 - not every verdict has one


@pytest.mark.parametrize(("old", "word"), [(F, "failed"), (U, "uncertain")])
def test_who_decided_before_is_named_where_the_last_attempt_refused_nobody(old: Fate, word: str) -> None:
    verdict = judged(claim(W, old), outcome(Accepted("250")))
    assert isinstance(verdict, Dead | Held)
    assert verdict.reason == f"r1@x: {word} at an earlier attempt"


def test_who_was_not_tried_at_the_last_attempt_is_not_said_to_have_been_refused_before() -> None:
    verdict = judged(claim(W), outcome(Untried()), RetryPolicy(attempts=1))
    assert isinstance(verdict, Dead)
    assert verdict.reason == "gave up after attempt 1: r0@x: not tried at this attempt"


def test_giving_up_says_after_which_attempt() -> None:
    verdict = judged(claim(W, attempt=7), outcome(TempFailed("451 later")), RetryPolicy(attempts=7))

    assert isinstance(verdict, Dead)
    assert verdict.reason == "gave up after attempt 7: r0@x: 451 later"


def test_a_silent_transport_is_named() -> None:
    verdict = judged(claim(W), outcome(None), HOLD)

    assert isinstance(verdict, Held)
    assert "reported nothing" in verdict.reason


@pytest.mark.parametrize(
    "report", [outcome(Accepted()), outcome(TempFailed()), outcome(PermFailed()), outcome(Uncertain())]
)
def test_the_evidence_goes_with_the_verdict(report: Outcome) -> None:
    assert judged(claim(W), report).outcome is report
    assert judged(claim(W), report, LAST_HOLD).outcome is report


# -- delays


def delay(verdict: Verdict) -> dt.timedelta:
    assert isinstance(verdict, Retry | Released)
    return verdict.delay


def test_the_delay_is_the_policy_s() -> None:
    assert delay(judged(claim(W, attempt=1), outcome(TempFailed()))) == MINUTE
    assert delay(judged(claim(W, attempt=3), outcome(TempFailed()))) == 4 * MINUTE


def test_the_relay_s_wish_for_a_longer_wait_is_honoured() -> None:
    report = outcome(TempFailed("450", HOUR), TempFailed("450", 2 * HOUR), Accepted())

    assert delay(judged(claim(W, W, W), report)) == 2 * HOUR
    assert delay(judged(claim(W), outcome(TempFailed("450", SECOND)))) == MINUTE


def test_a_relay_that_broke_down_meanwhile_is_not_asked_sooner_than_its_pause_ends() -> None:
    fault = RelayUnavailable("mx:25", "421")

    assert delay(judged(claim(W), outcome(Untried(), fault=fault), relay_wait=HOUR)) == HOUR
    assert delay(judged(claim(W), outcome(Untried()), relay_wait=HOUR)) == MINUTE


def test_whom_the_relay_s_fault_kept_from_his_attempt_is_not_given_up_by_count() -> None:
    fault = RelayMisconfigured("mx:25", "535 bad password")
    verdict = judged(claim(W, W, W), outcome(Accepted(), Untried(), TempFailed(), fault=fault), LAST)

    assert isinstance(verdict, Retry)
    assert fates(verdict) == [A, W, F]


def test_who_waits_for_a_relay_of_several_is_charged_with_no_attempt() -> None:
    verdict = judged(claim(W, W), outcome(Untried("b:25: down", HOUR), Untried("", MINUTE)), LAST)

    assert verdict == Released(delay=HOUR, fates=claim(W, W).fates, reason="r0@x: b:25: down")


def test_who_waits_so_is_not_given_up_by_count_beside_others_either() -> None:
    verdict = judged(claim(W, W, W), outcome(Accepted(), Untried("", HOUR), TempFailed()), LAST)

    assert isinstance(verdict, Retry)
    assert verdict.delay == HOUR
    assert fates(verdict) == [A, W, F]


def test_who_waits_so_is_given_up_by_age_and_comes_back_no_sooner_than_in_a_second() -> None:
    never = judged(claim(W, age=4 * DAY), outcome(Untried("b:25: down", MINUTE)))

    assert isinstance(never, Dead)
    assert never.reason == "gave up by age: r0@x: b:25: down"
    assert delay(judged(claim(W), outcome(Untried("", ZERO)))) == SECOND


def test_he_is_given_up_by_age_with_the_fault_as_the_reason() -> None:
    fault = RelayMisconfigured("mx:25", "535 bad password")
    verdict = judged(claim(W, W, age=4 * DAY), outcome(Accepted(), Untried(), fault=fault))

    assert isinstance(verdict, Dead)
    assert fates(verdict) == [A, F]
    assert "535 bad password" in verdict.reason


@pytest.mark.parametrize(
    ("expires_in", "expected"), [(None, HOUR), (MINUTE, MINUTE), (ZERO, ZERO), (-HOUR, ZERO)]
)
def test_no_delay_goes_beyond_the_expiry(expires_in: dt.timedelta | None, expected: dt.timedelta) -> None:
    held = claim(W, expires_in=expires_in)

    assert delay(judged(held, outcome(TempFailed("450", HOUR)))) == expected
    assert delay(judged(held, RelayUnavailable("mx:25", "down"), relay_wait=HOUR)) == expected


def test_it_gives_up_by_age() -> None:
    verdict = judged(claim(W, age=4 * DAY), outcome(TempFailed("451")))

    assert isinstance(verdict, Dead)


# -- the relay's fault


@pytest.mark.parametrize(
    "fault", [RelayUnavailable("mx:25", "refused"), RelayMisconfigured("mx:25", "certificate")]
)
def test_a_relay_s_fault_costs_the_message_nothing(fault: Any) -> None:
    held = claim(A, W, attempt=50)
    verdict = judged(held, fault, LAST, relay_wait=MINUTE)

    assert isinstance(verdict, Released)
    assert verdict.fates == held.fates
    assert verdict.delay == MINUTE
    assert verdict.reason == str(fault)


def test_a_relay_that_is_down_for_the_message_s_whole_life_ends_it_by_age() -> None:
    verdict = judged(claim(A, W, age=4 * DAY), RelayUnavailable("mx:25", "refused"))

    assert isinstance(verdict, Dead)
    assert fates(verdict) == [A, F]
    assert "gave up by age: mx:25: refused" in verdict.reason


def test_a_relay_that_is_down_until_the_end_leaves_who_may_have_it_to_a_person() -> None:
    verdict = judged(claim(D, W, age=4 * DAY), RelayUnavailable("mx:25", "refused"))

    assert isinstance(verdict, Held)
    assert fates(verdict) == [U, F]


def test_without_a_timeout_a_relay_may_be_down_for_ever() -> None:
    policy = RetryPolicy(schedule=[MINUTE])

    assert isinstance(judged(claim(W, age=4000 * DAY), RelayUnavailable("mx:25", "down"), policy), Released)


# -- before a delivery


@pytest.mark.parametrize(
    ("held", "kind", "new"),
    [
        (claim(W), None, []),
        (claim(W, lost=POISON_LIMIT - 1), None, []),
        (claim(A, W, lost=POISON_LIMIT), Held, [A, U]),
        (claim(W, lost=1), None, []),
        (claim(D, lost=1), None, []),
        (claim(A, W, lost=1, at_most_once=True), Held, [A, U]),
        (claim(A, D, lost=1, at_most_once=True), Held, [A, U]),
        # Nobody but a person makes an at-most-once message doubtful without a lost claim.
        (claim(D, at_most_once=True), None, []),
        (claim(W, at_most_once=True), None, []),
        (claim(W, expires_in=SECOND), None, []),
        (claim(A, W, expires_in=ZERO), Expired, [A, F]),
        (claim(W, expires_in=-DAY), Expired, [F]),
        (claim(W, D, expires_in=-DAY), Expired, [F, U]),
        # What may have been sent is not called failed because it has expired since.
        (claim(W, expires_in=-DAY, lost=POISON_LIMIT), Held, [U]),
        (claim(W, expires_in=-DAY, lost=1, at_most_once=True), Held, [U]),
        (claim(A, A), Delivered, [A, A]),
        (claim(A, F), Dead, [A, F]),
        (claim(A, U, F), Held, [A, U, F]),
    ],
)
def test_what_must_not_be_handed_over(held: Claim, kind: type[Verdict] | None, new: list[Fate]) -> None:
    verdict = before(held)

    if kind is None:
        assert verdict is None
    else:
        assert type(verdict) is kind
        assert verdict is not None
        assert fates(verdict) == new


def test_what_expired_since_it_was_claimed_has_expired() -> None:
    held = claim(W, expires_in=MINUTE)

    assert before(held, MINUTE - SECOND) is None
    assert isinstance(before(held, MINUTE), Expired)


def test_a_message_that_nobody_reported_back_from_says_how_often() -> None:
    verdict = before(claim(W, lost=5))

    assert isinstance(verdict, Held)
    assert "5 workers in a row" in verdict.reason


# -- what holds always


RESULTS: st.SearchStrategy[Result | None] = st.one_of(
    st.none(),
    st.builds(Accepted),
    st.builds(PermFailed),
    st.builds(Uncertain),
    st.builds(Untried, st.just(""), st.none() | st.timedeltas(ZERO, 2 * DAY)),
    st.builds(TempFailed, st.just(""), st.none() | st.timedeltas(ZERO, 2 * DAY)),
)
POLICIES = st.builds(
    RetryPolicy,
    attempts=st.none() | st.integers(1, 4),
    schedule=st.none() | st.lists(st.timedeltas(ZERO, DAY), max_size=4),
    timeout=st.none() | st.timedeltas(SECOND, 5 * DAY),
    uncertain=st.sampled_from(["retry", "hold"]),
)
FAULTS = st.sampled_from([RelayUnavailable("mx:25", "421"), RelayMisconfigured("mx:25", "TLS")])


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    old = draw(st.lists(st.sampled_from(Fate), min_size=1, max_size=5))
    return claim(
        *old,
        at_most_once=draw(st.booleans()),
        attempt=draw(st.integers(1, 6)),
        lost=draw(st.integers(0, 5)),
        age=draw(st.timedeltas(ZERO, 6 * DAY)),
        expires_in=draw(st.none() | st.timedeltas(-DAY, 6 * DAY)),
    )


@st.composite
def reports(draw: st.DrawFn) -> Outcome:
    results = draw(st.lists(RESULTS, max_size=5))
    return outcome(*results, fault=draw(st.none() | FAULTS))


@pytest.mark.parametrize("result", [TempFailed, Untried])
@pytest.mark.parametrize(
    ("policy", "age", "most"),
    [
        (STEADY, ZERO, DAY),
        (RetryPolicy(wait_jitter=0, timeout=HOUR), ZERO, HOUR),
        (RetryPolicy(wait_jitter=0, timeout=HOUR), 50 * MINUTE, 10 * MINUTE),
        (RetryPolicy(wait_jitter=0, timeout=None), 400 * DAY, DAY),
    ],
    ids=["a day", "the timeout", "what is left of it", "however old"],
)
def test_a_relay_that_asks_for_years_keeps_a_message_for_a_day_at_most_and_never_past_its_timeout(
    result: type[TempFailed | Untried], policy: RetryPolicy, age: dt.timedelta, most: dt.timedelta
) -> None:
    report = outcome(result("451 later", dt.timedelta.max))
    assert delay(judged(claim(W, age=age), report, policy)) == most


@unhurried
@given(claims(), reports() | FAULTS, POLICIES, st.randoms(use_true_random=False), st.timedeltas(ZERO, DAY))
def test_every_verdict_keeps_the_rules(
    held: Claim, report: Any, policy: RetryPolicy, rng: random.Random, relay_wait: dt.timedelta
) -> None:
    verdict = judge(held, report, policy, rng, relay_wait=relay_wait)
    new = verdict.fates

    assert list(new) == list(held.message.recipients)
    for recipient, old in held.fates.items():
        assert old.open or new[recipient] is old
        assert old is not D or new[recipient] in (D, A, U)
    kinds = set(new.values())
    # A fault of the relay says nothing of who waits, also where nobody does; nor does what kept everybody from it.
    if isinstance(verdict, Released):
        assert new == held.fates
        assert not isinstance(report, Outcome) or all(
            isinstance(result := report.results[recipient], Untried) and result.retry_after is not None
            for recipient in held.recipients
        )
    else:
        going_on = bool(kinds & {W, D})
        assert not going_on or isinstance(report, Outcome)
        assert isinstance(verdict, Retry) == going_on
        assert isinstance(verdict, Held) == (not going_on and U in kinds)
        assert isinstance(verdict, Dead) == (not going_on and U not in kinds and F in kinds)
        assert isinstance(verdict, Delivered) == (kinds == {A})


@unhurried
@given(claims(), reports(), POLICIES, st.randoms(use_true_random=False))
def test_whoever_was_accepted_is_accepted_and_nobody_else(
    held: Claim, report: Outcome, policy: RetryPolicy, rng: random.Random
) -> None:
    verdict = judge(held, report, policy, rng)

    for recipient in held.recipients:
        accepted = isinstance(report.results.get(recipient), Accepted)
        assert (verdict.fates[recipient] is A) == accepted


@unhurried
@given(claims(), reports(), POLICIES, st.randoms(use_true_random=False))
def test_what_may_have_been_sent_is_never_called_failed(
    held: Claim, report: Outcome, policy: RetryPolicy, rng: random.Random
) -> None:
    verdict = judge(held, report, policy, rng)

    for recipient in held.recipients:
        result = report.results.get(recipient)
        if result is None or isinstance(result, Uncertain):
            assert verdict.fates[recipient] in ((U,) if held.message.at_most_once else (U, D))
            assert policy.uncertain == "retry" or verdict.fates[recipient] is U


@unhurried
@given(claims(), reports() | FAULTS, POLICIES, st.randoms(use_true_random=False), st.timedeltas(ZERO, DAY))
def test_a_delay_is_never_negative_and_never_beyond_the_expiry(
    held: Claim, report: Any, policy: RetryPolicy, rng: random.Random, relay_wait: dt.timedelta
) -> None:
    verdict = judge(held, report, policy, rng, relay_wait=relay_wait)
    if not isinstance(verdict, Retry | Released):
        return

    assert delay(verdict) >= ZERO
    if held.expires_in is not None:
        assert delay(verdict) <= max(ZERO, held.expires_in)


@unhurried
@given(claims(), reports(), POLICIES, st.randoms(use_true_random=False), st.timedeltas(ZERO, DAY))
def test_nobody_is_asked_again_sooner_than_he_wished(
    held: Claim, report: Outcome, policy: RetryPolicy, rng: random.Random, relay_wait: dt.timedelta
) -> None:
    held = attrs.evolve(held, expires_in=None)
    verdict = judge(held, report, policy, rng, relay_wait=relay_wait)
    if not isinstance(verdict, Retry):
        return

    wishes = [
        result.retry_after
        for result in (report.results.get(recipient) for recipient in held.recipients)
        if isinstance(result, TempFailed | Untried) and result.retry_after is not None
    ]
    left = DAY if policy.timeout is None else min(DAY, max(ZERO, policy.timeout - held.age))
    assert all(delay(verdict) >= min(wish, left) for wish in wishes)
    assert not report.fault or delay(verdict) >= relay_wait


@unhurried
@given(claims(), reports(), POLICIES, st.randoms(use_true_random=False))
def test_attempts_are_bounded(held: Claim, report: Outcome, policy: RetryPolicy, rng: random.Random) -> None:
    verdict = judge(held, report, policy, rng)

    over = policy.next_wait(held.attempt, age=held.age, rng=random.Random(1)) is None
    untried = [x for r in held.recipients if isinstance(x := report.results.get(r), Untried)]
    spared = untried if report.fault else [x for x in untried if x.retry_after is not None]
    assert not (over and isinstance(verdict, Retry) and not spared)


@unhurried
@given(claims())
def test_before_never_lets_what_is_over_be_handed_over(held: Claim) -> None:
    verdict = before(held)

    if verdict is None:
        assert held.recipients
        assert held.expires_in is None or held.expires_in > ZERO
        assert held.lost < POISON_LIMIT
        assert not (held.message.at_most_once and held.lost)
    else:
        assert not {W, D} & set(verdict.fates.values())
        assert all(old.open or verdict.fates[r] is old for r, old in held.fates.items())
        assert all(verdict.fates[r] is U for r, old in held.fates.items() if old is D)
        assert not isinstance(verdict, Retry | Released)

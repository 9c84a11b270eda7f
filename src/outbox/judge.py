"""The judge: from what was reported to what becomes of the message.  Pure."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import attrs

from .errors import RelayFault
from .lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Released, Retry, Verdict
from .outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from .retry import RetryPolicy
from .values import quoted

__all__ = ["Hook", "amendable", "amended", "before", "judge"]

Hook: TypeAlias = Callable[[Claim, Outcome | RelayFault, Verdict], Verdict]
"""What becomes of a claim otherwise than it was judged: the verdict that it was handed, or another in its place.

Called after an attempt of which nobody was newly accepted, before anything is
written, in the thread that delivers.  It may

- discard: a :class:`Dead` with a reason,
- hold: a :class:`Held` with a reason,
- change the delay of a :class:`Retry` or a :class:`Released` (a second at
  least, and never past the message's ``expires_at``).

Each recipient's fate is as it was judged, or that fate's
:attr:`~Fate.given_up`: who is in doubt becomes UNCERTAIN, and is held.  The
attempt's outcome stays with it in any case.  Where it raises, or returns
anything else, the verdict stands as it was judged, and that is logged.
"""

POISON_LIMIT: Final = 4
"""Claims in a row that never settled.  The first may have been a batch's death; the next three were its own."""

_ZERO: Final = dt.timedelta(0)
_ONCE_MORE: Final = dt.timedelta(minutes=1)
"""The wait of those whose attempts are used up, and the last one was not theirs but the relay's fault."""
_SOON: Final = dt.timedelta(seconds=1)
_ASKED_AT_MOST: Final = dt.timedelta(days=1)
_SILENT: Final = Uncertain("the transport reported nothing for this recipient")


def before(claim: Claim, since: dt.timedelta = _ZERO) -> Verdict | None:
    """What becomes of a claim that must not be handed over; None where it may be.

    *since* is how long ago it was claimed: in a batch others went before it.
    """
    if claim.message.at_most_once and claim.lost:
        return _hold(claim, "it is at-most-once, and a worker that had it never reported back")
    if claim.lost >= POISON_LIMIT:
        return _hold(claim, f"{claim.lost} workers in a row took it and never reported back")
    if claim.expires_in is not None and claim.expires_in <= since:
        return Expired(fates=_given_up(claim.fates))
    if not claim.recipients:
        return _settled(claim.fates, None, "nobody was waiting")
    return None


def judge(
    claim: Claim,
    report: Outcome | RelayFault,
    policy: RetryPolicy,
    rng: random.Random,
    *,
    relay_wait: dt.timedelta = _ZERO,
) -> Verdict:
    """What becomes of *claim* after its delivery.

    Args:
        report: The transport's outcome, or the fault of the relay that it raised.
        relay_wait: How long the relay is to be left alone after its fault.
    """
    if isinstance(report, RelayFault):
        return _relay_fault(claim, report, policy, relay_wait)
    results = {r: report.results.get(r, _SILENT) for r in claim.recipients}
    if report.fault is None and results and all(map(_excused, results.values())):
        return _put_back(
            claim, _words(results, claim.fates, report), policy, max(_SOON, _asked(results, policy, claim))
        )
    fates = dict(claim.fates)
    fates.update((r, _fate(claim, fates[r], result, policy)) for r, result in results.items())
    if all(fate is Fate.ACCEPTED for fate in fates.values()):
        return Delivered(fates=fates, outcome=report)
    wait = policy.next_wait(claim.attempt, age=claim.age, rng=rng)
    over = "" if wait is not None or not _open(fates) else f"gave up after attempt {claim.attempt}: "
    if wait is None:
        spared = _spared(results, report, policy, claim)
        fates = {r: fate if r in spared else fate.given_up for r, fate in fates.items()}
    reason = _words(results, fates, report)
    if not _open(fates):
        return _settled(fates, report, over + (reason or _silent(claim.fates, fates)))
    # A relay that is down is not asked again sooner than its own pause ends.
    floor = relay_wait if report.fault else _ZERO
    delay = _capped(max(_ONCE_MORE if wait is None else wait, floor, _asked(results, policy, claim)), claim)
    return Retry(delay=delay, fates=fates, reason=reason, outcome=report)


def amendable(claim: Claim, verdict: Verdict) -> bool:
    """Whether a hook is asked: nobody was accepted that was not before."""
    return not any(
        fate is Fate.ACCEPTED and claim.fates[recipient] is not fate
        for recipient, fate in verdict.fates.items()
    )


def amended(claim: Claim, report: Outcome | RelayFault, judged: Verdict, answer: object) -> Verdict:
    """What a hook answered, as the verdict that takes the place of *judged*.

    Raises:
        ValueError: it cannot take its place, and why.
    """
    if answer is judged:
        return judged
    match answer:
        case Retry() | Released() if type(answer) is type(judged):
            return _at_another_time(claim, judged, answer)
        case Dead() | Held() if not isinstance(judged, Delivered):
            _check_fates(judged, answer.fates)
            _check_end(answer)
            return attrs.evolve(answer, outcome=report if isinstance(report, Outcome) else None)
    raise ValueError(f"{_called(answer)} cannot take the place of {_called(judged)}")


def _at_another_time(claim: Claim, judged: Verdict, answer: Retry | Released) -> Verdict:
    _check_fates(judged, answer.fates)
    if isinstance(answer, Released) and answer.fates != judged.fates:
        raise ValueError("a Released gives nobody up: it says that nothing was attempted")
    if not _open(answer.fates):
        raise ValueError(f"a {_called(answer)} needs somebody to go on for: return Dead or Held")
    delay: object = answer.delay
    if not isinstance(delay, dt.timedelta):
        raise ValueError(f"its delay is a value of type {type(delay).__name__}, which is no timedelta")  # noqa: TRY004 - one kind of error, for the verdict as a whole
    if answer.delay != getattr(judged, "delay", None):
        answer = attrs.evolve(answer, delay=_capped(max(_SOON, delay), claim))
    return attrs.evolve(answer, outcome=judged.outcome) if isinstance(answer, Retry) else answer


def _check_fates(judged: Verdict, fates: Mapping[str, Fate]) -> None:
    if fates.keys() != judged.fates.keys():
        raise ValueError("its fates are not those of the message's recipients")
    for recipient, fate in fates.items():
        was = judged.fates[recipient]
        if fate is not was and fate is not was.given_up:
            raise ValueError(f"{recipient} is {was}, and cannot be made {quoted(str(fate))}")


def _check_end(answer: Dead | Held) -> None:
    if not answer.reason:
        raise ValueError(f"a {_called(answer)} needs a reason, for the person who looks")
    if _open(answer.fates):
        raise ValueError(f"a {_called(answer)} leaves nobody waiting: give up with Fate.given_up")
    if isinstance(answer, Dead) and Fate.UNCERTAIN in answer.fates.values():
        raise ValueError("somebody may have received it, which a Dead would hide: return Held")


def _called(verdict: object) -> str:
    return type(verdict).__name__


def _fate(claim: Claim, old: Fate, result: Result, policy: RetryPolicy) -> Fate:
    match result:
        case Accepted():
            return Fate.ACCEPTED
        case PermFailed() if not policy.soft_bounce:
            # It refuses this copy, and says nothing of an earlier one.
            return old.given_up
        case Uncertain() if policy.uncertain == "hold" or claim.message.at_most_once:
            return Fate.UNCERTAIN
        case Uncertain():
            return old.doubted
        case _:
            return old


def _spared(
    results: Mapping[str, Result], report: Outcome, policy: RetryPolicy, claim: Claim
) -> frozenset[str]:
    """Those whom a relay's fault kept from their attempt: they are not given up by count, only by age."""
    if _too_old(claim, policy):
        return frozenset()
    return frozenset(
        r
        for r, result in results.items()
        if _excused(result) or (report.fault and isinstance(result, Untried))
    )


def _excused(result: Result) -> bool:
    """Whether it was not this message's fault, nor that of the relay for others."""
    return isinstance(result, Untried) and result.retry_after is not None


def _asked(results: Mapping[str, Result], policy: RetryPolicy, claim: Claim) -> dt.timedelta:
    """The longest wait that was asked for; a day at most, and never past the age at which the policy gives up."""
    waits = [r.retry_after for r in results.values() if isinstance(r, TempFailed | Untried) and r.retry_after]
    asked = min(max(waits, default=_ZERO), _ASKED_AT_MOST)
    return asked if policy.timeout is None else max(_ZERO, min(asked, policy.timeout - claim.age))


def _too_old(claim: Claim, policy: RetryPolicy) -> bool:
    return policy.timeout is not None and claim.age >= policy.timeout


def _relay_fault(claim: Claim, fault: RelayFault, policy: RetryPolicy, wait: dt.timedelta) -> Verdict:
    return _put_back(claim, str(fault), policy, wait)


def _put_back(claim: Claim, reason: str, policy: RetryPolicy, wait: dt.timedelta) -> Verdict:
    if _too_old(claim, policy):
        return _settled(_given_up(claim.fates), None, f"gave up by age: {reason}")
    return Released(delay=_capped(wait, claim), fates=claim.fates, reason=reason)


def _open(fates: Mapping[str, Fate]) -> bool:
    return any(fate.open for fate in fates.values())


def _settled(fates: Mapping[str, Fate], outcome: Outcome | None, reason: str) -> Verdict:
    if Fate.UNCERTAIN in fates.values():
        return Held(fates=fates, reason=reason, outcome=outcome)
    if Fate.FAILED in fates.values():
        return Dead(fates=fates, reason=reason, outcome=outcome)
    return Delivered(fates=fates, outcome=outcome)


def _hold(claim: Claim, reason: str) -> Held:
    return Held(fates={r: fate.doubted.given_up for r, fate in claim.fates.items()}, reason=reason)


def _given_up(fates: Mapping[str, Fate]) -> dict[str, Fate]:
    return {r: fate.given_up for r, fate in fates.items()}


def _capped(delay: dt.timedelta, claim: Claim) -> dt.timedelta:
    # Due again at its expiry at the latest, so that it is then seen to be expired.
    return delay if claim.expires_in is None else max(_ZERO, min(delay, claim.expires_in))


def _words(results: Mapping[str, Result], fates: Mapping[str, Fate], report: Outcome) -> str:
    """The first reply that is not an acceptance, the gravest fate first; else the relay's fault."""
    for fate in (Fate.UNCERTAIN, Fate.FAILED, Fate.DOUBTFUL, Fate.WAITING):
        for recipient, result in results.items():
            told = not isinstance(result, Accepted) and (result.reply or not isinstance(result, Untried))
            if told and fates[recipient] is fate:
                return f"{recipient}: {result.reply}"
    return "" if report.fault is None else str(report.fault)


def _silent(before: Mapping[str, Fate], fates: Mapping[str, Fate]) -> str:
    """Why it is not delivered although this attempt said nothing against anybody."""
    for fate in (Fate.UNCERTAIN, Fate.FAILED):
        for recipient, each in fates.items():
            if each is fate:
                earlier = before[recipient] is fate
                return f"{recipient}: {f'{fate} at an earlier attempt' if earlier else 'not tried at this attempt'}"
    return ""

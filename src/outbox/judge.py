"""The judge: from what was reported to what becomes of the message.  Pure."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from typing import Final

from .errors import RelayFault
from .lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Released, Retry, Verdict
from .outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain
from .retry import RetryPolicy

__all__ = ["before", "judge"]

POISON_LIMIT: Final = 4
"""Claims in a row that never settled.  The first may have been a batch's death; the next three were its own."""

_ZERO: Final = dt.timedelta(0)
_SILENT: Final = Uncertain("the transport reported nothing for this recipient")


def before(claim: Claim) -> Verdict | None:
    """What becomes of a claim that must not be handed over; None where it may be."""
    if claim.message.at_most_once and claim.lost:
        return _hold(claim, "it is at-most-once, and a worker that had it never reported back")
    if claim.lost >= POISON_LIMIT:
        return _hold(claim, f"{claim.lost} workers in a row took it and never reported back")
    if claim.expires_in is not None and claim.expires_in <= _ZERO:
        return Expired(fates=_turned(claim.fates, Fate.FAILED))
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
    fates = dict(claim.fates)
    fates.update((r, _fate(claim, result, policy)) for r, result in results.items())
    if Fate.WAITING not in fates.values():
        return _settled(fates, report, _words(results, fates))
    wait = policy.next_wait(claim.attempt, age=claim.age, rng=rng)
    if wait is None:
        given_up = {r: _given_up(fate, results.get(r)) for r, fate in fates.items()}
        last = _words(results, given_up)
        return _settled(given_up, report, f"gave up after attempt {claim.attempt}: {last}")
    asked = [r.retry_after for r in results.values() if isinstance(r, TempFailed) and r.retry_after]
    # A relay that is down is not asked again sooner than its own pause ends.
    floor = relay_wait if report.fault else _ZERO
    delay = _capped(max([wait, floor, *asked]), claim)
    return Retry(delay=delay, fates=fates, reason=_words(results, fates), outcome=report)


def _fate(claim: Claim, result: Result, policy: RetryPolicy) -> Fate:
    match result:
        case Accepted():
            return Fate.ACCEPTED
        case PermFailed():
            return Fate.FAILED
        case Uncertain() if policy.uncertain == "hold" or claim.message.at_most_once:
            return Fate.UNCERTAIN
        case _:
            return Fate.WAITING


def _given_up(fate: Fate, result: Result | None) -> Fate:
    # Whoever was uncertain at the last attempt did not fail: he may have it.
    if fate is not Fate.WAITING:
        return fate
    return Fate.UNCERTAIN if isinstance(result, Uncertain) else Fate.FAILED


def _relay_fault(claim: Claim, fault: RelayFault, policy: RetryPolicy, wait: dt.timedelta) -> Verdict:
    if policy.timeout is not None and claim.age >= policy.timeout:
        return Dead(fates=_turned(claim.fates, Fate.FAILED), reason=f"gave up by age: {fault}")
    return Released(delay=_capped(wait, claim), fates=claim.fates, reason=str(fault))


def _settled(fates: Mapping[str, Fate], outcome: Outcome | None, reason: str) -> Verdict:
    if Fate.UNCERTAIN in fates.values():
        return Held(fates=fates, reason=reason, outcome=outcome)
    if Fate.FAILED in fates.values():
        return Dead(fates=fates, reason=reason, outcome=outcome)
    return Delivered(fates=fates, outcome=outcome)


def _hold(claim: Claim, reason: str) -> Held:
    return Held(fates=_turned(claim.fates, Fate.UNCERTAIN), reason=reason)


def _turned(fates: Mapping[str, Fate], fate: Fate) -> dict[str, Fate]:
    return {r: fate if old is Fate.WAITING else old for r, old in fates.items()}


def _capped(delay: dt.timedelta, claim: Claim) -> dt.timedelta:
    # Due again at its expiry at the latest, so that it is then seen to be expired.
    return delay if claim.expires_in is None else max(_ZERO, min(delay, claim.expires_in))


def _words(results: Mapping[str, Result], fates: Mapping[str, Fate]) -> str:
    """The first reply that is not an acceptance, the gravest fate first."""
    for fate in (Fate.UNCERTAIN, Fate.FAILED, Fate.WAITING):
        for recipient, result in results.items():
            if fates[recipient] is fate and isinstance(result, TempFailed | PermFailed | Uncertain):
                return f"{recipient}: {result.reply}"
    return ""

"""Whether a message goes on or not, and when it comes again: what its policy says, once more and apart from the judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from outbox.errors import ConfigurationError, RelayFault
from outbox.lifecycle import Claim, Dead, Delivered, Held, Released, Retry, Verdict
from outbox.outcome import TempFailed, Untried
from outbox.retry import RetryPolicy

from .verdicts import Answer, silent

__all__ = ["odd_release", "odd_time"]

_JITTER: Final = 0.2
_ONCE_MORE: Final = 60.0
_ROUNDING: Final = 1e-3
_LEAST_PAUSE: Final = 1.0


def odd_time(claim: Claim, answers: Mapping[str, Answer], verdict: Verdict, policy: RetryPolicy) -> str:
    """What is wrong with the end of it, or with its delay; ``""`` where nothing is.

    *answers* holds what was told of each recipient whose fate was open; who
    is missing was kept from his attempt by a relay, or is suspended.
    """
    asked = [answers.get(recipient, Untried()) for recipient in claim.recipients]
    spared = any(isinstance(each, Untried | RelayFault | ConfigurationError) for each in asked)
    last = used_up(claim, policy) or too_old(claim, policy)
    if isinstance(verdict, Dead | Held | Delivered):
        if spared and not too_old(claim, policy):
            return f"18: {verdict.event}, though a relay kept somebody from his attempt"
        holds = policy.uncertain == "hold" or claim.message.at_most_once
        early = any(_later(each, holds=holds) for each in asked) and not last
        return (
            f"9: given up at attempt {claim.attempt}, which was not the last by its policy" if early else ""
        )
    if last and not spared:
        return f"9: it goes on behind attempt {claim.attempt}, the last by its policy"
    return (
        _odd_delay(claim, asked, verdict.delay.total_seconds(), policy) if isinstance(verdict, Retry) else ""
    )


def odd_release(claim: Claim, answers: Mapping[str, Answer], verdict: Released) -> str:
    """What is wrong with how soon it comes back of which a relay said nothing but that it is not well."""
    if not answers or not answers.keys() >= set(claim.recipients):
        # Whom another relay kept back comes with that one's pause.
        return ""
    told = verdict.delay.total_seconds()
    left = math.inf if claim.expires_in is None else max(0.0, claim.expires_in.total_seconds())
    soon = told < min(_LEAST_PAUSE, left) - _ROUNDING
    return f"it comes back in {told} s to a relay that failed" if soon else ""


def used_up(claim: Claim, policy: RetryPolicy) -> bool:
    """Whether this attempt is the last by count."""
    if policy.schedule is not None and claim.attempt > len(policy.schedule):
        return True
    return policy.attempts is not None and claim.attempt >= policy.attempts


def too_old(claim: Claim, policy: RetryPolicy) -> bool:
    """Whether this attempt is the last by age."""
    return policy.timeout is not None and claim.age >= policy.timeout


def _later(answer: Answer, *, holds: bool) -> bool:
    told = isinstance(answer, TempFailed) or _bug(answer)
    return told or (silent(answer) and not holds)


def _bug(answer: Answer) -> bool:
    return isinstance(answer, BaseException) and not isinstance(answer, RelayFault | ConfigurationError)


def _odd_delay(claim: Claim, asked: list[Answer], told: float, policy: RetryPolicy) -> str:
    least, most = _usual(claim, policy)
    # Nobody waits past the age at which his policy gives up.
    ends = math.inf if policy.timeout is None else max(0.0, (policy.timeout - claim.age).total_seconds())
    waits = [
        min(each.retry_after.total_seconds(), ends)
        for each in asked
        if isinstance(each, TempFailed) and each.retry_after
    ]
    least, most = max([least, *waits]), max([most, *waits])
    if claim.expires_in is not None:
        left = max(0.0, claim.expires_in.total_seconds())
        least = min(least, left)
        if told > left + _ROUNDING:
            return f"9: it comes again in {told} s, and expires in {left} s"
    if told < least - _ROUNDING:
        return f"9: it comes again in {told} s, and is to wait {least} s"
    # How long a relay that failed is left alone is for its breaker to say.
    by_itself = not any(isinstance(each, Untried | RelayFault | ConfigurationError) for each in asked)
    if by_itself and told > most + _ROUNDING:
        return f"9: it comes again in {told} s, and is to wait {most} s at most"
    return ""


def _usual(claim: Claim, policy: RetryPolicy) -> tuple[float, float]:
    if used_up(claim, policy) or too_old(claim, policy):
        return _ONCE_MORE, _ONCE_MORE
    if policy.schedule is not None:
        wait = policy.schedule[claim.attempt - 1].total_seconds()
    else:
        doubled = policy.wait_initial.total_seconds() * 2.0 ** min(claim.attempt - 1, 30)
        wait = min(policy.wait_max.total_seconds(), doubled)
    least, most = wait * (1 - _JITTER), wait * (1 + _JITTER)
    if policy.timeout is None:
        return least, most
    left = (policy.timeout - claim.age).total_seconds()
    return min(least, left), min(most, left)

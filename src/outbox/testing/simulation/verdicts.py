"""Whether a verdict fits what was answered: the rules once more, as a table that shares nothing with the judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from outbox.errors import ConfigurationError, RelayFault
from outbox.lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Released, Retry, Verdict
from outbox.message import Message
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.retry import RetryPolicy

__all__ = ["Answer", "odd_verdict"]

Answer: TypeAlias = Result | Exception | None
"""What was told of one recipient; None where he was left out."""

_POISON: Final = 4
_WAITING: Final = (Fate.WAITING, Fate.DOUBTFUL)


def odd_verdict(
    message: Message,
    fates: Mapping[str, Fate],
    claim: Claim,
    answers: Mapping[str, Answer],
    verdict: Verdict,
    *,
    policy: RetryPolicy,
) -> str:
    """What is wrong with it; ``""`` where nothing is."""
    goes_on = isinstance(verdict, Retry | Released)
    # Where the relay's fault kept somebody from the last attempt, it goes on for him alone.
    asked: list[Answer] = [answers.get(r, Untried()) for r, fate in fates.items() if fate in _WAITING]
    spared = any(isinstance(answer, Untried | RelayFault | ConfigurationError) for answer in asked)
    for recipient in message.recipients:
        old, new = fates[recipient], verdict.fates[recipient]
        holds = policy.uncertain == "hold" or message.at_most_once
        if recipient in answers:
            fit = _answered(old, answers[recipient], goes_on=goes_on and not spared, holds=holds)
        else:
            fit = _unanswered(old, goes_on=goes_on)
        if new not in fit:
            told = answers.get(recipient, "nothing")
            return f"13: {recipient} was {old}, was told {told!r}, and is {new} by {verdict.event}"
    return _odd_state(verdict) or _odd_end(claim, answers, verdict, policy)


def _answered(old: Fate, answer: Answer, *, goes_on: bool, holds: bool) -> tuple[Fate, ...]:
    if old not in _WAITING:
        return (old,)
    given_up = Fate.FAILED if old is Fate.WAITING else Fate.UNCERTAIN
    if isinstance(answer, Accepted):
        return (Fate.ACCEPTED,)
    if isinstance(answer, PermFailed):
        return (given_up,)
    if answer is None or isinstance(answer, Uncertain):
        return (
            (Fate.UNCERTAIN,) if holds else (Fate.DOUBTFUL,) if goes_on else (Fate.DOUBTFUL, Fate.UNCERTAIN)
        )
    return (old,) if goes_on else (old, given_up)


def _unanswered(old: Fate, *, goes_on: bool) -> tuple[Fate, ...]:
    if old not in _WAITING or goes_on:
        return (old,)
    return (Fate.UNCERTAIN, Fate.FAILED) if old is Fate.WAITING else (Fate.UNCERTAIN,)


def _odd_state(verdict: Verdict) -> str:
    fates = set(verdict.fates.values())
    fits = {
        Retry: bool(fates & set(_WAITING)),
        Released: bool(fates & set(_WAITING)),
        Delivered: fates == {Fate.ACCEPTED},
        Dead: not fates & {*_WAITING, Fate.UNCERTAIN} and Fate.FAILED in fates,
        Held: not fates & set(_WAITING),
        Expired: not fates & set(_WAITING),
    }
    return "" if fits[type(verdict)] else f"7: {verdict.event} does not fit {sorted(fates)}"


def _odd_end(claim: Claim, answers: Mapping[str, Answer], verdict: Verdict, policy: RetryPolicy) -> str:
    """Whether it cost an attempt or ended although nothing of the message's own was answered."""
    own = [answer for answer in answers.values() if _own(answer)]
    if isinstance(verdict, Released):
        return f"9: released although it was handed over and told {own}" if own else ""
    if own or not isinstance(verdict, Dead | Held):
        return ""
    too_old = policy.timeout is not None and claim.age >= policy.timeout
    poisonous = claim.lost >= _POISON or (claim.message.at_most_once and claim.lost > 0)
    if too_old or (poisonous and isinstance(verdict, Held)):
        return ""
    return f"18: {verdict.event} although no relay has said anything of it"


def _own(answer: Answer) -> bool:
    """Whether it concerns the message, and not its relay alone."""
    if isinstance(answer, Exception):
        return isinstance(answer, RuntimeError)
    return answer is None or isinstance(answer, Accepted | PermFailed | TempFailed | Uncertain)

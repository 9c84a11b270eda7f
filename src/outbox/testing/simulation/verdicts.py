"""Whether a verdict fits what was answered: the rules once more, as a table that shares nothing with the judge."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from outbox.errors import ConfigurationError, RelayFault
from outbox.lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Released, Retry, Verdict
from outbox.message import Message
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.retry import RetryPolicy

__all__ = ["POISON", "Answer", "Expected", "odd_verdict", "silent"]

Answer: TypeAlias = Result | BaseException | None
"""What was told of one recipient; None where he was left out, or what was told is no answer."""

POISON: Final = 4
"""So many claims in a row that were lost, and it is not handed over again."""
_WAITING: Final = (Fate.WAITING, Fate.DOUBTFUL)


@attrs.frozen
class Expected:
    """What a hook was shown, and what has to be written for what it answered."""

    judged: Verdict
    kind: type[Verdict]
    fates: Mapping[str, Fate]
    delay: dt.timedelta | None

    @classmethod
    def of(cls, judged: Verdict, verdict: Verdict) -> Expected:
        return cls(judged, type(verdict), dict(verdict.fates), getattr(verdict, "delay", None))

    def odd(self, verdict: Verdict, *, draining: bool) -> str:
        """What is wrong with the verdict that was written; what a drain gives back it may put off for longer."""
        written = Expected.of(self.judged, verdict)
        if (
            draining
            and isinstance(verdict, Released)
            and self.delay is not None
            and verdict.delay > self.delay
        ):
            written = attrs.evolve(written, delay=self.delay)
        return "" if written == self else f"the hook's word was {self}, and {written} was written"


def silent(answer: Answer) -> bool:
    """Whether he may have it, and nobody said so."""
    return answer is None or isinstance(answer, Uncertain)


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
    if silent(answer):
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
    too_old = policy.timeout is not None and claim.age >= policy.timeout
    if not isinstance(verdict, Dead | Held):
        return ""
    if own:
        unasked = sorted(set(claim.recipients) - answers.keys())
        return f"18: {verdict.event}, and no relay was asked for {unasked}" if unasked and not too_old else ""
    poisonous = claim.lost >= POISON or (claim.message.at_most_once and claim.lost > 0)
    if too_old or (poisonous and isinstance(verdict, Held)):
        return ""
    return f"18: {verdict.event} although no relay has said anything of it"


def _own(answer: Answer) -> bool:
    """Whether it concerns the message, and not its relay alone."""
    if isinstance(answer, BaseException):
        return not isinstance(answer, RelayFault | ConfigurationError)
    return answer is None or isinstance(answer, Accepted | PermFailed | TempFailed | Uncertain)

"""What a transport answered, as what a transport may report; and the reports of several as one.  Pure.

A transport is a stranger's.  Whatever comes back from it is read here, once,
so that no odd answer goes further: who returned did something, and where the
answer does not say what, it is not known whether anything was sent.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Final, TypeGuard

import attrs

from .errors import RelayFault, RelayMisconfigured, RelayUnavailable
from .outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from .values import printable

__all__ = ["failed", "fault_of", "joined", "merged", "named", "strung", "understood"]

_WITH_REPLY: Final = (Accepted, PermFailed, Uncertain)
_WITH_WAIT: Final = (TempFailed, Untried)
_CAUSES: Final = 16


def understood(answer: object, recipients: Sequence[str], transport: str) -> tuple[Outcome, Sequence[str]]:
    """The outcome for *recipients*, and in words what was odd about *answer*.

    What is no result becomes Uncertain, and so do all where *answer* is no
    Outcome; *transport* is the name to blame.
    """
    if _as_usual(answer, recipients):
        return answer, ()
    if not isinstance(answer, Outcome):
        odd = f"{transport} returned {_kind(answer)}, which is no Outcome: what it sent is not known"
        return Outcome.same(recipients, Uncertain(odd)), [odd]
    oddities: list[str] = []
    given = {r: answer.results[r] for r in recipients if r in answer.results}
    results = {r: _result(result, transport, oddities) for r, result in given.items()}
    relay: object = answer.relay
    if not isinstance(relay, str):
        oddities.append(f"{transport} named a relay with {_kind(relay)}, which is no string")
    fault: object = answer.fault
    if not isinstance(fault, RelayFault | None):
        oddities.append(
            f"{transport} reported {_kind(fault)}, which is no RelayFault, as the fault of its relay"
        )
    dialogue: object = answer.dialogue
    cut: object = answer.cut
    outcome = Outcome(
        results=results,
        relay=printable(relay) if isinstance(relay, str) else "",
        fault=fault_of(fault) if isinstance(fault, RelayFault) else None,
        cut=cut is True,
        dialogue=dialogue if isinstance(dialogue, str) else "",
    )
    return outcome, oddities


def _as_usual(answer: object, recipients: Sequence[str]) -> TypeGuard[Outcome]:
    """Whether everybody was accepted, and nothing is odd: it is asked of every message."""
    return (
        type(answer) is Outcome
        and answer.fault is None
        and len(answer.results) == len(recipients)
        and all(type(answer.results.get(recipient)) is Accepted for recipient in recipients)
        and isinstance(answer.relay, str)
        and answer.relay == printable(answer.relay)
        and not answer.dialogue
    )


def failed(error: BaseException, recipients: Sequence[str]) -> Outcome:
    """The outcome where the transport raised what it should not."""
    return Outcome.same(recipients, TempFailed(f"{type(error).__name__}: {_said(error)}"))


def fault_of(fault: RelayFault) -> RelayFault:
    """The same fault, to be kept; one of our own in its place, where it lacks what every fault says."""
    _forget_frames(fault)
    relay, reason = getattr(fault, "relay", ""), getattr(fault, "reason", None)
    if isinstance(relay, str) and isinstance(reason, str):
        return fault
    kind = RelayMisconfigured if isinstance(fault, RelayMisconfigured) else RelayUnavailable
    return kind(relay if isinstance(relay, str) else "", f"{type(fault).__name__}: {_said(fault)}")


def _forget_frames(fault: RelayFault) -> None:
    """A fault is kept for as long as its relay is paused: with where it was raised it would keep the message."""
    error: BaseException | None = fault
    for _ in range(_CAUSES):
        if error is None:
            return
        # What is a stranger's may refuse it.
        with contextlib.suppress(Exception):
            error.__traceback__ = error.__context__ = None
        error = error.__cause__


def merged(reports: Sequence[tuple[Sequence[str], Outcome | RelayFault]]) -> Outcome | RelayFault:
    """What several relays reported of one message, each for recipients of its own.

    A fault where every one of them failed with nothing known of anybody;
    otherwise those of a relay that failed are Untried.  Where more than one
    relay answered, each reply begins with the name of its own.
    """
    if len(reports) == 1:
        return reports[0][1]
    outcomes = [(recipients, report) for recipients, report in reports if isinstance(report, Outcome)]
    faults = [fault for _, report in reports if (fault := _fault(report)) is not None]
    if not outcomes:
        return joined(faults)
    relays = list(dict.fromkeys(outcome.relay for _, outcome in outcomes if outcome.relay))
    results: dict[str, Result] = {r: Untried() for recipients, _ in reports for r in recipients}
    for recipients, outcome in outcomes:
        for recipient in recipients:
            # One that is missing stays so: whoever judges knows what that means.
            del results[recipient]
        name = outcome.relay if len(relays) > 1 else ""
        results |= {r: named(result, name) for r, result in outcome.results.items()}
    return Outcome(
        results=results,
        relay=", ".join(relays),
        fault=joined(faults) if faults else None,
        cut=any(outcome.cut for _, outcome in outcomes),
        dialogue=strung([outcome.dialogue for _, outcome in outcomes]),
    )


def joined(faults: Sequence[RelayFault]) -> RelayFault:
    """One fault for all; misconfigured only where waiting will mend none of them."""
    different = list({str(fault): fault for fault in faults}.values())
    if len(different) == 1:
        return different[0]
    only_a_person = all(isinstance(fault, RelayMisconfigured) for fault in different)
    kind = RelayMisconfigured if only_a_person else RelayUnavailable
    relays = ", ".join(dict.fromkeys(fault.relay for fault in different))
    fault = kind(relays, "; ".join(map(str, different)))
    fault.costly = all(each.costly for each in different)
    return fault


def strung(dialogues: Iterable[str]) -> str:
    """The dialogues with several relays, one behind the other."""
    return "\n".join(filter(None, dialogues))


def named(result: Result, relay: str) -> Result:
    """The same result, and its reply begins with who gave it."""
    if not relay or (isinstance(result, Untried) and not result.reply):
        return result
    return attrs.evolve(result, reply=f"{relay}: {result.reply}")


def _fault(report: Outcome | RelayFault) -> RelayFault | None:
    return report if isinstance(report, RelayFault) else report.fault


def _result(given: object, transport: str, oddities: list[str]) -> Result:
    for kind in _WITH_REPLY:
        if isinstance(given, kind):
            return given if type(given) is kind else kind(given.reply)
    for waiting in _WITH_WAIT:
        if isinstance(given, waiting):
            return _waiting(given, waiting, transport, oddities)
    odd = (
        f"{transport} reported {_kind(given)} for a recipient, which is no result: what it sent is not known"
    )
    oddities.append(odd)
    return Uncertain(odd)


def _waiting(
    given: TempFailed | Untried, kind: type[TempFailed | Untried], transport: str, oddities: list[str]
) -> Result:
    wait: object = given.retry_after
    if isinstance(wait, dt.timedelta | None):
        return given if type(given) is kind else kind(given.reply, wait)
    oddities.append(f"{transport} asked for {_kind(wait)} as retry_after, which is no timedelta")
    return kind(given.reply)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - its __str__ is a stranger's too
        return "(what it says cannot be read)"

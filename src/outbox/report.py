"""What a transport answered, as what a transport may report.  Pure.

A transport is a stranger's.  Whatever comes back from it is read here, once,
so that no odd answer goes further: who returned did something, and where the
answer does not say what, it is not known whether anything was sent.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from .errors import RelayFault, RelayMisconfigured, RelayUnavailable
from .outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from .values import printable

__all__ = ["failed", "fault_of", "understood"]

_WITH_REPLY: Final = (Accepted, PermFailed, Uncertain)


def understood(answer: object, recipients: Sequence[str], transport: str) -> tuple[Outcome, Sequence[str]]:
    """The outcome for *recipients*, and in words what was odd about *answer*.

    What is no result becomes Uncertain, and so do all where *answer* is no
    Outcome; *transport* is the name to blame.
    """
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
    outcome = Outcome(
        results=results,
        relay=printable(relay) if isinstance(relay, str) else "",
        fault=fault_of(fault) if isinstance(fault, RelayFault) else None,
    )
    return outcome, oddities


def failed(error: BaseException, recipients: Sequence[str]) -> Outcome:
    """The outcome where the transport raised what it should not."""
    return Outcome.same(recipients, TempFailed(f"{type(error).__name__}: {_said(error)}"))


def fault_of(fault: RelayFault) -> RelayFault:
    """The same fault; one of our own in its place, where it lacks what every fault says."""
    relay, reason = getattr(fault, "relay", ""), getattr(fault, "reason", None)
    if isinstance(relay, str) and isinstance(reason, str):
        return fault
    kind = RelayMisconfigured if isinstance(fault, RelayMisconfigured) else RelayUnavailable
    return kind(relay if isinstance(relay, str) else "", f"{type(fault).__name__}: {_said(fault)}")


def _result(given: object, transport: str, oddities: list[str]) -> Result:
    for kind in _WITH_REPLY:
        if isinstance(given, kind):
            return given if type(given) is kind else kind(given.reply)
    if isinstance(given, TempFailed):
        return _temp_failed(given, transport, oddities)
    if isinstance(given, Untried):
        return Untried()
    odd = (
        f"{transport} reported {_kind(given)} for a recipient, which is no result: what it sent is not known"
    )
    oddities.append(odd)
    return Uncertain(odd)


def _temp_failed(given: TempFailed, transport: str, oddities: list[str]) -> TempFailed:
    wait: object = given.retry_after
    if isinstance(wait, dt.timedelta | None):
        return given if type(given) is TempFailed else TempFailed(given.reply, wait)
    oddities.append(f"{transport} asked for {_kind(wait)} as retry_after, which is no timedelta")
    return TempFailed(given.reply)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - its __str__ is a stranger's too
        return "(what it says cannot be read)"

"""Verdicts on their way in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from outbox.lifecycle import TRANSITIONS, Claim, Delivered, Released, Retry, Settlement, State, Verdict
from outbox.stores import standing as standings
from outbox.stores.retention import Retention

from .putting import kept_envelope, kept_span
from .rows import attempt_text, letters

__all__ = ["lost", "queues_of", "settlements_of"]


def settlements_of(settlements: Sequence[Settlement], retention: Retention) -> dict[str, Any]:
    """What the scripts take for them."""
    return {
        "settlements": [_one(each, retention) for each in settlements],
        "keep": retention.keep_delivered is not None,
        "remembers": retention.remembers,
    }


def _one(settlement: Settlement, retention: Retention) -> Sequence[Any]:
    claim, verdict = settlement.claim, settlement.verdict
    fates = standings.fates_of(verdict, claim.message)
    # The time is the server's, and is written before the text.
    attempt, dialogue = attempt_text(standings.attempt(claim.attempt, verdict, 0))
    return (
        claim.message.id,
        claim.token,
        TRANSITIONS[State.CLAIMED, verdict.event].value,
        letters(fates),
        kept_span(verdict.delay) if isinstance(verdict, Retry | Released) else "",
        isinstance(verdict, Released),
        getattr(verdict, "reason", ""),
        attempt,
        dialogue,
        _redacted(claim, verdict, retention),
    )


def _redacted(claim: Claim, verdict: Verdict, retention: Retention) -> str:
    """The envelope without content, where that is not kept."""
    if retention.keep_delivered is None or retention.keep_content or not isinstance(verdict, Delivered):
        return ""
    return kept_envelope(attrs.evolve(claim.message, content=b""), "").decode()


def queues_of(settlements: Sequence[Settlement]) -> list[str]:
    return [each.claim.message.queue for each in settlements]


def lost(settlements: Sequence[Settlement], places: Sequence[int]) -> list[Claim]:
    """The claims at these places."""
    return [settlements[place].claim for place in places]

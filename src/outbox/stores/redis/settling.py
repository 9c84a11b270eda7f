"""Verdicts on their way in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.lifecycle import TRANSITIONS, Claim, Delivered, Released, Retry, Settlement, State, Verdict
from outbox.stores import standing as standings
from outbox.stores.retention import Retention

from .putting import kept_envelope, kept_span
from .rows import attempt_text, letters

__all__ = ["Portion", "portions"]

_AT_ONCE: Final = 1000
"""One script writes no more: for as long as it runs, the server does nothing else."""


@attrs.frozen
class Portion:
    """Settlements that one script writes, and what it takes for them."""

    settlements: Sequence[Settlement]
    args: dict[str, Any]

    @property
    def queues(self) -> list[str]:
        return [each.claim.message.queue for each in self.settlements]

    def lost(self, places: Sequence[int]) -> list[Claim]:
        """The claims at these places."""
        return [self.settlements[place].claim for place in places]


def portions(settlements: Sequence[Settlement], retention: Retention) -> list[Portion]:
    """All of them, in order: one at least, which may be empty.

    Raises as :func:`outbox.stores.standing.fates_of` does, before any is written.
    """
    prepared = [_one(each, retention) for each in settlements]
    shared = {"keep": retention.keep_delivered is not None, "remembers": retention.remembers}
    return [
        Portion(
            settlements[first : first + _AT_ONCE],
            {"settlements": prepared[first : first + _AT_ONCE], **shared},
        )
        for first in range(0, max(1, len(prepared)), _AT_ONCE)
    ]


def _one(settlement: Settlement, retention: Retention) -> Sequence[Any]:
    claim, verdict = settlement.claim, settlement.verdict
    fates = standings.fates_of(verdict, claim.message)
    # The time is the server's, and is written before the text.  Of what is not kept nothing is told.
    gone = retention.keep_delivered is None and isinstance(verdict, Delivered)
    attempt, dialogue = attempt_text(None if gone else standings.attempt(claim.attempt, verdict, 0))
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

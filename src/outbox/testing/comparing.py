"""What the state machine compares of two stores: all but what the contract leaves to each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from outbox.errors import ConflictError, StoreFull
from outbox.lifecycle import Claim, Record, Summary
from outbox.message import Message
from outbox.protocols import Change

__all__ = ["anonymous", "answer", "plain", "told", "wordless"]


def answer(put: Callable[[Sequence[Message]], Sequence[Any]], batch: Sequence[Message]) -> Any:
    """What a put came to: its answers, or that there was a conflict, or no room."""
    try:
        return list(put(batch))
    except ConflictError:
        return ConflictError
    except StoreFull:
        return StoreFull


def anonymous(claims: Sequence[Claim]) -> list[Claim]:
    """Claims without their tokens, which are each store's own."""
    return [attrs.evolve(claim, token="") for claim in claims]


def plain(changes: Sequence[Change]) -> list[Change]:
    """Changes without their reasons, which are for people."""
    return [attrs.evolve(change, reason="") for change in changes]


def wordless(summary: Summary) -> Summary:
    """A summary without its reason."""
    return attrs.evolve(summary, reason="")


def told(record: Record | None) -> object:
    """All that a record tells but its reason."""
    return record and (wordless(record.summary), record.message, record.history)

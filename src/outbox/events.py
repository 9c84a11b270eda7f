"""What a listener is told, after it happened."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import attrs

from .errors import RelayFault, StoreError
from .lifecycle import Claim, Verdict

__all__ = ["LeaseLost", "Listener", "Notice", "RelayPaused", "RelayResumed", "Settled", "StoreFailed"]


@attrs.frozen
class Settled:
    """A verdict was written; *took* is how long the delivery lasted."""

    claim: Claim
    verdict: Verdict
    took: dt.timedelta = dt.timedelta(0)


@attrs.frozen
class LeaseLost:
    """A claim was lost to somebody else: its verdict, if there was one, was not written."""

    claim: Claim
    verdict: Verdict | None = None


@attrs.frozen
class RelayPaused:
    """A relay is left alone for *wait* because of *fault*; no message is charged for it."""

    relay: str
    fault: RelayFault
    wait: dt.timedelta


@attrs.frozen
class RelayResumed:
    """A relay that was paused took a message again."""

    relay: str


def _frozen_claims(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    return tuple(claims)


@attrs.frozen
class StoreFailed:
    """The store failed; it is asked again after *wait*.

    *claims* are those whose verdicts could not be written: until they are,
    what was sent of them is known to this process alone.
    """

    error: StoreError
    wait: dt.timedelta
    claims: Sequence[Claim] = attrs.field(default=(), converter=_frozen_claims)


Notice: TypeAlias = Settled | LeaseLost | RelayPaused | RelayResumed | StoreFailed
Listener: TypeAlias = Callable[[Notice], None]
"""Called after the fact, in the thread that writes verdicts, and must not block it for long; of relays, in a worker's.

What it raises is logged and changes nothing.  It may submit, send, drain and stop.
"""

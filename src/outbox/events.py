"""What a listener is told, after it happened."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from .errors import RelayFault, StoreError
from .lifecycle import Claim, Released, Retry, Verdict
from .message import Message
from .outcome import Result

__all__ = [
    "Delayed",
    "LeaseLost",
    "Listener",
    "Notice",
    "RelayPaused",
    "RelayResumed",
    "Settled",
    "StoreFailed",
    "Submitted",
]


@attrs.frozen
class Submitted:
    """A message was put by an :class:`~outbox.Outbox`: ``stored``, or ``known`` (the first content stands).

    Not told of what is submitted within a transaction of the caller's, for
    nobody here learns whether that commits.
    """

    message: Message
    status: Literal["stored", "known"] = "stored"


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
class Delayed:
    """A message has waited for as long as the Runner was told to warn of, and goes on waiting.

    Told after its :class:`Settled`, once by each process that settles it:
    a process that is begun anew tells it again.  What nobody claims, for its
    queue is suspended or not served, is told by nobody.
    """

    claim: Claim
    verdict: Retry | Released

    @property
    def recipients(self) -> tuple[str, ...]:
        """Those for whom it waits."""
        return tuple(r for r, fate in self.verdict.fates.items() if fate.open)

    @property
    def reason(self) -> str:
        """Why it still does."""
        return self.verdict.reason

    @property
    def results(self) -> Mapping[str, Result]:
        """What was reported at the attempt, where there was one."""
        return {} if self.verdict.outcome is None else self.verdict.outcome.results


@attrs.frozen
class RelayPaused:
    """A relay is left alone for *wait* because of *fault*; no message is charged for it.

    *key* is what the transport calls it (SupportsRelays; ``""`` where there is one relay only).
    """

    relay: str
    fault: RelayFault
    wait: dt.timedelta
    key: str = ""


@attrs.frozen
class RelayResumed:
    """A relay that was paused took a message again; *relay* is the key that it was paused by."""

    relay: str


def _frozen_claims(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    return tuple(claims)


@attrs.frozen
class StoreFailed:
    """The store failed; it is asked again after *wait*.

    *claims* are those whose verdicts could not be written: until they are,
    what was sent of them is known to this process alone.  Where ``error.left``
    is not None the verdicts of all others were, and deliveries go on.
    """

    error: StoreError
    wait: dt.timedelta
    claims: Sequence[Claim] = attrs.field(default=(), converter=_frozen_claims)


Notice: TypeAlias = Submitted | Settled | Delayed | LeaseLost | RelayPaused | RelayResumed | StoreFailed
Listener: TypeAlias = Callable[[Notice], None]
"""Called after the fact, in the thread that writes verdicts, and must not block it for long; of relays, in a worker's;
of a submit, in its caller's.

What it raises is logged and changes nothing.  It may submit, send, drain and stop.
"""

"""What the lives in :mod:`outbox.delivery` ask to be done, and what they are sent back.

Nothing is done here.  :mod:`outbox.performer` and :mod:`outbox.shift` do it on
threads; a simulation does it in one.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Generator, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

from .errors import RelayFault
from .events import Notice
from .leases import Since
from .lifecycle import Claim, Released, Settlement, Verdict
from .outcome import Outcome
from .protocols import Exchanged
from .relay import Wait
from .screening import Screened
from .slips import Run, Work

__all__ = [
    "Action",
    "Admit",
    "Amend",
    "Announce",
    "AwaitProbe",
    "Begin",
    "CloseIdle",
    "Collect",
    "Deal",
    "Deliver",
    "Drop",
    "Exchange",
    "ExtendAll",
    "Handed",
    "Note",
    "Prune",
    "Pull",
    "Report",
    "Reread",
    "Rest",
    "Screen",
    "Script",
    "Settle",
    "Stop",
    "Take",
    "TakeUp",
    "Tell",
    "TellLater",
    "TellLeft",
    "Withdraw",
    "ask",
]

R = TypeVar("R")

_ZERO: Final = dt.timedelta(0)


class Action(Generic[R]):
    """Something for the performer to do; R is what it sends back."""

    __slots__ = ()


Script: TypeAlias = Generator[Action[Any], Any, R]


class Stop(enum.Enum):
    """Why a claim is not handed over although its relay is well."""

    STOPPING = "the runner is stopping"
    LOST = "the lease was lost"


@attrs.frozen
class Take(Action[Run | None]):
    """Wait for something to deliver, *size* messages at most; None: this worker's life ends."""

    size: int


@attrs.frozen
class Begin(Action[None]):
    """Begin to hand over what the worker's run brings."""


@attrs.frozen
class Report(Action["Handed | Settlement | None"]):
    """What came of the next message of the run, or the verdict where it was not to be handed over; None: no more."""


@attrs.frozen
class Pull(Action[Claim | None]):
    """The one claim of a run that goes to several relays; None: it may not be delivered any more."""


@attrs.frozen
class Note(Action[None]):
    """Leave a verdict to the clerk; *took* is how long the delivery lasted."""

    settlement: Settlement
    took: dt.timedelta = _ZERO


@attrs.frozen
class Drop(Action[None]):
    """The run is over."""


@attrs.frozen
class Collect(Action[Work | None]):
    """Wait for something to write, or for a want of claims; None: the clerk's life ends."""


@attrs.frozen
class Exchange(Action[Exchanged]):
    """Write *settlements* and claim up to *limit*, in one commit where the store can."""

    settlements: Sequence[Settlement]
    limit: int
    max_bytes: int


@attrs.frozen
class Deal(Action[None]):
    """Lay claims on the desk."""

    claims: Sequence[Claim]


@attrs.frozen
class TakeUp(Action[Stop | Since]):
    """Take a claim in hand: how long ago it was made, or why it is left."""

    claim: Claim


@attrs.frozen
class Screen(Action[Screened | Released | None]):
    """Who of the claim's recipients may be handed over; None: all; a verdict: nobody now."""

    claim: Claim


@attrs.frozen
class Admit(Action[Wait | None]):
    """May this claim go to the relays of *recipients* now?  None is yes, and :class:`Deliver` follows."""

    claim: Claim
    recipients: Sequence[str]


@attrs.frozen
class AwaitProbe(Action[bool]):
    """Wait for the probe that keeps the claim at hand back: True, ask again; False, it is not worth waiting for."""


@attrs.frozen
class Handed:
    """What came of handing a claim over: the report, how long it took, how long the relay is now left alone."""

    claim: Claim
    report: Outcome | RelayFault
    took: dt.timedelta
    relay_wait: dt.timedelta = _ZERO


@attrs.frozen
class Deliver(Action[Handed]):
    """Hand the claim over for its waiting recipients."""

    claim: Claim


@attrs.frozen
class Amend(Action[Verdict]):
    """Ask the hook what becomes of the claim instead."""

    claim: Claim
    report: Outcome | RelayFault
    verdict: Verdict


@attrs.frozen
class Settle(Action[Sequence[Claim]]):
    """Write verdicts; the claims whose lease was lost come back."""

    settlements: Sequence[Settlement]


@attrs.frozen
class Tell(Action[None]):
    """Tell the listeners."""

    notice: Notice


@attrs.frozen
class TellLater(Action[None]):
    """Log it, and leave it to :class:`TellLeft` to tell the listeners: whoever yields this must wait for nobody."""

    notice: Notice


@attrs.frozen
class TellLeft(Action[None]):
    """Tell the listeners what was left to be told."""


@attrs.frozen
class Rest(Action[bool]):
    """Wait out *delay*; False: it was cut short, for the runner is stopping.

    *within_grace*: only the end of the grace time cuts it short.
    """

    delay: dt.timedelta
    within_grace: bool = False


@attrs.frozen
class ExtendAll(Action[bool]):
    """Extend every lease that is held; False: some could not be."""


@attrs.frozen
class Reread(Action[None]):
    """Read again what is suspended."""


@attrs.frozen
class Announce(Action[None]):
    """Say in the store that this runner is here, where that is due."""


@attrs.frozen
class Withdraw(Action[None]):
    """Take back what was said: it ends."""


@attrs.frozen
class CloseIdle(Action[None]):
    """Close the connections that have been idle for too long."""


@attrs.frozen
class Prune(Action[bool]):
    """Remove what is past its retention, one bounded step; True: there may be more."""


def ask(action: Action[R]) -> Script[R]:
    """Yield *action* and return its result, typed."""
    result: R = yield action
    return result

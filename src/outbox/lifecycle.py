"""The life of a message: its states, the one table of its transitions, and the values stores keep.

A store writes what a verdict says and decides nothing itself.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, Literal, TypeAlias

import attrs

from .message import Message
from .outcome import Outcome, Result
from .values import frozen_mapping, printable

__all__ = [
    "STAGED",
    "TRANSITIONS",
    "Attempt",
    "Claim",
    "Dead",
    "Delivered",
    "Event",
    "Expired",
    "Fate",
    "Fates",
    "Held",
    "PutResult",
    "Record",
    "Released",
    "Retry",
    "Settlement",
    "State",
    "Summary",
    "Verdict",
]

STAGED: Final = "outbox.staged"
"""The queue of what was staged, and is neither published nor unstaged yet; no Runner is to serve it."""


class Fate(enum.StrEnum):
    """What is known of one recipient.

    WAITING and DOUBTFUL are *open*: the message is still to be handed over
    for them.  DOUBTFUL is who may have received it at an earlier attempt;
    whatever happens after, that is not forgotten, and nothing but an
    acceptance makes it certain.
    """

    WAITING = "waiting"
    DOUBTFUL = "doubtful"
    ACCEPTED = "accepted"
    FAILED = "failed"
    UNCERTAIN = "uncertain"

    @property
    def open(self) -> bool:
        """Whether the message is still to be handed over for him."""
        return self in (Fate.WAITING, Fate.DOUBTFUL)

    @property
    def doubted(self) -> Fate:
        """What it is once the message may have reached him, and goes on."""
        return Fate.DOUBTFUL if self is Fate.WAITING else self

    @property
    def given_up(self) -> Fate:
        """What it is once nothing is handed over for him any more."""
        match self:
            case Fate.WAITING:
                return Fate.FAILED
            case Fate.DOUBTFUL:
                return Fate.UNCERTAIN
            case _:
                return self


Fates: TypeAlias = Mapping[str, Fate]


class State(enum.StrEnum):
    """Where a message stands.  It is in exactly one of these until a settled one is pruned."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    DELIVERED = "delivered"
    DEAD = "dead"
    HELD = "held"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Event(enum.StrEnum):
    """What can happen to a stored message; the verdicts' words are among them."""

    CLAIM = "claim"
    DELIVERED = "delivered"
    DEAD = "dead"
    HELD = "held"
    EXPIRED = "expired"
    RETRY = "retry"
    RELEASED = "released"
    REQUEUE = "requeue"
    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = frozen_mapping(
    {
        (State.QUEUED, Event.CLAIM): State.CLAIMED,
        # Only where the lease has run out; the new claim carries a new token.
        (State.CLAIMED, Event.CLAIM): State.CLAIMED,
        (State.CLAIMED, Event.DELIVERED): State.DELIVERED,
        (State.CLAIMED, Event.DEAD): State.DEAD,
        (State.CLAIMED, Event.HELD): State.HELD,
        (State.CLAIMED, Event.EXPIRED): State.EXPIRED,
        (State.CLAIMED, Event.RETRY): State.QUEUED,
        (State.CLAIMED, Event.RELEASED): State.QUEUED,
        # A person's word.  CLAIMED only where the lease has run out.
        (State.QUEUED, Event.REQUEUE): State.QUEUED,
        (State.CLAIMED, Event.REQUEUE): State.QUEUED,
        (State.DEAD, Event.REQUEUE): State.QUEUED,
        (State.HELD, Event.REQUEUE): State.QUEUED,
        (State.CANCELLED, Event.REQUEUE): State.QUEUED,
        (State.QUEUED, Event.CANCEL): State.CANCELLED,
        (State.CLAIMED, Event.CANCEL): State.CANCELLED,
        (State.HELD, Event.CANCEL): State.CANCELLED,
        (State.QUEUED, Event.HOLD): State.HELD,
        (State.CLAIMED, Event.HOLD): State.HELD,
        # Only what a person holds; what a verdict has held goes on by a requeue.
        (State.HELD, Event.RELEASE): State.QUEUED,
    }
)
"""Every transition there is.  What is not here is refused, and changes nothing."""


def _frozen_fates(fates: Fates) -> Fates:
    return frozen_mapping(fates)


def _frozen_results(results: Mapping[str, Result]) -> Mapping[str, Result]:
    return frozen_mapping(results)


@attrs.frozen(kw_only=True)
class Claim:
    """One message under a lease.

    Attributes:
        message: Whole, as submitted.
        fates: Of every recipient, by recipient.
        attempt: The number of this attempt, from 1, counted when claimed.
        lost: Claims in a row before this one that never settled.
        age: Since the latest of submitted, ``not_before`` and requeued, by
            the store's clock when it was claimed.
        expires_in: What was left until ``expires_at`` by the same clock;
            zero or less is expired, None is never.
        token: The lease's own name: every transition out of CLAIMED
            carries it, and a stale one changes nothing.
    """

    message: Message
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)
    attempt: int
    lost: int
    age: dt.timedelta
    expires_in: dt.timedelta | None = None
    token: str

    @property
    def key(self) -> tuple[str, str]:
        """The message's id and the token: what this claim is told from every other by."""
        return self.message.id, self.token

    @property
    def recipients(self) -> tuple[str, ...]:
        """Those whose fate is open, in the message's order."""
        return tuple(r for r in self.message.recipients if self.fates[r].open)


@attrs.frozen(kw_only=True)
class Delivered:
    """Every recipient was accepted."""

    event: ClassVar[Event] = Event.DELIVERED
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)
    outcome: Outcome | None = None


@attrs.frozen(kw_only=True)
class Dead:
    """Nobody's fate is open any more, nobody's is in doubt, and somebody failed."""

    event: ClassVar[Event] = Event.DEAD
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)
    reason: str = attrs.field(converter=printable)
    outcome: Outcome | None = None


@attrs.frozen(kw_only=True)
class Held:
    """A person has to say how it goes on."""

    event: ClassVar[Event] = Event.HELD
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)
    reason: str = attrs.field(converter=printable)
    outcome: Outcome | None = None


@attrs.frozen(kw_only=True)
class Expired:
    """Its ``expires_at`` came before it was delivered."""

    event: ClassVar[Event] = Event.EXPIRED
    reason: ClassVar[str] = "expires_at has passed"
    outcome: ClassVar[None] = None
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)


@attrs.frozen(kw_only=True)
class Retry:
    """Somebody's fate is still open: due again after *delay*."""

    event: ClassVar[Event] = Event.RETRY
    delay: dt.timedelta
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)
    reason: str = attrs.field(default="", converter=printable)
    outcome: Outcome | None = None


@attrs.frozen(kw_only=True)
class Released:
    """As though the claim had never been: ``attempt`` and ``lost`` are as before it; due after *delay*."""

    event: ClassVar[Event] = Event.RELEASED
    outcome: ClassVar[None] = None
    delay: dt.timedelta
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)
    reason: str = attrs.field(default="", converter=printable)


Verdict: TypeAlias = Delivered | Dead | Held | Expired | Retry | Released
"""What becomes of a claim.  Each carries the complete new fates."""


@attrs.frozen
class Settlement:
    """A verdict on a claim, for the store to write."""

    claim: Claim
    verdict: Verdict


@attrs.frozen
class PutResult:
    """What ``put`` did with one message: ``"stored"``, or ``"known"`` (the first content stands)."""

    id: str
    status: Literal["stored", "known"]


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt as the record keeps it.

    Attributes:
        at: When it was settled, by the store's clock.
        dialogue: What was said at it (see :class:`~outbox.Outcome`).  Of all
            attempts of a message only the latest that has one keeps it, so
            that a message does not grow by being tried.
    """

    number: int
    at: dt.datetime
    event: Event
    relay: str = ""
    results: Mapping[str, Result] = attrs.field(factory=dict, converter=_frozen_results, hash=False)
    reason: str = ""
    dialogue: str = attrs.field(default="", repr=False)


def _frozen_attributes(attributes: Mapping[str, str]) -> Mapping[str, str]:
    return frozen_mapping(attributes)


def _frozen_history(history: Iterable[Attempt]) -> tuple[Attempt, ...]:
    return tuple(history)


@attrs.frozen(kw_only=True)
class Summary:
    """A record without its content and history, for lists.

    Attributes:
        due_at: When it may be claimed next; None unless QUEUED.
        leased_until: When the lease runs out; None unless CLAIMED.
        attempts: Counted so far, those that never reported included.
        lost: Claims in a row that never settled.
        reason: Why it stands where it stands, in words; ``""`` where
            nothing happened yet.
        settled_at: When it left the queue; None while QUEUED or CLAIMED.
        resumes_at: When it will be due once it is released, of a message that
            a person holds; None of every other, one that a verdict has HELD
            included.
        since: What its age counts from: the latest of its submit, its
            ``not_before`` and its last requeue; None where the store does not
            tell.
        attributes: The message's own; None where the store's lists do not
            tell them, and only ``get`` does.
    """

    id: str
    queue: str
    priority: int
    sender: str
    recipients: tuple[str, ...]
    size: int
    state: State
    fates: Fates = attrs.field(converter=_frozen_fates, hash=False)
    submitted_at: dt.datetime
    due_at: dt.datetime | None = None
    leased_until: dt.datetime | None = None
    settled_at: dt.datetime | None = None
    attempts: int = 0
    lost: int = 0
    reason: str = ""
    resumes_at: dt.datetime | None = None
    since: dt.datetime | None = None
    attributes: Mapping[str, str] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_frozen_attributes), hash=False
    )

    @property
    def by_hand(self) -> bool:
        """Whether it is a person who holds it."""
        return self.resumes_at is not None


@attrs.frozen(kw_only=True)
class Record:
    """All that a store knows of one message."""

    summary: Summary
    message: Message
    history: Sequence[Attempt] = attrs.field(default=(), converter=_frozen_history)

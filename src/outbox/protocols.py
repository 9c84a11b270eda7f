"""The contracts: Store, Transport, and the capabilities each may have beside them.

A capability is asked for by ``isinstance``.  What a store promises is spelled
out here and held to by :class:`outbox.testing.StoreSuite`.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, runtime_checkable

import attrs

from .errors import ConfigurationError
from .lifecycle import Claim, PutResult, Record, Settlement, State, Summary
from .message import Message
from .outcome import Outcome
from .values import quoted, require_aware

__all__ = [
    "Change",
    "Delivery",
    "Exchanged",
    "Expected",
    "Finding",
    "Glance",
    "Guarantee",
    "Intake",
    "Presence",
    "QueueCount",
    "Register",
    "Store",
    "SupportsBatch",
    "SupportsBrowse",
    "SupportsExchange",
    "SupportsGlance",
    "SupportsHandOver",
    "SupportsHold",
    "SupportsIdle",
    "SupportsMaintain",
    "SupportsManage",
    "SupportsPresence",
    "SupportsRegister",
    "SupportsRelays",
    "SupportsSuspend",
    "SupportsTransaction",
    "SupportsWait",
    "Suspension",
    "Swap",
    "Transport",
]

_KINDS: Final = ("queue", "relay", "domain", "attribute")

MAX_BYTES = 16 << 20
"""How much content one claim takes at most, unless its first message alone is larger."""


def _states(states: Iterable[State]) -> frozenset[State]:
    return frozenset(map(State, states))


def _known_kind(_: object, __: object, kind: str) -> None:
    if kind not in _KINDS:
        raise ConfigurationError(f"a suspension is of a {', '.join(_KINDS)}, not of {quoted(str(kind))}")


def _aware(_: object, __: object, until: dt.datetime | None) -> None:
    try:
        require_aware("until", until)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


class Intake(Protocol):
    """Where messages go in."""

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """Store *messages*, all or none, durable when it returns; one result each, in order.

        A message whose id is known with the same queue, sender and
        recipients is ``known``: nothing is written and the first content
        stands, also after it was delivered, for as long as the store
        remembers.

        Raises:
            ConflictError: an id is known with another envelope; none was stored.
            StoreFull: no room; none was stored.
            StoreUnavailable: the store cannot be written; none was stored.
            AmbiguousPut: it cannot be told; repeating it with the same ids is safe.
        """
        ...


class Store(Intake, Protocol):
    """Keeps messages until they are settled.  Safe to use from many threads."""

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        """Lease up to *limit* due messages of *queues* to the caller, best first.

        Due are QUEUED messages whose time has come, and CLAIMED ones whose
        lease ran out.  Among the due of one queue: higher priority first,
        then earlier due, then smaller id; *limit* is shared evenly over the
        queues that have due messages.  No message is under two live leases.
        Each claim counts an attempt.  Of a message whose lease ran out the
        WAITING recipients become DOUBTFUL: whoever had it may have sent it.

        A message with ``lost > 0`` comes alone: it is the only claim
        returned, or it waits for a later call.

        At most *max_bytes* of content come back, and always at least one message.
        """
        ...

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        """Let the leases run for *lease* from now; return those claims whose lease was lost."""
        ...

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        """Write the verdicts, durable when it returns; return those claims whose token was stale.

        A stale token changes nothing.  After a broken connection a repeated
        settle can lose to its own first try: that is information, not an
        error.

        Raises:
            StoreError: they could not be written; where some of them were, its
                ``left`` says of which claims that is not so.
        """
        ...

    def close(self) -> None:
        """Give back connections and files.  What was acknowledged stays; closing twice is harmless."""
        ...


class Transport(Protocol):
    """Hands messages to a relay.  Safe to use from many threads."""

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        """Hand *message* over for *recipients* and report one result for each of them.

        Raises:
            RelayFault: the relay cannot be used, and nothing was handed over for anybody.
            ConfigurationError: the same, for a setting that a person has to mend.
        """
        ...

    def close(self) -> None:
        """Give back connections; closing twice is harmless."""
        ...


@attrs.frozen
class Delivery:
    """A message and those of its recipients that it is to be handed over for."""

    message: Message
    recipients: tuple[str, ...]


@runtime_checkable
class SupportsBatch(Protocol):
    """A transport that sends several messages over one connection faster than one by one."""

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        """Deliver what is pulled from *deliveries*, yielding the outcomes in the order pulled.

        It pulls one delivery ahead at most, and hands over nothing of it
        before the outcome of the one before was yielded.  Before it raises it has yielded an outcome for every delivery whose
        content was handed over whole.  What it pulled and did not yield is
        untried; what it never pulled is the caller's.  Abandoning the
        generator closes the connection.

        What returns something else (a list, say) has pulled and perhaps sent
        before anything is reported: a message that it does not report of is
        Uncertain.
        """
        ...


@runtime_checkable
class SupportsRelays(Protocol):
    """A transport that leads to several relays."""

    def relay(self, message: Message, recipient: str, /) -> str:
        """The key that limits and breakers go by."""
        ...


@runtime_checkable
class SupportsIdle(Protocol):
    """A transport that keeps connections open between messages."""

    def expire(self) -> None:
        """Close what has been idle for too long."""
        ...


@attrs.frozen
class Exchanged:
    """What one exchange brought: the claims whose lease was lost, and the new ones."""

    lost: Sequence[Claim]
    claims: Sequence[Claim]


@runtime_checkable
class SupportsExchange(Protocol):
    """A store that settles and claims in one commit."""

    def exchange(
        self,
        settlements: Sequence[Settlement],
        /,
        *,
        limit: int,
        lease: dt.timedelta,
        queues: Sequence[str],
        max_bytes: int = MAX_BYTES,
    ) -> Exchanged:
        """Settle as :meth:`Store.settle` does, then claim as :meth:`Store.claim` does, in one commit."""
        ...


@runtime_checkable
class SupportsHandOver(Protocol):
    """A store that stores messages under the caller's own lease from the start."""

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        """Put as :meth:`Intake.put` does and lease to the caller what was new, in one commit.

        One claim for each message that was stored, in order; none for one
        that was known, is not due yet, or is of a suspended queue: that one
        waits as though it had been put.  What was *attempted* before it is
        put is leased where its queue is suspended, too: what came of the
        attempt has yet to be settled.
        """
        ...


@runtime_checkable
class SupportsTransaction(Protocol):
    """A store that can live in the caller's database transaction."""

    def within(self, connection: Any, /) -> Intake:
        """An intake whose messages exist if and only if the caller's transaction commits."""
        ...


@runtime_checkable
class SupportsWait(Protocol):
    """A store that knows when there is something to claim.  A hint only: polling is the truth."""

    def wait(self, timeout: dt.timedelta) -> bool:
        """Block until something may have become claimable, at most *timeout*.

        What was put since this thread's last ``claim`` began counts, so that
        nothing slips between an empty claim and the wait.  True where there
        was news, False where the time ran out.
        """
        ...

    def wake(self) -> None:
        """End every ``wait`` on this store object now."""
        ...

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        """Until the next message of *queues* is due or its lease runs out; zero is now, None is never."""
        ...


@attrs.frozen(kw_only=True)
class QueueCount:
    """How many messages of a queue are in a state, and since when the oldest of them was submitted.

    *due* counts those of them that could be claimed now; *oldest_due_at* is
    since when the first of them has been due.

    *more*: there are more than these, and not all were counted (a
    :meth:`SupportsGlance.glance`): *number* and *due* are the least that there
    are, and *oldest_at* is None; *oldest_due_at* is that of all.
    """

    queue: str
    state: State
    number: int
    due: int = 0
    oldest_at: dt.datetime | None = None
    oldest_due_at: dt.datetime | None = None
    more: bool = False


@runtime_checkable
class SupportsBrowse(Protocol):
    """A store whose messages can be looked at."""

    def get(self, id: str, /) -> Record | None:
        """All that is known of one message; None where it is not (or no longer) kept.

        Raises:
            CorruptRecord: it is there and cannot be read.
        """
        ...

    def browse(
        self,
        *,
        states: Sequence[State] = (),
        queues: Sequence[str] = (),
        after: str = "",
        limit: int = 100,
    ) -> Sequence[Summary]:
        """A page of messages in the order of their ids, those greater than *after*; ``()`` is all."""
        ...

    def count(self) -> Sequence[QueueCount]:
        """One row for each queue and state that has messages, sorted."""
        ...


@attrs.frozen(kw_only=True)
class Glance:
    """What :meth:`SupportsGlance.glance` saw.

    Attributes:
        counts: As of :meth:`SupportsBrowse.count`; of a large number only that there are more.
        at_most: What all of them together cannot be more than; None where that is not known.
    """

    counts: Sequence[QueueCount]
    at_most: int | None = None


@runtime_checkable
class SupportsGlance(Protocol):
    """A store that tells at once how it stands, however many messages there are."""

    def glance(self, *, most: int = 2_500) -> Glance:
        """As :meth:`SupportsBrowse.count`, but each number is counted up to about *most* only."""
        ...


@attrs.frozen(kw_only=True)
class Change:
    """What a command did with one message.

    ``done``; ``unknown`` (there is no such message); ``leased`` (a live
    lease: ask again after *until*); ``refused`` (*reason* says why: its *state*
    does not allow it, or there is nothing to do).
    """

    id: str
    status: Literal["done", "unknown", "leased", "refused"]
    reason: str = ""
    until: dt.datetime | None = None
    state: State | None = None


@attrs.frozen(kw_only=True)
class Expected:
    """What messages were when they were chosen: a command leaves alone what has changed meanwhile.

    Attributes:
        states: One of these; none is any.
        by_hand: Whether a person holds it; None is either.
    """

    states: frozenset[State] = attrs.field(default=frozenset(), converter=_states)
    by_hand: bool | None = None

    def fits(self, state: State, *, by_hand: bool) -> bool:
        """Whether a message that is so is one that was meant."""
        return (not self.states or state in self.states) and self.by_hand in (None, by_hand)


@runtime_checkable
class SupportsManage(Protocol):
    """A store whose messages a person can steer.  One change for each id, in order; durable on return.

    Whoever chose messages from a list says what they were *expected* to be.
    It is compared with what they are within the same change, and what does
    not fit is refused; what a worker has is ``leased`` all the same.
    """

    def requeue(
        self, ids: Sequence[str], /, *, uncertain: bool = False, expected: Expected | None = None
    ) -> Sequence[Change]:
        """Make messages due now and their age and attempts start anew.

        FAILED recipients wait again; UNCERTAIN ones become DOUBTFUL only
        where *uncertain* is said, for they may receive it twice; ACCEPTED
        ones never.  Refused where nobody's fate would be open, and where
        *uncertain* is not said of a message with a DOUBTFUL recipient.
        """
        ...

    def cancel(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """Never hand these over any more.  They stay, CANCELLED, until purged."""
        ...

    def purge(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """Remove DEAD, HELD, EXPIRED, CANCELLED and kept DELIVERED messages for good."""
        ...


@runtime_checkable
class SupportsHold(Protocol):
    """A store in which a person can hold single messages.  One change for each id, in order; durable on return.

    *expected* as in :class:`SupportsManage`.
    """

    def hold(
        self, ids: Sequence[str], /, *, reason: str = "", expected: Expected | None = None
    ) -> Sequence[Change]:
        """Keep these from being claimed until they are released: HELD, with the person's *reason*.

        For QUEUED ones, and CLAIMED ones whose lease ran out.  Refused for
        what is HELD already, by whomever.
        """
        ...

    def release(self, ids: Sequence[str], /, *, expected: Expected | None = None) -> Sequence[Change]:
        """Let what a person holds go on as though it had never been held.

        Its fates, attempts, claims lost and age are what they were (its age
        has grown meanwhile), and so is when it is due.  Refused for what a
        verdict has HELD: that goes on by a requeue only, so that no release
        of many sends again what somebody may have already.
        """
        ...


@attrs.frozen(kw_only=True)
class Suspension:
    """What is not to be delivered for now: everything whose *kind* is *value*.

    Attributes:
        kind: ``queue``; ``relay`` (the key a transport names by
            :class:`SupportsRelays`; of one that leads to one relay, its
            attribute ``name``; ``*`` is every relay); ``domain`` (of a
            recipient); ``attribute`` (*value* is ``name=value``).
        until: When it ends by itself; None is never.
        reason: In a person's words, for the next one who looks.
    """

    kind: Literal["queue", "relay", "domain", "attribute"] = attrs.field(validator=_known_kind)
    value: str
    until: dt.datetime | None = attrs.field(default=None, validator=_aware)
    reason: str = ""


@runtime_checkable
class SupportsSuspend(Protocol):
    """A store that keeps what is suspended, for every process that uses it and until it is taken back.

    A suspended queue gives no claims, and its messages are not due; what is
    put in it waits.  The other kinds are kept here and asked for by whoever
    delivers, after the claim.
    """

    def suspend(self, suspension: Suspension, /) -> None:
        """Keep it; one of the same kind and value is replaced.  Durable on return."""
        ...

    def unsuspend(self, kind: str, value: str, /) -> bool:
        """Take it back; False where there was none in force.  Durable on return."""
        ...

    def suspensions(self) -> Sequence[Suspension]:
        """Those in force by the store's clock, sorted by kind and value."""
        ...


@attrs.frozen(kw_only=True)
class Presence:
    """What somebody who works on a store says of himself.

    Attributes:
        age: How long ago he said it, by the store's clock.
        left: How long it still holds; zero or less where he has been silent
            for longer than he said he would be: he may be gone.
    """

    name: str
    text: str
    age: dt.timedelta
    left: dt.timedelta


@runtime_checkable
class SupportsPresence(Protocol):
    """A store that keeps what its runners say of themselves, for whoever looks from another process.

    It is information and nothing else: nothing that is claimed, settled or
    decided depends on it, and a power failure may take it.
    """

    def announce(self, name: str, text: str, /, *, for_: dt.timedelta) -> None:
        """Keep *text* under *name*, in the place of what it said before.

        It holds *for_* so long and is kept for a day more, unless two hundred
        others that hold for longer need the room.

        Raises:
            ConfigurationError: *name* is none that an id could be, *text* is
                longer than 16 KiB or none that can be kept, or *for_* is not positive.
        """
        ...

    def withdraw(self, name: str, /) -> None:
        """Forget what is said under *name*; harmless where nothing is."""
        ...

    def announced(self) -> Sequence[Presence]:
        """All that is kept, sorted by name; what cannot be read is left out."""
        ...


@attrs.frozen
class Register:
    """A small text that several processes change by turns.

    Attributes:
        text: What stands there; None where nothing does.
        at: When that was so, by the store's clock.
    """

    text: str | None
    at: dt.datetime


@attrs.frozen
class Swap:
    """What is to be written into a register.

    Attributes:
        old: What has to stand there; None: nothing.
        new: What is to stand there.
    """

    old: str | None
    new: str


@runtime_checkable
class SupportsRegister(Protocol):
    """A store that keeps registers for whoever shares it: what limits of all runners together are counted in.

    A register that nobody has written for two days may be forgotten, and a
    crash of the store may take the last that was written, or undo it.

    A process that speaks to many relays asks for some hundreds at once, and
    all of them together are to cost one round trip.
    """

    def registers(self, names: Collection[str], /) -> Mapping[str, Register]:
        """What stands in each of these now, and the time; read in this order or at once."""
        ...

    def swap(self, swaps: Mapping[str, Swap], /) -> Mapping[str, Register]:
        """Write into each of these registers what is new, where the old stands: each by itself, whatever the others hold.

        Returns what stands in those that were not written, for it is not
        *old*; of any number who swap the same *old* at once one succeeds.

        Raises:
            ConfigurationError: a name is none that an id could be, or what is
                new is empty, longer than 1 KiB or none that can be kept;
                nothing was written.
            StoreError: some of them may be written, and others not.
        """
        ...


@attrs.frozen
class Finding:
    """One thing that ``check`` found, and what to do about it where it is not well."""

    level: Literal["ok", "warning", "error"]
    text: str
    advice: str = ""


@runtime_checkable
class SupportsMaintain(Protocol):
    """A store that looks after itself in small steps."""

    def migrate(self) -> Sequence[str]:
        """Bring the stored format to this release's, under a lock; say in words what was done.

        Nothing where there is nothing to do.  A store on one machine does it
        by itself when it is opened.
        """
        ...

    def check(self) -> Sequence[Finding]:
        """Look at health, settings, versions and permissions; read-only."""
        ...

    def prune(self, *, limit: int = 1000) -> int:
        """Remove up to *limit* rows whose retention has passed; return how many."""
        ...


class Guarantee(enum.StrEnum):
    """A promise of the core that a store may lack, and then declares in ``lacks``."""

    ORDER = "order"
    DEDUPLICATION = "deduplication"
    REFUNDS = "refunds"
    DELAYS = "delays"
    LEASES = "leases"
    FENCING = "fencing"
    ATOMICITY = "atomicity"
    AT_MOST_ONCE = "at most once"
    RETENTION = "retention"

"""What the clauses share: how servers behave, what leads to one, and what was told of a delivery."""

from __future__ import annotations

import datetime as dt
import enum
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Generic, NoReturn, Protocol, TypeVar

import attrs

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result, Untried
from outbox.protocols import SupportsBatch, SupportsIdle, SupportsRelays, Transport

__all__ = [
    "Behaviour",
    "Clauses",
    "Lead",
    "Rig",
    "Taken",
    "Whole",
    "accepted",
    "deliver",
    "handed_over",
    "kinds",
    "together",
    "told",
    "untried",
    "within",
]

T = TypeVar("T")
CONTENT: Final = b"Subject: hello\r\n\r\nHello.\r\n"


class Behaviour(enum.StrEnum):
    """How the server behaves that a transport is led to; each value ends the sentence "it …"."""

    TAKES = "takes every message for everybody"
    REFUSES = "refuses recipients for good, and takes the message for the others"
    DEFERS = "refuses recipients for now, and takes the message for the others"
    UNREACHABLE = "cannot be reached, or goes before it has greeted"
    TURNS_AWAY = "turns everybody away for now, before any message"
    FORBIDS = "will not have us, for a reason that only a person can mend"
    LEAVES = "leaves in the middle of a message, before its last byte"
    STALLS = "says nothing more in the middle of a message, before its last byte, and stays"
    DRIPS = "answers so slowly, byte by byte, that its answer has no end, before the last byte of a message"
    LOSES = "has been given the last byte of a message, and leaves without an answer"
    STALLS_AT_THE_END = "has been given the last byte of a message, and says nothing, and stays"
    MUMBLES = "answers the last byte of a message by what is no answer"
    CUTS = "is cut off within its acceptance of a message"
    BREAKS = (
        "takes some of many recipients, of one message or of several, and cannot be reached for the others"
    )
    ECHOES = "repeats the secrets it was told, in its refusal"
    ECHOES_LATER = "lets us in, and repeats the secrets it was told when it refuses a recipient"


class Taken(Protocol):
    """One message that the server took responsibility for, or may have."""

    @property
    def sender(self) -> str: ...
    @property
    def recipients(self) -> Sequence[str]: ...
    @property
    def content(self) -> bytes: ...


class Whole(Transport, SupportsBatch, SupportsIdle, SupportsRelays, Protocol):
    """A transport with every capability; a clause says which of them it needs, and is skipped where one is missing."""


@attrs.frozen(kw_only=True)
class Rig:
    """A transport, and the far side that it leads to.

    Attributes:
        taken: What the server has taken so far, in order.
        recover: Let the server take everything from now on.
        secrets: What the transport was told in confidence, in each form that
            it may be repeated in.
    """

    transport: Transport
    taken: Callable[[], Sequence[Taken]]
    recover: Callable[[], None]
    secrets: Sequence[str] = attrs.field(default=(), repr=False)

    @property
    def whole(self) -> Whole:
        """The transport, as one that has the capabilities which the clause asked for."""
        transport: Any = self.transport
        found: Whole = transport
        return found


class Lead(Protocol):
    """Make a transport that leads to a server of this behaviour; where *only* is given it concerns those alone."""

    def __call__(self, behaviour: Behaviour, *only: str) -> Rig: ...


class Clauses:
    """What the clauses ask of the suite that they are part of; see :class:`outbox.testing.TransportSuite`."""

    patience: ClassVar[dt.timedelta]
    many: ClassVar[int]

    def cannot(self, behaviour: Behaviour) -> NoReturn:
        """Skip: there is no server that behaves so."""
        raise NotImplementedError

    def recipient(self, name: str) -> str:
        """Somebody of this name, as this transport writes recipients."""
        raise NotImplementedError

    def message(self, *names: str, content: bytes = CONTENT) -> Message:
        """A message to somebody of each of these names."""
        raise NotImplementedError

    def require_secrets(self, rig: Rig) -> None:
        """Skip where this transport was told none."""
        raise NotImplementedError


def deliver(rig: Rig, message: Message, *recipients: str) -> Outcome:
    """For all of its recipients unless some are named."""
    return rig.transport.deliver(message, recipients or message.recipients)


def told(rig: Rig, message: Message) -> Outcome | RelayFault:
    """The outcome, or the fault that was raised in its place."""
    try:
        return deliver(rig, message)
    except RelayFault as fault:
        return fault


def kinds(outcome: Outcome) -> set[type[Result]]:
    return {type(result) for result in outcome.results.values()}


def accepted(outcome: Outcome) -> set[str]:
    return {recipient for recipient, result in outcome.results.items() if isinstance(result, Accepted)}


def handed_over(rig: Rig) -> Counter[str]:
    """How often each recipient has been taken so far."""
    return Counter(recipient for each in rig.taken() for recipient in each.recipients)


def untried(outcome: Outcome) -> set[str]:
    return {recipient for recipient, result in outcome.results.items() if isinstance(result, Untried)}


@attrs.frozen
class Ended(Generic[T]):
    """How a piece of work ended: by what it raised, or else by what it returned."""

    error: BaseException | None
    returned: T | None

    def get(self) -> T:
        """What it returned; what it raised is raised here."""
        if self.error is not None:
            raise self.error
        value: Any = self.returned
        result: T = value
        return result


def within(patience: dt.timedelta, work: Callable[[], T]) -> T:
    """What *work* returns or raises; it has so long for it."""
    [ended] = together(patience, [work])
    return ended.get()


def together(patience: dt.timedelta, works: Sequence[Callable[[], T]]) -> list[Ended[T]]:
    """How each ended, all of them begun at once in threads of their own."""
    results: dict[int, Ended[T]] = {}
    start = threading.Barrier(len(works))

    def run(number: int, work: Callable[[], T]) -> None:
        start.wait()
        try:
            results[number] = Ended(None, work())
        except BaseException as error:  # noqa: BLE001 - it is handed to the thread that asks
            results[number] = Ended(error, None)

    threads = [
        threading.Thread(target=run, args=each, name="clause", daemon=True) for each in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience.total_seconds())
    late = sum(thread.is_alive() for thread in threads)
    assert not late, f"{late} of {len(works)} deliveries did not come back within {patience}"
    return [results[number] for number in range(len(works))]

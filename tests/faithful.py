"""A transport that keeps every rule without a wire, to a far side that behaves as it is told; made to be broken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final

import attrs

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery
from outbox.testing import Behaviour

SECRET: Final = "c4narypassword-w0rd"
RELAY: Final = "far.example.org:1"
_AT_THE_END: Final = {Behaviour.LOSES, Behaviour.STALLS_AT_THE_END, Behaviour.MUMBLES, Behaviour.CUTS}
_IN_THE_MIDDLE: Final = {Behaviour.LEAVES, Behaviour.STALLS, Behaviour.DRIPS}


@attrs.frozen
class Parcel:
    sender: str
    recipients: tuple[str, ...]
    content: bytes


class FarSide:
    """What the transport leads to."""

    def __init__(self, behaviour: Behaviour, only: Sequence[str]) -> None:
        self.behaviour = behaviour
        self.taken: list[Parcel] = []
        self.room = 75
        self._only = only

    def recover(self) -> None:
        self.behaviour = Behaviour.TAKES

    def concerns(self, recipient: str) -> bool:
        return not self._only or recipient in self._only

    def take(self, message: Message, recipients: Sequence[str]) -> None:
        if recipients:
            self.taken.append(Parcel(message.sender, tuple(recipients), message.content))


class Faithful:
    """Right in all it does; whoever breaks it overrides the one step."""

    def __init__(self, far: FarSide) -> None:
        self.far = far
        self.secret = SECRET
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return "Faithful()"

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.connect()
        return self.report(message, recipients)

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        for each in deliveries:
            yield self.deliver(each.message, each.recipients)

    def relay(self, message: Message, recipient: str, /) -> str:
        return RELAY

    def expire(self) -> None:
        pass

    def close(self) -> None:
        pass

    def connect(self) -> None:
        """Raise the fault of a relay that cannot be used."""
        fault = self.fault()
        if fault:
            raise fault

    def fault(self) -> RelayFault | None:
        behaviour = self.far.behaviour
        if behaviour in (Behaviour.UNREACHABLE, Behaviour.TURNS_AWAY):
            return RelayUnavailable(RELAY, "not now")
        if behaviour in (Behaviour.FORBIDS, Behaviour.ECHOES):
            return RelayMisconfigured(RELAY, "it does not know us")
        return None

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        if self.far.behaviour is Behaviour.BREAKS:
            return self.broken_off(message, recipients)
        results = {each: self.result(each) for each in recipients}
        taken = [each for each, result in results.items() if isinstance(result, Accepted | Uncertain)]
        self.far.take(message, taken)
        return Outcome(results=results, relay=RELAY)

    def broken_off(self, message: Message, recipients: Sequence[str]) -> Outcome:
        """As many are taken as there is room for."""
        room = self.far.room - sum(len(each.recipients) for each in self.far.taken)
        reached, missed = recipients[:room], recipients[room:]
        fault = RelayUnavailable(RELAY, "gone") if missed else None
        if fault and not reached:
            raise fault
        self.far.take(message, reached)
        known, rest = dict.fromkeys(reached, Accepted()), dict.fromkeys(missed, Untried())
        return Outcome(results={**known, **rest}, relay=RELAY, fault=fault)

    def result(self, recipient: str) -> Result:
        behaviour = self.far.behaviour
        if behaviour in _AT_THE_END:
            return self.doubt()
        if behaviour in _IN_THE_MIDDLE:
            return TempFailed("gone")
        if behaviour is Behaviour.REFUSES and self.far.concerns(recipient):
            return PermFailed("550 no")
        if behaviour is Behaviour.ECHOES_LATER:
            return PermFailed("550 *** may not")
        if behaviour is Behaviour.DEFERS and self.far.concerns(recipient):
            return TempFailed("450 later")
        return Accepted("250 yes")

    def doubt(self) -> Result:
        return Uncertain("no answer")


Make = Callable[[FarSide], Faithful]

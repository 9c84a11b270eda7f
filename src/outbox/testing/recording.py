"""A transport for a program's own tests: it remembers what it was given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result
from outbox.protocols import Delivery

__all__ = ["RecordingTransport"]

Answers: TypeAlias = Mapping[str, Result] | Callable[[Message, str], Result]


class RecordingTransport:
    """Accepts everything, sends nothing, and keeps what it was handed in :attr:`deliveries`.

    *answers* gives other results: a mapping by recipient (the others are
    accepted), or a function of the message and the recipient.  While
    :attr:`fault` is set, every delivery raises it.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        self._answers = answers or {}
        self._lock = threading.Lock()
        self._deliveries: list[Delivery] = []
        self.fault: RelayFault | None = None
        self.closed = False

    @property
    def deliveries(self) -> list[Delivery]:
        """Every delivery so far, in order, also those that were not accepted."""
        with self._lock:
            return list(self._deliveries)

    @property
    def messages(self) -> list[Message]:
        """The message of each delivery."""
        return [delivery.message for delivery in self.deliveries]

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        if self.fault is not None:
            raise self.fault
        with self._lock:
            self._deliveries.append(Delivery(message, tuple(recipients)))
        return Outcome(results={r: self._result(message, r) for r in recipients}, relay="recording")

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _result(self, message: Message, recipient: str) -> Result:
        if isinstance(self._answers, Mapping):
            return self._answers.get(recipient, Accepted("250 recorded"))
        return self._answers(message, recipient)

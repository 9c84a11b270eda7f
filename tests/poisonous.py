"""A transport that dies of one message, and takes its process with it; it writes down whom it was handed."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterable, Sequence

from outbox.message import Message
from outbox.outcome import Accepted, Outcome
from outbox.protocols import Delivery

__all__ = ["transport"]


class Poisonous:
    def __init__(self, path: str, of: str) -> None:
        self._of = of
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        # One write to a file that is appended to is not mixed with another's, and outlasts the process.
        os.write(self._file, f"{message.id}\n".encode())
        if message.id == self._of:
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome.same(recipients, Accepted("250 taken"))

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        for delivery in deliveries:
            yield self.deliver(delivery.message, delivery.recipients)

    def close(self) -> None:
        os.close(self._file)


def transport(path: str, of: str = "poison") -> Poisonous:
    """*of* is the id of the message that it dies of."""
    return Poisonous(path, of)

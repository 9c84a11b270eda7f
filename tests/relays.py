"""A relay of the tests' own: it answers as it is told to, and keeps what it was handed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result

Answer: TypeAlias = Result | RelayFault | BaseException


class Relay:
    """Accepts everybody, unless *answer* (for all) or *answers* (by recipient) say otherwise.

    An exception is raised.  *fault* is what befell it afterwards; *seen* are
    the recipients of each delivery.
    """

    def __init__(
        self,
        name: str,
        answer: Result | BaseException | None = None,
        answers: Mapping[str, Result] | None = None,
        *,
        fault: RelayFault | None = None,
    ) -> None:
        self.name = name
        self.answer: Result | BaseException = answer or Accepted("250 ok")
        self.answers = answers or {}
        self.fault = fault
        self.seen: list[tuple[str, ...]] = []
        self.closed = self.expired = 0

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.seen.append(tuple(recipients))
        if isinstance(self.answer, BaseException):
            raise self.answer
        results = {r: self.answers.get(r, self.answer) for r in recipients}
        return Outcome(results=results, relay=self.name, fault=self.fault)

    def expire(self) -> None:
        self.expired += 1

    def close(self) -> None:
        self.closed += 1


def a_message(*recipients: str, id: str = "m1", queue: str = "mail") -> Message:
    return Message(id=id, recipients=recipients or ("ann@a.example",), content=b"x\r\n", queue=queue)

"""What an SMTP sink was told to answer, and what it has taken down: shared by all of its connections."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import threading
from collections.abc import Callable
from email.message import EmailMessage
from typing import Final, Literal, TypeAlias

import attrs

from outbox.clock import Clock

__all__ = ["Answer", "Heard", "Hook", "Ledger", "Received", "Step"]

Step: TypeAlias = Literal[
    "connect",
    "ehlo",
    "helo",
    "starttls",
    "auth",
    "mail",
    "rcpt",
    "data",
    "content",
    "dot",
    "rset",
    "noop",
    "quit",
]
"""``content`` is its first bytes, which are not answered unless a rule says so; ``dot`` is its end."""

_ZERO: Final = dt.timedelta(0)


@attrs.frozen(kw_only=True)
class Received:
    """One message that the sink took.

    Attributes:
        sender: The reverse path, without its brackets.
        content: As it was before dots were added, its last line end included.
        at: When its final dot came.
        tls: Was the connection secured?
        user: Who had authenticated, if anybody.
        connection: The number of the connection it came over, from 1.
        greeting: What the client had called itself.
        options: The parameters of MAIL, such as ``"BODY=8BITMIME"``.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes = attrs.field(repr=False)
    at: dt.datetime
    tls: bool
    user: str | None
    connection: int
    greeting: str
    options: tuple[str, ...]

    def email(self) -> EmailMessage:
        """The content, parsed."""
        return email.message_from_bytes(self.content, policy=email.policy.default)


@attrs.frozen(kw_only=True)
class Heard:
    """What a client has just said, for a hook to answer.

    *address* is the path of MAIL and RCPT, the user of AUTH, and the sender
    of the transaction elsewhere; *recipients* are those accepted so far.
    """

    step: Step
    line: str
    address: str
    recipients: tuple[str, ...]
    connection: int
    tls: bool
    user: str | None


@attrs.frozen
class Answer:
    """What the sink says to one step.

    Attributes:
        reply: Text is a whole reply, each line with its code; bytes go out
            as they are; None is silence for as long as the sink lives.
        close: Hang up then; with no reply, at once.
        after: Wait so long before.
        drip: Send it byte by byte, so far apart.
    """

    reply: str | bytes | None = None
    close: bool = False
    after: dt.timedelta = _ZERO
    drip: dt.timedelta = _ZERO

    @property
    def wire(self) -> bytes:
        """The bytes that go out."""
        if isinstance(self.reply, str):
            return "".join(f"{line}\r\n" for line in self.reply.splitlines()).encode()
        return self.reply or b""

    @property
    def refuses(self) -> bool:
        """Does it tell the client no?"""
        return self.wire[:1] in (b"4", b"5")


Hook: TypeAlias = Callable[[Heard], "Answer | str | None"]


@attrs.define
class _Rule:
    step: Step
    address: str | None
    answer: Answer
    left: int | None

    def fits(self, heard: Heard) -> bool:
        return self.step == heard.step and self.address in (None, heard.address) and self.left != 0


class Ledger:
    """Safe from many threads."""

    def __init__(self, hook: Hook | None, clock: Clock) -> None:
        self.stopping = threading.Event()
        self.messages: list[Received] = []
        self.commands: list[str] = []
        self.violations: list[str] = []
        self._rules: list[_Rule] = []
        self._hook = hook
        self._clock = clock
        self._news = threading.Condition()

    def rule(self, step: Step, address: str | None, answer: Answer, times: int | None) -> None:
        """From now on *answer* that step, the first *times* it comes; earlier rules come first."""
        with self._news:
            self._rules.append(_Rule(step, address, answer, times))

    def answer(self, heard: Heard) -> Answer | None:
        """What a rule or the hook has to say; None is the usual answer."""
        with self._news:
            rule = next((rule for rule in self._rules if rule.fits(heard)), None)
            if rule is not None:
                rule.left = None if rule.left is None else rule.left - 1
                return rule.answer
        said = self._hook(heard) if self._hook else None
        return Answer(said) if isinstance(said, str) else said

    def take(self, received: Received) -> None:
        with self._news:
            self.messages.append(received)
            self._news.notify_all()

    def wait_for(self, number: int, timeout: dt.timedelta) -> tuple[Received, ...]:
        """Wait until so many messages were taken.

        Raises:
            TimeoutError: they were not, in that time.
        """
        with self._news:
            if not self._news.wait_for(lambda: len(self.messages) >= number, timeout.total_seconds()):
                raise TimeoutError(f"{len(self.messages)} of {number} messages came within {timeout}")
            return tuple(self.messages)

    def now(self) -> dt.datetime:
        return self._clock.now()

    def pause(self, delay: dt.timedelta | None) -> bool:
        """Wait so long, or for ever; True where the sink was stopped meanwhile."""
        return self.stopping.wait(None if delay is None else delay.total_seconds())

"""The steps of a dialogue, the deadline of each, and what a dialogue may ask of the one who drives it."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Generator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from outbox.errors import ConfigurationError
from outbox.values import quoted

from .content import Content
from .reply import Kind, Reply

__all__ = [
    "Action",
    "Dialogue",
    "HangUp",
    "Hear",
    "Lost",
    "Pour",
    "Read",
    "Secure",
    "Step",
    "Timeouts",
    "Write",
    "ask",
]

T = TypeVar("T")

_USUAL: Final = frozenset({Kind.DONE, Kind.NOT_NOW, Kind.NEVER})
_LONGEST: Final = dt.timedelta(days=24)
"""Of more the system's calls cannot be told, who count milliseconds in 31 bits."""


class Step(enum.Enum):
    """Where a dialogue stands: in words, with the timeout that it goes by and the replies it may meet."""

    CONNECT = "the connection", "connect"
    TLS = "the TLS handshake", "greeting"
    GREETING = "the greeting", "greeting"
    EHLO = "EHLO", "command"
    HELO = "HELO", "command"
    LHLO = "LHLO", "command"
    STARTTLS = "STARTTLS", "command"
    AUTH = "AUTH", "command", frozenset(Kind)
    MAIL = "MAIL FROM", "command"
    RCPT = "RCPT TO", "command"
    DATA = "DATA", "data", frozenset({Kind.GO_ON, Kind.NOT_NOW, Kind.NEVER})
    CONTENT = "the content", "block"
    DOT = "the final dot", "dot"
    LONE_DOT = "the dot of a content for nobody", "quit"
    RSET = "RSET", "quit"
    QUIT = "QUIT", "quit"

    def __init__(self, words: str, timeout: str, replies: frozenset[Kind] = _USUAL) -> None:
        self.words = words
        self.timeout = timeout
        self.replies = replies

    def allows(self, reply: Reply) -> bool:
        """Can this reply be meant for this step?  One that cannot belongs to something else."""
        return reply.kind in self.replies


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long a whole reply may take, by what was asked (RFC 5321 section 4.5.3.2); 24 days at most.

    Attributes:
        connect: Reaching one of the host's addresses.
        greeting: The TLS handshake, and the greeting.
        command: EHLO (LHLO), STARTTLS, AUTH, MAIL, RCPT.
        data: DATA.
        block: Handing 64 KiB of content over.
        dot: The reply to the final dot.
        quit: QUIT and RSET, and the dot of a content for nobody: all is known
            already, and nothing depends on them.
    """

    connect: dt.timedelta = dt.timedelta(seconds=30)
    greeting: dt.timedelta = dt.timedelta(seconds=60)
    command: dt.timedelta = dt.timedelta(minutes=5)
    data: dt.timedelta = dt.timedelta(minutes=2)
    block: dt.timedelta = dt.timedelta(minutes=3)
    dot: dt.timedelta = dt.timedelta(minutes=10)
    quit: dt.timedelta = dt.timedelta(seconds=2)

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if not isinstance(value, dt.timedelta):
                raise ConfigurationError(
                    f"the SMTP timeout {name!r} must be a datetime.timedelta, and is of type {type(value).__name__}"
                )
            if value <= dt.timedelta(0):
                raise ConfigurationError(f"the SMTP timeout {name!r} must be more than zero")
            if value > _LONGEST:
                raise ConfigurationError(f"the SMTP timeout {name!r} must be {_LONGEST.days} days at most")

    def bounded(self, limit: dt.timedelta | None) -> Timeouts:
        """The same, none longer than *limit*."""
        if limit is None:
            return self
        return Timeouts(**{name: min(value, limit) for name, value in attrs.asdict(self).items()})

    def seconds(self, step: Step) -> float:
        limit: dt.timedelta = getattr(self, step.timeout)
        return limit.total_seconds()


@attrs.frozen
class Write:
    """Send *data* (whole lines), of which *step* is the first; answered by None.

    Nothing may be waiting to be read that an earlier write has not asked for.
    *replies* is how many whole replies are due for it.
    """

    step: Step
    data: bytes
    replies: int = 1


@attrs.frozen
class Pour:
    """Send the content, its final dot, and *behind* it whole lines of what follows; answered by None.

    *replies* is how many whole replies are due for all of it.  That *behind*
    could not be sent is no news of the content, and is not told here: who
    reads on meets it.
    """

    content: Content
    behind: bytes = b""
    replies: int = 1


@attrs.frozen
class Read:
    """Wait for the next reply, which is due for *step*; answered by the :class:`Reply`."""

    step: Step


@attrs.frozen
class Hear:
    """Wait for the next reply; answered by the replies to the first of *steps*: one, and those that came with it.

    Behind one that closes there is none.  :class:`Lost` concerns the first of them.
    """

    steps: Sequence[Step]


@attrs.frozen
class Secure:
    """Shake hands for TLS, *behind* that step; answered by None."""

    behind: Step = Step.CONNECT


@attrs.frozen
class HangUp:
    """Close without a word; answered by None."""


Action: TypeAlias = Write | Pour | Read | Hear | Secure | HangUp
Dialogue: TypeAlias = Generator[Action, Any, T]
"""What is said, apart from how: it yields actions, is sent their answers, and is thrown :class:`Lost`."""


class Lost(Exception):
    """The connection is of no more use: closed, out of time, or out of step.

    Attributes:
        step: Where that happened.
        reason: What happened, in words.
        sent: How many bytes of what was being written the kernel took.
        reply: What the server had said before it went, where that is a whole reply.
        said: What it said, in its own words, where that is none.
        astray: It said what could be no answer, or none yet: earlier replies
            may have been answers to something else, too.
        late: What was to happen had not happened when its time was over.
        kind: Of which kind the reply was that could be no answer.
    """

    def __init__(
        self,
        step: Step,
        reason: str,
        *,
        sent: int = 0,
        reply: Reply | None = None,
        said: str = "",
        astray: bool = False,
        late: bool = False,
        kind: Kind | None = None,
    ) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason
        self.sent = sent
        self.reply = reply
        self.said = said
        self.astray = astray
        self.late = late
        self.kind = kind

    def __str__(self) -> str:
        said = f": {quoted(self.said, 200)}" if self.said else ""
        before = f"; it had said: {self.reply}" if self.reply else ""
        return f"connection lost at {self.step.words}: {self.reason}{said}{before}"

    def unsay(self) -> None:
        """Forget the server's own words, here and in what this was raised from."""
        self.said, self.reply = "", None
        self.__cause__ = self.__context__ = None


def ask(step: Step, line: bytes) -> Dialogue[Reply]:
    """One command, one reply."""
    yield Write(step, line + b"\r\n")
    reply: Reply = yield Read(step)
    return reply

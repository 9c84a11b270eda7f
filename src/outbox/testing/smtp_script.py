"""What an SMTP sink was told to answer, and at which step: rules, gates, and a hook of the test's own."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

import attrs

__all__ = [
    "SOON",
    "ZERO",
    "Answer",
    "Close",
    "Gate",
    "Heard",
    "Hook",
    "Reply",
    "Script",
    "Step",
    "TLSFacts",
    "Whom",
]

ZERO: Final = dt.timedelta(0)
SOON: Final = dt.timedelta(seconds=10)

Step: TypeAlias = Literal[
    "connect",
    "ehlo",
    "helo",
    "lhlo",
    "starttls",
    "auth",
    "mail",
    "rcpt",
    "data",
    "content",
    "dot",
    "rset",
    "noop",
    "vrfy",
    "help",
    "quit",
]
"""``content`` is its first bytes, which are not answered unless a rule says so; ``dot`` is its end."""

Close: TypeAlias = bool | Literal["half", "reset"]
Reply: TypeAlias = str | bytes | Iterable[bytes] | None
Whom: TypeAlias = str | Callable[[str], bool] | None


@attrs.frozen(kw_only=True)
class TLSFacts:
    """What a secured connection came to.

    Attributes:
        version: Such as ``"TLSv1.3"``.
        cipher: Its name.
        certificate: The client's own, as DER; None where it showed none.
    """

    version: str
    cipher: str
    certificate: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Heard:
    """What a client has just said, for a hook to answer.

    *address* is the path of MAIL and RCPT, the user of AUTH, over LMTP the
    recipient whom ``dot`` is answered for, and the sender of the transaction
    elsewhere; *recipients* are those accepted so far.
    """

    step: Step
    line: str
    address: str
    recipients: tuple[str, ...]
    connection: int
    tls: TLSFacts | None
    user: str | None


@attrs.frozen
class Answer:
    """What the sink says to one step.

    Attributes:
        reply: Text is a whole reply, each line with its code; bytes go out
            as they are, well-formed or not; an iterable of bytes goes out
            piece by piece until it ends, which it need not; None is silence
            for as long as the sink lives.
        close: Hang up then; with no reply, at once.  ``"half"`` ends only
            what the sink says and goes on listening; ``"reset"`` lets the
            client meet a reset (over a Unix socket, a plain end).
        after: Wait so long before.
        drip: Send it byte by byte (an iterable's pieces), so far apart.
        cut: Only so many of its bytes go out; a negative number leaves so
            many out at the end.  Not of an iterable.
        at: At ``content``: not before so many of its bytes have come.
    """

    reply: Reply = None
    close: Close = False
    after: dt.timedelta = ZERO
    drip: dt.timedelta = ZERO
    cut: int | None = None
    at: int = 1

    def __attrs_post_init__(self) -> None:
        if self.close not in (False, True, "half", "reset"):
            raise ValueError(f"close is True, False, 'half' or 'reset', not {self.close!r}")

    @property
    def wire(self) -> bytes:
        """The bytes that go out, before any cut; none of an iterable's."""
        if isinstance(self.reply, str):
            return "".join(f"{line}\r\n" for line in self.reply.splitlines()).encode()
        return self.reply if isinstance(self.reply, bytes) else b""

    @property
    def pieces(self) -> Iterator[bytes]:
        """What goes out, in one piece unless it drips or was given in several."""
        if not isinstance(self.reply, str | bytes | None):
            yield from self.reply
            return
        wire = self.wire[: self.cut]
        yield from (wire[n : n + 1] for n in range(len(wire))) if self.drip else (wire,)

    @property
    def silent(self) -> bool:
        return self.reply is None and not self.close

    @property
    def refuses(self) -> bool:
        """Does it tell the client no?"""
        return self.wire[:1] in (b"4", b"5")


Hook: TypeAlias = Callable[[Heard], "Answer | str | None"]


class Gate:
    """Where connections wait until it is opened; as a context manager it is opened at the end of the block."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._came = 0
        self._opened = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()

    @property
    def came(self) -> int:
        """How many connections have come to it so far."""
        return self._came

    def open(self) -> None:
        """Let through who waits, and whoever comes from now on; opening twice is harmless."""
        with self._news:
            self._opened = True
            self._news.notify_all()

    def wait_for(self, number: int = 1, *, timeout: dt.timedelta = SOON) -> None:
        """Wait until *number* connections have come to it.

        Raises:
            TimeoutError: they have not, in that time.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._came >= number, timeout.total_seconds()):
                raise TimeoutError(f"{self._came} of {number} connections came to the gate within {timeout}")

    def pass_through(self) -> None:
        """Be one who comes; return when it is open."""
        with self._news:
            self._came += 1
            self._news.notify_all()
            self._news.wait_for(lambda: self._opened)


@attrs.define(kw_only=True)
class _Rule:
    step: Step
    whom: Whom
    connection: int | None
    skip: int
    left: int | None
    then: Answer | Gate

    def fits(self, heard: Heard) -> bool:
        if self.step != heard.step or self.connection not in (None, heard.connection) or self.left == 0:
            return False
        return self.whom(heard.address) if callable(self.whom) else self.whom in (None, heard.address)

    def use(self) -> bool:
        """Note one use; False while it is still to be skipped."""
        if self.skip:
            self.skip -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


class Script:
    """Safe from many threads."""

    def __init__(self, hook: Hook | None) -> None:
        self._hook = hook
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._stopped = False

    def add(
        self,
        then: Answer | Gate,
        step: Step,
        whom: Whom,
        *,
        connection: int | None = None,
        skip: int = 0,
        times: int | None = None,
    ) -> None:
        """A rule for the first *times* that *step* comes after *skip*; earlier rules come first."""
        rule = _Rule(step=step, whom=whom, connection=connection, skip=skip, left=times, then=then)
        with self._lock:
            self._rules.append(rule)
            stopped = self._stopped
        if stopped and isinstance(then, Gate):
            then.open()

    def forget(self) -> None:
        """Strike all rules, and open all gates."""
        with self._lock:
            rules, self._rules = self._rules, []
        _open_gates(rules)

    def stop(self) -> None:
        """Nobody waits at a gate from now on."""
        with self._lock:
            self._stopped = True
            rules = list(self._rules)
        _open_gates(rules)

    def answer(self, heard: Heard) -> Answer | None:
        """What a rule or the hook has to say; None is the usual answer."""
        found = self._find(heard, Answer)
        if isinstance(found, Answer):
            return found
        said = self._hook(heard) if self._hook else None
        return Answer(said) if isinstance(said, str) else said

    def wait(self, heard: Heard) -> None:
        """Wait at the gate of this step, where there is one."""
        gate = self._find(heard, Gate)
        if isinstance(gate, Gate):
            gate.pass_through()

    def _find(self, heard: Heard, kind: type[Answer | Gate]) -> Answer | Gate | None:
        with self._lock:
            fitting = (rule for rule in self._rules if isinstance(rule.then, kind) and rule.fits(heard))
            return next((rule.then for rule in fitting if rule.use()), None)


def _open_gates(rules: Iterable[_Rule]) -> None:
    for rule in rules:
        if isinstance(rule.then, Gate):
            rule.then.open()

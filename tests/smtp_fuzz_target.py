"""One hostile server made from bytes, the whole transport in front of it, and what must be true whatever they are.

The first two bytes choose the protocol, what is sent, and how the server
ends.  The others are what it says, in pieces: one when it is connected to, and
one more after each write of ours, so that a run is the same each time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import itertools
import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from outbox.clock import SystemClock
from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain
from outbox.protocols import Delivery, SupportsBatch
from outbox.transports.smtp import SMTPTransport, connecting

__all__ = ["NEXT", "SEEDS", "WORDS", "Broken", "play"]

NEXT, CLOSED, RESET = b"\xfe", b"\xfd", b"\xfc"
"""Between two pieces; at the end of one, that the server closes the connection, or resets it."""

SILENCE: Final = dt.timedelta(milliseconds=1)
MOST_TOLD: Final = 1 << 16
_PARAMETERS: Final = inspect.signature(SMTPTransport).parameters
_SAID: Final = re.compile(rb"^([2-5])[0-9][0-9](?:[ -]|\r?$)", re.MULTILINE)
_PROTOCOLS: Final = ("smtp", "lmtp") if "protocol" in _PARAMETERS else ("smtp",)
_CROWDS: Final = (1, 2, 3, 8)


class Broken(AssertionError):
    """What must always be true was not."""


class _TickingClock(SystemClock):
    """Time passes by being looked at: how busy the machine is changes nothing."""

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks = itertools.count()

    def monotonic(self) -> float:
        return next(self._looks) * 1e-6


class Ours(socket.socket):
    """Our end of a pair; behind each write of ours the server's end speaks."""

    line: Line

    def send(self, data: Any, flags: int = 0) -> int:
        taken = super().send(data, flags)
        self.line.heard(bytes(data[:taken]))
        return taken


class Line:
    """The server's end: what it was sent, and what it had told when."""

    def __init__(self, pieces: Iterator[bytes], *, silent: bool) -> None:
        ours, self._theirs = socket.socketpair()
        self.ours = Ours(fileno=ours.detach())
        self.ours.line = self
        self.sent = bytearray()
        self.told: list[tuple[int, bytes]] = []
        self._pieces = pieces
        self._silent = silent
        self._theirs.setblocking(False)
        self._speak()

    def heard(self, data: bytes) -> None:
        self.sent += data
        with contextlib.suppress(OSError):
            self._theirs.recv(1 << 20)
        self._speak()

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()

    def told_since(self, position: int) -> bytes:
        return b"".join(piece for when, piece in self.told if when >= position)

    def _speak(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            if not self._silent:
                self._theirs.close()
            return
        said = piece.rstrip(CLOSED + RESET)
        with contextlib.suppress(OSError):
            self._theirs.sendall(said)
            self.told.append((len(self.sent), said))
        if said != piece:
            self._theirs.close()


@attrs.define
class Run:
    """What the first bytes chose, and what came of it.

    Attributes:
        kinds: Results and faults by name, to see what a corpus reaches.
    """

    first: int
    second: int
    pieces: Iterator[bytes]
    lines: list[Line] = attrs.field(factory=list)
    kinds: set[str] = attrs.field(factory=set)

    def settings(self) -> dict[str, Any]:
        protocol = _PROTOCOLS[self.first & 1 and len(_PROTOCOLS) - 1]
        settings: dict[str, Any] = {"security": "none", "local_hostname": "us.example"}
        if protocol == "lmtp":
            settings["protocol"] = protocol
        if self.second & 1:
            settings["max_messages"] = 1
        return {**settings, "timeout": SILENCE, "clock": _TickingClock()}

    def messages(self) -> list[Message]:
        number = 1 + (self.first >> 1) % 3
        crowd = _CROWDS[(self.first >> 3) % 4]
        sender = "sénder@example.net" if self.second & 2 else "s@example.net"
        body = "größe\r\n".encode() if self.second & 4 else b".dots\r\n"
        return [
            Message(
                id=f"m{each}",
                sender=sender,
                recipients=[f"r{n}@{each}.example" for n in range(crowd)],
                content=b"X-Number: %d\r\n\r\n" % each + body * (1 + (self.second >> 4) * 100),
            )
            for each in range(number)
        ]

    def line(self) -> Line:
        line = Line(self.pieces, silent=bool(self.first & 64))
        self.lines.append(line)
        return line

    def go(self) -> None:
        messages = self.messages()
        with contextlib.ExitStack() as stack:
            transport = stack.enter_context(self._transport())
            if self.first & 32 and isinstance(transport, SupportsBatch):
                self._deliver_many(transport, messages)
            else:
                for message in messages:
                    self._deliver(transport, message)
        for line in self.lines:
            line.close()

    @contextlib.contextmanager
    def _transport(self) -> Iterator[SMTPTransport]:
        settings = self.settings()
        if "connect" in _PARAMETERS:
            settings["connect"] = lambda *_: self.line().ours
        # A release without ``connect=`` has to be handed its socket in some other way.
        names = vars(connecting)
        usual = names["dial"]
        names["dial"] = lambda *_: self.line().ours
        try:
            with contextlib.closing(SMTPTransport("server.example", 2525, **settings)) as transport:
                yield transport
        finally:
            names["dial"] = usual

    def _deliver(self, transport: SMTPTransport, message: Message) -> None:
        try:
            outcome = transport.deliver(message, message.recipients)
        except RelayFault as fault:
            self._untouched(message, fault)
        else:
            self._check(message, outcome)

    def _deliver_many(self, transport: SupportsBatch, messages: Sequence[Message]) -> None:
        left = list(messages)
        deliveries = [Delivery(message, message.recipients) for message in messages]
        try:
            for outcome in transport.deliver_many(iter(deliveries)):
                self._check(left.pop(0), outcome)
        except RelayFault as fault:
            for message in left:
                self._untouched(message, fault)
        else:
            self._must(not left, "the batch ended, and not all of it was reported")

    # --- what must be true ---

    def _must(self, holds: object, otherwise: object) -> None:
        if not holds:
            talk = "\n".join(f"sent {bytes(line.sent)!r}\ntold {line.told!r}" for line in self.lines)
            raise Broken(f"{otherwise}\n{talk}")

    def _dots(self, message: Message, recipient: str = "") -> list[tuple[Line, int]]:
        """Where the final dot was handed over, for *recipient*: the line, and how much of it had been sent by then."""
        # By its mark: what a server cannot carry as it is goes re-encoded.
        mark = re.escape(message.content.partition(b"\r\n")[0])
        whole = re.compile(mark + rb"\r\n.*?\r\n\.\r\n", re.DOTALL)
        named = f"RCPT TO:<{recipient}".encode()
        found = []
        for line in self.lines:
            for content in whole.finditer(bytes(line.sent)):
                before = bytes(line.sent[: content.start()])
                if named in before[before.rfind(b"MAIL FROM:") :]:
                    found.append((line, content.end()))
        return found

    def _untouched(self, message: Message, fault: RelayFault) -> None:
        self.kinds.add(type(fault).__name__)
        self._must(not self._dots(message), f"{message.id} was handed over, and then {fault!r} raised")

    def _check(self, message: Message, outcome: Outcome) -> None:
        results = outcome.results
        self.kinds |= {type(result).__name__ for result in results.values()}
        self._must(set(results) == set(message.recipients), f"results of {list(results)}")
        said = {kind for line in self.lines for kind in _SAID.findall(line.told_since(0))}
        for recipient, result in results.items():
            dots = self._dots(message, recipient)
            after = {kind for line, end in dots for kind in _SAID.findall(line.told_since(end))}
            where = f"{message.id}, {recipient}: {result}"
            match result:
                case Accepted():
                    self._must(b"2" in after, f"accepted, and no 2xx was told after the dot: {where}")
                case Uncertain():
                    self._must(dots, f"uncertain, and the dot was never handed over: {where}")
                case PermFailed(reply) if not reply.startswith("not sent"):
                    self._must(b"5" in said, f"refused for good, and no 5xx was told: {where}")
                case TempFailed(reply) if dots and not reply.startswith("not sent"):
                    self._must(said & {b"4", b"5"}, f"handed over, not refused, and called failed: {where}")
                case _:
                    pass


def play(data: bytes) -> set[str]:
    """Play *data*; which kinds of result and fault came of it.

    Raises:
        Broken: something that must always be true was not.
        Exception: anything else that came out of the transport; that is a finding too.
    """
    if len(data) < 2 or len(data) > MOST_TOLD:
        return set()
    run = Run(data[0], data[1], iter(data[2:].split(NEXT)))
    run.go()
    return run.kinds


def _seed(first: int, second: int, *pieces: bytes) -> bytes:
    return bytes([first, second]) + NEXT.join(pieces)


_EHLO: Final = (
    b"250-mx\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-SIZE 9999\r\n250 HELP\r\n"
)
_PIPELINING: Final = b"250-mx\r\n250-PIPELINING\r\n250-LIMITS RCPTMAX=2\r\n250-DSN\r\n250 SIZE\r\n"
_OK: Final = b"250 2.0.0 ok\r\n"
_GO: Final = b"354 go on\r\n"

SEEDS: Final[Sequence[bytes]] = (
    _seed(0, 0, b"220 mx\r\n", _EHLO, _OK, _OK, _GO, _OK),
    _seed(0, 7, b"220 mx\r\n", _EHLO, _OK, _OK, _GO, _OK),
    _seed(8, 0, b"220 mx\r\n", _EHLO, _OK, b"550 5.1.1 no\r\n", _OK, _GO, b"451 later\r\n"),
    _seed(2, 0, b"220 mx\r\n", _EHLO, *[_OK, _OK, _GO, _OK] * 2),
    _seed(32, 0, b"220 mx\r\n", _PIPELINING, _OK * 2 + _GO, _OK),
    _seed(32 + 4, 0, b"220 mx\r\n", _PIPELINING, _OK * 2 + _GO, _OK * 3 + _GO, _OK * 3 + _GO, _OK),
    _seed(32 + 4 + 24, 16, b"220 mx\r\n", _PIPELINING, _OK * 3 + _GO, _OK * 3 + _GO, _OK * 3 + _GO, _OK),
    _seed(33, 0, b"220 mx\r\n", _PIPELINING, _OK * 2 + _GO, _OK),
    _seed(33 + 16, 0, b"220 mx\r\n", _PIPELINING, _OK * 4 + _GO, _OK + b"452 4.2.2 full\r\n" + _OK),
    _seed(0, 0, b"220 mx\r\n", b"500 what\r\n", _OK, _OK, _OK, _GO, _OK),
    _seed(0, 0, b"220 mx\r\n", _EHLO, b"421 leaving\r\n" + CLOSED),
    _seed(64, 0, b"220 mx\r\n", _EHLO, _OK, _OK, _GO),
    _seed(
        16,
        0,
        b"220 mx\r\n",
        _EHLO,
        _OK,
        _OK,
        b"452 4.5.3 too many\r\n",
        b"452 no\r\n",
        _GO,
        _OK,
        _OK,
        _OK,
        _GO,
        _OK,
    ),
)
WORDS: Final[Sequence[bytes]] = (
    *(b"%d " % code for code in (220, 250, 251, 334, 354, 421, 450, 451, 452, 500, 503, 530, 550, 552, 554)),
    *(b"%d-" % code for code in (220, 250, 354, 421, 451, 550)),
    *(NEXT, CLOSED, RESET, b"\r\n", b"\n", b"\r", b"\0", b"4.5.3 ", b"5.7.1 ", _OK, _GO),
    *(b"250-PIPELINING\r\n", b"250-LIMITS RCPTMAX=1 MAILMAX=1\r\n", b"250 SIZE 10\r\n", b"250-8BITMIME\r\n"),
)

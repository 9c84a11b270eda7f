"""A server without a socket and without time: what it hears it answers at once, or when the clock has been moved so far."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
import pytest

from outbox.testing.clock import ManualClock
from outbox.transports.smtp import SMTPTransport, Timeouts, connecting, wire

__all__ = ["END", "RESET", "Event", "Peer", "Room", "Server", "ever", "staged"]

END: Final = b"<end>"
RESET: Final = b"<reset>"
Chunk = bytes
"""What is sent at once, or one of the two marks."""


@attrs.frozen
class Event:
    """What a server does instead of what is usual.

    Attributes:
        says: The pieces that it sends; each after *pause* seconds.
        deaf: It reads nothing any more.
        accepts: It takes what it was told.
    """

    says: Iterable[bytes] = ()
    pause: float = 0
    deaf: bool = False
    accepts: bool = False


@attrs.define
class Room:
    """What has come to a server, and over how many connections."""

    clock: ManualClock
    messages: list[tuple[str, tuple[str, ...], bytes]] = attrs.field(factory=list)
    heard: list[str] = attrs.field(factory=list)
    connections: list[Peer] = attrs.field(factory=list)


class Peer:
    """Both ends of one connection: a socket for the wire, and the bytes that its server says and hears."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.closed = False
        self._inbox: deque[tuple[float, Iterator[bytes]]] = deque()
        self._piece: bytes | None = None
        self._ready = False
        self.deaf = False
        self.given = 0

    # --- as the wire sees it ---

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 25)

    getsockname = getpeername

    def fileno(self) -> int:
        return -1

    def send(self, data: bytes | memoryview) -> int:
        if self.closed or self._at_end(RESET) or (self._at_end(END) and self.deaf):
            raise BrokenPipeError
        if self.deaf:
            raise BlockingIOError
        self.hear(bytes(data))
        return len(data)

    def recv(self, size: int) -> bytes:
        assert not self.closed
        piece = self._next()
        if piece is None or not self._ready:
            raise BlockingIOError
        if piece == RESET:
            raise ConnectionResetError
        if piece == END:
            return b""
        self.given += len(piece[:size])
        self._piece, self._ready = piece[size:] or None, len(piece) > size
        return piece[:size]

    def close(self) -> None:
        self.closed = True

    def wait(self, seconds: float, *, read: bool, write: bool) -> bool:
        """As select: time passes until there is something, or until *seconds* have."""
        assert seconds > 0
        self._next()
        if write and not self.deaf:
            return True
        if read and self._piece is not None:
            pause = 0 if self._ready else self._inbox[0][0] if self._inbox else 0
            if self._ready or pause <= seconds:
                self.room.clock.advance(dt.timedelta(seconds=pause))
                self._ready = True
                return True
        self.room.clock.advance(dt.timedelta(seconds=seconds))
        return False

    # --- as the server sees it ---

    def hear(self, data: bytes) -> None:
        raise NotImplementedError

    def say(self, pieces: Iterable[bytes], pause: float = 0) -> None:
        self._inbox.append((pause, iter(pieces)))

    def _at_end(self, mark: bytes) -> bool:
        return self._next() == mark

    def _next(self) -> bytes | None:
        while self._piece is None and self._inbox:
            pause, pieces = self._inbox[0]
            self._piece = next(pieces, None)
            if self._piece is None:
                self._inbox.popleft()
            else:
                self._ready = pause == 0
        return self._piece


class Server(Peer):
    """Takes every message; at *step* of the sender ``event@…`` (or of anybody) *event* happens, once."""

    def __init__(self, room: Room, step: str, event: Event | None, *, pipelining: bool) -> None:
        super().__init__(room)
        self._step, self._event = step, event
        self._offers = b"250-mx\r\n250 PIPELINING\r\n" if pipelining else b"250-mx\r\n250 SIZE\r\n"
        self._buffer = b""
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._in_content = self._ended = False
        self.answer("greeting", b"220 mx\r\n")

    @property
    def event(self) -> Event | None:
        """What is still to happen."""
        return self._event

    def answer(self, step: str, usual: bytes) -> bool:
        """Say what is to be said; is it taken?"""
        concerned = step in ("greeting", "ehlo", "rset", "quit") or self._sender == "event@example.org"
        if self._event is None or step != self._step or not concerned:
            if usual:
                self.say([usual])
            return True
        event, self._event = self._event, None
        self.say(event.says, event.pause)
        self.deaf = event.deaf
        return event.accepts

    def hear(self, data: bytes) -> None:
        self._buffer += data
        while not self.deaf and (self._content() if self._in_content else self._line()):
            pass

    def _line(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return False
        self._buffer = rest
        self.room.heard.append(line.decode())
        verb = line[:4].upper()
        said = line.partition(b"<")[2].partition(b">")[0].decode()
        match verb:
            case b"EHLO":
                self.answer("ehlo", self._offers)
            case b"MAIL":
                self._sender, self._recipients = said, []
                if not self.answer("mail", b"250 sender ok\r\n"):
                    self._sender = None
            case b"RCPT":
                self._rcpt(said)
            case b"DATA" if self._recipients:
                self._in_content = self.answer("data", b"354 go on\r\n")
            case b"DATA":
                self.say([b"554 no valid recipients\r\n"])
            case b"RSET":
                self._sender, self._recipients = None, []
                self.answer("rset", b"250 ok\r\n")
            case b"QUIT":
                self.answer("quit", b"221 bye\r\n")
            case _:
                self.say([b"250 ok\r\n"])
        return True

    def _rcpt(self, said: str) -> None:
        if self._sender is None:
            self.say([b"503 MAIL first\r\n"])
        elif said.startswith("no"):
            self.say([b"550 5.1.1 no such user\r\n"])
        elif self.answer(f"rcpt {said[0]}", b"250 recipient ok\r\n"):
            self._recipients.append(said)

    def _content(self) -> bool:
        if self._buffer and self._step == "content":
            self.answer("content", b"")
        content, found, rest = self._buffer.partition(b"\r\n.\r\n")
        if not found:
            return False
        self._buffer, self._in_content = rest, False
        self.room.messages.append((self._sender or "", tuple(self._recipients), content))
        self.answer("dot", b"250 taken\r\n")
        self._sender, self._recipients = None, []
        return True


def staged(
    monkeypatch: pytest.MonkeyPatch, room: Room, peers: Iterator[Peer], **settings: Any
) -> SMTPTransport:
    """A transport that is led to these *peers*, one connection after the other."""

    def dial(*_: object) -> Peer:
        peer = next(peers)
        room.connections.append(peer)
        return peer

    def ready(peer: Peer, seconds: float, *, read: bool = False, write: bool = False) -> bool:
        return peer.wait(seconds, read=read, write=write)

    monkeypatch.setattr(connecting, "dial", dial)
    monkeypatch.setattr(wire, "ready", ready)
    second = dt.timedelta(seconds=10)
    timeouts = Timeouts(**{name: second for name in attrs.fields_dict(Timeouts) if name != "quit"})
    return SMTPTransport("127.0.0.1", 25, clock=room.clock, timeouts=timeouts, **settings)


def ever(piece: bytes) -> Iterator[bytes]:
    """It, without end."""
    return itertools.repeat(piece)

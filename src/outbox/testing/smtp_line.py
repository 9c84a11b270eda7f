"""One connection of an SMTP sink: lines in, answers out, TLS in between, and every way of hanging up."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
from typing import Final

from .smtp_ledger import Ledger
from .smtp_script import Answer, TLSFacts

__all__ = ["HangUp", "Line"]

_LONGEST_COMMAND: Final = 12 << 10
"""RFC 4954 section 4 lets an AUTH command have so many bytes."""
_RECEIVE: Final = 64 << 10
_RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""Linger for no time at all: what is closed so is reset."""


class HangUp(Exception):
    """This conversation is over."""


class Line:
    """Speaks and hears; knows nothing of SMTP but where a line ends."""

    def __init__(self, ledger: Ledger, connected: socket.socket) -> None:
        self.buffer = bytearray()
        self.tls: TLSFacts | None = None
        self._ledger = ledger
        self._socket = connected
        self._mute = False

    def close(self) -> None:
        self._socket.close()

    def interrupt(self) -> None:
        """End it from another thread."""
        with contextlib.suppress(OSError):
            # Not SSLSocket's own, which would take the state away that the other thread is using.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on under TLS.  What had come before in clear is dropped, as RFC 3207 section 4.2 demands."""
        self.buffer.clear()
        secured = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = secured
        secured.do_handshake()
        cipher = secured.cipher()
        self.tls = TLSFacts(
            version=secured.version() or "",
            cipher=cipher[0] if cipher else "",
            certificate=secured.getpeercert(binary_form=True),
        )

    def fill(self) -> None:
        """Hear more.

        Raises:
            HangUp: there is no more.
        """
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise HangUp
        self.buffer += data

    def hear(self) -> bytes:
        """The next line, with its end.

        Raises:
            HangUp: there is none, or it has no end.
        """
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > _LONGEST_COMMAND:
                raise HangUp("a command without an end")
            self.fill()
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        return line

    def utter(self, answer: Answer) -> None:
        """Say it as it is to be said.

        Raises:
            HangUp: so it was to end, or the sink was stopped meanwhile.
        """
        if self._ledger.pause(answer.after):
            raise HangUp
        if answer.silent:
            self._ledger.pause(None)
            raise HangUp
        self._send(answer)
        if answer.close == "half":
            self._mute = True
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
        elif answer.close:
            self._hang_up(reset=answer.close == "reset")

    def _send(self, answer: Answer) -> None:
        if self._mute:
            return
        for piece in answer.pieces:
            self._socket.sendall(piece)
            if self._ledger.stopping.is_set() or (answer.drip and self._ledger.pause(answer.drip)):
                raise HangUp

    def _hang_up(self, *, reset: bool) -> None:
        if reset and self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise HangUp

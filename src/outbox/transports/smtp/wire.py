"""The bytes of one connection: blocking sockets, each wait bounded by a deadline, every failure a ``Lost``."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Final

from outbox.clock import Clock

from .dial import Deadline, words
from .reply import BadReply, Reply, ReplyReader
from .steps import Lost, Step, Timeouts

__all__ = ["Wire"]

_RECEIVE: Final = 16 << 10
_PATIENCE: Final = 0.5
"""Seconds for what a server may have said before it stopped listening: it is there, or it is not."""


class Wire:
    """Writes commands and reads replies, and knows how many replies are still due."""

    def __init__(self, connected: socket.socket, timeouts: Timeouts, clock: Clock) -> None:
        self._socket = connected
        self._timeouts = timeouts
        self._clock = clock
        self._reader = ReplyReader()
        # Whoever connects is greeted.
        self._due = 1

    def write(self, step: Step, blocks: Iterable[bytes | memoryview], *, replies: int = 1) -> None:
        """Send *blocks*, each within the step's time, for which so many *replies* will then be due.

        None is sent once the server has said something that nobody asked for.
        """
        sent = 0
        for block in blocks:
            self._expect_silence(step, sent)
            deadline = self._deadline(step)
            rest = memoryview(block)
            while rest:
                taken = self._send(step, rest, deadline, sent)
                sent += taken
                rest = rest[taken:]
        self._due += replies

    def farewell(self, data: bytes) -> None:
        """Send *data* if that takes no time at all; nothing depends on it."""
        try:
            self._socket.settimeout(0)
            self._socket.send(data)
        except OSError:
            pass

    def read(self, step: Step, deadline: Deadline | None = None) -> Reply:
        """The next reply, whole, within the step's time or until *deadline*."""
        deadline = deadline or self._deadline(step)
        try:
            reply = self._reply(deadline)
        except TimeoutError as error:
            raise Lost(step, f"no whole reply within {deadline.seconds:g} s") from error
        except OSError as error:
            raise Lost(step, words(error)) from error
        except BadReply as error:
            raise Lost(step, f"the server sent {error}", said=error.said, astray=True) from error
        self._due -= 1
        if not step.allows(reply):
            raise Lost(step, f"the server answered {reply}, which is no answer to it", astray=True)
        return reply

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Go on under TLS.

        Raises:
            ssl.SSLError: one side does not like the other.
            Lost: the connection went, or had bytes waiting that would then be taken for secured ones.
        """
        self._expect_silence(Step.TLS, 0)
        try:
            # The ssl module measures the whole handshake by it, however its bytes may drip.
            self._socket.settimeout(self._timeouts.seconds(Step.TLS))
            self._socket = context.wrap_socket(
                self._socket, server_hostname=host, do_handshake_on_connect=False
            )
            self._socket.do_handshake()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise Lost(Step.TLS, "the server closed it") from error
        except ssl.SSLError:
            raise
        except OSError as error:
            raise Lost(Step.TLS, words(error)) from error

    def close(self) -> None:
        # Only this process's handle: a shutdown would end the connection of a parent that forked us.
        self._socket.close()

    def _deadline(self, step: Step) -> Deadline:
        return Deadline(self._clock, self._timeouts.seconds(step))

    def _send(self, step: Step, data: memoryview, deadline: Deadline, sent: int) -> int:
        try:
            self._socket.settimeout(deadline.left())
            return self._socket.send(data)
        except OSError as error:
            raise Lost(step, _sending(error), sent=sent, reply=self._last_words()) from error

    def _reply(self, deadline: Deadline) -> Reply:
        while (reply := self._reader.take()) is None:
            self._socket.settimeout(deadline.left())
            data = self._socket.recv(_RECEIVE)
            if not data:
                cut = " within a reply" if self._reader.pending else ""
                raise ConnectionError(f"the server closed it{cut}")
            self._reader.feed(data)
        return reply

    def _expect_silence(self, step: Step, sent: int) -> None:
        """Nobody has asked for anything: what is waiting now would be taken for the answer to what follows."""
        if self._due:
            return
        if not self._reader.pending:
            try:
                self._socket.settimeout(0)
                data = self._socket.recv(_RECEIVE)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError as error:
                raise Lost(step, words(error), sent=sent) from error
            if not data:
                raise Lost(step, "the server had closed it", sent=sent)
            self._reader.feed(data)
        raise Lost(step, "the server spoke out of turn", sent=sent, reply=self._last_words(), astray=True)

    def _last_words(self) -> Reply | None:
        """What the server had said when it could no longer be written to; None where that is no whole reply."""
        if self._due:
            return None
        try:
            return self._reply(Deadline(self._clock, _PATIENCE))
        except (OSError, BadReply):
            return None


def _sending(error: OSError) -> str:
    return "the server took nothing more" if isinstance(error, TimeoutError) else words(error)

"""The bytes of one connection: a socket, each wait for it bounded by a deadline, every failure a ``Lost``."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from outbox.clock import Clock

from .content import Content
from .dial import Deadline, words
from .reply import BadReply, Reply, ReplyReader
from .secured import Secured
from .steps import Lost, Step, Timeouts
from .waiting import ready

__all__ = ["Wire"]

_RECEIVE: Final = 16 << 10
_RECORD: Final = 16 << 10
"""Octets of a TLS record (RFC 8446 section 5.1).

What is written as several and not taken whole counts as not taken at all,
though a server may have read the first of them, and the dot in it.
"""
_PATIENCE: Final = 0.5
"""Seconds for what a server may have said before it stopped listening: it is there, or it is not."""
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire:
    """Writes commands and reads replies, and knows how many replies are still due.

    The socket never blocks: nothing waits but for a deadline, and whoever
    waits to write hears what the server has to say meanwhile.  Replies are
    shown as *scrub* has them.
    """

    def __init__(
        self,
        connected: socket.socket,
        timeouts: Timeouts,
        clock: Clock,
        scrub: Callable[[str], str] | None = None,
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._timeouts = timeouts
        self._clock = clock
        # Whoever connects by a way of their own may have secured it already.
        self._most: int | None = _RECORD if isinstance(connected, ssl.SSLSocket) else None
        self._reader = ReplyReader(scrub)
        # Whoever connects is greeted.
        self._due = 1

    def write(self, step: Step, data: bytes, *, replies: int = 1) -> None:
        """Send *data*, whole commands, within the step's time; so many *replies* will then be due.

        Nothing is sent once the server has said something that nobody asked for.
        """
        # Behind its first byte nothing is out of turn: the first command may have been read, and answered.
        taken = self._write(step, data, 0, until=1)
        self._due += replies
        if taken < len(data):
            self._write(step, memoryview(data)[taken:], taken)

    def pour(self, content: Content, behind: bytes = b"", *, replies: int = 1) -> int:
        """Send *content* with its final dot as :meth:`write` does, and *behind* it, in the same packet, what follows.

        How many bytes of that went is returned, and nothing is raised where
        it cannot be sent any more: the reply to the content may be there all
        the same.
        """
        sent, pieces = 0, content.blocks()
        last = next(pieces)
        for piece in pieces:
            sent += self._write(Step.CONTENT, last, sent)
            last = piece
        whole = b"".join((last, behind)) if behind else last
        taken = self._write(Step.CONTENT, whole, sent, until=len(last))
        self._due += replies
        if taken < len(whole):
            try:
                self._write(Step.CONTENT, memoryview(whole)[taken:], sent + taken)
            except Lost as lost:
                return lost.sent - sent - len(last)
        return len(behind)

    def farewell(self, data: bytes) -> None:
        """Send *data* if that takes no time at all; nothing depends on it."""
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def read(self, step: Step, deadline: Deadline | None = None) -> Reply:
        """The next reply, whole, within the step's time or until *deadline*."""
        try:
            reply = self._reader.take() or self._reply(deadline or self._deadline(step))
        except TimeoutError as error:
            seconds = deadline.seconds if deadline else self._timeouts.seconds(step)
            raise Lost(step, f"no whole reply within {seconds:g} s", late=True) from error
        except OSError as error:
            raise Lost(step, words(error)) from error
        except BadReply as error:
            raise Lost(step, f"the server sent {error}", said=error.said, astray=True) from error
        self._due -= 1
        if not step.allows(reply):
            reason = f"the server answered {reply}, which is no answer to it"
            raise Lost(step, reason, astray=True, kind=reply.kind)
        return reply

    def known(self, steps: Sequence[Step]) -> Sequence[Reply]:
        """Replies that have come and are nothing new, to the first of *steps*: none closes, each can be meant for its step."""
        replies = self._reader.known(step.replies for step in steps)
        self._due -= len(replies)
        return replies

    def at_hand(self, replies: int) -> bool:
        """Have so many come already, of a line each?"""
        return self._reader.lines >= replies

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
            self._socket.setblocking(False)
            self._most = _RECORD
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise Lost(Step.TLS, "the server closed it") from error
        except ssl.SSLError:
            raise
        except OSError as error:
            raise Lost(Step.TLS, words(error)) from error

    @property
    def secured(self) -> Secured | None:
        """What the handshake came to; None in clear."""
        return Secured.of(self._socket) if isinstance(self._socket, ssl.SSLSocket) else None

    def close(self) -> None:
        # Only this process's handle: a shutdown would end the connection of a parent that forked us.
        self._socket.close()

    def _deadline(self, step: Step) -> Deadline:
        return Deadline(self._clock, self._timeouts.seconds(step))

    def _write(self, step: Step, block: bytes | memoryview, sent: int, *, until: int | None = None) -> int:
        """Send *block*, or *until* so many bytes of it at least, behind the *sent* bytes before it; how many went."""
        self._expect_silence(step, sent)
        taken, enough, deadline = 0, len(block) if until is None else until, None
        while taken < enough:
            try:
                # Mostly it goes at once, and then no piece of it is cut out.
                piece = memoryview(block)[taken:][: self._most] if taken or self._most else block
                taken += self._socket.send(piece)
            except OSError as error:
                deadline = deadline or self._deadline(step)
                self._recover(step, error, deadline, sent + taken)
        return taken

    def _recover(self, step: Step, error: OSError, deadline: Deadline, sent: int) -> None:
        """Wait until there may be more taken of what is being written."""
        try:
            if not isinstance(error, _NOT_NOW):
                raise error
            wants_read = isinstance(error, ssl.SSLWantReadError)
            # A server that refuses what comes may read no more of it, and say so.
            self._wait(deadline, write=not wants_read, read=wants_read or not self._due)
        except OSError as failure:
            late = isinstance(failure, TimeoutError)
            raise Lost(step, _sending(failure), sent=sent, reply=self._last_words(), late=late) from failure
        self._expect_silence(step, sent)

    def _reply(self, deadline: Deadline) -> Reply:
        while True:
            data = self._receive(deadline)
            if not data:
                cut = " within a reply" if self._reader.pending else ""
                raise ConnectionError(f"the server closed it{cut}")
            self._reader.feed(data)
            if (reply := self._reader.take()) is not None:
                return reply

    def _receive(self, deadline: Deadline) -> bytes:
        # It may be there already, and what OpenSSL has taken off the socket would not wake us.
        while True:
            try:
                return self._socket.recv(_RECEIVE)
            except ssl.SSLWantWriteError:
                self._wait(deadline, write=True)
            except _NOT_NOW:
                self._wait(deadline, read=True)

    def _wait(self, deadline: Deadline, *, read: bool = False, write: bool = False) -> None:
        if not ready(self._socket, deadline.left(), read=read, write=write):
            raise TimeoutError

    def _expect_silence(self, step: Step, sent: int) -> None:
        """Nobody has asked for anything: what is waiting now would be taken for the answer to what follows."""
        if self._due:
            return
        if not self._reader.pending:
            try:
                data = self._socket.recv(_RECEIVE)
            except _NOT_NOW:
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
            return self._reader.take() or self._reply(Deadline(self._clock, _PATIENCE))
        except (OSError, BadReply):
            return None


def _sending(error: OSError) -> str:
    return "the server took nothing more" if isinstance(error, TimeoutError) else words(error)

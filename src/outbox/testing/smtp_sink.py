"""A real SMTP receiver for tests and demonstrations: it takes mail, keeps it in memory, and fails when told to."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from outbox.clock import Clock, SystemClock

from .smtp_ledger import Answer, Heard, Hook, Ledger, Received, Step
from .smtp_session import Session, Setup

__all__ = ["Answer", "Heard", "Received", "SMTPSink"]

_ZERO: Final = dt.timedelta(0)
_SOON: Final = dt.timedelta(seconds=10)
_MOMENT: Final = 0.05
_READY: Final = "220 the sink is ready"
_FULL: Final = "421 4.7.0 too many connections"


class SMTPSink:
    """An SMTP server on this machine that takes every message, until it is told otherwise.

    ::

        with SMTPSink() as sink:
            sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no such user")
            sink.on("rcpt", "grey@example.org", reply="450 4.7.1 come back", times=1)
            sink.on("dot", close=True, times=1)  # takes one message and hangs up without a word
            transport = SMTPTransport(sink.host, sink.port)
            ...
            [received] = sink.wait_for(1)

    It listens from the moment it is made, and stops at once when it is closed.

    Args:
        host: Where to listen.
        port: 0 picks a free one.
        tls: With this context every connection is under TLS from its first byte.
        starttls: With this context STARTTLS is offered.
        users: Passwords by user; then AUTH is offered (under TLS only, where
            there is STARTTLS) and mail is taken from nobody else.
        offers: Further keywords of the reply to EHLO.
        max_size: The largest content taken, in bytes.
        max_recipients: How many one transaction takes before it says 452.
        max_connections: How many at a time before one is greeted with 421.
        hook: Asked for its answer to every step that no rule answers; None is the usual one.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        users: Mapping[str, str] | None = None,
        offers: Sequence[str] = ("8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES"),
        max_size: int = 64 << 20,
        max_recipients: int = 1000,
        max_connections: int | None = None,
        hook: Hook | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._setup = Setup(
            offers=tuple(offers),
            tls=tls,
            starttls=starttls,
            users=users,
            max_size=max_size,
            max_recipients=max_recipients,
        )
        self._max_connections = max_connections
        self._ledger = Ledger(hook, clock or SystemClock())
        self._lock = threading.Lock()
        self._connections = 0
        self._sessions: dict[Session, threading.Thread] = {}
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self.host: Final[str] = self._listener.getsockname()[0]
        self.port: Final[int] = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="smtp-sink", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SMTPSink {self.url}, {len(self._ledger.messages)} messages>"

    @property
    def url(self) -> str:
        """``smtp://host:port``, or ``smtps://`` under TLS from the first byte."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'smtps' if self._setup.tls else 'smtp'}://{host}:{self.port}"

    @property
    def messages(self) -> tuple[Received, ...]:
        """Those taken so far, in the order of their final dots.

        One that was neither answered nor refused is among them: its sender
        cannot know.
        """
        return tuple(self._ledger.messages)

    @property
    def commands(self) -> tuple[str, ...]:
        """Every command line heard so far, of all connections; of AUTH only the mechanism."""
        return tuple(self._ledger.commands)

    @property
    def violations(self) -> tuple[str, ...]:
        """What clients did against the rules of SMTP; a good one leaves this empty."""
        return tuple(self._ledger.violations)

    @property
    def connections(self) -> int:
        """How many have been made so far."""
        return self._connections

    def on(
        self,
        step: Step,
        address: str | None = None,
        *,
        reply: str | bytes | None = None,
        close: bool = False,
        after: dt.timedelta = _ZERO,
        drip: dt.timedelta = _ZERO,
        times: int | None = None,
    ) -> None:
        """Answer *step* so from now on, or the first *times* it comes.

        Where several rules fit, the first that is not used up answers.

        Args:
            address: Only for this sender or recipient: see :class:`Heard`.
            reply: Such as ``"550 5.1.1 no such user"``; bytes go out as they
                are, whole or not; None is silence, or with *close* nothing.
            close: Hang up then.
            after: Wait so long before.
            drip: Send it byte by byte, so far apart.
        """
        self._ledger.rule(step, address, Answer(reply, close=close, after=after, drip=drip), times)

    def wait_for(self, number: int, *, timeout: dt.timedelta = _SOON) -> tuple[Received, ...]:
        """Wait until *number* messages were taken, and return all of them.

        Raises:
            TimeoutError: they were not, in that time.
        """
        return self._ledger.wait_for(number, timeout)

    def close(self) -> None:
        """Hang up everywhere and listen no more; closing twice is harmless."""
        if self._ledger.stopping.is_set():
            return
        self._ledger.stopping.set()
        # Closing a socket wakes nobody who waits for it on every system; a caller does.
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.port)).close()
        self._thread.join()
        self._listener.close()
        with self._lock:
            sessions = dict(self._sessions)
        for session, thread in sessions.items():
            # Again and again, for it may be changing to TLS and let go of the socket that was interrupted.
            while thread.is_alive():
                session.interrupt()
                thread.join(_MOMENT)

    def _listen(self) -> None:
        while True:
            connected, _ = self._listener.accept()
            if self._ledger.stopping.is_set():
                connected.close()
                return
            self._serve(connected)

    def _serve(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections += 1
        session = Session(self._ledger, self._setup, connected, self._connections)
        thread = threading.Thread(target=self._converse, args=(session,), name="smtp-session", daemon=True)
        with self._lock:
            self._sessions[session] = thread
        thread.start()

    def _converse(self, session: Session) -> None:
        with self._lock:
            full = self._max_connections is not None and len(self._sessions) > self._max_connections
        try:
            session.run(_FULL if full else _READY)
        finally:
            with self._lock:
                del self._sessions[session]

"""A real SMTP and LMTP receiver for tests and demonstrations: it takes mail, keeps it in memory, and fails when told to."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import quote

from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, UnsupportedError

from .smtp_auth import MECHANISMS
from .smtp_content import Manners
from .smtp_ledger import Ledger, Login, Received
from .smtp_script import SOON, ZERO, Answer, Close, Gate, Heard, Hook, Reply, Script, Step, TLSFacts, Whom
from .smtp_session import Session, Setup

__all__ = ["Answer", "Gate", "Heard", "Login", "Received", "SMTPSink", "TLSFacts"]

_MOMENT: Final = 0.05
_READY: Final = "220 the sink is ready"
_FULL: Final = "421 4.7.0 too many connections"
_OFFERS: Final = ("8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN", "SIZE")


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

    It listens from the moment it is made: a port of its own choice is nobody
    else's before its number is known.  Each connection has a thread.  Closed,
    it hangs up everywhere, whatever it was about to do, and its threads have
    ended when :meth:`close` returns; they are daemons besides.

    It needs nothing but the standard library.  What it keeps is bounded: no
    content beyond *max_size* is held, messages of *room* bytes in all (then it
    says 452 4.3.1), the last 100,000 commands, 10,000 logins and 1,000
    violations, and *max_connections* threads.

    A step that no rule and no hook answers is answered as RFC 5321 (or 2033)
    has it.  It judges the client's manners by *manners*:

    - ``"noted"``: what breaks a rule is written to :attr:`violations` and let
      pass wherever a server can go on;
    - ``"strict"``: it is refused as well.  A command that ends in a bare LF, is
      too long, comes before the answer it has to wait for, or has a
      parameter that was not offered; a path of more than 256 bytes; content
      with a bare CR or LF, a NUL, a line of more than 998 bytes, or 8-bit
      bytes or header fields that were not declared;
    - ``"lenient"``: as noted, and a bare LF or CR is a line end, around the
      final dot too, as in the servers that messages are smuggled into.

    Args:
        host: Where to listen.
        port: 0 picks a free one.
        path: Listen on a Unix socket here instead; it is removed at the end.
        protocol: ``"lmtp"`` is greeted by LHLO, and answers the final dot for
            each recipient (step ``"dot"``, with the recipient as address).
        tls: With this context every connection is under TLS from its first byte.
        starttls: With this context STARTTLS is offered.
        users: Passwords (or tokens) by user; then AUTH is offered (under TLS
            only, where there is STARTTLS) and mail is taken from nobody else.
        mechanisms: Of PLAIN, LOGIN, OAUTHBEARER, XOAUTH2.
        offers: Further lines of the reply to EHLO, such as ``"LIMITS RCPTMAX=50"``
            or ``"DSN"``; ``"SIZE"`` alone is completed by *max_size*.
            There is no CHUNKING: BDAT is no command here.
        max_size: The largest content taken, in bytes.
        max_recipients: How many one transaction takes before it says 452.
        max_connections: How many at a time before one is greeted with 421.
        room: How many bytes of messages are kept in all.
        manners: See above.
        hook: Asked for its answer to every step that no rule answers; None is
            the usual one.  It is called in the connection's own thread; what it
            raises ends that connection, and is raised by :meth:`close` (or at
            the end of the ``with`` block).

    Raises:
        ConfigurationError: the settings contradict each other.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | os.PathLike[str] | None = None,
        protocol: Literal["smtp", "lmtp"] = "smtp",
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        users: Mapping[str, str] | None = None,
        mechanisms: Sequence[str] = ("PLAIN", "LOGIN"),
        offers: Sequence[str] = _OFFERS,
        max_size: int = 64 << 20,
        max_recipients: int = 1000,
        max_connections: int = 1000,
        room: int = 512 << 20,
        manners: Manners = "noted",
        hook: Hook | None = None,
        clock: Clock | None = None,
    ) -> None:
        _check(protocol, manners, mechanisms, offers)
        for name, context in (("tls", tls), ("starttls", starttls)):
            if not isinstance(context, ssl.SSLContext | None):
                raise ConfigurationError(
                    f"{name} of an SMTPSink is an ssl.SSLContext with a certificate "
                    f"(SSLContext(PROTOCOL_TLS_SERVER), load_cert_chain), not {context!r}"
                )
        self._setup = Setup(
            protocol=protocol,
            offers=tuple(offers),
            tls=tls,
            starttls=starttls,
            users=users,
            mechanisms=tuple(mechanisms),
            max_size=max_size,
            max_recipients=max_recipients,
            manners=manners,
        )
        self._max_connections = max_connections
        self._ledger = Ledger(clock or SystemClock(), room)
        self._script = Script(hook, _missing(self._setup))
        self._lock = threading.Lock()
        self._connections = 0
        self._sessions: dict[Session, threading.Thread] = {}
        self.path: Final = None if path is None else os.fspath(path)
        self._listener = _listener(host, port, self.path)
        self.host: Final[str] = "" if self.path else self._listener.getsockname()[0]
        self.port: Final[int] = 0 if self.path else self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="smtp-sink", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = self._end()
        if failure is not None and error is None:
            raise failure
        if failure is not None and error is not None:
            error.add_note(f"before that a hook of {self!r} had raised {failure!r}")

    def __repr__(self) -> str:
        return f"<SMTPSink {self.path or self.url}, {len(self.messages)} messages>"

    @property
    def url(self) -> str:
        """``smtp://host:port``, ``smtps://`` under TLS from the first byte, ``lmtp://``, ``lmtp+unix:///path``."""
        if self.path:
            return f"{self._setup.protocol}+unix://{quote(os.path.abspath(self.path))}"  # noqa: PTH100 - it need not exist
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._setup.protocol}{'s' if self._setup.tls else ''}://{host}:{self.port}"

    @property
    def messages(self) -> tuple[Received, ...]:
        """Those taken so far, in the order of their final dots.

        One that was neither answered nor refused is among them: its sender
        cannot know.  Over LMTP only those recipients are named that were not
        refused.
        """
        return self._ledger.messages

    @property
    def commands(self) -> tuple[str, ...]:
        """Every command line heard so far, of all connections; of AUTH only the mechanism."""
        return self._ledger.commands

    @property
    def logins(self) -> tuple[Login, ...]:
        """Every AUTH command that came to its end, right or wrong, without its secret."""
        return self._ledger.logins

    @property
    def violations(self) -> tuple[str, ...]:
        """What clients did against the rules of SMTP; a good one leaves this empty."""
        return self._ledger.violations

    @property
    def connections(self) -> int:
        """How many have been made so far."""
        return self._connections

    def on(
        self,
        step: Step,
        address: Whom = None,
        *,
        reply: Reply = None,
        close: Close = False,
        after: dt.timedelta = ZERO,
        drip: dt.timedelta = ZERO,
        cut: int | None = None,
        at: int = 1,
        connection: int | None = None,
        skip: int = 0,
        times: int | None = None,
    ) -> None:
        """Answer *step* so from now on, or the first *times* it comes.

        Where several rules fit, the first that is not used up answers.

        Args:
            address: Only for this sender or recipient, or those for whom a
                function says so: see :class:`Heard`.  The recipient at
                ``rcpt``, and at ``dot`` over LMTP; the sender elsewhere, at
                ``dot`` over SMTP too, where one answer is for all recipients.
                Its domain is the same in either case.
            reply: Such as ``"550 5.1.1 no such user"``, of several lines
                ``"550-5.1.1 no\\n550 5.1.1 such user"``; bytes go out as they
                are, whole or not, and an iterable of bytes piece by piece, such
                as ``itertools.repeat(b"250-more\\r\\n")``; None is silence, or
                with *close* nothing.
            close: Hang up then; ``"half"`` only stops to speak, ``"reset"``
                breaks the connection.
            after: Wait so long before; :meth:`hold` waits for an event instead.
            drip: Send it byte by byte, so far apart.
            cut: Send only so many of its bytes; -1 is all but the last.
            at: Of step ``"content"``: when so many of its bytes have come.
            connection: Only over the connection of this number, from 1.
            skip: Let the step pass so many times before.

        Raises:
            ConfigurationError: such a rule could never come about: the step is
                none, or not of this server, the text no reply, a number out of
                its range.
        """
        answer = Answer(reply, close=close, after=after, drip=drip, cut=cut, at=at)
        self._script.add(answer, step, address, connection=connection, skip=skip, times=times)

    def hold(
        self, step: Step, address: Whom = None, *, connection: int | None = None, times: int | None = None
    ) -> Gate:
        """Let whoever comes to *step* wait for its answer until the gate is opened.

        At ``"dot"`` the message is taken by then: the moment in which a sender
        cannot know.  ::

            with sink.hold("dot") as gate:
                sending.start()
                gate.wait_for(1)
                ...  # it has been handed over, and not been answered
        """
        gate = Gate()
        self._script.add(gate, step, address, connection=connection, times=times)
        return gate

    def behave(self) -> None:
        """Forget all that :meth:`on` said, and open every gate; who is being left in silence stays so."""
        self._script.forget()

    def clear(self) -> None:
        """Forget what has been received and noted so far; connections stay."""
        self._ledger.clear()

    def wait_for(self, number: int, *, timeout: dt.timedelta = SOON) -> tuple[Received, ...]:
        """Wait until *number* messages were taken, and return all of them.

        Raises:
            TimeoutError: they were not, in that time.
        """
        return self._ledger.wait_for(number, timeout)

    def close(self) -> None:
        """Hang up everywhere and listen no more; closing twice is harmless.

        What a hook raised is raised here, once.
        """
        failure = self._end()
        if failure is not None:
            raise failure

    def _end(self) -> BaseException | None:
        """Stop, and tell what a hook raised."""
        self._stop()
        failure, self._script.failure = self._script.failure, None
        return failure

    def _stop(self) -> None:
        with self._lock:
            if self._ledger.stopping.is_set():
                return
            self._ledger.stopping.set()
        self._script.stop()
        self._knock()
        self._thread.join()
        self._listener.close()
        if self.path:
            Path(self.path).unlink(missing_ok=True)
        with self._lock:
            sessions = dict(self._sessions)
        for session, thread in sessions.items():
            # Again and again, for it may be changing to TLS and let go of the socket that was interrupted.
            while thread.is_alive():
                session.interrupt()
                thread.join(_MOMENT)

    def _knock(self) -> None:
        # Closing a socket wakes nobody who waits for it on every system; a caller does.
        with contextlib.suppress(OSError), socket.socket(self._listener.family) as caller:
            caller.connect(self._listener.getsockname())

    def _listen(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                # That caller had gone again, or there are no file descriptors left for this one.
                if self._ledger.pause(dt.timedelta(seconds=_MOMENT)):
                    return
                continue
            if self._ledger.stopping.is_set():
                connected.close()
                return
            self._serve(connected)

    def _serve(self, connected: socket.socket) -> None:
        if not self.path:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections += 1
        session = Session(self._ledger, self._script, self._setup, connected, self._connections)
        thread = threading.Thread(target=self._converse, args=(session,), name="smtp-session", daemon=True)
        with self._lock:
            self._sessions[session] = thread
        thread.start()

    def _converse(self, session: Session) -> None:
        with self._lock:
            full = len(self._sessions) > self._max_connections
        try:
            session.run(_FULL if full else _READY)
        finally:
            with self._lock:
                del self._sessions[session]


def _check(protocol: str, manners: str, mechanisms: Sequence[str], offers: Sequence[str]) -> None:
    for name, given in (("mechanisms", mechanisms), ("offers", offers)):
        if isinstance(given, str):
            raise ConfigurationError(f"{name} of an SMTPSink is a list, such as [{given!r}], not text")
    for name, said, known in (
        ("protocol", protocol, ("smtp", "lmtp")),
        ("manners", manners, ("noted", "strict", "lenient")),
        *(("mechanism", mechanism, tuple(MECHANISMS)) for mechanism in mechanisms),
    ):
        if said not in known:
            raise ConfigurationError(f"{name} {said!r} of an SMTPSink is none of {', '.join(known)}")


def _missing(setup: Setup) -> Mapping[str, str]:
    """The steps that nobody comes to, each with the reason."""
    greetings = {step: f"it speaks {setup.protocol.upper()}" for step in ("ehlo", "helo", "lhlo")}
    missing = {step: why for step, why in greetings.items() if step not in setup.hello}
    if setup.starttls is None:
        missing["starttls"] = "it has no starttls=, and does not offer it"
    if setup.users is None:
        missing["auth"] = "it has no users=, and does not offer it"
    return missing


def _listener(host: str, port: int, path: str | None) -> socket.socket:
    if path is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    unix = getattr(socket, "AF_UNIX", None)
    if unix is None:
        raise UnsupportedError("this system has no Unix sockets: leave `path` out")
    listener = socket.socket(unix)
    try:
        listener.bind(path)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener

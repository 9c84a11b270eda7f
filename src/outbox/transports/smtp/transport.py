"""SMTPTransport: hands messages to one relay over connections that it keeps for the next message."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import ssl
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import get_args

from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, RelayFault
from outbox.message import Message
from outbox.outcome import Outcome
from outbox.protocols import Delivery

from .auth import TokenSource, credentials
from .batch import Courier
from .commands import Terms
from .connecting import connect as connected
from .connection import Connection, drop, part
from .dial import Connect
from .dsn import DSN
from .looking import presented
from .opening import Protocol
from .parcel import Parcel
from .pool import Limits, Pool
from .secured import Secured
from .server import Security, Server
from .settings import check_types
from .steps import Timeouts
from .tls import File, Trust
from .transcript import LOG, Kept, Recorder, Transcript

__all__ = ["SMTPTransport"]


class SMTPTransport:
    """Delivers mail to one relay (a smarthost, a provider, the MTA of this machine) over SMTP or LMTP.

    Without credentials and on this machine mail goes in clear; everywhere
    else nothing goes without TLS and a certificate that holds, unless you say
    otherwise.  Where it is:

    Args:
        host: Its name or address; ``localhost`` unless said.
        port: Unless said, 465 with credentials or ``security="tls"``, 587
            with ``"starttls"``, else 25; 24 for LMTP.
        path: Instead of both, the Unix socket where it listens on this
            machine.  There is no TLS there, and there are no credentials.
        protocol: ``"lmtp"`` for a server that delivers into mailboxes
            (RFC 2033); its port is never 25.
        connect: Called as :func:`socket.create_connection` is, with
            ``(host, port)`` and *timeouts.connect* in seconds, and returns a
            connected socket, for example through a proxy.  A
            :class:`RelayFault` or a :class:`ConfigurationError` that it
            raises is told as it is; any other exception is a relay that is
            unavailable, and of it only the type and the system's error are.
        source_address: The local address to connect from.
        local_hostname: What we call ourselves in EHLO; unless said, the
            address of our end of the connection.

    How it is secured, and who we are:

    Args:
        security: ``"tls"`` is TLS from the first byte.  ``"starttls"``
            demands STARTTLS.  Both demand a certificate that is valid for
            *host*.  ``"opportunistic"`` uses STARTTLS where it is offered and
            asks for no certificate: better than nothing against those who
            only listen, and refused with credentials.  ``"none"`` sends in
            clear, for networks you trust; refused with credentials.
            ``"auto"`` is ``"tls"`` on port 465, ``"none"`` where the
            connection leads to this machine and there are no credentials,
            and ``"starttls"`` everywhere else, also where *connect* leads.
        username: With *password*, authenticates by PLAIN or else LOGIN; with
            *token*, by OAUTHBEARER or else XOAUTH2.  Under TLS only, and by
            one mechanism: what was refused is not tried by another.
        token: Called for each connection, in the thread that opens it, and
            returns an access token.  A :class:`RelayFault` or a
            :class:`ConfigurationError` that it raises is told as it is; of
            any other exception only the type.
        ca_file: Trust the authorities of this PEM file, and no others.
        client_cert: Show this certificate (PEM, with its chain) to a server
            that asks for one; read once.  *client_key* is its key, where that
            is in another file, without a passphrase.
        ssl_context: Instead of :func:`ssl.create_default_context` and the
            three files above.  With credentials it has to demand a
            certificate, and compare its name.

    How long things take, and are kept:

    Args:
        timeout: Bounds each of *timeouts*.
        timeouts: How long each kind of reply may take, as a whole.  Looking
            up a host's name takes as long as the system lets it.
        pipelining: Send commands without waiting for each reply where the
            server offers that; ``False`` for one that offers what it, or
            something on the way to it, cannot do.
        dsn: The notifications to ask for, of a server that offers them.
        max_messages: How many a connection carries before it is replaced.
        max_age: How long a connection is used.
        idle: How long a connection is kept without being used.
        dialogue: ``"failed"`` keeps what was said at an attempt that did not
            deliver to everybody, in its :class:`~outbox.Outcome` and so in
            the record, where ``outbox show`` shows it: escaped, without
            content and secrets, 16 KiB at most.  ``"never"`` keeps none.

    The logger ``outbox.transports.smtp`` is told every line of every dialogue
    at DEBUG, also without the secrets.

    Safe from many threads: each ``deliver`` and ``deliver_many`` has a
    connection to itself.  A forked child opens its own.

    Raises:
        ConfigurationError: a setting cannot be used; the text names it.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        path: File | None = None,
        protocol: Protocol = "smtp",
        connect: Connect | None = None,
        source_address: str | None = None,
        local_hostname: str | None = None,
        security: Security = "auto",
        username: str | None = None,
        password: str | None = None,
        token: TokenSource | None = None,
        ca_file: File | None = None,
        client_cert: File | None = None,
        client_key: File | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout: dt.timedelta | None = None,
        timeouts: Timeouts | None = None,
        pipelining: bool = True,
        dsn: DSN | None = None,
        max_messages: int = 1000,
        max_age: dt.timedelta = dt.timedelta(seconds=300),
        idle: dt.timedelta = dt.timedelta(seconds=30),
        dialogue: Kept = "failed",
        clock: Clock | None = None,
    ) -> None:
        check_types(host=host, port=port, path=path, source_address=source_address)
        check_types(local_hostname=local_hostname, username=username, password=password)
        check_types(ssl_context=ssl_context, ca_file=ca_file, client_cert=client_cert, client_key=client_key)
        check_types(timeout=timeout, timeouts=timeouts, pipelining=pipelining, dsn=dsn)
        check_types(max_messages=max_messages, max_age=max_age, idle=idle)
        self._clock = clock or SystemClock()
        self._server = Server(
            host=host,
            port=port,
            path=path,
            protocol=protocol,
            connect=connect,
            source_address=source_address,
            local_hostname=local_hostname,
            security=security,
            credentials=credentials(username, password, token),
            trust=Trust.of(
                ssl_context,
                ca_file=ca_file,
                client_cert=client_cert,
                client_key=client_key,
                verify=security != "opportunistic",
            ),
            timeouts=(timeouts or Timeouts()).bounded(timeout),
        )
        self._terms = Terms(relay=self._server.relay, pipelining=pipelining, lmtp=protocol == "lmtp", dsn=dsn)
        limits = Limits(max_messages=max_messages, max_age=max_age, idle=idle)
        self._pool: Pool[Connection] = Pool(limits, self._clock)
        if dialogue not in get_args(Kept):
            raise ConfigurationError(f"dialogue {dialogue!r} is none of {', '.join(get_args(Kept))}")
        self._kept = dialogue

    def __repr__(self) -> str:
        server = self._server
        where = f"path={server.path!r}" if server.path is not None else f"{server.host!r}, {server.port}"
        protocol = ", protocol='lmtp'" if server.protocol == "lmtp" else ""
        user = f", username={server.credentials.username!r}" if server.credentials else ""
        return f"SMTPTransport({where}{protocol}, security={server.security!r}{user})"

    @property
    def name(self) -> str:
        """What outcomes, and a suspension of the relay, call it: ``host:port``, or the path of the socket."""
        return self._server.relay

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        """Hand *message* over for *recipients* and report one result for each of them.

        It goes in transactions of a hundred recipients, or of as many as the
        server takes.  Where the connection is lost at one recipient, the
        others are named over another one.  A content that is malformed, or
        an envelope that no dialogue can name, is a permanent failure and is
        not sent.  Where anything fails that is none of the relay's when
        somebody's result is known, it is logged, and those without one have
        failed for now.

        Raises:
            RelayUnavailable: no connection, no greeting, or closed before a transaction began.
            RelayMisconfigured: TLS, credentials or our right to use this relay at all.
        """
        courier, parcel = self._courier(iter(())), Parcel(message, recipients)
        try:
            courier.carry(parcel)
        finally:
            courier.rest()
        if isinstance(parcel.error, Exception) and parcel.known:
            # Raised, it would be a failure of all of them, and who took it would be sent a copy.
            _log(parcel.error, message)
            parcel.give_up(parcel.error)
        elif parcel.error is not None:
            raise parcel.error
        return parcel.outcome(self._terms.relay)

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        """Deliver what is pulled from *deliveries* over one connection, yielding the outcomes in the order pulled.

        Each goes as :meth:`deliver` has it.  Where the server offers
        PIPELINING, the envelope of the next is sent with the content of the
        one before: then one delivery is pulled ahead, before that content is
        sent, and none further.  Its own content is sent when the outcome of
        the one before was yielded and the next is asked for.

        The connection is changed in the middle where it was lost or has
        carried enough.  Abandoned, the generator closes it.

        An interrupt (:class:`KeyboardInterrupt`) is raised when the outcome
        of what was handed over has been yielded, and so is a second one that
        comes while the first is being dealt with.  A third may lose it.

        Raises:
            RelayFault: as :meth:`deliver` does; what was pulled and not yielded is untried.
        """
        courier, parcel = self._courier(iter(deliveries)), None
        try:
            while (parcel := courier.next()) is not None:
                courier.carry(parcel)
                yield from _told(parcel, self._terms.relay)
        except RelayFault:
            courier.rest()
            raise
        except BaseException as error:
            try:
                courier.abandon()
            finally:
                if parcel is not None and not parcel.told:
                    parcel.error = parcel.error or error
                    yield from _told(parcel, self._terms.relay)
            raise
        courier.rest()

    def presented(self) -> Secured | None:
        """The certificate that the server shows now, whether it holds or not; None where it shows none.

        For a person who wants to know why it does not: nothing of it can be
        relied on.  It takes two connections, over which neither credentials
        nor mail are sent, and some ten seconds for each reply at most.
        """
        return presented(self._server, self._clock)

    def expire(self) -> None:
        """Leave the connections that have idled or lived too long; takes *timeouts.quit* at most."""
        part(self._pool.expired(), self._server.timeouts, self._clock)

    def close(self) -> None:
        """Leave all connections at rest; those in use are left when their message is done."""
        part(self._pool.close(), self._server.timeouts, self._clock)

    def _courier(self, deliveries: Iterator[Delivery]) -> Courier:
        return Courier(
            self._terms,
            take=self._take,
            connect=self._connect,
            spent=self._pool.spent,
            put_back=self._put_back,
            recorder=self._recorder,
            deliveries=deliveries,
        )

    def _recorder(self) -> Recorder:
        live, kept = LOG.isEnabledFor(logging.DEBUG), self._kept == "failed"
        return Transcript(self._clock, live=live, kept=kept) if live or kept else Recorder()

    def _take(self, recorder: Recorder) -> Connection:
        connection = self._pool.take()
        if connection is None:
            return self._connect(recorder)
        age = self._clock.monotonic() - connection.opened_at
        recorder.noted(
            f"over a connection to {self._terms.relay} made {age:.0f} s ago; transactions before: {connection.messages}"
        )
        connection.record(recorder)
        return connection

    def _connect(self, recorder: Recorder) -> Connection:
        # Where no keeper comes, what has idled too long must not pile up either.
        for connection in self._pool.expired():
            drop(connection)
        return connected(self._server, self._clock, recorder)

    def _put_back(self, connection: Connection) -> None:
        connection.recorder = Recorder()
        # An outcome waits for no farewell: until it is written down, whoever is killed sends a second copy.
        if connection.worn or not self._pool.give(connection):
            drop(connection)


def _told(parcel: Parcel, relay: str) -> Generator[Outcome, None, None]:
    """Its outcome, and only then what interrupted us: it may have been handed over."""
    try:
        outcome = parcel.outcome(relay)
    except BaseException as error:
        if not parcel.known:
            raise
        # It was interrupted: what is known is told all the same.
        parcel.error = parcel.error or error
        outcome = parcel.outcome(relay)
    # Between this and the yield nothing is called: no interrupt can come.
    parcel.told = True
    try:
        yield outcome
    finally:
        if parcel.error is not None:
            raise parcel.error


def _log(error: Exception, message: Message) -> None:
    # It may be logging itself that failed.
    with contextlib.suppress(Exception):
        LOG.error("%s: what is known of it is told in spite of an exception", message.id, exc_info=error)

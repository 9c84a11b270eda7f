"""SMTPTransport: hands messages to one relay over connections that it keeps for the next message."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Sequence

from outbox.clock import Clock, SystemClock
from outbox.errors import RelayFault, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Outcome, Result, Untried
from outbox.values import printable

from .auth import TokenSource, credentials
from .connecting import connect as connected
from .connection import Connection, drop, part
from .dial import Connect
from .envelope import Mail, prepare
from .opening import Protocol
from .pool import Limits, Pool
from .server import Security, Server
from .steps import Lost, Timeouts
from .tls import File, Trust
from .transaction import Report, transaction

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
            connected socket, for example through a proxy.  What it raises is
            a relay that is unavailable.
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
            three files above.

    How long things take, and are kept:

    Args:
        timeout: Bounds each of *timeouts*.
        timeouts: How long each kind of reply may take, as a whole.  Looking
            up a host's name takes as long as the system lets it.
        max_messages: How many a connection carries before it is replaced.
        max_age: How long a connection is used.
        idle: How long a connection is kept without being used.

    Safe from many threads: each ``deliver`` has a connection to itself.  A
    forked child opens its own.

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
        max_messages: int = 1000,
        max_age: dt.timedelta = dt.timedelta(seconds=300),
        idle: dt.timedelta = dt.timedelta(seconds=30),
        clock: Clock | None = None,
    ) -> None:
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
        limits = Limits(max_messages=max_messages, max_age=max_age, idle=idle)
        self._pool: Pool[Connection] = Pool(limits, self._clock)

    def __repr__(self) -> str:
        server = self._server
        where = f"path={server.path!r}" if server.path is not None else f"{server.host!r}, {server.port}"
        protocol = ", protocol='lmtp'" if server.protocol == "lmtp" else ""
        user = f", username={server.credentials.username!r}" if server.credentials else ""
        return f"SMTPTransport({where}{protocol}, security={server.security!r}{user})"

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        """Hand *message* over for *recipients* and report one result for each of them.

        It goes in transactions of a hundred recipients, or of as many as the
        server takes.  A content that is malformed, or an envelope that no
        dialogue can name, is a permanent failure and is not sent.

        Raises:
            RelayUnavailable: no connection, no greeting, or closed before a transaction began.
            RelayMisconfigured: TLS, credentials or our right to use this relay at all.
        """
        mail, refused = prepare(message, recipients)
        results: dict[str, Result] = {**dict.fromkeys(recipients, Untried()), **refused}
        fault = self._deliver(mail, results) if mail.paths else None
        if fault and all(isinstance(result, Untried) for result in results.values()):
            raise fault
        return Outcome(results=results, relay=self._server.relay, fault=fault)

    def expire(self) -> None:
        """Leave the connections that have idled or lived too long; takes *timeouts.quit* at most."""
        part(self._pool.expired(), self._server.timeouts, self._clock)

    def close(self) -> None:
        """Leave all connections at rest; those in use are left when their message is done."""
        part(self._pool.close(), self._server.timeouts, self._clock)

    def _deliver(self, mail: Mail, results: dict[str, Result]) -> RelayFault | None:
        """Fill in *results*, by as many transactions as it takes; what fault of the relay ended it early."""
        connection = None
        rest = tuple(mail.paths)
        try:
            connection = self._pool.take() or self._connect()
            while rest and connection.usable:
                chunk, rest = rest[: connection.room], rest[connection.room :]
                connection, report = self._transact(connection, mail, chunk)
                results |= report.results
                rest = report.again + rest
                if report.fault:
                    return report.fault
        except RelayFault as fault:
            return fault
        finally:
            if connection is not None:
                self._put_back(connection)
        return None

    def _transact(
        self, connection: Connection, mail: Mail, recipients: Sequence[str]
    ) -> tuple[Connection, Report]:
        """One transaction, and the connection it was had over.

        Where a connection that was used before turns out to be gone, which a
        server may do at any time, there is one more, over a new one.
        """
        reused = connection.messages > 0
        connection.messages += 1
        try:
            report = connection.run(
                transaction(mail, recipients, connection.extensions, relay=self._server.relay)
            )
        except Lost as lost:
            if not reused:
                raise RelayUnavailable(self._server.relay, printable(str(lost))) from lost
        else:
            if not (reused and report.unopened):
                connection.room = report.room or connection.room
                return connection, report
        connection.close()
        return self._transact(self._connect(), mail, recipients)

    def _connect(self) -> Connection:
        # Where no keeper comes, what has idled too long must not pile up either.
        for connection in self._pool.expired():
            drop(connection)
        return connected(self._server, self._clock)

    def _put_back(self, connection: Connection) -> None:
        # An outcome waits for no farewell: until it is written down, whoever is killed sends a second copy.
        if not self._pool.give(connection):
            drop(connection)

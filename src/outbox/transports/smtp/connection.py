"""A connection to one server: performs what dialogues ask for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import attrs

from outbox.clock import Clock
from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.values import printable, quoted

from .dial import Deadline, NoSource, dial, is_loopback, literal, words
from .extensions import Extensions
from .opening import Channel, Credentials, Opening, opening
from .reply import Reply
from .steps import Action, Dialogue, Lost, Pour, Read, Secure, Step, Timeouts, Write
from .tls import Trust, tls_words, wants_certificate
from .wire import Wire

__all__ = ["Connection", "Security", "Server", "connect", "drop", "part"]

T = TypeVar("T")

Security: TypeAlias = Literal["auto", "tls", "starttls", "opportunistic", "none"]

SUBMISSIONS: Final = 465
"""The port where TLS begins with the first byte (RFC 8314 section 7.3)."""
CHUNK: Final = 100
"""Recipients in one transaction: what every server takes (RFC 5321 section 4.5.3.1.8)."""


@attrs.frozen(kw_only=True)
class Server:
    """Where a connection leads and how it is opened."""

    host: str
    port: int
    security: Security = "auto"
    credentials: Credentials | None = None
    local_hostname: str | None = None
    source_address: str | None = None
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    trust: Trust = attrs.field(repr=False)

    @property
    def relay(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def plan(self, connected: socket.socket) -> Opening:
        """How a connection that leads to where *connected* does is opened."""
        return Opening(
            relay=self.relay,
            name=(self.local_hostname or literal(connected)).encode(),
            channel=self._channel(connected),
            credentials=self.credentials,
        )

    def _channel(self, connected: socket.socket) -> Channel:
        if self.security != "auto":
            return self.security
        if self.port == SUBMISSIONS:
            return "tls"
        local = self.credentials is None and is_loopback(connected)
        return "none" if local else "starttls"


class Connection:
    """One connection, used by one thread at a time.

    Attributes:
        extensions: What the server offers over it.
        usable: False once it must carry nothing more: lost, or told 421.
        messages: How many transactions it was used for.
        room: How many recipients the server takes in one of them.
        opened_at, rested_at: Seconds of the monotonic clock.
    """

    def __init__(self, connected: socket.socket, server: Server, clock: Clock) -> None:
        self.extensions = Extensions()
        self.usable = True
        self.messages = 0
        self.room = CHUNK
        self.opened_at = self.rested_at = clock.monotonic()
        self._server = server
        self._wire = Wire(connected, server.timeouts, clock)

    def run(self, dialogue: Dialogue[T]) -> T:
        """Perform *dialogue* to its end and return its result.

        Whatever is raised meanwhile, by the dialogue or on its way, closes
        the connection: nobody could tell any more which reply belongs to what.
        """
        try:
            return self._perform_all(dialogue)
        except BaseException:
            self.close()
            raise

    def quit(self) -> None:
        """Say that we leave, and wait for nothing; :meth:`leave` hears the answer."""
        self._wire.farewell(b"QUIT\r\n")

    def leave(self, deadline: Deadline) -> None:
        """Close, once the server has heard us leave or *deadline* is there."""
        try:
            if self.usable:
                self._wire.read(Step.QUIT, deadline)
        except Lost:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close without a word."""
        self.usable = False
        self._wire.close()

    def _perform_all(self, dialogue: Dialogue[T]) -> T:
        try:
            action = next(dialogue)
            while True:
                action = self._advance(dialogue, action)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _advance(self, dialogue: Dialogue[Any], action: Action) -> Action:
        try:
            answer = self._perform(action)
        except Lost as lost:
            self.usable = False
            return dialogue.throw(lost)
        return dialogue.send(answer)

    def _perform(self, action: Action) -> Reply | None:
        match action:
            case Read(step):
                return self._read(step)
            case Write(step, data, replies):
                self._wire.write(step, [data], replies=replies)
            case Pour(content):
                self._wire.write(Step.CONTENT, content.blocks())
            case Secure():
                self._secure()
        return None

    def _read(self, step: Step) -> Reply:
        reply = self._wire.read(step)
        if reply.closing:
            self.usable = False
        return reply

    def _secure(self) -> None:
        host = self._server.host.rstrip(".")
        try:
            self._wire.secure(self._server.trust.context(), host)
        except ssl.SSLError as error:
            raise RelayMisconfigured(self._server.relay, tls_words(error, host)) from error


def connect(server: Server, clock: Clock) -> Connection:
    """A connection that mail may be sent over.

    Raises:
        RelayFault: there is none to be had; nothing is left open.
    """
    connected = _dial(server, clock)
    connection = Connection(connected, server, clock)
    try:
        connection.extensions = connection.run(opening(server.plan(connected)))
    except OSError as error:
        connection.close()
        raise RelayUnavailable(server.relay, f"connection lost: {words(error)}") from error
    except Lost as lost:
        raise _fault(server, lost) from lost
    return connection


def _fault(server: Server, lost: Lost) -> RelayFault:
    if isinstance(lost.__cause__, ssl.SSLError) and wants_certificate(lost.__cause__):
        # Under TLS 1.3 the server says so when the handshake is over for us.
        return RelayMisconfigured(server.relay, tls_words(lost.__cause__, server.host))
    return RelayUnavailable(server.relay, printable(str(lost)))


def _dial(server: Server, clock: Clock) -> socket.socket:
    deadline = Deadline(clock, server.timeouts.seconds(Step.CONNECT))
    try:
        return dial(server.host, server.port, server.source_address, deadline)
    except NoSource as error:
        raise RelayMisconfigured(
            server.relay,
            f"cannot connect from source_address {quoted(server.source_address or '')} ({error}): "
            "name an address of this machine, of the family that the relay has",
        ) from error
    except OSError as error:
        raise RelayUnavailable(server.relay, f"cannot connect: {words(error)}") from error


def part(connections: Sequence[Connection], timeouts: Timeouts, clock: Clock) -> None:
    """Leave all of *connections* politely, within one time for all of them together."""
    for connection in connections:
        connection.quit()
    deadline = Deadline(clock, timeouts.seconds(Step.QUIT))
    for connection in connections:
        connection.leave(deadline)


def drop(connection: Connection) -> None:
    """Leave *connection* without waiting: its server is told where that takes no time."""
    if connection.usable:
        connection.quit()
    connection.close()

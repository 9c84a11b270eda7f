"""From a server to a connection that mail may be sent over, or to the fault of the relay that there is none."""

from __future__ import annotations

import socket
import ssl

from outbox.clock import Clock
from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.values import printable, quoted

from .connection import Connection
from .dial import Connect, Deadline, NoSource, dial, dial_by, dial_path, ends_program, words, words_of_another
from .opening import opening
from .server import Server
from .steps import Lost, Step
from .tls import tls_words, wants_certificate
from .transcript import Reached, Reaching, Recorder

__all__ = ["connect"]


def connect(server: Server, clock: Clock, recorder: Recorder) -> Connection:
    """A connection that mail may be sent over; *recorder* hears all that is said on the way.

    Raises:
        RelayFault: there is none to be had; nothing is left open.
    """
    # Before anybody waits for us: a token may have to be fetched from elsewhere.
    identity = server.identity()
    recorder.noted(f"connecting to {server.relay}", Reaching(server.relay))
    connected = _reached(server, Deadline(clock, server.timeouts.seconds(Step.CONNECT)))
    try:
        recorder.noted(
            f"connected to {_peer(server, connected)}", Reached(server.timeouts.seconds(Step.GREETING))
        )
        connection = Connection(connected, server, clock)
        connection.record(recorder)
        connection.extensions = connection.run(opening(server.plan(connected, identity)))
    except Lost as lost:
        raise _fault(server, lost) from lost
    except BaseException as error:
        connected.close()
        if isinstance(error, OSError):
            raise RelayUnavailable(server.relay, f"connection lost: {words(error)}") from error
        raise
    return connection


def _peer(server: Server, connected: socket.socket) -> str:
    """The address in words; a Unix socket has none, and may be gone again."""
    try:
        address = connected.getpeername()
    except OSError:
        return server.relay
    return printable(str(address[0])) if isinstance(address, tuple) else server.relay


def _fault(server: Server, lost: Lost) -> RelayFault:
    if isinstance(lost.__cause__, ssl.SSLError) and wants_certificate(lost.__cause__):
        # Under TLS 1.3 the server says so when the handshake is over for us.
        return RelayMisconfigured(server.relay, tls_words(lost.__cause__, server.tls_name))
    fault = RelayUnavailable(server.relay, printable(str(lost)))
    # Some servers hang up on a wrong password.
    fault.costly = lost.step is Step.AUTH
    return fault


def _reached(server: Server, deadline: Deadline) -> socket.socket:
    try:
        if server.connect is not None:
            return _proxied(server, server.connect, deadline)
        if server.path is not None:
            return dial_path(server.path, deadline)
        return dial(server.host, server.port, server.source_address, deadline)
    except NoSource as error:
        raise RelayMisconfigured(
            server.relay,
            f"cannot connect from source_address {quoted(server.source_address or '')} ({error}): "
            "name an address of this machine, of the family that the relay has",
        ) from error
    except PermissionError as error:
        raise RelayMisconfigured(
            server.relay, f"cannot connect: {words(error)} (may this user connect to it?)"
        ) from error
    except OSError as error:
        raise RelayUnavailable(server.relay, f"cannot connect: {words(error)}") from error


def _proxied(server: Server, by: Connect, deadline: Deadline) -> socket.socket:
    try:
        return dial_by(by, server.host, server.port, deadline)
    except RelayFault:
        raise
    except ConfigurationError as error:
        raise RelayMisconfigured(server.relay, f"cannot connect: {printable(str(error))}") from error
    except (Exception, SystemExit) as error:
        if ends_program(error):
            raise
        reason = words_of_another(error)
        kind = RelayMisconfigured if isinstance(error, PermissionError) else RelayUnavailable
    # Raised out here, where no context would hold that exception: its text may quote a proxy's password.
    raise kind(server.relay, f"cannot connect: {reason}")

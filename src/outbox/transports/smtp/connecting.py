"""From a server to a connection that mail may be sent over, or to the fault of the relay that there is none."""

from __future__ import annotations

import socket
import ssl

from outbox.clock import Clock
from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.values import printable, quoted

from .connection import Connection
from .dial import Deadline, NoSource, dial, words
from .opening import opening
from .server import Server
from .steps import Lost, Step
from .tls import tls_words, wants_certificate

__all__ = ["connect"]


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

"""A look at the certificate that a server shows, where it did not hold: for a person to read, and for nothing else."""

from __future__ import annotations

import contextlib
import datetime as dt
import ssl
from typing import Final

import attrs

from outbox.clock import Clock
from outbox.errors import RelayFault

from .connecting import connect
from .connection import drop
from .opening import Channel
from .secured import Secured
from .server import Server
from .tls import Trust
from .transcript import Recorder

__all__ = ["presented"]

_PATIENCE: Final = dt.timedelta(seconds=10)
_SUBMISSIONS: Final = 465
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, for which the ssl module has no name."""


def presented(server: Server, clock: Clock) -> Secured | None:
    """What *server* shows under TLS to who believes everybody; None where it shows nothing.

    It is greeted, and told neither credentials nor a mail.  What a
    certificate says is told by the ssl module only where it holds; so there
    is a second connection, which trusts the one that the first has seen.
    """
    seen = _seen(server, clock, _blind())
    if seen is None or not seen.der:
        return seen
    try:
        read = _seen(server, clock, _trusting(seen.der))
    except ssl.SSLError:
        # It is none that OpenSSL can read.
        return seen
    return read if read is not None and read.der == seen.der else seen


def _seen(server: Server, clock: Clock, context: ssl.SSLContext) -> Secured | None:
    eye = _Eye()
    # What comes behind the handshake may fail as well: the certificate has been seen then.
    with contextlib.suppress(RelayFault):
        drop(connect(_without_secrets(server, context), clock, eye))
    return eye.facts


def _without_secrets(server: Server, context: ssl.SSLContext) -> Server:
    channel: Channel = "tls" if server.port == _SUBMISSIONS else "starttls"
    return attrs.evolve(
        server,
        port=server.port,
        security=channel if server.security == "auto" else server.security,
        credentials=None,
        trust=Trust(context),
        timeouts=server.timeouts.bounded(_PATIENCE),
    )


class _Eye(Recorder):
    def __init__(self) -> None:
        self.facts: Secured | None = None

    def secured(self, facts: Secured | None) -> None:
        self.facts = facts


def _blind() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # The signature may be what did not hold.
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    return context


def _trusting(certificate: bytes) -> ssl.SSLContext:
    context = _blind()
    context.load_verify_locations(cadata=certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context

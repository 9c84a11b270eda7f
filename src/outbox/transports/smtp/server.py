"""One server: where it is, how a connection to it is secured, and what of that cannot be."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from typing import Final, Literal, TypeAlias

import attrs

from outbox.errors import ConfigurationError
from outbox.values import printable, quoted

from .auth import Bearer, Credentials, Identity
from .dial import Connect, is_loopback, our_name, without_zone
from .opening import Channel, Opening, Protocol
from .steps import Timeouts
from .tls import Trust

__all__ = ["Security", "Server"]

Security: TypeAlias = Literal["auto", "tls", "starttls", "opportunistic", "none"]

_SUBMISSIONS: Final = 465
"""The port where TLS begins with the first byte (RFC 8314 section 7.3)."""
_SMTP: Final = 25
_LMTP: Final = 24
_SUBMISSION: Final = 587
_SECURITY: Final = ("auto", "tls", "starttls", "opportunistic", "none")
_PROTOCOLS: Final = ("smtp", "lmtp")
_LONGEST_PATH: Final = 107
"""Bytes of a Unix socket's name, as Linux has it."""
_NAME: Final = re.compile(r"[!-~]{1,255}")
_DOMAIN: Final = re.compile(
    r"(?=.{1,255}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE
)
_PORTS: Final = range(1, 1 << 16)


@attrs.frozen(kw_only=True)
class Server:
    """Where a connection leads and how it is opened; as :class:`~outbox.transports.smtp.SMTPTransport` is told.

    Raises:
        ConfigurationError: a setting cannot be used; the text names it.
    """

    _host: str | None = None
    _port: int | None = None
    path: str | None = attrs.field(default=None, converter=attrs.converters.optional(os.fsdecode))
    protocol: Protocol = "smtp"
    security: Security = "auto"
    credentials: Credentials | None = None
    local_hostname: str | None = None
    source_address: str | None = None
    connect: Connect | None = attrs.field(default=None, repr=False)
    """Not shown: a proxy's password may be bound to it."""
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    trust: Trust = attrs.field(factory=Trust, repr=False)

    def __attrs_post_init__(self) -> None:
        _check_words(self)
        _check_path(self) if self.path is not None else _check_port(self)
        _check_secrecy(self)
        _check_way(self)

    @property
    def host(self) -> str:
        return "localhost" if self._host is None else self._host

    @property
    def port(self) -> int:
        """As it was said, else where such servers are; 0 with a Unix socket, which has none."""
        if self._port is not None or self.path is not None:
            return self._port or 0
        if self.protocol == "lmtp":
            return _LMTP
        if self.security == "tls" or (self.security == "auto" and self.credentials):
            return _SUBMISSIONS
        return _SUBMISSION if self.security == "starttls" else _SMTP

    @property
    def relay(self) -> str:
        """What limits and breakers know it by: ``host:port``, or the path."""
        if self.path is not None:
            return printable(self.path)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def tls_name(self) -> str:
        """What its certificate has to be for."""
        return without_zone(self.host.rstrip("."))

    def identity(self) -> Identity | None:
        """What the next connection authenticates with.

        Raises:
            RelayFault: there is no token to be had.
        """
        if isinstance(self.credentials, Bearer):
            return self.credentials.token(self.relay, self.tls_name, self.port)
        return self.credentials

    def plan(self, connected: socket.socket, identity: Identity | None = None) -> Opening:
        """How a connection that leads to where *connected* does is opened."""
        return Opening(
            relay=self.relay,
            name=(self.local_hostname or our_name(connected)).encode(),
            channel=self._channel(connected),
            protocol=self.protocol,
            identity=identity,
        )

    def _channel(self, connected: socket.socket) -> Channel:
        if self.security != "auto":
            return self.security
        if self.path is not None:
            return "none"
        if self.port == _SUBMISSIONS:
            return "tls"
        # Where a proxy connects to, its own address does not tell.
        nearby = self.connect is None and is_loopback(connected)
        wants_tls = self.credentials is not None or self.trust.shows_certificate
        return "none" if nearby and not wants_tls else "starttls"


def _check_words(server: Server) -> None:
    for name, said, known in (
        ("security", server.security, _SECURITY),
        ("protocol", server.protocol, _PROTOCOLS),
    ):
        if said not in known:
            raise ConfigurationError(f"SMTP {name} {said!r} is none of {', '.join(known)}")
    if not _is_host(server.host):
        hint = " (the port is a setting of its own)" if ":" in server.host else ""
        raise ConfigurationError(
            f"SMTP host {quoted(server.host, 80)} is neither a host name nor an address{hint}"
        )
    if server.local_hostname is not None:
        _check_name(server.local_hostname)
    if server.source_address is not None and not _is_host(server.source_address):
        raise ConfigurationError(
            f"source_address {quoted(server.source_address)} is no address of this machine"
        )


def _check_name(name: str) -> None:
    """What EHLO takes: a domain, or an address in brackets (RFC 5321 section 4.1.1.1)."""
    literal = re.fullmatch(r"\[(IPv6:)?([0-9a-f:.]{2,45})\]", name, re.IGNORECASE)
    if literal:
        good = _version(literal[2]) == (6 if literal[1] else 4)
    else:
        good = bool(_DOMAIN.fullmatch(name)) and max(map(len, name.split("."))) <= 63  # noqa: PLR2004 - RFC 1035
    if _version(name):
        example = f"[{name}]" if ":" not in name else f"[IPv6:{name}]"
        raise ConfigurationError(f"local_hostname {name} is an address: write {example}")
    if not good:
        raise ConfigurationError(
            f"local_hostname {quoted(name, 80)} is not a host name, such as mail.example.org "
            "(letters, digits and hyphens), nor an address such as [192.0.2.1]"
        )


def _version(text: str) -> int:
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return 0


def _check_port(server: Server) -> None:
    if server.port not in _PORTS:
        raise ConfigurationError(f"SMTP port {server.port!r} is not a number from 1 to 65535")
    if server.protocol == "lmtp" and server.port == _SMTP:
        raise ConfigurationError(
            "LMTP must not be spoken on port 25, where servers expect SMTP (RFC 2033 section 5): "
            "say protocol='smtp', or name the port of the LMTP service, such as 24"
        )


def _check_path(server: Server) -> None:
    path = server.path or ""
    if not path or "\0" in path or len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigurationError(
            f"{quoted(path, 200)} is no path of a Unix socket: it has 1 to {_LONGEST_PATH} bytes and no NUL"
        )
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(
            f"there are no Unix sockets here: reach {quoted(path, 200)} by a host and a port"
        )
    if server._host is not None or server._port is not None:  # noqa: SLF001 - what was said, in its own file
        raise ConfigurationError(
            "an SMTP server has a path, or a host and a port: name one of them, not both"
        )
    if server.security not in ("auto", "none") or server.credentials or server.trust.shows_certificate:
        raise ConfigurationError(
            f"over the Unix socket {quoted(path, 200)} there is no TLS, and so no credentials, "
            "which are sent under TLS only: leave them out, or name a host and a port"
        )


def _check_secrecy(server: Server) -> None:
    if server.credentials and server.security in ("none", "opportunistic"):
        raise ConfigurationError(
            f"SMTP security {server.security!r} could send the credentials in clear: "
            "use 'tls' or 'starttls' with them"
        )
    if server.credentials and not server.trust.demands_certificate:
        raise ConfigurationError(
            "the ssl_context could show the credentials to anybody: they need one with verify_mode=CERT_REQUIRED and "
            "check_hostname=True. Trust the relay's own authority (load_verify_locations), and name the host as "
            "its certificate does; connect may lead to another address"
        )
    if server.trust.shows_certificate and server.security == "none":
        raise ConfigurationError("SMTP security 'none' never shows the client_cert: use 'tls' or 'starttls'")


def _check_way(server: Server) -> None:
    if server.connect is not None and not callable(server.connect):
        raise ConfigurationError("connect is a function such as socket.create_connection")
    ways = {"path": server.path, "source_address": server.source_address, "connect": server.connect}
    said = [name for name, way in ways.items() if way is not None]
    if len(said) > 1:
        raise ConfigurationError(
            f"{' and '.join(said)} exclude each other: each says how the server is reached"
        )


def _is_host(host: str) -> bool:
    if not _NAME.fullmatch(host) and host.isascii():
        return False
    if ":" in host and not _version(without_zone(host)):
        return False
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return host.isprintable() and " " not in host

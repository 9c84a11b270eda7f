"""One server: where it is, how a connection to it is secured, and what of that cannot be."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final, Literal, Self, TypeAlias

import attrs

from outbox.errors import ConfigurationError
from outbox.values import quoted

from .dial import is_loopback, literal
from .opening import Channel, Credentials, Opening
from .steps import Timeouts
from .tls import Trust

__all__ = ["Security", "Server", "credentials"]

Security: TypeAlias = Literal["auto", "tls", "starttls", "opportunistic", "none"]

_SUBMISSIONS: Final = 465
"""The port where TLS begins with the first byte (RFC 8314 section 7.3)."""
_SMTP: Final = 25
_SUBMISSION: Final = 587
_SECURITY: Final = ("auto", "tls", "starttls", "opportunistic", "none")
_NAME: Final = re.compile(r"[!-~]{1,255}")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_PORTS: Final = range(1, 1 << 16)


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

    @classmethod
    def named(
        cls,
        host: str,
        port: int | None,
        *,
        security: Security,
        credentials: Credentials | None,
        ssl_context: ssl.SSLContext | None,
        timeouts: Timeouts,
        local_hostname: str | None,
        source_address: str | None,
    ) -> Self:
        """As :class:`~outbox.transports.smtp.SMTPTransport` is told.

        Raises:
            ConfigurationError: a setting cannot be used; the text names it.
        """
        _check(host, security, credentials, local_hostname)
        return cls(
            host=host,
            port=_port(port, security, credentials),
            security=security,
            credentials=credentials,
            local_hostname=local_hostname,
            source_address=source_address,
            timeouts=timeouts,
            trust=Trust(ssl_context, verify=security != "opportunistic"),
        )

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
        if self.port == _SUBMISSIONS:
            return "tls"
        local = self.credentials is None and is_loopback(connected)
        return "none" if local else "starttls"


def credentials(username: str | None, password: str | None) -> Credentials | None:
    """Both, or neither.

    Raises:
        ConfigurationError: one of them is missing, or cannot be said; neither is shown.
    """
    if username is None and password is None:
        return None
    if not username or not password:
        raise ConfigurationError("SMTP credentials are a username and a password: one of them is missing")
    for name, text in (("user name", username), ("password", password)):
        # Asked so, no exception is made that would hold the password.
        if "\0" in text or _SURROGATE.search(text):
            raise ConfigurationError(
                f"the SMTP {name} holds a NUL or bytes that are no UTF-8: write it as UTF-8 text"
            )
    return Credentials(username, password)


def _check(host: str, security: str, credentials: Credentials | None, local_hostname: str | None) -> None:
    if not _is_host(host):
        raise ConfigurationError(f"SMTP host {quoted(host, 80)} is neither a host name nor an address")
    if security not in _SECURITY:
        raise ConfigurationError(f"SMTP security {security!r} is none of {', '.join(_SECURITY)}")
    if credentials and security in ("none", "opportunistic"):
        raise ConfigurationError(
            f"SMTP security {security!r} could send the password in clear: use 'tls' or 'starttls' with credentials"
        )
    if local_hostname is not None and not _NAME.fullmatch(local_hostname):
        raise ConfigurationError(f"local_hostname {quoted(local_hostname, 80)} is not a host name")


def _port(port: int | None, security: Security, credentials: Credentials | None) -> int:
    if port is not None:
        if port not in _PORTS:
            raise ConfigurationError(f"SMTP port {port!r} is not a number from 1 to 65535")
        return port
    if security == "tls" or (security == "auto" and credentials):
        return _SUBMISSIONS
    return _SUBMISSION if security == "starttls" else _SMTP


def _is_host(host: str) -> bool:
    if not _NAME.fullmatch(host) and host.isascii():
        return False
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return host.isprintable() and " " not in host

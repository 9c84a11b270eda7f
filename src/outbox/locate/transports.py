"""The transports of ours, each made as its URL says: all of them lead to a mail server."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.protocols import Transport
from outbox.values import quoted

from .durations import parse_duration
from .grammar import Url
from .readers import parse_yes_or_no

__all__ = ["TRANSPORTS"]

_LOG: Final = logging.getLogger("outbox.locate")
_SOURCE: Final = re.compile(r"[!-~]{1,255}")


def _smtp(url: Url, password: str | None, token: Callable[[], str] | None) -> Transport:
    protocol = "lmtp" if url.scheme == "lmtp" else "smtp"
    if not url.host:
        hint = f" (a Unix socket is {protocol}+unix:///…)" if url.path.strip("/") else ""
        raise url.wrong(f"names no server: write {url.scheme}://host or {url.scheme}://user@host:port{hint}")
    if url.path not in ("", "/"):
        # Not shown: where slashes were mistaken, a password stands in it.
        raise url.wrong("a path (what follows the host and a slash) has no meaning for mail")
    settings = url.settings(_SMTP_OPTIONS)
    if url.scheme == "smtps" and settings.setdefault("security", "tls") != "tls":
        raise url.wrong("smtps: is TLS from the first byte; with another security= write smtp:")
    port = url.port if protocol == "lmtp" else _port(url, settings.get("security"))
    who = _who(url, password, token)
    return _transport(url, host=url.host, port=port, protocol=protocol, **who, **settings)


def _smtp_by_path(url: Url, password: str | None, token: Callable[[], str] | None) -> Transport:
    if (
        url.host
        or url.port
        or url.user
        or url.password is not None
        or url.path[:1] != "/"
        or not url.path[1:]
    ):
        raise url.wrong(f"names a Unix socket and nothing else: write {url.scheme}:///run/dovecot/lmtp")
    if password or token is not None:
        _LOG.warning("credentials are set and not used: %s names no user", url.shown)
    protocol = url.scheme.partition("+")[0]
    return _transport(url, path=url.path, protocol=protocol, **url.settings(_SMTP_OPTIONS))


def _transport(url: Url, **settings: Any) -> Transport:
    from outbox.transports.smtp import SMTPTransport  # noqa: PLC0415 - only the transport that is asked for is imported

    try:
        return SMTPTransport(**settings)
    except ConfigurationError as error:
        raise url.wrong(str(error)) from None


def _port(url: Url, security: str | None) -> int:
    if url.port is not None:
        return url.port
    if security == "tls":
        return 465
    return 587 if url.user or security == "starttls" else 25


def _who(url: Url, password: str | None, token: Callable[[], str] | None) -> dict[str, Any]:
    """What the URL's user authenticates with, if there is one."""
    if url.user and token is not None:
        if url.password is not None or password:
            raise url.wrong(
                f"there are a password and a token for {quoted(url.user, 80)}: leave one of them out"
            )
        return {"username": url.user, "token": token}
    if url.user:
        return {"username": url.user, "password": _password(url, password)}
    if url.password is not None:
        raise url.wrong("there is a password and no user: write smtp://user@host")
    if password or token is not None:
        what = "password" if password else "token"
        _LOG.warning("a %s is set and not used: %s names no user", what, url.shown)
    return {}


def _password(url: Url, given: str | None) -> str:
    password = url.password if url.password is not None else given
    if not password:
        raise url.wrong(
            f"there is no password for {quoted(url.user, 80)}: set OUTBOX_SMTP_PASSWORD_FILE or "
            "OUTBOX_SMTP_PASSWORD, or password_file in the configuration file (or OUTBOX_SMTP_TOKEN_FILE)"
        )
    if not _sendable(password):
        raise url.wrong("the password holds what cannot be sent: it has to be UTF-8 text without NUL")
    return password


def _sendable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _source_address(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise ConfigurationError(f"{quoted(text, 80)} is no address of this machine, such as 192.0.2.1")
    return text


TRANSPORTS: Final[Mapping[str, Callable[[Url, str | None, Callable[[], str] | None], Transport]]] = {
    "smtp": _smtp,
    "smtps": _smtp,
    "lmtp": _smtp,
    "smtp+unix": _smtp_by_path,
    "lmtp+unix": _smtp_by_path,
}
_SMTP_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "timeout": parse_duration,
    "security": str,
    "local_hostname": str,
    "source_address": _source_address,
    "ca_file": str,
    "client_cert": str,
    "client_key": str,
    "pipelining": parse_yes_or_no,
    "dialogue": str,
}

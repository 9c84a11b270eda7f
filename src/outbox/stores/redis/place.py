"""Where a Redis server is, and as whom it is spoken to: read from a URL, and shown without the password."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from outbox.errors import ConfigurationError
from outbox.values import printable, quoted

__all__ = ["Place"]

_HOST: Final = re.compile(r"[^\s/@\x00-\x20\x7f]+")
_DB: Final = re.compile(r"\d{1,5}", re.ASCII)
_FORMS: Final = "redis://user:password@host:6379/0, rediss://… for TLS, or unix:///run/redis.sock?db=0"


@attrs.frozen(kw_only=True)
class Place:
    """A server, a database in it, and how it is reached.

    Attributes:
        scheme: ``redis``, ``rediss`` or ``unix``.
        path: Of a Unix socket.
        ca_file: Who signs the server's certificate, where it is nobody that this machine knows.
    """

    scheme: str
    host: str = ""
    port: int = 6379
    path: str = ""
    db: int = 0
    user: str = ""
    password: str | None = attrs.field(default=None, repr=False)
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @classmethod
    def parse(cls, url: str, **tls: str | None) -> Place:
        """Take *url* apart.

        Raises:
            ConfigurationError: it is none of a Redis server; the text shows no password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"not the URL of a Redis server: write {_FORMS}") from None
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ConfigurationError(f"not the URL of a Redis server: write {_FORMS}")
        if parts.scheme != "rediss" and any(tls.values()):
            raise ConfigurationError(
                f"{', '.join(name for name in tls if tls[name])}: only rediss:// speaks TLS"
            )
        socket = parts.scheme == "unix"
        if socket and (parts.hostname or not parts.path.startswith("/") or not parts.path.strip("/")):
            raise ConfigurationError("unix:// names a socket: write unix:///run/redis.sock (three slashes)")
        if "%00" in parts.path or port == 0:
            raise ConfigurationError(f"not the URL of a Redis server: write {_FORMS}")
        if parts.username and parts.password is None:
            raise ConfigurationError(
                "there is a user and no password before the @: write redis://user:password@host, or "
                "redis://:password@host where a server has a password and no users"
            )
        return cls(
            scheme=parts.scheme,
            host="" if socket else _host(parts),
            port=port or 6379,
            path=unquote(parts.path) if socket else "",
            db=_db(parts, socket),
            user=unquote(parts.username or ""),
            password=None if parts.password is None else unquote(parts.password),
            **tls,
        )

    def __str__(self) -> str:
        """As it may be shown; the port only where it is another than most have."""
        if self.scheme == "unix":
            return printable(f"unix://{self.path}{f'?db={self.db}' if self.db else ''}")
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return printable(f"{self.scheme}://{user}{host}:{self.port}/{self.db}")


def _host(parts: SplitResult) -> str:
    name = unquote(parts.hostname or "localhost")
    try:
        # As the system does it when it looks for the address; an address of IPv6 is none of its business.
        whole = _HOST.fullmatch(name) is not None and (":" in name or bool(name.encode("idna")))
    except UnicodeError:
        whole = False
    if not whole:
        raise ConfigurationError(f"{quoted(name)} is no name of a host: write {_FORMS}")
    return name


def _db(parts: SplitResult, socket: bool) -> int:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    text = options.pop("db", "0") if socket else (parts.path.strip("/") or "0")
    if options or parts.fragment:
        raise ConfigurationError(
            "the URL of a Redis server has no options here: pass them as keywords, such as prefix"
        )
    if not _DB.fullmatch(text):
        raise ConfigurationError(f"the database of a Redis server is a number: write {_FORMS}")
    return int(text)

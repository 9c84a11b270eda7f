"""URLs of stores and transports: read strictly, shown without their passwords.

::

    sqlite:///outbox.db               relative to the current directory
    sqlite:////var/lib/outbox.db      absolute; sqlite:///~/outbox.db is in your home directory
    sqlite:///outbox.db?remember=7d&keep_delivered=30d&busy_timeout=30s
    sqlite:////srv/shop.db?prefix=outbox_    tables of that prefix, beside those of another program
    file:///var/spool/outbox          a directory; absolute
    file:///var/spool/outbox?keep_delivered=30d&keep_content=no&max_bytes=2GiB
    memory:                           nothing survives the process
    smtp://host                       port 25; smtp://user@host is port 587, and STARTTLS is required
    smtps://user@host                 TLS from the first byte, port 465
    smtp://[2001:db8::1]:2525?timeout=30s&security=starttls&local_hostname=me.example.org
    lmtp://host                       port 24; lmtp+unix:///run/dovecot/lmtp is a Unix socket, as smtp+unix: is
    python:package.module:factory?key=value    what this call returns: a store or a transport of yours

A store or transport is imported when its URL is asked for, and no other.
Whose scheme is none of these is looked for among what is installed; see
:mod:`.plugins`.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.protocols import Store, Transport
from outbox.values import printable, quoted

from .durations import parse_duration
from .masking import OPTIONS, masked
from .readers import SETTINGS, parse_yes_or_no

__all__ = ["Url", "did_you_mean", "store_from_url", "transport_from_url"]

_LOG: Final = logging.getLogger("outbox.locate")

_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SOURCE: Final = re.compile(r"[!-~]{1,255}")
_PYTHON: Final = "python"
_NOT_YET: Final[Mapping[str, str]] = {
    "postgres": "store",
    "postgresql": "store",
    "redis": "store",
    "rediss": "store",
    "sqs": "store",
    "http": "transport",
    "https": "transport",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'timeout'?"`` where one of *known* is close, else ``""``."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def store_from_url(url: str, *, create: bool = True, clock: Clock | None = None) -> Store:
    """Open the store that *url* names.

    Args:
        create: Whether a database that is not there is made, and one of an
            earlier release brought to this one's format.

    Raises:
        ConfigurationError: the URL cannot be used, or what it names is not
            there and *create* is false; the text says what to write.
        StoreError: it is there and cannot be opened.
    """
    parsed = Url.parse("store", url, _STORES)
    if parsed.scheme in _STORES:
        return _STORES[parsed.scheme](parsed, create, clock)
    from .plugins import open_store  # noqa: PLC0415 - only where the scheme is none of ours

    return open_store(parsed, create=create, clock=clock)


def transport_from_url(
    url: str, *, password: str | None = None, token: Callable[[], str] | None = None
) -> Transport:
    """The transport that *url* names; it connects when it first delivers.

    Args:
        password: For the user that the URL names; one in the URL itself
            goes before it.
        token: In the password's place, called for each connection: returns
            an access token of that user.

    Raises:
        ConfigurationError: the URL cannot be used; the text says what to write.
    """
    parsed = Url.parse("transport", url, _TRANSPORTS)
    if parsed.scheme in _TRANSPORTS:
        return _TRANSPORTS[parsed.scheme](parsed, password, token)
    if token is not None:
        _LOG.warning("a token is set and not used: %s is no SMTP", parsed.shown)
    from .plugins import open_transport  # noqa: PLC0415 - only where the scheme is none of ours

    return open_transport(parsed, password=password)


@attrs.frozen(kw_only=True, repr=False)
class Url:
    """A URL taken apart, its ``%…`` resolved; its ``repr`` is how it may be shown.

    Attributes:
        what: ``"store"`` or ``"transport"``: what it is to name.
        text: As it was written, with the password that may be in it.
        shown: The same with ``***`` in the password's place.
        user, host, path: ``""`` where there is none.
        password, port: None where there is none.
        options: What stands behind the ``?``, each name once.
    """

    what: str
    text: str
    shown: str
    scheme: str
    user: str
    password: str | None
    host: str
    port: int | None
    path: str
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<Url {self.shown}>"

    @classmethod
    def parse(cls, what: str, text: str, known: Mapping[str, object]) -> Url:
        shown = masked(text)
        scheme, colon, rest = text.partition(":")
        if not text.isprintable() or " " in text:
            raise ConfigurationError(f"{what} {shown!r}: a URL holds no blank and no control character")
        _check_scheme(what, shown, scheme if colon else "", known)
        if "#" in rest:
            raise ConfigurationError(f"{what} {shown}: '#' has no meaning here; {_ENCODE[what]}")
        if _ESCAPE.search(rest):
            raise ConfigurationError(f"{what} {shown}: a % begins %20 and the like: write % itself as %25")
        try:
            return cls._split(what, shown, text)
        except UnicodeDecodeError:
            raise ConfigurationError(
                f"{what} {shown}: what its %… stand for is not UTF-8 text: write % itself as %25"
            ) from None
        except ConfigurationError:
            raise
        except ValueError:
            # Its text may quote the password.
            raise ConfigurationError(f"{what} {shown}: not a URL; {_ENCODE[what]}") from None

    @classmethod
    def _split(cls, what: str, shown: str, text: str) -> Url:
        parts = urlsplit(text)
        options = parse_qsl(
            parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict"
        )
        parsed = cls(
            what=what,
            text=text,
            shown=shown,
            scheme=parts.scheme,
            user=unquote(parts.username or "", errors="strict"),
            password=None if parts.password is None else unquote(parts.password, errors="strict"),
            host=unquote(parts.hostname or "", errors="strict"),
            port=_port_of(what, shown, parts),
            path=unquote(parts.path, errors="strict"),
            options=dict(options),
        )
        if len(parsed.options) < len(options):
            raise parsed.wrong("an option is given twice")
        if any(map(_CONTROL.search, parsed.texts)):
            raise parsed.wrong("one of its %… stands for a control character")
        return parsed

    @property
    def texts(self) -> Sequence[str]:
        return self.user, self.password or "", self.host, self.path, *self.options.values()

    def wrong(self, reason: str) -> ConfigurationError:
        """The error to raise because of *reason*: it names the URL, without its password."""
        return ConfigurationError(f"{self.what} {self.shown}: {reason}")

    def settings(self, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """The options, each read by its reader; an unknown one is refused.

        Raises:
            ConfigurationError: there is one that *known* does not name, or
                its reader raised a ValueError.
        """
        found: dict[str, Any] = {}
        for name, value in self.options.items():
            if name not in known:
                listed = ", ".join(known) or "none"
                raise self.wrong(
                    f"unknown option {quoted(name, 40)}{did_you_mean(name, known)} (known: {listed})"
                )
            try:
                found[name] = known[name](value)
            except (ConfigurationError, ValueError) as error:
                raise self.wrong(f"option {name}: {error}") from None
        return found


def _port_of(what: str, shown: str, parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        # Not quoted: it may be the beginning of a password.
        raise ConfigurationError(
            f"{what} {shown}: not a URL: what follows the host and a colon is no port, a number from 1 to 65535; "
            f"{_ENCODE[what]}"
        ) from None


_ENCODE: Final[Mapping[str, str]] = {
    "store": "in a file name write # as %23, ? as %3F",
    "transport": "in a user name or password write / as %2F, # as %23, ? as %3F, @ as %40",
}


def _check_scheme(what: str, shown: str, scheme: str, known: Mapping[str, object]) -> None:
    if scheme in known or scheme == _PYTHON:
        return
    ours = [*known, _PYTHON]
    names = ", ".join(f"{name}:" for name in ours)
    if not scheme:
        raise ConfigurationError(f"{what} {shown!r} is not a URL: it begins with one of {names}")
    other = "transport" if what == "store" else "store"
    if scheme in _STORES or scheme in _TRANSPORTS:
        raise _misplaced(what, shown, scheme, other, names)
    from .plugins import schemes  # noqa: PLC0415 - what is installed is looked up only where it is asked for

    installed = schemes(what)
    if scheme in installed:
        return
    names = ", ".join(f"{name}:" for name in (*ours, *installed))
    if _NOT_YET.get(scheme) == what:
        raise ConfigurationError(f"{what} {shown}: {scheme}: is not in this release (known: {names})")
    if scheme in _NOT_YET or scheme in schemes(other):
        raise _misplaced(what, shown, scheme, other, names)
    hint = did_you_mean(scheme.lower(), (*ours, *installed))
    raise ConfigurationError(f"{what} {shown}: unknown scheme {quoted(scheme, 40)}{hint} (known: {names})")


def _misplaced(what: str, shown: str, scheme: str, other: str, names: str) -> ConfigurationError:
    return ConfigurationError(f"{what} {shown}: {scheme}: names a {other}, not a {what} (known: {names})")


# -- stores


def _memory(url: Url, create: bool, clock: Clock | None) -> Store:  # noqa: ARG001 - every store's opener has these
    if url.host or url.path.strip("/"):
        raise url.wrong("memory: stands alone")
    url.settings({})
    from outbox.stores.memory import MemoryStore  # noqa: PLC0415 - only the store that is asked for is imported

    return MemoryStore() if clock is None else MemoryStore(clock=clock)


def _sqlite(url: Url, create: bool, clock: Clock | None) -> Store:
    path = _sqlite_path(url)
    settings = _settings(url, clock)
    is_there = _is_there(path, url)
    if not is_there and not create:
        raise url.wrong(f"there is no database {printable(str(path))}; `outbox submit` makes one")
    from outbox.stores.sqlite.schema import holds_store  # noqa: PLC0415 - as the store itself
    from outbox.stores.sqlite.store import SQLiteStore  # noqa: PLC0415 - only the store that is asked for is imported

    prefix = settings.get("prefix")
    with _naming(url):
        if prefix is not None and not create and not holds_store(path, prefix):
            raise ConfigurationError(
                f"there are no tables {prefix}… in {printable(str(path))}; `outbox submit` makes them"
            )
        store = SQLiteStore(path, migrate=create, **settings)
    if not is_there:
        _LOG.warning("there was no database %s: a new one is made", path)
    return store


def _file(url: Url, create: bool, clock: Clock | None) -> Store:
    if url.host or not url.path.strip("/") or not url.path.startswith("/"):
        raise url.wrong(
            "names no directory: write file:///var/spool/outbox (three slashes, an absolute path)"
        )
    path = Path(url.path)
    settings = _settings(url, clock)
    is_there = _is_there(path, url)
    if not is_there and not create:
        raise url.wrong(f"there is no spool {printable(str(path))}; `outbox submit` makes one")
    from outbox.stores.filesystem import FilesystemStore  # noqa: PLC0415 - only the store that is asked for is imported

    with _naming(url):
        store = FilesystemStore(path, **settings)
    if not is_there:
        _LOG.warning("there was no spool %s: a new one is made", path)
    return store


def _settings(url: Url, clock: Clock | None) -> dict[str, Any]:
    settings = url.settings({name: SETTINGS[name] for name in OPTIONS[url.scheme]})
    return settings if clock is None else {**settings, "clock": clock}


@contextlib.contextmanager
def _naming(url: Url) -> Iterator[None]:
    """What a store refuses is told with the URL that asked for it."""
    try:
        yield
    except ConfigurationError as error:
        raise url.wrong(str(error)) from None


def _is_there(path: Path, url: Url) -> bool:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise url.wrong(f"{printable(str(path))} cannot be reached: {error.strerror}") from error
    # SQLite would open a device, and lay its journal beside it.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise url.wrong(f"{printable(str(path))} is there and is no regular file: name another")
    return True


def _sqlite_path(url: Url) -> Path:
    if url.host or not url.path.startswith("/"):
        raise url.wrong("write sqlite:///relative.db or sqlite:////absolute.db (three or four slashes)")
    name = url.path[1:]
    if name in ("", "/"):
        raise url.wrong("names no file: write sqlite:///outbox.db or sqlite:////var/lib/outbox.db")
    if name == ":memory:":
        raise url.wrong("write memory: for a store that does not outlive the process")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise url.wrong("the home directory is not known here: write the absolute path") from None


# -- transports


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


_STORES: Final[Mapping[str, Callable[[Url, bool, Clock | None], Store]]] = {
    "sqlite": _sqlite,
    "file": _file,
    "memory": _memory,
}
_TRANSPORTS: Final[Mapping[str, Callable[[Url, str | None, Callable[[], str] | None], Transport]]] = {
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

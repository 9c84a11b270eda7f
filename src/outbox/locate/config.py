"""The configuration: what the options, the environment and one TOML file say, checked.

The file is the one that ``--config`` names, else ``$OUTBOX_CONFIG``, else
``$XDG_CONFIG_HOME/outbox/outbox.toml`` (``~/.config/outbox/outbox.toml``),
else ``/etc/outbox/outbox.toml``.  One in the current directory is read only
where it is named.  All of its keys, none of which is required::

    store = "sqlite:////var/lib/outbox/outbox.db"
    transport = "smtps://app@smtp.example.org"
    password_file = "smtp-password"           # relative paths start from this file's directory
    token_file = "smtp-token"                 # instead: an OAuth access token, read anew for each connection
    queues = ["mail", "mail.bulk"]            # the queues that are served here; mail goes to the first
    workers = 4
    lease = "60s"
    grace = "30s"
    domain = "example.org"                    # what `submit` makes of a bare name such as root
    retry = "1m, 5m*2, 1h*3"                  # or a table:

    [retry]
    timeout = "4d"                            # schedule, attempts, timeout, wait_initial, wait_max,
    uncertain = "hold"                        # wait_exp_base, wait_jitter, uncertain
    [retry.queues]
    "mail.bulk" = "1h*5"                      # or again a table

    [limits]                                  # of each relay by itself: connections, per_second,
    per_second = 10                           # per_hour, per_day, new_connections_per_minute
    [limits.relays]                           # of those that the transport names so, instead
    "corp.example" = { connections = 2 }

An option goes before the environment (OUTBOX_STORE, OUTBOX_TRANSPORT,
OUTBOX_SMTP_PASSWORD, OUTBOX_SMTP_PASSWORD_FILE, OUTBOX_SMTP_TOKEN_FILE), and
that before the file.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import logging
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs

from outbox.errors import ConfigurationError
from outbox.relay import RelayLimits
from outbox.retry import RetryPolicy
from outbox.values import frozen_mapping, quoted

from .entries import KEYS, Within
from .hints import did_you_mean
from .masking import holds_secret, masked, secrets_in

__all__ = ["Config"]

_LOG: Final = logging.getLogger("outbox.locate")
_SYSTEM_FILE: Final = Path("/etc/outbox/outbox.toml")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_RELATIVE_SQLITE: Final = re.compile(r"sqlite:///(?![/~]|[A-Za-z]:/)(?P<path>.+)")
_MAX_SECRET: Final = 16 << 10


def _frozen(mapping: Mapping[str, RetryPolicy]) -> Mapping[str, RetryPolicy]:
    return frozen_mapping(mapping)


def _frozen_limits(mapping: Mapping[str, RelayLimits]) -> Mapping[str, RelayLimits]:
    return frozen_mapping(mapping)


@attrs.frozen(kw_only=True)
class Config:
    """The settings in force; *file* is where some of them come from, if anywhere."""

    store: str | None = attrs.field(default=None, repr=lambda url: masked(url or ""))
    transport: str | None = attrs.field(default=None, repr=lambda url: masked(url or ""))
    password: str | None = attrs.field(default=None, repr=False)
    password_file: Path | None = None
    token_file: Path | None = None
    queues: tuple[str, ...] = ("mail",)
    workers: int = 4
    lease: dt.timedelta = dt.timedelta(seconds=60)
    grace: dt.timedelta = dt.timedelta(seconds=30)
    domain: str | None = None
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    retry_by_queue: Mapping[str, RetryPolicy] = attrs.field(factory=dict, converter=_frozen, hash=False)
    limits: Mapping[str, RelayLimits] = attrs.field(factory=dict, converter=_frozen_limits, hash=False)
    file: Path | None = None

    @classmethod
    def load(cls, file: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Config:
        """Read the file, if there is one, and let the environment overrule it.

        Args:
            file: Read this one; it has to be there.

        Raises:
            ConfigurationError: a file, a line or a key cannot be used; the text names it.
        """
        environ = os.environ if environ is None else environ
        path = _find(file, environ)
        values = {} if path is None else _read(path)
        overruling = _overruling(environ)
        if overruling.keys() & _SECRETS:
            # What authenticates is one thing, whichever of them it was before.
            values = {key: value for key, value in values.items() if key not in _SECRETS}
        return cls(**values | overruling, file=path)

    def policies(self, queues: tuple[str, ...]) -> dict[str, RetryPolicy]:
        """The retry policy of each of *queues*."""
        return {queue: self.retry_by_queue.get(queue, self.retry) for queue in queues}

    def secrets(self) -> frozenset[str]:
        """What no text may show, whoever wrote it: what the URLs hide, the password, and the token of now."""
        found = {self.password or ""}
        with contextlib.suppress(ConfigurationError):
            found.add(self.smtp_password() or "")
        with contextlib.suppress(ConfigurationError):
            found.add(_secret_in("token", self.token_file) if self.token_file else "")
        for url in (self.store, self.transport):
            found |= secrets_in(url or "")
        return frozenset(found - {""})

    def smtp_password(self) -> str | None:
        """The password from the environment, else from its file; None where neither is named.

        Raises:
            ConfigurationError: the file cannot be read, or is empty; or it
                is no text.
        """
        if self.password is None:
            return None if self.password_file is None else _guarded("password", self.password_file)
        if _SURROGATE.search(self.password):
            raise ConfigurationError("OUTBOX_SMTP_PASSWORD is not UTF-8 text")
        return self.password

    def smtp_token(self) -> Callable[[], str] | None:
        """What reads the token's file, at each call anew; None where none is named.

        Raises:
            ConfigurationError: the file cannot be read now, or is empty; or
                there is a password as well.
        """
        if self.token_file is None:
            return None
        if self.password is not None or self.password_file is not None:
            raise ConfigurationError("there are a password and a token_file for SMTP: leave one of them out")
        _guarded("token", self.token_file)
        return functools.partial(_secret_in, "token", self.token_file)


_VARIABLES: Final[Mapping[str, str]] = {
    "store": "OUTBOX_STORE",
    "transport": "OUTBOX_TRANSPORT",
    "password_file": "OUTBOX_SMTP_PASSWORD_FILE",
    "password": "OUTBOX_SMTP_PASSWORD",
    "token_file": "OUTBOX_SMTP_TOKEN_FILE",
}
_SECRETS: Final = frozenset({"password", "password_file", "token_file"})


def _overruling(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says."""
    said = {key: environ[name] for key, name in _VARIABLES.items() if environ.get(name)}
    return {key: Path(text) if key.endswith("_file") else text for key, text in said.items()}


def _find(named: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    named = named or environ.get("OUTBOX_CONFIG")
    if named:
        return Path(named)
    homes = [environ.get("XDG_CONFIG_HOME") or "", os.path.join(environ.get("HOME") or "", ".config")]  # noqa: PTH118 - "" stays relative, and is passed over
    # The specification of XDG_CONFIG_HOME: a relative path is to be ignored.
    home = next((Path(home) for home in homes if os.path.isabs(home)), None)  # noqa: PTH117
    candidates = ([home / "outbox" / "outbox.toml"] if home else []) + [_SYSTEM_FILE]
    return next((path for path in candidates if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A home directory that this user may not look into has nothing for this user.
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    values = _Table(path, text, table).values(KEYS)
    retry, by_queue = values.pop("retry", (RetryPolicy(), {}))
    _warn_of_readers(path, values)
    return _anchored(values, path.parent) | {"retry": retry, "retry_by_queue": by_queue}


def _warn_of_readers(path: Path, values: Mapping[str, Any]) -> None:
    urls = (values.get("store", ""), values.get("transport", ""))
    if any(map(holds_secret, urls)) and _others_may_read(path):
        _LOG.warning("%s holds a password and others may read it: chmod o-rwx it", path)


def _anchored(values: dict[str, Any], home: Path) -> dict[str, Any]:
    """Relative paths in a file start from its directory: what they name must not depend on who looks."""
    home = home.resolve()
    for key in values.keys() & {"password_file", "token_file"}:
        values[key] = home / values[key]
    relative = _RELATIVE_SQLITE.fullmatch(values.get("store", ""))
    if relative:
        values["store"] = f"sqlite:///{quote(home.as_posix(), safe='/:')}/{relative['path']}"
    return values


@attrs.frozen
class _Table:
    """A table of the file, and how an error in it is told."""

    path: Path
    text: str
    entries: Mapping[str, Any]

    def values(self, readers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, entry in self.entries.items():
            if key not in readers:
                known = ", ".join(readers)
                raise self.wrong(
                    (key,),
                    f"unknown key {quoted(key, 40)}{did_you_mean(key, readers)} (known: {known})",
                )
            try:
                found[key] = readers[key](entry)
            except Within as error:
                place = (key, *error.place)
                raise self.wrong(place, f"{'.'.join(place)}: {error}") from None
            except ConfigurationError as error:
                raise self.wrong((key,), f"{key}: {error}") from None
        return found

    def wrong(self, place: Sequence[str], reason: str) -> ConfigurationError:
        line = _line_of(self.text, place)
        return ConfigurationError(f"{self.path}{f':{line}' if line else ''}: {reason}")


def _line_of(text: str, place: Sequence[str]) -> int | None:
    """The line where the entry at *place* begins: it is there once that much of the file is read."""
    lines = text.split("\n")
    begin = 1
    for number in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue  # an entry that goes on
        if _leads_somewhere(place, table):
            return begin
        begin = number + 1
    return None


def _leads_somewhere(place: Sequence[str], table: Any) -> bool:
    for key in place:
        if not isinstance(table, dict) or key not in table:
            return False
        table = table[key]
    return True


# -- the files that hold a secret


def _guarded(what: str, path: Path) -> str:
    """What it holds, with a warning where others can have it, too."""
    secret = _secret_in(what, path)
    if _others_may_read(path):
        _LOG.warning("others may read the %s file %s: chmod 600 it", what, path)
    return secret


def _secret_in(what: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_SECRET + 1).decode()
    except OSError as error:
        raise ConfigurationError(f"cannot read the {what} file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the {what} file {path} is not UTF-8 text") from None
    if len(secret) > _MAX_SECRET:
        raise ConfigurationError(f"the {what} file {path} is too long for a {what}")
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigurationError(f"the {what} file {path} is empty")
    if secret.startswith("\ufeff"):
        raise ConfigurationError(
            f"the {what} file {path} begins with a byte order mark (U+FEFF), which would be sent: save it without one"
        )
    if "\n" in secret or "\r" in secret:
        raise ConfigurationError(
            f"the {what} file {path} holds more than one line: leave the {what} alone in it"
        )
    return secret


def _others_may_read(path: Path) -> bool:
    try:
        return os.name == "posix" and bool(path.stat().st_mode & 0o004)
    except OSError:
        return False

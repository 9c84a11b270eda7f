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
    hook = "shop.mail:hook"                   # functions of yours
    listeners = ["shop.mail:told"]
    retry = "1m, 5m*2, 1h*3"                  # or a table:

    [retry]
    timeout = "4d"                            # schedule, attempts, timeout, wait_initial, wait_max,
    uncertain = "hold"                        # wait_exp_base, wait_jitter, uncertain
    [retry.queues]
    "mail.bulk" = "1h*5"                      # or again a table

    [limits]                                  # of each relay by itself: connections, per_second,
    per_second = 10                           # per_hour, per_day, new_connections_per_minute, shared
    [limits.relays]                           # of those that the transport names so, instead
    "corp.example" = { connections = 2 }

    soft_bounce = true                        # while going live: no refusal kills a message
    warn_after = "4h"                         # say which messages have waited so long
    aliases = "/etc/aliases"                  # of `outbox sendmail` and `outbox mail`
    suppress = "suppressed.txt"               # who is never written to; or a table of an SQLite database:
    # suppress = { database = "shop.db", table = "unsubscribed", column = "email" }
    bounce = true                             # tell the sender of what failed; or a table:

    [bounce]
    author = "mailer-daemon@example.org"      # MAILER-DAEMON at the domain, unless said
    whole_up_to = 50000                       # octets; of a larger mail the header is returned
    delayed = true                            # also tell the sender after warn_after
    queue = "mail"                            # the message's own, unless said

    processes = 2                             # of `outbox run`, which reads these when it begins
    pid_file = "/run/outbox/outbox.pid"
    metrics = "127.0.0.1:9464"
    log_format = "json"
    log_level = "info"
    log_file = "/var/log/outbox.log"
    log_config = "log.toml"
    due_warning = "10m"                       # of `outbox check`
    due_error = "1h"

    [[reply_rules]]                           # a relay that says so is left alone for a while, or,
    pattern = '4\\.7\\.\\d|too many mails'     # with per_second, spoken to slowly
    relay = "*.example.com:25"
    for = "15m"
    per_second = 0.5

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

import attrs

from outbox.errors import ConfigurationError
from outbox.relay import RelayLimits
from outbox.replies import ReplyRule
from outbox.retry import RetryPolicy
from outbox.values import frozen_mapping

from .conduct import BounceSettings, SuppressSettings
from .durations import spell
from .keys import KEYS
from .masking import holds_secret, masked, secrets_in
from .secret_files import guarded, others_may_read, secret_in

if TYPE_CHECKING:
    from .toml_file import TomlFile

__all__ = ["PASSWORD", "Config", "Said"]

_LOG: Final = logging.getLogger("outbox.locate")
_SYSTEM_FILE: Final = Path("/etc/outbox/outbox.toml")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_RELATIVE_SQLITE: Final = re.compile(r"sqlite:///(?![/~]|[A-Za-z]:/)(?P<path>.+)")
PASSWORD: Final = "OUTBOX_SMTP_PASSWORD"  # noqa: S105 - the name of a variable
_SECRETS: Final = frozenset({"password", "password_file", "token_file"})
_DUE: Final = frozenset({"due_warning", "due_error"})


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
    soft_bounce: bool = False
    warn_after: dt.timedelta | None = None
    aliases: Path | None = None
    suppress: SuppressSettings | None = None
    bounce: BounceSettings | None = None
    reply_rules: tuple[ReplyRule, ...] = ()
    hook: str | None = None
    listeners: tuple[str, ...] = ()
    processes: int = 1
    pid_file: Path | None = None
    metrics: tuple[str, int] | None = None
    log_format: Literal["text", "logfmt", "json"] | None = None
    log_level: str = "info"
    log_file: Path | None = None
    log_config: Path | None = None
    due_warning: dt.timedelta = dt.timedelta(minutes=10)
    due_error: dt.timedelta = dt.timedelta(hours=1)
    file: Path | None = None

    @classmethod
    def load(
        cls, file: str | Path | None = None, *, environ: Mapping[str, str] | None = None, warns: bool = True
    ) -> Config:
        """Read the file, if there is one, and let the environment overrule it.

        Args:
            file: Read this one; it has to be there.
            warns: Log it where others may read a password in the file.

        Raises:
            ConfigurationError: a file, a line or a key cannot be used; the text names it.
        """
        said = Said.read(file, environ=environ)
        for error in said.wrong:
            raise error
        if warns:
            said.warn()
        return said.config()

    def policies(self, queues: tuple[str, ...]) -> dict[str, RetryPolicy]:
        """The retry policy of each of *queues*."""
        found = {queue: self.retry_by_queue.get(queue, self.retry) for queue in queues}
        if not self.soft_bounce:
            return found
        return {queue: attrs.evolve(policy, soft_bounce=True) for queue, policy in found.items()}

    def at_odds(self) -> str | None:
        """What two settings cannot mean together, though each could alone; None where all is well."""
        if self.due_warning <= self.due_error:
            return None
        return (
            f"due_warning ({spell(self.due_warning)}) is above due_error ({spell(self.due_error)}): "
            "what is due for so long would never be warned of; say both, the warning first"
        )

    def secrets(self) -> frozenset[str]:
        """What no text may show, whoever wrote it: what the URLs hide, the password, and the token of now."""
        found = {self.password or ""}
        with contextlib.suppress(ConfigurationError):
            found.add(self.smtp_password() or "")
        with contextlib.suppress(ConfigurationError):
            found.add(secret_in("token", self.token_file) if self.token_file else "")
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
            return None if self.password_file is None else guarded("password", self.password_file)
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
        guarded("token", self.token_file)
        return functools.partial(secret_in, "token", self.token_file)


@attrs.frozen
class Said:
    """What the environment says, and the file: each of them by key, and the one goes before the other."""

    environment: Mapping[str, Any]
    file: TomlFile | None

    @classmethod
    def read(cls, file: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Said:
        """Read both; what is wrong in the file is noted, and nothing is raised for it."""
        environ = os.environ if environ is None else environ
        path = _find(file, environ)
        found = None
        if path is not None:
            from .toml_file import TomlFile  # noqa: PLC0415 - brings tomllib, of use where there is a file

            found = TomlFile.read(path, KEYS)
            found = attrs.evolve(found, values=_anchored(dict(found.values), found.path.parent))
            found = _agreeing(found)
        return cls(_of_environment(environ), found)

    @property
    def wrong(self) -> Sequence[ConfigurationError]:
        """What cannot be used."""
        return () if self.file is None else self.file.wrong

    @property
    def in_file(self) -> Mapping[str, Any]:
        """What the file says and nothing overrules as a whole."""
        values = {} if self.file is None else self.file.values
        if not self.environment.keys() & _SECRETS:
            return values
        # What authenticates is one thing, whichever of them it was before.
        return {key: value for key, value in values.items() if key not in _SECRETS}

    @property
    def secret_from(self) -> str | None:
        """The variable that says what authenticates, where one does."""
        names = [name for name in ("password", "password_file", "token_file") if name in self.environment]
        return next((PASSWORD if name == "password" else KEYS[name].variable for name in names), None)

    def config(self) -> Config:
        """What is in force by both."""
        values = {**self.in_file, **self.environment}
        retry, by_queue = values.pop("retry", (RetryPolicy(), {}))
        path = None if self.file is None else self.file.path
        return Config(**values, retry=retry, retry_by_queue=by_queue, file=path)

    def warn(self) -> None:
        """Say where others may read a password in the file."""
        if self.file is None:
            return
        urls = [self.file.values.get(name, "") for name in ("store", "transport")]
        if any(map(holds_secret, urls)) and others_may_read(self.file.path):
            _LOG.warning("%s holds a password and others may read it: chmod o-rwx it", self.file.path)


def _agreeing(file: TomlFile) -> TomlFile:
    """Without what its settings cannot mean together, which is noted as wrong."""
    odds = Said({}, file).config().at_odds()
    if odds is None:
        return file
    line = max(line for place, line in file.lines().items() if place[0] in _DUE)
    values = {name: value for name, value in file.values.items() if name not in _DUE}
    return attrs.evolve(
        file, values=values, wrong=(*file.wrong, ConfigurationError(f"{file.path}:{line}: {odds}"))
    )


def _of_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    variables = {key.name: key.variable for key in KEYS.values() if key.variable} | {"password": PASSWORD}
    said = {key: environ[name] for key, name in variables.items() if environ.get(name)}
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


def _anchored(values: dict[str, Any], home: Path) -> dict[str, Any]:
    """Relative paths in a file start from its directory: what they name must not depend on who looks."""
    with contextlib.suppress(OSError):
        home = home.resolve()
    for key, value in values.items():
        if isinstance(value, Path):
            values[key] = home / value
    relative = _RELATIVE_SQLITE.fullmatch(values.get("store", ""))
    if relative:
        values["store"] = f"sqlite:///{quote(home.as_posix(), safe='/:')}/{relative['path']}"
    suppress = values.get("suppress")
    if suppress is not None:
        values["suppress"] = attrs.evolve(
            suppress,
            file=None if suppress.file is None else home / suppress.file,
            database=None if suppress.database is None else home / suppress.database,
        )
    return values

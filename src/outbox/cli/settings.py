"""From options to the settings in force: an option goes before the environment, that before the file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from outbox.errors import ConfigurationError
from outbox.locate import KEYS, Config, holds_secret, masked

from .arguments import add_key
from .output import Console

__all__ = ["Settings", "add_serving", "config_of", "naming", "overruling"]


@attrs.frozen(kw_only=True, eq=False)
class Settings:
    """What a run has read at its start, or anew at a SIGHUP; each time another, even where the same is in it.

    Args:
        log: The table of ``--log-config``, which may hold passwords of its handlers.
        log_file: The file of ``--log-file``.
    """

    config: Config
    log: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    log_file: Path | None = None


def config_of(options: argparse.Namespace, console: Console, *, warns: bool = True) -> Config:
    """The configuration with what this command line overrules.

    Raises:
        ConfigurationError: something in it cannot be used, or not with what the command line says.
    """
    config = Config.load(options.config, warns=warns)
    overruled = overruling(options, config)
    for name in ("store", "transport"):
        if name in overruled:
            _warn_of_secret(name, overruled[name], console)
    config = attrs.evolve(config, **overruled)
    console.hide(config.secrets())
    odds = config.at_odds()
    if odds is not None:
        raise ConfigurationError(odds)
    return config


def naming(config: Config, url: str | None, option: str, console: Console) -> Config:
    """The same with the store that *option* names; None leaves it."""
    if url is None:
        return config
    if holds_secret(url):
        console.complain(
            f"warning: {_what(url)} in {option} can be seen by everybody on this machine who lists processes; "
            f"{_ELSEWHERE['store']}, and leave {option} out"
        )
    named = attrs.evolve(config, store=url)
    console.hide(named.secrets())
    return named


def overruling(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """What this command line says of settings, by key, where these are the others'."""
    said = {name: getattr(options, name, None) for name, key in KEYS.items() if key.options}
    if config.bounce is not None:
        del said["bounce"]  # what the file says of it is more
    return {name: value for name, value in said.items() if value not in (None, "", [])}


def _warn_of_secret(name: str, url: str, console: Console) -> None:
    if holds_secret(url):
        console.complain(
            f"warning: {_what(url)} in --{name} can be seen by everybody on this machine who lists processes; "
            f"{_BETTER[name] if url.partition(':')[0] in _BY_FILE else _ELSEWHERE[name]}"
        )


def _what(url: str) -> str:
    # The value of an option that nobody knows is hidden, too: it may be mistyped, and it may be a token.
    return "the password" if ":***@" in masked(url) else "what may be a password"


_ELSEWHERE: Final = {
    name: f"put the URL into OUTBOX_{name.upper()} or the configuration file"
    for name in ("store", "transport")
}
_BETTER: Final = _ELSEWHERE | {"transport": "put it into a file and name that with OUTBOX_SMTP_PASSWORD_FILE"}
_BY_FILE: Final = frozenset({"smtp", "smtps", "lmtp"})
"""What a password file is read for."""


def add_serving(parser: argparse.ArgumentParser) -> None:
    """The options of the commands that deliver."""
    for name in _SERVING:
        add_key(parser, name)


_SERVING: Final = (
    *("queues", "workers", "lease", "grace"),
    *("soft_bounce", "warn_after", "bounce", "suppress", "log_format"),
)

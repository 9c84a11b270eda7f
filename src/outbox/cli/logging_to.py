"""Where the lines of `outbox run` go, and which of them: the options --log-level, --log-file and --log-config."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import logging.config
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from outbox.errors import ConfigurationError
from outbox.locate import did_you_mean
from outbox.values import printable, quoted

from .exits import CommandError, Exit

__all__ = ["LogTo", "add_logging", "diverted", "log_to_of"]

_VERBOSITY: Final = {"debug": 1, "info": 0, "warning": -1, "error": -2}
_KEYS: Final = (
    "version",
    "formatters",
    "filters",
    "handlers",
    "loggers",
    "root",
    "incremental",
    "disable_existing_loggers",
)
_PART: Final = re.compile(
    r"Unable to configure (?:(?P<root>root) logger|(?P<kind>formatter|filter|handler|logger) '(?P<name>.*)')"
)
_STDERR: Final = 2
_LOGGER: Final = "outbox.run"


class _Level(argparse.Action):
    """`-v` and `-q` by the names of levels."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's signature
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - argparse's signature
    ) -> None:
        verbosity = _VERBOSITY[str(values)]
        namespace.verbose, namespace.quiet = max(verbosity, 0), max(-verbosity, 0)


def add_logging(parser: argparse.ArgumentParser) -> None:
    """The options that say what is logged, and where."""
    parser.add_argument(
        "--log-level",
        action=_Level,
        choices=tuple(_VERBOSITY),
        help="log what is at least so grave (default: info; the others are -v, -q and -qq)",
    )
    parser.add_argument(
        "--log-file",
        metavar="FILE",
        type=Path,
        help="append all lines to this file instead of standard error; SIGHUP opens it anew (logrotate)",
    )
    parser.add_argument(
        "--log-config",
        metavar="FILE",
        type=Path,
        help="a TOML or JSON file for Python's logging.config.dictConfig: it says what is logged where",
    )


@attrs.frozen(kw_only=True)
class LogTo:
    """Where lines go: *file* instead of standard error, *config* instead of our own lines."""

    file: Path | None
    config: Path | None

    @property
    def logger(self) -> logging.Logger | None:
        """Where our own lines go; None: to standard error."""
        return None if self.config is None else logging.getLogger(_LOGGER)

    def apply(self) -> None:
        """Open the file and read the configuration, at the start and again at a SIGHUP.

        Raises:
            CommandError: the file cannot be opened; the lines go where they went.
            ConfigurationError: the configuration cannot be used; the text names its key.
        """
        if self.config is not None:
            _configure(self.config)
        if self.file is not None:
            _redirect(self.file)


def log_to_of(options: argparse.Namespace) -> LogTo:
    """What the options say."""
    return LogTo(file=options.log_file, config=options.log_config)


@contextlib.contextmanager
def diverted(log_to: LogTo) -> Iterator[None]:
    """Within the block lines go where *log_to* says."""
    sys.stderr.flush()
    before = os.dup(_STDERR) if log_to.file is not None else None
    try:
        log_to.apply()
        yield
    finally:
        if before is not None:
            sys.stderr.flush()
            os.dup2(before, _STDERR)
            os.close(before)


def _redirect(path: Path) -> None:
    # The descriptor itself: what a signal handler, a crash or a process of ours writes goes there, too.
    try:
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    except OSError as error:
        raise CommandError(
            Exit.CONFIGURATION, f"--log-file {quoted(str(path), 200)}: {error.strerror or error}"
        ) from error
    sys.stderr.flush()
    os.dup2(opened, _STDERR)
    os.close(opened)


def _configure(path: Path) -> None:
    table = _read(path)
    for key in table:
        if key not in _KEYS:
            raise ConfigurationError(
                f"{path}: unknown key {quoted(key, 40)}{did_you_mean(key, _KEYS)} (known: {', '.join(_KEYS)})"
            )
    log = logging.getLogger("outbox")
    before = log.handlers[:], log.level, log.propagate
    # What the configuration does not name goes to its root.
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)
    try:
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False} | table)
    except Exception as error:
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])
        raise ConfigurationError(f"{path}: {_why(error)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"cannot read the logging configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigurationError(f"{path} is not {kind}: {error}") from None
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: must be one object")
    return table


def _why(error: BaseException) -> str:
    """The key that dictConfig stumbled over, and the first cause."""
    part = _PART.fullmatch(str(error))
    place = "" if part is None else f"{part['root'] or part['kind'] + 's.' + part['name']}: "
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error) or type(error).__name__
    return printable(f"{place}{words}", 500)

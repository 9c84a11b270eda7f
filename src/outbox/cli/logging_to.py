"""Where the lines of `outbox run` go, and which of them: log_level, log_file and log_config."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import logging.config
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.locate import did_you_mean
from outbox.values import printable, quoted, words_of

from .exits import CommandError, Exit

__all__ = ["VERBOSITY", "LogTo", "diverted"]

VERBOSITY: Final = {"debug": 1, "info": 0, "warning": -1, "error": -2}
"""What `-v` and `-q` are by the names of levels."""
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
_AT_ONCE: Final = getattr(os, "O_NONBLOCK", 0)
"""A named pipe without a reader is refused, and not waited for."""
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _AT_ONCE | getattr(os, "O_NOCTTY", 0)
_LOGGER: Final = "outbox.run"


class LogTo:
    """Where lines go: *file* instead of standard error, *config* instead of our own lines.

    Args:
        table: What *config* held, where somebody else has read it.
        discreet: A text without secrets, for the lines of *config*: ours have been through it.
    """

    def __init__(
        self,
        file: Path | None = None,
        config: Path | None = None,
        *,
        table: Mapping[str, Any] | None = None,
        discreet: Callable[[str], str] = str,
    ) -> None:
        self.file = file
        self._config = config
        self._discretion = _Discretion(discreet)
        self.table: Mapping[str, Any] | None = None
        """What is in force."""
        if table is not None:
            self.apply(table)

    @property
    def logger(self) -> logging.Logger | None:
        """Where our own lines go; None: to standard error."""
        named = self._config is not None or self.table is not None
        return logging.getLogger(_LOGGER) if named else None

    def reopen(self) -> None:
        """Open the file, at the start and again at a SIGHUP, whatever becomes of the settings: it may have been moved.

        Raises:
            CommandError: it cannot be opened; the lines go where they went.
        """
        if self.file is not None:
            _redirect(self.file)

    def read(self) -> Mapping[str, Any] | None:
        """The configuration as it is now, which is not in force yet.

        Raises:
            ConfigurationError: it cannot be read, or has a key that is not known.
        """
        return None if self._config is None else _read(self._config)

    def apply(self, table: Mapping[str, Any] | None) -> None:
        """Put in force what was read.

        Raises:
            ConfigurationError: it cannot be used, and what was in force still is; the text names its key.
        """
        if table is None:
            return
        try:
            self._put_in_force(table)
        except Exception as error:
            if self.table is not None:
                # dictConfig has emptied the root by then.
                with contextlib.suppress(Exception):
                    self._put_in_force(self.table)
            raise ConfigurationError(f"{self._config or '--log-config'}: {_why(error)}") from error
        self.table = table

    def _put_in_force(self, table: Mapping[str, Any]) -> None:
        _configure(table)
        loggers = (logging.getLogger(), *logging.root.manager.loggerDict.values())
        for logger in loggers:
            for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
                handler.addFilter(self._discretion)


class _Discretion(logging.Filter):
    """Takes secrets out of what a handler is given of ours: a plug-in may say in its errors what it was told."""

    def __init__(self, discreet: Callable[[str], str]) -> None:
        super().__init__("outbox")
        self._discreet = discreet

    def filter(self, record: logging.LogRecord) -> bool:
        """Yes: all records pass, and ours without secrets."""
        if not super().filter(record):
            return True
        shown = self._discreet(record.getMessage())
        if shown != record.getMessage():
            record.msg, record.args = shown, ()
        for name, value in list(vars(record).items()):
            if isinstance(value, str | Exception) and self._discreet(words_of(value)) != words_of(value):
                setattr(record, name, self._discreet(words_of(value)))
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if self._discreet(trace) != trace:
                # Formatters take the text where there is one.
                record.exc_info, record.exc_text = None, self._discreet(trace)
        return True


@contextlib.contextmanager
def diverted(log_to: LogTo) -> Iterator[None]:
    """Within the block lines go where *log_to* says."""
    sys.stderr.flush()
    before = os.dup(_STDERR) if log_to.file is not None else None
    try:
        log_to.apply(log_to.read())
        log_to.reopen()
        yield
    finally:
        if before is not None:
            sys.stderr.flush()
            os.dup2(before, _STDERR)
            os.close(before)


def _redirect(path: Path) -> None:
    # The descriptor itself: what a signal handler, a crash or a process of ours writes goes there, too.
    try:
        opened = os.open(path, _FLAGS, 0o640)
        if _FLAGS & _AT_ONCE:
            os.set_blocking(opened, True)
    except OSError as error:
        raise CommandError(
            Exit.CONFIGURATION, f"log file {quoted(str(path), 200)}: {error.strerror or error}"
        ) from error
    sys.stderr.flush()
    os.dup2(opened, _STDERR)
    os.close(opened)


def _configure(table: Mapping[str, Any]) -> None:
    log = logging.getLogger("outbox")
    before = log.handlers[:], log.level, log.propagate
    # What the configuration does not name goes to its root.
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)
    try:
        # A copy: dictConfig takes keys out of what it is given.
        logging.config.dictConfig(
            copy.deepcopy({"version": 1, "disable_existing_loggers": False} | dict(table))
        )
    except Exception:
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])
        raise


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
    for key in table:
        if key not in _KEYS:
            raise ConfigurationError(
                f"{path}: unknown key {quoted(key, 40)}{did_you_mean(key, _KEYS)} (known: {', '.join(_KEYS)})"
            )
    return table


def _why(error: BaseException) -> str:
    """The key that dictConfig stumbled over, and the first cause."""
    part = _PART.fullmatch(str(error))
    place = "" if part is None else f"{part['root'] or part['kind'] + 's.' + part['name']}: "
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error) or type(error).__name__
    return printable(f"{place}{words}", 500)

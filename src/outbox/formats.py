"""One line a record, for whoever reads logs: ``key=value`` pairs (logfmt), or JSON.

The formatters take whatever a record carries as ``extra``, ours or a
stranger's, and fit a dictConfig::

    [formatters.json]
    class = "outbox.formats.JSONFormatter"

No value holds a control character, whoever wrote it, and none is longer than 1,024
characters: a reply of a server can neither forge a line nor steer a terminal.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from .values import printable, words_of

__all__ = ["JSONFormatter", "LogfmtFormatter", "brief", "logfmt"]

_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE: Final = frozenset("!#$%&'()*+,-./:;<>?@[]^_`{|}~")
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def brief(duration: dt.timedelta) -> str:
    """The two largest units of a duration: ``7s``, ``12m``, ``2h05m``, ``3d04h``."""
    seconds = max(0, int(duration.total_seconds()))
    if seconds < _MINUTE:
        return f"{seconds}s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE}m"
    if seconds < _DAY:
        return f"{seconds // _HOUR}h{seconds % _HOUR // _MINUTE:02}m"
    return f"{seconds // _DAY}d{seconds % _DAY // _HOUR:02}h"


def logfmt(fields: Mapping[str, Any]) -> str:
    """``key=value`` pairs on one line; a value is quoted as in JSON where it has to be.

    Durations are seconds, with a fraction; but ``delay`` is as :func:`brief` has it.
    """
    return " ".join(f"{_key(name)}={_value(name, value)}" for name, value in fields.items())


def _key(name: str) -> str:
    if name.isascii() and name.isidentifier():
        return name
    shown = "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "_" for char in name)
    return shown[:100] or "_"


def _value(name: str, value: Any) -> str:
    if isinstance(value, dt.timedelta):
        return brief(value) if name == "delay" else f"{value.total_seconds():.3f}"
    text = printable(words_of(value))
    if text and all(char.isalnum() or char in _BARE for char in text):
        return text
    return json.dumps(text, ensure_ascii=False)


class _Formatter(logging.Formatter):
    """The fields of a record, in an order that a person can read."""

    def __init__(self, *_: Any, **__: Any) -> None:
        # Whatever a dictConfig says of a format: these lines have fields instead of one.
        super().__init__()

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Time, level and logger, then the record's own fields, or its message where it has none."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        start = {
            "time": at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        own = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        end = {} if own else {"msg": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            end |= {"exception": f"{type(error).__name__}: {words_of(error)}"}
        elif record.exc_text:
            # A filter has left the traceback as text, whose last line is the error.
            end |= {"exception": record.exc_text.splitlines()[-1]}
        return start | own | end


class LogfmtFormatter(_Formatter):
    """``time=… level=info logger=outbox.delivery status=sent to=ann@example.org …``."""

    def format(self, record: logging.LogRecord) -> str:
        return logfmt(self.fields(record))


class JSONFormatter(_Formatter):
    """The same as one JSON object a line, in ASCII: numbers are numbers, and durations seconds."""

    def format(self, record: logging.LogRecord) -> str:
        return as_json(self.fields(record))


def as_json(fields: Mapping[str, Any]) -> str:
    """One line of JSON; see :class:`JSONFormatter`."""
    return json.dumps({printable(name, 100): _plain(value) for name, value in fields.items()})


def _plain(value: Any) -> Any:
    if value is None or type(value) in {bool, int} or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, dt.timedelta):
        return round(value.total_seconds(), 3)
    return printable(words_of(value))

"""Of which type each setting is, so that a wrong one is named when the transport is made and not by the first message."""

from __future__ import annotations

import datetime as dt
import os
import ssl
from collections.abc import Mapping
from typing import Final

from outbox.errors import ConfigurationError
from outbox.values import frozen_mapping

from .dsn import DSN
from .steps import Timeouts

__all__ = ["check_types"]

_TEXT: Final = ("text", (str,))
_NUMBER: Final = ("a whole number", (int,))
_TIME: Final = ("a datetime.timedelta", (dt.timedelta,))
_FILE: Final = ("the name of a file", (str, os.PathLike))
_SWITCH: Final = ("True or False", (bool,))
_KINDS: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = frozen_mapping(
    {
        **dict.fromkeys(("host", "source_address", "local_hostname", "username", "password"), _TEXT),
        **dict.fromkeys(("port", "max_messages"), _NUMBER),
        **dict.fromkeys(("timeout", "max_age", "idle"), _TIME),
        **dict.fromkeys(("ca_file", "client_cert", "client_key"), _FILE),
        "path": ("the name of a Unix socket", (str, bytes, os.PathLike)),
        "ssl_context": ("an ssl.SSLContext", (ssl.SSLContext,)),
        "timeouts": ("a Timeouts", (Timeouts,)),
        "dsn": ("a DSN", (DSN,)),
        "pipelining": _SWITCH,
    }
)
_ALWAYS: Final = frozenset({"max_messages", "max_age", "idle", "pipelining"})
"""None is none of theirs."""


def check_types(**settings: object) -> None:
    """Is each of *settings* what its name asks for?

    Raises:
        ConfigurationError: one is not.  What it is instead is not shown, for it may be a password.
    """
    for name, value in settings.items():
        words, kinds = _KINDS[name]
        absent = value is None and name not in _ALWAYS
        # True is an int to Python, and no port.
        posing = isinstance(value, bool) and bool not in kinds
        if not absent and (posing or not isinstance(value, kinds)):
            raise ConfigurationError(f"SMTP {name} must be {words}, and is of type {type(value).__name__}")

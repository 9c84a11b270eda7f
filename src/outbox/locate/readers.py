"""What stands behind the ``?`` of a store's URL, from text to the settings of the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.values import frozen_mapping, quoted

from .durations import parse_duration

__all__ = ["SETTINGS", "parse_size", "parse_yes_or_no"]

_WHOLE: Final = re.compile(r"\d{1,18}", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,15})(|KiB|MiB|GiB|TiB)", re.ASCII)
_UNITS: Final = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_WORDS: Final = {"yes": True, "true": True, "no": False, "false": False}


def parse_size(text: str) -> int:
    """``"1000000"`` is bytes; KiB, MiB, GiB and TiB are 1024 times the one before.

    Raises:
        ConfigurationError: it is not of that form.
    """
    found = _SIZE.fullmatch(text)
    if not found:
        raise ConfigurationError(f"{quoted(text, 40)} is no size: write bytes, or 64KiB, 512MiB, 2GiB")
    return int(found[1]) << _UNITS[found[2]]


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ConfigurationError(f"{quoted(text, 40)} is no whole number, such as 100000")
    return int(text)


def parse_yes_or_no(text: str) -> bool:
    """``"yes"`` and ``"true"``, ``"no"`` and ``"false"``.

    Raises:
        ConfigurationError: it is none of them.
    """
    if text not in _WORDS:
        raise ConfigurationError(f"{quoted(text, 40)} is neither yes nor no")
    return _WORDS[text]


SETTINGS: Final[Mapping[str, Callable[[str], Any]]] = frozen_mapping(
    {
        "remember": parse_duration,
        "remember_at_most": _whole,
        "keep_delivered": parse_duration,
        "keep_content": parse_yes_or_no,
        "discard_after": parse_duration,
        "max_messages": _whole,
        "max_bytes": parse_size,
        "min_free": parse_size,
        "poll": parse_duration,
        "prefix": str,
        "busy_timeout": parse_duration,
        "timeout": parse_duration,
        "ca_file": str,
        "client_cert": str,
        "client_key": str,
        "db": str,
        "schema": str,
        "max_connections": _whole,
        "patience": parse_duration,
        "notify": parse_yes_or_no,
        "listen": parse_yes_or_no,
        "prepare": parse_yes_or_no,
    }
)
"""How each option is read, by the names under which the stores take them."""

"""What the frozen values share: read-only mappings, printable text, checks of instants."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

REPLY_LIMIT = 1024


def frozen_mapping(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """A read-only copy, in the same order."""
    return MappingProxyType(dict(mapping))


def printable(text: str, limit: int = REPLY_LIMIT) -> str:
    """Text of a stranger, fit for a terminal, a log line and a database: escaped and capped.

    Control, bidirectional and unprintable characters become backslash
    escapes, so that a server's reply can neither forge a log line nor steer
    a terminal.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown = "".join(map(_escape, text[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quoted(text: str, limit: int = 80) -> str:
    """The same in quotation marks, for an error that names what it was given."""
    return f"'{printable(text, limit)}'"


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    return char.encode("unicode_escape").decode("ascii")


def require_aware(name: str, moment: dt.datetime | None) -> dt.datetime | None:
    """The moment in UTC; a naive one raises ``ValueError``, for nobody can tell when it is."""
    if moment is None:
        return None
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(
            f"{name} is {moment.isoformat()} without a time zone: "
            "pass an aware datetime, such as datetime.now(timezone.utc)"
        )
    return moment.astimezone(dt.UTC)

"""What the frozen values share: read-only mappings, printable text, checks of instants."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

REPLY_LIMIT = 1024
DIALOGUE_LIMIT = 16 << 10
"""How many characters of a dialogue are kept."""
_DIALOGUE_LINE = 500


def frozen_mapping(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """A read-only copy, in the same order."""
    return MappingProxyType(dict(mapping))


def type_name(thing: object) -> str:
    """What it is an object of, as one may say it: with the library that has it, where Python itself has not."""
    kind = type(thing)
    library = kind.__module__.partition(".")[0]
    return kind.__name__ if library == "builtins" else f"{library}.{kind.__name__}"


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


def words_of(value: object) -> str:
    """What *value* says of itself, a stranger's, which may fail at it."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an error whose words are one, too
        return "(no words)"


def quoted(text: str, limit: int = 80) -> str:
    """The same in quotation marks, for an error that names what it was given."""
    return f"'{printable(text, limit)}'"


def printable_lines(text: str) -> str:
    """A dialogue with a stranger, line by line as :func:`printable` has it, and abridged."""
    if not text:
        return ""
    return "\n".join(abridged([printable(line, _DIALOGUE_LINE) for line in text.split("\n")]))


def abridged(
    lines: Sequence[str], *, limit: int = DIALOGUE_LIMIT, gap: int | None = None, missing: int = 0
) -> list[str]:
    """*lines*, or where they come to more than *limit* their beginning, how many are left out, and their end.

    Args:
        gap: How many of them stand before those that are missing already; None where none are.
        missing: How many are missing there.
    """
    if gap is None and sum(map(len, lines)) + len(lines) <= limit:
        return list(lines)
    half = limit // 2 - 20
    first = _fitting(lines if gap is None else lines[:gap], half)
    last = _fitting(lines[first if gap is None else gap :][::-1], half)
    left_out = missing + len(lines) - first - last
    return [*lines[:first], f"… {left_out:,} lines left out …", *lines[len(lines) - last :]]


def _fitting(lines: Sequence[str], limit: int) -> int:
    """How many of *lines*, from the first on, have room in *limit*."""
    for number, line in enumerate(lines):
        limit -= len(line) + 1
        if limit < 0:
            return number
    return len(lines)


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    return char.encode("unicode_escape").decode("ascii")


def require_aware(name: str, moment: dt.datetime | None) -> dt.datetime | None:
    """The moment in UTC.

    Raises:
        ValueError: it is naive, for nobody can tell when it is; or so near the
            end of the calendar that in UTC it is beyond it.
    """
    if moment is None:
        return None
    if not isinstance(moment, dt.datetime):
        raise ValueError(f"{name} must be an aware datetime, not {type(moment).__name__}")  # noqa: TRY004 - as for every other value
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(
            f"{name} is {moment.isoformat()} without a time zone: "
            "pass an aware datetime, such as datetime.now(timezone.utc)"
        )
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError(f"{name} is {moment.isoformat()}, which UTC has no year for") from None

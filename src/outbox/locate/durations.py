"""Durations as people write and read them: ``90s``, ``1h30m``; ``2 h 5 min``."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from outbox.errors import ConfigurationError
from outbox.values import quoted

__all__ = ["parse_duration", "spell"]

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER: Final = r"\d{1,9}(?:\.\d{1,6})?"
_DURATION: Final = re.compile(rf"{_NUMBER}|(?:{_NUMBER}(?:ms|[smhd]))+", re.ASCII)
_PART: Final = re.compile(rf"({_NUMBER})(ms|[smhd]?)", re.ASCII)
_SPELLED: Final = (("d", 86400), ("h", 3600), ("min", 60))


def parse_duration(text: str) -> dt.timedelta:
    """``"90"`` and ``"90s"`` are seconds, ``"500ms"`` half a one; m, h and d are minutes, hours and days; ``"1h30m"`` adds up.

    Raises:
        ConfigurationError: it is not of that form.
    """
    if not _DURATION.fullmatch(text.strip()):
        raise ConfigurationError(f"{quoted(text, 40)} is not a duration: write 500ms, 30s, 10m, 1h30m or 2d")
    seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in _PART.findall(text))
    try:
        return dt.timedelta(seconds=seconds)
    except OverflowError:
        raise ConfigurationError(f"{quoted(text, 40)} is longer than outbox can count") from None


def spell(duration: dt.timedelta, *, units: int = 2) -> str:
    """The largest *units* of a duration, for a person: ``2 h 5 min``; below a minute, seconds."""
    seconds = max(0.0, duration.total_seconds())
    if round(seconds) < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits
    left = round(seconds)
    parts: list[str] = []
    for unit, size in _SPELLED:
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number} {unit}" if number else "")
    return " ".join(filter(None, parts[:units]))

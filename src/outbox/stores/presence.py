"""What is kept of those who say that they are here, and how: pure, and the same for every store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import attrs

from outbox.protocols import Presence

from .instants import EARLIEST, FOREVER, span

__all__ = ["AT_MOST", "Said", "shown", "spent"]

_DAY: Final = 86_400 * 1_000_000
AT_MOST: Final = 200
"""So many are kept: nobody has more runners on one store, and one that is killed every minute leaves no more."""


@attrs.frozen
class Said:
    """A text, when it was said, and until when it holds: microseconds since 1970."""

    name: str
    text: str
    at: int
    until: int

    @property
    def data(self) -> str:
        """The text as it is kept; the name is kept beside it."""
        return json.dumps({"at": self.at, "until": self.until, "text": self.text})

    @classmethod
    def read(cls, name: str, data: str | bytes) -> Said | None:
        """The inverse of :attr:`data`; None of anything else."""
        try:
            fields: Any = json.loads(data)
            text, at, until = fields["text"], fields["at"], fields["until"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        whole = type(text) is str and type(at) is int and type(until) is int
        return cls(name, text, at, until) if whole and EARLIEST <= at <= until <= FOREVER else None


def shown(said: Iterable[Said | None], now: int) -> list[Presence]:
    """Those that can be read, sorted by name."""
    found = (
        Presence(name=each.name, text=each.text, age=span(max(0, now - each.at)), left=span(each.until - now))
        for each in said
        if each is not None and not _over(each, now)
    )
    return sorted(found, key=lambda each: each.name)


def spent(said: Iterable[Said], now: int) -> list[str]:
    """The names of those that need not be kept any more."""
    latest_first = sorted(said, key=lambda each: (-each.until, each.name))
    return [each.name for n, each in enumerate(latest_first) if n >= AT_MOST or _over(each, now)]


def _over(said: Said, now: int) -> bool:
    return said.until + _DAY < now

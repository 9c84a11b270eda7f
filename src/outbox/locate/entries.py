"""What one entry of the configuration file may be; most of it holds for an option's text, too."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from outbox.address import parse_mailbox
from outbox.errors import ConfigurationError, InvalidMessage
from outbox.message import Message
from outbox.values import printable, quoted

from .durations import parse_duration

__all__ = [
    "Within",
    "above_zero",
    "address",
    "domain",
    "duration",
    "flag",
    "grace",
    "importable",
    "importables",
    "kind",
    "lease",
    "number",
    "numeral",
    "octets",
    "one_of",
    "path",
    "positive",
    "queue",
    "queues",
    "shown",
    "text",
    "whole",
]

_ZERO: Final = dt.timedelta(0)
_DAY: Final = dt.timedelta(days=1)
_PORTS: Final = 65535
_MOST: Final = 1_000_000_000
_DOTTED: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_OBJECT: Final = re.compile(rf"{_DOTTED}:{_DOTTED}", re.ASCII)


class Within(ConfigurationError):
    """What is wrong stands deeper: *place* are the keys, and the numbers in an array, that lead there."""

    def __init__(self, place: Sequence[str | int], reason: object) -> None:
        super().__init__(str(reason))
        self.place = tuple(place)

    def deeper(self, *before: str | int) -> Within:
        """The same, seen from further out."""
        return Within((*before, *self.place), self)


def text(entry: Any) -> str:
    if not isinstance(entry, str) or not entry:
        # Without the entry: it may hold a password.
        raise ConfigurationError(f"must be text, not {kind(entry)}")
    return entry


def _worded(entry: Any) -> str:
    """The same, where what an empty one is not is said elsewhere."""
    return "" if entry == "" else text(entry)


def kind(entry: Any) -> str:
    """What it is, where what it says is not to be shown."""
    if entry == "":
        return "an empty one"
    kinds = {dict: "a table", list: "an array", str: "text", bool: "true or false"}
    return kinds.get(type(entry), "a number or a date")


def path(entry: Any) -> Path:
    if entry == "":
        raise ConfigurationError("'' names no file")
    if "\0" in text(entry):
        raise ConfigurationError("holds a NUL, which no file name does")
    return Path(entry)


def one_of(*choices: str) -> Callable[[Any], str]:
    """One of a few words."""

    def read(entry: Any) -> str:
        if entry not in choices:
            raise ConfigurationError(f"must be one of {', '.join(choices)}, not {shown(entry)}")
        return str(entry)

    return read


def whole(entry: Any, most: int = _MOST) -> int:
    if not isinstance(entry, int) or isinstance(entry, bool) or entry < 1:
        raise ConfigurationError(f"must be a whole number from 1, not {shown(entry)}")
    if entry > most:
        raise ConfigurationError(f"must be at most {most:,}, not {shown(entry)}")
    return entry


def numeral(said: str, most: int = _MOST) -> int:
    """The same of a text."""
    # As text first: thousands of digits are no number to Python either.
    found = int(said) if said.isascii() and said.isdigit() and len(said) <= len(str(most)) else 0
    if not 1 <= found <= most:
        raise ConfigurationError(f"{quoted(said, 40)} is not a whole number from 1 to {most:,}")
    return found


def octets(entry: Any) -> int:
    """A whole number, or none at all."""
    return 0 if entry == 0 and not isinstance(entry, bool) else whole(entry)


def flag(entry: Any) -> bool:
    if not isinstance(entry, bool):
        raise ConfigurationError(f"must be true or false, not {shown(entry)}")
    return entry


def number(entry: Any) -> float:
    if not isinstance(entry, int | float) or isinstance(entry, bool):
        raise ConfigurationError(f"must be a number, not {shown(entry)}")
    return float(entry)


def above_zero(entry: Any) -> float:
    found = number(entry)
    if not 0 < found < math.inf:
        raise ConfigurationError(f"must be a number above 0, not {shown(entry)}")
    return found


def duration(entry: Any) -> dt.timedelta:
    if isinstance(entry, bool) or not isinstance(entry, int | float | str):
        raise ConfigurationError(f'must be a duration such as "30s" or "2h", not {shown(entry)}')
    return parse_duration(str(entry))


def positive(entry: Any) -> dt.timedelta:
    """More than nothing."""
    found = duration(entry)
    if not found > _ZERO:
        raise ConfigurationError("must be more than 0 s")
    return found


def lease(entry: Any) -> dt.timedelta:
    """More than nothing, and a day at most: what is longer is a slip of the pen."""
    found = duration(entry)
    if not _ZERO < found <= _DAY:
        raise ConfigurationError(f"must be more than 0 s and a day at most, not {shown(entry)}")
    return found


def grace(entry: Any) -> dt.timedelta:
    """A day at most."""
    found = duration(entry)
    if found > _DAY:
        raise ConfigurationError(f"must be a day at most, not {shown(entry)}")
    return found


def queues(entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, list) or not entry or not all(isinstance(name, str) and name for name in entry):
        raise ConfigurationError(f'must be a list of names, such as ["mail"], not {shown(entry)}')
    if len(set(entry)) < len(entry):
        raise ConfigurationError(f"names a queue twice: {shown(entry)}")
    return tuple(map(queue, entry))


def queue(name: str) -> str:
    """A queue's name, checked: one that no message can have would be served for ever in vain."""
    try:
        return Message(recipients=("nobody",), content=b"", queue=_worded(name)).queue
    except InvalidMessage as error:
        raise ConfigurationError(str(error)) from None


def domain(entry: Any) -> str:
    """What completes a bare name, checked."""
    name = _worded(entry)
    if not name:
        raise ConfigurationError("'' is no domain: write example.org")
    try:
        parse_mailbox("root", origin=name)
    except InvalidMessage as error:
        # Nobody wrote the address that it was tried with.
        why = (
            str(error)
            .removeprefix("address 'root' ")
            .replace(" in its domain", "")
            .replace("a domain l", "a l")
        )
        raise ConfigurationError(f"{quoted(name, 80)} is no domain: it {why}") from None
    return name


def address(entry: Any) -> tuple[str, int]:
    """A host and a port; port 0 is one that the system gives."""
    host, _, port = text(entry).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise ConfigurationError(f"{quoted(entry, 80)} is no address: write 127.0.0.1:9464")
    return host, 0 if port == "0" else numeral(port, _PORTS)


def importable(entry: Any) -> str:
    """An object of a program, as ``package.module:name``."""
    if not isinstance(entry, str) or not _OBJECT.fullmatch(entry):
        raise ConfigurationError(f'must be "package.module:name", not {shown(entry)}')
    return entry


def importables(entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, list):
        raise ConfigurationError(f'must be a list such as ["package.module:name"], not {shown(entry)}')
    return tuple(map(importable, entry))


def shown(entry: Any) -> str:
    return printable(repr(entry), 60)

"""What the values of options may be: each a text that argparse hands over, or a usage error that says what it takes."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from outbox.errors import ConfigurationError
from outbox.locate import KEYS, Config, Key, entries, parse_duration, spelled
from outbox.values import quoted

__all__ = [
    "add_duration",
    "add_key",
    "domain",
    "duration",
    "file",
    "message_id",
    "queue",
    "refused_by_argparse",
    "whole",
    "words",
]

T = TypeVar("T")

_ID: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)


def add_key(parser: argparse.ArgumentParser, name: str, help: str = "") -> None:
    """The option of a setting; *help* where a command has its own words for it."""
    key = KEYS[name]
    text = help or _with_default(key, spelled(getattr(Config(), name)))
    how: dict[str, Any] = {
        "metavar": key.metavar,
        "type": functools.partial(refused_by_argparse, key.parse or key.read),
    }
    if key.const is not None:
        how = {"action": "store_const", "const": key.const}
    elif key.choices:
        how = {"choices": key.choices}
    elif key.many:
        how["action"] = "append"
    parser.add_argument(*key.options, dest=name, help=text, **how)


def _with_default(key: Key, default: str | None) -> str:
    if default is None or key.const is not None or "(default" in key.help:
        return key.help
    return f"{key.help.removesuffix(')')}{'; ' if key.help.endswith(')') else ' ('}default: {default})"


def add_duration(parser: argparse.ArgumentParser, name: str, *, help: str) -> None:
    """An option whose value is a duration, such as 30s or 2h."""
    parser.add_argument(name, metavar="TIME", type=duration, help=help)


def whole(text: str) -> int:
    """What an option that counts takes: a number from 1."""
    return refused_by_argparse(entries.numeral, text)


def message_id(text: str) -> str:
    """An id, or how one begins."""
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{quoted(text, 80)} is no id: those are of a-z, 0-9, '_' and '-'")
    return text


def words(text: str) -> str:
    """A person's words for the next one who looks: one line of text."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{quoted(text, 80)} is not one line of text")
    return text


def queue(text: str) -> str:
    """A queue's name."""
    return refused_by_argparse(entries.queue, text)


def file(text: str) -> Path:
    """Where a file is, or is to be."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no file")
    return Path(text)


def domain(text: str) -> str:
    """What completes a bare name."""
    return refused_by_argparse(entries.domain, text)


def duration(text: str) -> Any:
    """What an option that is a duration takes."""
    return refused_by_argparse(parse_duration, text)


def refused_by_argparse(reader: Callable[[str], T], text: str) -> T:
    """What *reader* makes of an option's value; what it refuses is a usage error."""
    try:
        return reader(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

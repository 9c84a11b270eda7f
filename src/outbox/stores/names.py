"""What is asked for by name: whether a message, or a file, can have that name at all.

A store asks here before it asks its database or its file system, whose answer
to what is no text, or no name, is a different error each.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.protocols import Change, Suspension
from outbox.values import quoted

from .standing import named, unknown

__all__ = [
    "answered",
    "beginning",
    "file_name",
    "is_id",
    "is_queue",
    "require_presence",
    "require_queue",
    "require_reason",
    "require_register",
    "require_suspension",
]

# Those of outbox.message; a test sees that they stay the same.
_ID: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_QUEUE: Final = re.compile(r"[a-z0-9._-]{1,64}", re.ASCII)
_BEYOND: Final = re.compile(r"[^\x00-\x7f].*", re.DOTALL)
_LONGEST: Final = 16 << 10
_LONGEST_REGISTER: Final = 1 << 10
_NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")


def is_id(id: Any) -> bool:
    """Whether a message can have this id."""
    return isinstance(id, str) and _ID.fullmatch(id) is not None


def is_queue(name: Any) -> bool:
    """Whether a message can be of this queue."""
    return isinstance(name, str) and _QUEUE.fullmatch(name) is not None


def answered(
    ids: Sequence[str],
    command: Callable[[Sequence[str]], Sequence[Change]],
    possible: Callable[[object], bool] = is_id,
) -> list[Change]:
    """One change for each id, in order: *command*'s, and ``unknown`` where no message can have that id.

    Args:
        possible: Whether a message can be shown under that id: a damaged one may have any.

    Raises:
        ConfigurationError: *ids* is one bare string.
    """
    every = named(ids)
    answers = iter(command([id for id in every if possible(id)]))
    return [next(answers) if possible(id) else unknown(id) for id in every]


def beginning(after: str) -> str:
    """Ids are greater than this where they are greater than *after*; it is ASCII text.

    Raises:
        ConfigurationError: it is no string.
    """
    if not isinstance(after, str):
        raise ConfigurationError(
            f"after is of type {type(after).__name__}: pass an id, or '' for the first page"
        )
    # What is beyond ASCII is greater than all that an id is made of.
    return _BEYOND.sub("\x7f", after)


def require_queue(name: Any) -> str:
    """The name of a queue that a message can have.

    Raises:
        ConfigurationError: none can have it: it would be served in vain.
    """
    if not is_queue(name):
        raise ConfigurationError(
            f"queue {quoted(str(name))} is not 1 to 64 characters of a-z, 0-9, '.', '_' and '-'"
        )
    queue: str = name
    return queue


def require_suspension(kind: str, value: str, reason: str = "") -> None:
    """Raise ConfigurationError where nothing can be suspended so: of no known kind, of no possible value."""
    try:
        Suspension(kind=kind, value=value)  # type: ignore[arg-type]  # it is its own check
        if kind == "queue":
            require_queue(value)
        _require_text(kind, value)
        _require_text("reason", reason)
    except ConfigurationError as error:
        raise ConfigurationError(f"this suspension cannot be: {error}") from None


def require_presence(name: Any, text: Any, for_: dt.timedelta) -> None:
    """Raise ConfigurationError where nobody can say this of himself."""
    if not is_id(name):
        raise ConfigurationError(
            f"presence {quoted(str(name), 80)} is not 1 to 64 characters of a-z, 0-9, '_' and '-'"
        )
    _require_text(f"what {name} says", text)
    if len(text.encode()) > _LONGEST:
        raise ConfigurationError(f"what {name} says is longer than {_LONGEST} bytes")
    if for_ <= dt.timedelta(0):
        raise ConfigurationError(f"what {name} says has to hold for some time, not for {for_}")


def require_register(name: Any, text: Any = "-") -> None:
    """Raise ConfigurationError where there can be no register of this name, or this text cannot stand in it."""
    if not is_id(name):
        raise ConfigurationError(
            f"register {quoted(str(name), 80)} is not 1 to 64 characters of a-z, 0-9, '_' and '-'"
        )
    _require_text(f"text of the register {name}", text)
    if not 0 < len(text.encode()) <= _LONGEST_REGISTER:
        raise ConfigurationError(
            f"the text of the register {name} is empty or longer than {_LONGEST_REGISTER} bytes"
        )


def require_reason(reason: Any) -> None:
    """Raise ConfigurationError where a person's words are none that can be kept."""
    try:
        _require_text("reason", reason)
    except ConfigurationError as error:
        raise ConfigurationError(f"this hold cannot be: {error}") from None


def file_name(path: str | bytes | os.PathLike[Any]) -> str:
    """The path as text.

    Raises:
        ConfigurationError: no file can have it.
    """
    try:
        name = os.fsdecode(path)
        if b"\0" not in os.fsencode(name):
            return name
    except UnicodeError:
        pass
    raise ConfigurationError(f"the path {quoted(str(path))} holds what no file name does: name another")


def _require_text(what: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ConfigurationError(f"its {what} is of type {type(text).__name__}, and has to be text")
    if _NO_TEXT.search(text):
        raise ConfigurationError(
            f"its {what} {quoted(text)} holds a NUL or a lone surrogate, which is no text"
        )

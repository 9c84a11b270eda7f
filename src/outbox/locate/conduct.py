"""What the configuration file says of mail that fails, waits, or is not to be sent: as values, and how they are read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, Final

import attrs

from outbox.address import parse_mailbox
from outbox.errors import ConfigurationError, InvalidMessage
from outbox.replies import ReplyRule

from .entries import Within, above_zero, duration, flag, importable, octets, path, queue, shown, text
from .tables import Readers, fields

__all__ = [
    "BOUNCE",
    "RULE",
    "SUPPRESS",
    "BounceSettings",
    "SuppressSettings",
    "bounce",
    "reply_rules",
    "suppress",
]


@attrs.frozen(kw_only=True)
class BounceSettings:
    """Who is told of what failed, and how; *author* is ``MAILER-DAEMON`` at the domain unless it is said."""

    author: str | None = None
    queue: str | None = None
    whole_up_to: int = 50_000
    delayed: bool = False


@attrs.frozen(kw_only=True)
class SuppressSettings:
    """Where it stands who is not to be written to: a *file*; a *database* with a *table* and its *column*; or what *python* names."""

    file: Path | None = None
    database: Path | None = None
    table: str = ""
    column: str = "address"
    python: str = ""


def bounce(entry: Any) -> BounceSettings | None:
    """``true``, or a table."""
    if isinstance(entry, bool):
        return BounceSettings() if entry else None
    return BounceSettings(**fields(entry, BOUNCE, "true, or a table such as { delayed = true }"))


def suppress(entry: Any) -> SuppressSettings:
    """A file, or a table."""
    if isinstance(entry, str):
        return SuppressSettings(file=path(entry))
    said = fields(entry, SUPPRESS, "a file, or a table such as { database = ..., table = ... }")
    if said.keys() != {"python"} and ("python" in said or not {"database", "table"} <= said.keys()):
        raise ConfigurationError(
            'needs a database and a table, or python = "package.module:name" alone, or is a file: '
            'suppress = "suppressed.txt"'
        )
    return SuppressSettings(**said)


def reply_rules(entry: Any) -> tuple[ReplyRule, ...]:
    """Tables, in their order."""
    if not isinstance(entry, list):
        raise ConfigurationError(f"must be {_RULES}, not {shown(entry)}")
    return tuple(_reply_rule(number, each) for number, each in enumerate(entry))


def _reply_rule(number: int, entry: Any) -> ReplyRule:
    try:
        said = {"for": dt.timedelta(minutes=15)} | fields(entry, RULE, _RULES)
        return ReplyRule(**_patterned(said), lasting=said["for"])
    except Within as error:
        raise error.deeper(number) from None
    except ConfigurationError as error:
        raise Within([number], error) from None


def _patterned(said: dict[str, Any]) -> dict[str, Any]:
    if "pattern" not in said:
        raise ConfigurationError("a rule needs a pattern")
    return {name: value for name, value in said.items() if name != "for"}


def _pattern(entry: Any) -> str:
    """As a rule of nothing else takes it."""
    pattern = text(entry)
    ReplyRule(pattern=pattern)
    return pattern


def _lasting(entry: Any) -> dt.timedelta:
    lasting = duration(entry)
    ReplyRule(pattern="x", lasting=lasting)
    return lasting


def _author(entry: Any) -> str:
    try:
        return parse_mailbox(text(entry))
    except InvalidMessage as error:
        raise ConfigurationError(str(error)) from None


_RULES: Final = "tables, each under [[reply_rules]]"
BOUNCE: Final[Readers] = {"author": _author, "queue": queue, "whole_up_to": octets, "delayed": flag}
SUPPRESS: Final[Readers] = {"database": path, "table": text, "column": text, "python": importable}
RULE: Final[Readers] = {"pattern": _pattern, "relay": text, "per_second": above_zero, "for": _lasting}

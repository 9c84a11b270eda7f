"""Settings as the configuration file would say them: each value as TOML has it, and each by its place."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from outbox.relay import EVERY_OTHER, RelayLimits
from outbox.replies import ReplyRule
from outbox.retry import RetryPolicy

from .conduct import BounceSettings, SuppressSettings
from .masking import masked

if TYPE_CHECKING:
    from .config import Config

__all__ = ["leaves", "plain", "spelled", "toml"]

_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}

Leaf = tuple[tuple[str | int, ...], Any]


def plain(value: Any) -> Any:
    """A value as TOML and JSON have it: text, a number, true or false, a list; None is said nowhere."""
    match value:
        case dt.timedelta():
            return _duration(value)
        case Path():
            return str(value)
        case (str() as host, int() as port):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case float() if value.is_integer():
            return int(value)
        case tuple():
            return [plain(each) for each in value]
    return value


def toml(value: Any) -> str | None:
    """The same as a piece of TOML; None where nothing is said."""
    if value is None:
        return None
    # A JSON text is a TOML basic string, an array of them a TOML array.
    return json.dumps(value, ensure_ascii=False)


def spelled(value: Any) -> str | None:
    """For a person: a text without its quotes."""
    found = plain(value)
    if isinstance(found, list):
        return ", ".join(map(str, found)) or None
    return found if found is None or isinstance(found, str) else toml(found)


def leaves(config: Config, name: str) -> Iterator[Leaf]:
    """All that is in force of one setting; each piece of a table for itself, and secrets hidden."""
    value = getattr(config, name)
    match name:
        case "store" | "transport":
            yield (name,), value and masked(value)
        case "retry":
            yield from _retry(config)
        case "limits":
            yield from _limits(value)
        case "bounce":
            yield (name,), value is not None
            yield from _table((name,), value or None)
        case "suppress" if value is not None:
            yield from _suppress(value)
        case "reply_rules" if value:
            for number, rule in enumerate(value):
                yield from _rule((name, number), rule)
        case _:
            yield (name,), plain(value)


def _retry(config: Config) -> Iterator[Leaf]:
    policies = {("retry",): config.retry} | {
        ("retry", "queues", q): p for q, p in config.retry_by_queue.items()
    }
    for before, policy in policies.items():
        for place, value in _policy(before, policy):
            # The one for all queues is a setting of its own, and says it for these.
            if place[-1] != "soft_bounce" or not config.soft_bounce:
                yield place, value


def _policy(before: tuple[str | int, ...], policy: RetryPolicy) -> Iterator[Leaf]:
    for name in ("schedule", *(f.name for f in attrs.fields(RetryPolicy) if f.name != "schedule")):
        value = getattr(policy, name)
        if policy.schedule is not None and name.startswith("wait_") and name != "wait_jitter":
            continue  # a schedule says that
        if name == "schedule":
            value = None if value is None else _schedule(value)
        yield (*before, name), plain(value)


def _limits(limits: Mapping[str, RelayLimits]) -> Iterator[Leaf]:
    yield from _table(("limits",), limits.get(EVERY_OTHER, RelayLimits()))
    for key, those in limits.items():
        if key != EVERY_OTHER:
            yield from (leaf for leaf in _table(("limits", "relays", key), those) if leaf[1] is not None)


def _suppress(said: SuppressSettings) -> Iterator[Leaf]:
    if said.file is not None:
        yield ("suppress",), plain(said.file)
    elif said.python:
        yield ("suppress", "python"), said.python
    else:
        yield ("suppress", "database"), plain(said.database)
        yield ("suppress", "table"), said.table
        yield ("suppress", "column"), said.column


def _rule(before: tuple[str | int, ...], rule: ReplyRule) -> Iterator[Leaf]:
    yield (*before, "pattern"), rule.pattern.pattern
    yield (*before, "relay"), rule.relay
    yield (*before, "for"), plain(rule.lasting)
    yield (*before, "per_second"), rule.per_second


def _table(before: tuple[str | int, ...], settings: RelayLimits | BounceSettings | None) -> Iterator[Leaf]:
    if settings is not None:
        for field in attrs.fields(type(settings)):
            yield (*before, field.name), plain(getattr(settings, field.name))


def _schedule(steps: tuple[dt.timedelta, ...]) -> str:
    words = []
    for step, same in itertools.groupby(steps):
        times = len(list(same))
        words.append(_step(step) + (f"*{times}" if times > 1 else ""))
    return ", ".join(words)


def _step(step: dt.timedelta) -> str:
    """In one unit, as a schedule has it."""
    for unit, size in _UNITS.items():
        if step and not step % dt.timedelta(seconds=size):
            return f"{step // dt.timedelta(seconds=size)}{unit}"
    return f"{step.total_seconds():g}s"


def _duration(duration: dt.timedelta) -> str:
    words, left = "", duration
    for unit, size in _UNITS.items():
        if unit == "s":
            break
        number, left = divmod(left, dt.timedelta(seconds=size))
        words += f"{number}{unit}" if number else ""
    seconds = f"{left.total_seconds():.6f}".rstrip("0").rstrip(".")
    return words + (f"{seconds}s" if left or not words else "")

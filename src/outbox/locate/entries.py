"""What each key of the configuration file may be; some of it holds for the command line, too."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from outbox.address import parse_mailbox
from outbox.errors import ConfigurationError, InvalidMessage
from outbox.message import Message
from outbox.relay import RelayLimits
from outbox.retry import RetryPolicy
from outbox.values import printable, quoted

from .durations import parse_duration
from .hints import did_you_mean

__all__ = ["KEYS", "MAX_WORKERS", "Within", "domain", "grace", "lease", "queue"]

MAX_WORKERS: Final = 1000
_ZERO: Final = dt.timedelta(0)
_DAY: Final = dt.timedelta(days=1)


class Within(ConfigurationError):
    """What is wrong stands deeper: *place* are the keys that lead there."""

    def __init__(self, place: Sequence[str], reason: object) -> None:
        super().__init__(str(reason))
        self.place = tuple(place)


def _text(entry: Any) -> str:
    if not isinstance(entry, str) or not entry:
        # Without the entry: it may hold a password.
        raise ConfigurationError(f"must be text, not {_kind(entry)}")
    return entry


def _kind(entry: Any) -> str:
    kinds = {dict: "a table", list: "an array", str: "an empty one", bool: "true or false"}
    return kinds.get(type(entry), "a number or a date")


def _path(entry: Any) -> str:
    if "\0" in _text(entry):
        raise ConfigurationError("holds a NUL, which no file name does")
    return _text(entry)


def _workers(entry: Any) -> int:
    if _whole(entry) > MAX_WORKERS:
        raise ConfigurationError(f"must be at most {MAX_WORKERS:,}, not {_shown(entry)}")
    return _whole(entry)


def _whole(entry: Any) -> int:
    if not isinstance(entry, int) or isinstance(entry, bool) or entry < 1:
        raise ConfigurationError(f"must be a whole number from 1, not {_shown(entry)}")
    return entry


def _number(entry: Any) -> float:
    if not isinstance(entry, int | float) or isinstance(entry, bool):
        raise ConfigurationError(f"must be a number, not {_shown(entry)}")
    return float(entry)


def _duration(entry: Any) -> dt.timedelta:
    is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
    return parse_duration(str(entry) if is_number else _text(entry))


def lease(entry: Any) -> dt.timedelta:
    """More than nothing, and a day at most: what is longer is a slip of the pen."""
    duration = _duration(entry)
    if not _ZERO < duration <= _DAY:
        raise ConfigurationError(f"must be more than 0 s and a day at most, not {_shown(entry)}")
    return duration


def grace(entry: Any) -> dt.timedelta:
    """A day at most."""
    duration = _duration(entry)
    if duration > _DAY:
        raise ConfigurationError(f"must be a day at most, not {_shown(entry)}")
    return duration


def _queues(entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, list) or not entry or not all(isinstance(name, str) and name for name in entry):
        raise ConfigurationError(f'must be a list of names, such as ["mail"], not {_shown(entry)}')
    if len(set(entry)) < len(entry):
        raise ConfigurationError(f"names a queue twice: {_shown(entry)}")
    return tuple(map(queue, entry))


def queue(name: str) -> str:
    """A queue's name, checked: one that no message can have would be served for ever in vain."""
    try:
        return Message(recipients=("nobody",), content=b"", queue=name).queue
    except InvalidMessage as error:
        raise ConfigurationError(str(error)) from None


def domain(name: str) -> str:
    """What completes a bare name, checked."""
    try:
        parse_mailbox("root", origin=name)
    except InvalidMessage as error:
        raise ConfigurationError(f"{quoted(name, 80)} is no domain: {error}") from None
    return name


def _domain(entry: Any) -> str:
    return domain(_text(entry))


def _schedule(entry: Any) -> tuple[dt.timedelta, ...] | None:
    return RetryPolicy.parse(_text(entry)).schedule


def _retry(entry: Any) -> tuple[RetryPolicy, dict[str, RetryPolicy]]:
    if not isinstance(entry, dict):
        return _policy(entry), {}
    queues = entry.get("queues", {})
    if not isinstance(queues, dict):
        raise ConfigurationError(f"queues must be a table of queue names, not {_shown(queues)}")
    own = {key: value for key, value in entry.items() if key != "queues"}
    return _policy(own), dict(_policy_of(name, policy) for name, policy in queues.items())


def _policy_of(name: str, entry: Any) -> tuple[str, RetryPolicy]:
    try:
        return queue(name), _policy(entry)
    except Within as error:
        raise Within(("queues", name, *error.place), error) from None
    except ConfigurationError as error:
        raise Within(("queues", name), error) from None


def _policy(entry: Any) -> RetryPolicy:
    if not isinstance(entry, dict):
        return RetryPolicy.parse(_text(entry))
    settings: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in _POLICY:
            raise Within([key], f"unknown key {quoted(key, 40)}{did_you_mean(key, _POLICY)}")
        try:
            settings[key] = _POLICY[key](value)
        except ConfigurationError as error:
            raise Within([key], error) from None
    try:
        return RetryPolicy(**settings)
    except ConfigurationError as error:
        # A rule that joins two settings is told at the first that it names.
        raise Within([key for key in settings if key in str(error)][:1], error) from None


def _limits(entry: Any) -> dict[str, RelayLimits]:
    if not isinstance(entry, dict):
        return {"*": _relay_limits(entry)}
    relays = entry.get("relays", {})
    if not isinstance(relays, dict):
        raise ConfigurationError(f"relays must be a table of relays, not {_shown(relays)}")
    own = {key: value for key, value in entry.items() if key != "relays"}
    return dict(_limits_of(key, limits) for key, limits in relays.items()) | {"*": _relay_limits(own)}


def _limits_of(key: str, entry: Any) -> tuple[str, RelayLimits]:
    if key == "*":
        raise Within(("relays", key), "what holds for all others stands in [limits] itself")
    try:
        return key, _relay_limits(entry)
    except Within as error:
        raise Within(("relays", key, *error.place), error) from None


def _relay_limits(entry: Any) -> RelayLimits:
    if not isinstance(entry, dict):
        raise Within([], f"must be a table, such as {{ per_second = 10 }}, not {_kind(entry)}")
    settings: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in _RELAY_LIMITS:
            raise Within([key], f"unknown key {quoted(key, 40)}{did_you_mean(key, _RELAY_LIMITS)}")
        try:
            settings[key] = _RELAY_LIMITS[key](value)
        except ConfigurationError as error:
            raise Within([key], error) from None
    return RelayLimits(**settings)


def _above_zero(entry: Any) -> float:
    number = _number(entry)
    if not 0 < number < math.inf:
        raise ConfigurationError(f"must be a number above 0, not {_shown(entry)}")
    return number


def _shown(entry: Any) -> str:
    return printable(repr(entry), 60)


KEYS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "store": _text,
    "transport": _text,
    "password_file": _path,
    "token_file": _path,
    "queues": _queues,
    "workers": _workers,
    "lease": lease,
    "grace": grace,
    "domain": _domain,
    "retry": _retry,
    "limits": _limits,
}
_RELAY_LIMITS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "connections": _whole,
    "per_second": _above_zero,
    "per_hour": _above_zero,
    "per_day": _above_zero,
    "new_connections_per_minute": _above_zero,
}
_POLICY: Final[Mapping[str, Callable[[Any], Any]]] = {
    "schedule": _schedule,
    "attempts": _whole,
    "timeout": _duration,
    "wait_initial": _duration,
    "wait_max": _duration,
    "wait_exp_base": _number,
    "wait_jitter": _number,
    "uncertain": _text,
}

"""What the tables of the configuration file may hold: of tries, and of what relays are asked to take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.relay import EVERY_OTHER, RelayLimits
from outbox.retry import RetryPolicy
from outbox.values import quoted

from .entries import Within, above_zero, duration, flag, kind, number, queue, shown, text, whole
from .hints import did_you_mean

__all__ = ["LIMITS", "POLICY", "Readers", "fields", "limits", "retry", "unknown"]

Readers = Mapping[str, Callable[[Any], Any]]


def unknown(key: str, known: Readers) -> str:
    """What is said of a key that nobody knows."""
    return f"unknown key {quoted(key, 40)}{did_you_mean(key, known)} (known: {', '.join(known)})"


def fields(entry: Any, readers: Readers, form: str) -> dict[str, Any]:
    """The entries of a table, each read.

    Raises:
        Within: one of them cannot be used.
        ConfigurationError: it is no table; *form* is what it has to be.
    """
    if not isinstance(entry, dict):
        raise ConfigurationError(f"must be {form}, not {kind(entry)}")
    said: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in readers:
            raise Within([key], unknown(key, readers))
        try:
            said[key] = readers[key](value)
        except Within as error:
            raise error.deeper(key) from None
        except ConfigurationError as error:
            raise Within([key], error) from None
    return said


def retry(entry: Any) -> tuple[RetryPolicy, dict[str, RetryPolicy]]:
    """The policy, and those of queues that have their own."""
    if not isinstance(entry, dict):
        return _policy(entry), {}
    queues = entry.get("queues", {})
    if not isinstance(queues, dict):
        raise Within(["queues"], f"must be a table of queue names, not {shown(queues)}")
    own = {key: value for key, value in entry.items() if key != "queues"}
    return _policy(own), {name: _policy_of(name, policy) for name, policy in queues.items()}


def _policy_of(name: str, entry: Any) -> RetryPolicy:
    try:
        queue(name)
        return _policy(entry)
    except Within as error:
        raise error.deeper("queues", name) from None
    except ConfigurationError as error:
        raise Within(("queues", name), error) from None


def _policy(entry: Any) -> RetryPolicy:
    if not isinstance(entry, dict):
        return RetryPolicy.parse(text(entry))
    said = fields(entry, POLICY, "a table")
    try:
        return RetryPolicy(**said)
    except ConfigurationError as error:
        # A rule that joins two settings is told at the first that it names.
        raise Within([key for key in said if key in str(error)][:1], error) from None


def _schedule(entry: Any) -> tuple[dt.timedelta, ...] | None:
    return RetryPolicy.parse(text(entry)).schedule


def limits(entry: Any) -> dict[str, RelayLimits]:
    """By the key of a relay, and ``*`` for all others."""
    if not isinstance(entry, dict):
        return {EVERY_OTHER: _relay_limits(entry)}
    relays = entry.get("relays", {})
    if not isinstance(relays, dict):
        raise Within(["relays"], f"must be a table of relays, not {shown(relays)}")
    own = {key: value for key, value in entry.items() if key != "relays"}
    return {key: _limits_of(key, said) for key, said in relays.items()} | {EVERY_OTHER: _relay_limits(own)}


def _limits_of(key: str, entry: Any) -> RelayLimits:
    if key == EVERY_OTHER:
        raise Within(("relays", key), "what holds for all others stands in [limits] itself")
    try:
        return _relay_limits(entry)
    except Within as error:
        raise error.deeper("relays", key) from None
    except ConfigurationError as error:
        raise Within(("relays", key), error) from None


def _relay_limits(entry: Any) -> RelayLimits:
    return RelayLimits(**fields(entry, LIMITS, "a table, such as { per_second = 10 }"))


LIMITS: Final[Readers] = {
    "connections": whole,
    "per_second": above_zero,
    "per_hour": above_zero,
    "per_day": above_zero,
    "new_connections_per_minute": above_zero,
    "shared": flag,
}
POLICY: Final[Readers] = {
    "schedule": _schedule,
    "attempts": whole,
    "timeout": duration,
    "wait_initial": duration,
    "wait_max": duration,
    "wait_exp_base": number,
    "wait_jitter": number,
    "uncertain": text,
    "soft_bounce": flag,
}

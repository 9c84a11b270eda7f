"""What a relay may be asked to take: values that a user sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import attrs

from outbox.errors import ConfigurationError
from outbox.values import frozen_mapping

__all__ = ["EVERY_OTHER", "RelayLimits", "limits_by_key"]

_RATES: Final = ("per_second", "per_hour", "per_day", "new_connections_per_minute")
EVERY_OTHER: Final = "*"
"""The key of the limits of each relay that is not named."""


@attrs.frozen(kw_only=True)
class RelayLimits:
    """What one relay is asked to take at most, by one process; None is no limit of that kind.

    The rates hold in the long run to the message.  For a short while they
    may be passed by the burst: a second's worth of *per_second*, a tenth of
    the others, and one at least.  So no hour sees more than ``1.1 *
    per_hour``; where a provider counts strictly, set a tenth less.  A process
    that starts has one message of its burst and gains the rest in time, so
    that one which is restarted again and again does not pass the limit by
    more than a message each time.

    Attributes:
        connections: At the same time; 20 where nothing is said.
        per_second: Messages a second; may be a fraction.
        per_hour: Messages an hour.
        per_day: Messages a day.
        new_connections_per_minute: Connections that are opened.  One that was
            given back within the last 25 seconds counts as used again.

    Raises:
        ConfigurationError: one of them is not a number above zero, or
            *connections* not a whole one.
    """

    connections: int | None = None
    per_second: float | None = None
    per_hour: float | None = None
    per_day: float | None = None
    new_connections_per_minute: float | None = None

    def __attrs_post_init__(self) -> None:
        _check_connections(self.connections)
        for name in _RATES:
            _check_rate(name, getattr(self, name))

    def among(self, processes: int) -> RelayLimits:
        """The share of one of so many processes; one connection is the least that each has."""
        said = {name: getattr(self, name) for name in _RATES}
        shares = {name: None if rate is None else rate / processes for name, rate in said.items()}
        connections = None if self.connections is None else max(1, self.connections // processes)
        return RelayLimits(connections=connections, **shares)


def limits_by_key(limits: RelayLimits | Mapping[str, RelayLimits] | None) -> Mapping[str, RelayLimits]:
    """What a user said, as limits by key; those of :data:`EVERY_OTHER` are always there.

    Raises:
        ConfigurationError: it is neither RelayLimits nor a mapping to them.
    """
    given: object = {} if limits is None else limits
    if isinstance(given, RelayLimits):
        given = {EVERY_OTHER: given}
    if isinstance(given, Mapping) and all(_is_entry(key, value) for key, value in given.items()):
        return frozen_mapping({EVERY_OTHER: RelayLimits(), **given})
    raise ConfigurationError(
        f"limits is {given!r}: pass RelayLimits, such as RelayLimits(connections=4), or a mapping from the keys of "
        f"relays to them, {EVERY_OTHER!r} for all others"
    )


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, RelayLimits)


def _check_connections(given: object) -> None:
    whole = isinstance(given, int) and not isinstance(given, bool)
    if given is not None and (not whole or given < 1):  # type: ignore[operator]  # an int by then
        raise ConfigurationError(f"RelayLimits: connections is {given!r}: it must be a whole number from 1")


def _check_rate(name: str, given: object) -> None:
    if given is None:
        return
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 < given < math.inf:  # type: ignore[operator]  # a number by then
        raise ConfigurationError(f"RelayLimits: {name} is {given!r}: it must be a number above 0")

"""What a relay may be asked to take: values that a user sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import attrs

from outbox.errors import ConfigurationError
from outbox.values import frozen_mapping, printable

__all__ = ["EVERY_OTHER", "RelayLimits", "limits_by_key"]

_RATES: Final[Mapping[str, float]] = frozen_mapping(
    {"per_second": 1.0, "per_hour": 3600.0, "per_day": 86400.0, "new_connections_per_minute": 60.0}
)
"""The seconds that each of them speaks of."""
_A_DAY: Final = 86_400.0 * (1 + 1e-9)
EVERY_OTHER: Final = "*"
"""The key of the limits of each relay that is not named."""


@attrs.frozen(kw_only=True)
class RelayLimits:
    """What one relay is asked to take at most; None is no limit of that kind.

    It holds for one process, unless the rates are *shared*: then all
    processes that deliver from the same store keep them together, and count
    what any of them sends.

    The rates hold in the long run to the message.  For a short while they
    may be passed by the burst: a second's worth of *per_second*, a tenth of
    the others, and one at least.  So no hour sees more than ``1.1 *
    per_hour``; where a provider counts strictly, set a tenth less.  A process
    that starts has one message of its burst and gains the rest in time, so
    that one which is restarted again and again does not pass the limit by
    more than a message each time.

    What is said of connections holds for all that a Runner delivers to one
    relay at a time.  A message to recipients of several relays, and one that
    is sent by ``Outbox.send``, goes over a connection of its worker's or
    caller's, which is not counted; its rates hold.

    Attributes:
        connections: At the same time; 20 where nothing is said.
        per_second: Messages a second; may be a fraction.
        per_hour: Messages an hour.
        per_day: Messages a day.
        new_connections_per_minute: Connections that are opened.  One that was
            given back within the last 25 seconds counts as used again.
        shared: The rates (all but *connections*) are those of all processes
            together.  The store has to keep a register for them
            (:class:`~outbox.SupportsRegister`): PostgreSQL and Redis do.  It
            may forget what nobody has counted there for two days: so each of
            the rates has to be one a day at least.

    Raises:
        ConfigurationError: one of them is not a number above zero that a
            clock can tell, or *connections* not a whole one; or there is no
            rate to be shared, or one that is slower than one a day.
    """

    connections: int | None = None
    per_second: float | None = None
    per_hour: float | None = None
    per_day: float | None = None
    new_connections_per_minute: float | None = None
    shared: bool = False

    def __attrs_post_init__(self) -> None:
        _check_connections(self.connections)
        for name in _RATES:
            _check_rate(name, getattr(self, name))
        if not isinstance(self.shared, bool):
            raise ConfigurationError(
                f"RelayLimits: shared is {_shown(self.shared)}: it must be True or False"
            )
        if self.shared and all(getattr(self, name) is None for name in _RATES):
            raise ConfigurationError(
                f"RelayLimits: shared says nothing without a rate: say one of {', '.join(_RATES)} "
                "(connections are each process's own)"
            )
        for name in _RATES if self.shared else ():
            _check_remembered(name, getattr(self, name))

    def among(self, processes: int) -> RelayLimits:
        """The share of one of so many processes; one connection is the least that each has.

        Rates that are shared need no dividing, and stay as they are.

        Raises:
            ConfigurationError: there are none to share it.
        """
        if processes < 1:
            raise ConfigurationError(
                f"RelayLimits: among {processes} processes nothing can be shared: from 1"
            )
        said: dict[str, float | None] = {name: getattr(self, name) for name in _RATES}
        among = 1 if self.shared else processes
        shares = {name: None if rate is None else rate / among for name, rate in said.items()}
        connections = None if self.connections is None else max(1, self.connections // processes)
        return RelayLimits(connections=connections, shared=self.shared, **shares)


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
        raise ConfigurationError(
            f"RelayLimits: connections is {_shown(given)}: it must be a whole number from 1"
        )


def _shown(given: object) -> str:
    try:
        return printable(repr(given), 40)
    except ValueError:
        # Python writes no number of more than 4,300 digits.
        return "a number without end"


def _check_rate(name: str, given: object) -> None:
    if given is None:
        return
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not _can_be_kept(given, _RATES[name]):  # type: ignore[arg-type]  # a number by then
        raise ConfigurationError(
            f"RelayLimits: {name} is {_shown(given)}: it must be a number above 0, and one that a clock can tell"
        )


def _check_remembered(name: str, said: float | None) -> None:
    if said is not None and _RATES[name] / said > _A_DAY:
        raise ConfigurationError(
            f"RelayLimits: {name} is {_shown(said)} and shared: that is less than one a day, and a store may forget what "
            "processes share after two; leave out shared, and give each process its part, RelayLimits(…).among(processes)"
        )


def _can_be_kept(number: float, period: float) -> bool:
    """Whether there is a wait between two; what no float can hold is no rate."""
    try:
        return 0 < float(number) < math.inf and period / float(number) < math.inf
    except OverflowError:
        return False

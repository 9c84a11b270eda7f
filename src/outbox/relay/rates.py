"""How fast: the generic cell rate algorithm, for one relay.

One number a limit is all that has to be kept: the moment at which the bucket
will be full.  So nothing is lost to the borders of windows, nothing has to be
refilled by a timer, and what a day has too much is paid back to the message.
A window that counts would let a whole day's mail go at once, and then a
password mail wait for the next day; here it waits for one place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

import attrs

from .limits import RelayLimits

__all__ = ["LIMITS_OF_CONNECTIONS", "LIMITS_OF_MESSAGES", "Limit", "Measure", "Rate", "Rates"]

_A_TENTH: Final = 0.1
_ROUNDING: Final = 1e-6
"""So much of a message may be missing: no clock is exact to it."""


@attrs.frozen
class Limit:
    """One of those of :class:`.RelayLimits`: so many in a *period* of seconds, of which a *share* may go at once."""

    name: str
    period: float
    share: float

    def of(self, limits: RelayLimits) -> float | None:
        """The number that is said."""
        number: float | None = getattr(limits, self.name)
        return number


LIMITS_OF_MESSAGES: Final = (
    Limit("per_second", 1.0, 1.0),
    Limit("per_hour", 3600.0, _A_TENTH),
    Limit("per_day", 86400.0, _A_TENTH),
)
LIMITS_OF_CONNECTIONS: Final = (Limit("new_connections_per_minute", 60.0, _A_TENTH),)


class Measure(Protocol):
    """What measures out how many may go."""

    @property
    def interval(self) -> float:
        """The seconds between two in the long run."""
        ...

    def free(self, now: float) -> int:
        """How many may go now."""
        ...

    def wait(self, now: float) -> float:
        """The seconds until one may go."""
        ...

    def take(self, number: int, now: float) -> None:
        """So many go."""
        ...

    def give_back(self, number: int, since: float, now: float) -> None:
        """So many of those that were taken then did not go."""
        ...

    def settled(self, now: float) -> bool:
        """Whether all is as though nothing had gone."""
        ...


@attrs.define
class Rate:
    """At most *burst* at once, and one every *interval* seconds in the long run.

    In any window of w seconds it lets go ``burst + w / interval`` at most.
    """

    interval: float
    burst: int
    full_at: float

    @classmethod
    def of(cls, number: float, period: float, burst: float, begun: float) -> Rate:
        """*number* a *period* of seconds, known since *begun*: then there was one, and more have come since."""
        interval, burst = period / number, max(1, math.floor(burst))
        return cls(interval, burst, begun + (burst - 1) * interval)

    def free(self, now: float) -> int:
        """How many may go now."""
        return math.floor(self.burst - max(0.0, self.full_at - now) / self.interval + _ROUNDING)

    def wait(self, now: float) -> float:
        """The seconds until one may go."""
        missing = self.full_at - now - (self.burst - 1) * self.interval
        return missing if missing > _ROUNDING * self.interval else 0.0

    def take(self, number: int, now: float) -> None:
        """So many go."""
        self.full_at = max(self.full_at, now) + number * self.interval

    def give_back(self, number: int, since: float, now: float) -> None:
        """So many of those that were taken then did not go.

        What the bucket has gained meanwhile may be what it would not have had
        room for: that much stays lost, for otherwise it could be had twice.
        """
        self.full_at -= max(0.0, number * self.interval - (now - since))

    def settled(self, now: float) -> bool:
        """Whether the bucket is full."""
        return self.full_at <= now


@attrs.define
class Rates:
    """All limits of one relay that know of time."""

    messages: Sequence[Measure]
    connections: Sequence[Measure]
    _slowed: Rate | None = None
    _slow_until: float = -math.inf

    @classmethod
    def of(cls, limits: RelayLimits, begun: float) -> Rates:
        """Those of *limits*, in a process that began to count then."""
        return cls(_rates(LIMITS_OF_MESSAGES, limits, begun), _rates(LIMITS_OF_CONNECTIONS, limits, begun))

    def slow(self, per_second: float, now: float, until: float) -> None:
        """At most so many messages a second, until then; it takes the place of what was said so before."""
        self._hasten(math.inf)
        # It has just had one, and complained.
        self._slowed, self._slow_until = Rate(1 / per_second, 1, now + 1 / per_second), until
        self.messages = [*self.messages, self._slowed]

    def _hasten(self, now: float) -> None:
        if self._slowed is not None and now >= self._slow_until:
            self.messages = [rate for rate in self.messages if rate is not self._slowed]
            self._slowed = None

    @property
    def pace(self) -> float:
        """Messages a second in the long run."""
        return min((1 / rate.interval for rate in self.messages), default=math.inf)

    def free(self, now: float, wanted: int) -> int:
        """How many of *wanted* messages may go now."""
        return min((wanted, *(rate.free(now) for rate in self.messages)))

    def wait(self, now: float) -> float:
        """The seconds until a message may go."""
        self._hasten(now)
        return _longest(self.messages, now)

    def wait_to_connect(self, now: float) -> float:
        """The seconds until a connection may be opened."""
        return _longest(self.connections, now)

    def take(self, number: int, now: float, *, connect: bool) -> None:
        """So many messages go; *connect*: over a connection that is opened for them."""
        for rate in self.messages:
            rate.take(number, now)
        for rate in self.connections if connect else ():
            rate.take(1, now)

    def give_back(self, number: int, since: float, now: float) -> None:
        """So many messages did not go after all."""
        for rate in self.messages:
            rate.give_back(number, since, now)

    def settled(self, now: float) -> bool:
        """Whether all is as though nothing had gone since the process began."""
        return self._slow_until <= now and all(
            rate.settled(now) for rate in (*self.messages, *self.connections)
        )


def _rates(kinds: Sequence[Limit], limits: RelayLimits, begun: float) -> Sequence[Rate]:
    said = ((kind, kind.of(limits)) for kind in kinds)
    return [
        Rate.of(number, kind.period, number * kind.share, begun)
        for kind, number in said
        if number is not None
    ]


def _longest(rates: Sequence[Measure], now: float) -> float:
    return max((rate.wait(now) for rate in rates), default=0.0)

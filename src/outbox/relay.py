"""Which relay may be spoken to now: a state machine that decides and does nothing.

It reads no clock and no die of its own: the moment comes with every call, in
seconds of the caller's monotonic clock, and the randomness is handed in.  It
is not safe for threads by itself; the runner asks it under one lock.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import Final, TypeAlias

import attrs

from .errors import RelayFault, RelayMisconfigured

__all__ = ["Admission", "Go", "Relays", "Wait"]

_UNAVAILABLE: Final = (5.0, 300.0)
_MISCONFIGURED: Final = (60.0, 900.0)
_WHILE_PROBING: Final = 1.0
_MAX_DOUBLINGS: Final = 16


@attrs.frozen
class Go:
    """Hand it over."""


@attrs.frozen
class Wait:
    """Not now: ask again after *delay*."""

    delay: dt.timedelta
    reason: str


Admission: TypeAlias = Go | Wait


@attrs.define
class _Relay:
    """One relay's condition: well (no fault), paused until a moment, or being probed."""

    faults: int = 0
    fault: RelayFault | None = None
    paused_until: float = 0.0
    probing: bool = False


class Relays:
    """The breakers of all relays that one runner speaks to, by key.

    A relay that fails is paused: five seconds at first, doubling to five
    minutes; a misconfigured one a minute, doubling to a quarter of an hour.
    When the pause is over one message goes as a probe, and the others wait
    for its report.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._relays: dict[str, _Relay] = {}

    def closed_for(self, key: str, now: float) -> Wait | None:
        """What :meth:`admit` would answer other than Go, without taking the probe."""
        relay = self._relays.get(key)
        if relay is None or relay.fault is None:
            return None
        if relay.paused_until > now:
            return _wait(relay.paused_until - now, relay.fault)
        return _wait(_WHILE_PROBING, relay.fault) if relay.probing else None

    def admit(self, key: str, now: float) -> Admission:
        """May a message go to this relay?  Every Go is answered by :meth:`answered` or :meth:`failed`."""
        closed = self.closed_for(key, now)
        if closed is not None:
            return closed
        relay = self._relays.get(key)
        if relay is not None and relay.fault is not None:
            relay.probing = True
        return Go()

    def answered(self, key: str) -> bool:
        """The relay answered; True where that ended a pause."""
        return self._relays.pop(key, None) is not None

    def failed(self, key: str, fault: RelayFault, now: float) -> dt.timedelta:
        """The relay failed; how long it is left alone from *now*."""
        relay = self._relays.setdefault(key, _Relay())
        # Workers that were under way when it failed report the same failure: it counts once.
        counts = relay.probing or relay.paused_until <= now
        relay.fault, relay.probing = fault, False
        if counts:
            first, most = _MISCONFIGURED if isinstance(fault, RelayMisconfigured) else _UNAVAILABLE
            pause = min(most, first * 2 ** min(relay.faults, _MAX_DOUBLINGS))
            relay.paused_until = now + pause * self._rng.uniform(0.8, 1.2)
            relay.faults += 1
        return dt.timedelta(seconds=max(relay.paused_until - now, _WHILE_PROBING))


def _wait(seconds: float, fault: RelayFault) -> Wait:
    return Wait(dt.timedelta(seconds=seconds), str(fault))

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
_BEHIND: Final = 1.0
_MAX_DOUBLINGS: Final = 16


@attrs.frozen
class Go:
    """Hand it over; *probe*: the others wait for what becomes of it."""

    probe: bool = False


@attrs.frozen
class Wait:
    """Not now: ask again after *delay*; *probing*: or as soon as the probe under way has reported.

    *fault* is what the relay is paused for.
    """

    delay: dt.timedelta
    reason: str
    probing: bool = False
    fault: RelayFault | None = None


Admission: TypeAlias = Go | Wait


@attrs.define
class _Relay:
    """One relay's condition: well (no fault), paused until a moment, or being probed.

    *tripped* are the ids of the messages that met its fault since it was
    last well; *passed* those of them that let the others go first since the
    pause ended.
    """

    faults: int = 0
    fault: RelayFault | None = None
    paused_until: float = 0.0
    probing: bool = False
    tripped: set[str] = attrs.Factory(set)
    passed: set[str] = attrs.Factory(set)


class Relays:
    """The breakers of all relays that one runner speaks to, by key.

    A relay that fails is paused: five seconds at first, doubling to five
    minutes; a misconfigured one a minute, doubling to a quarter of an hour.
    When the pause is over one message goes as a probe, and the others wait
    for its report.  A message that has met the fault lets the others go
    first, for it may be the cause; it probes where there is no other.

    *hasty*: the first fault pauses nothing, and the next message probes at
    once: for a run that is too short to wait a pause out.
    """

    def __init__(self, rng: random.Random, *, hasty: bool = False) -> None:
        self._rng = rng
        self._hasty = hasty
        self._relays: dict[str, _Relay] = {}

    def closed_for(self, key: str, now: float) -> Wait | None:
        """Why nothing may be handed over now, whatever it is; without taking the probe."""
        relay = self._relays.get(key)
        if relay is None or relay.fault is None:
            return None
        if relay.paused_until > now:
            return _wait(relay.paused_until - now, relay.fault)
        return _wait(_WHILE_PROBING, relay.fault, probing=True) if relay.probing else None

    def admit(self, key: str, now: float, message: str) -> Admission:
        """May the message of this id go to this relay?

        Every Go is answered by :meth:`answered` or :meth:`failed`, and a
        probe that comes to nothing by :meth:`abandon`.
        """
        closed = self.closed_for(key, now)
        if closed is not None:
            return closed
        relay = self._relays.get(key)
        if relay is None or relay.fault is None:
            return Go()
        if message in relay.tripped and message not in relay.passed:
            relay.passed.add(message)
            return _wait(_BEHIND, relay.fault)
        relay.probing = True
        return Go(probe=True)

    def answered(self, key: str) -> bool:
        """The relay answered; True where that ended a pause."""
        return self._relays.pop(key, None) is not None

    def failed(self, key: str, fault: RelayFault, now: float, message: str) -> dt.timedelta:
        """The relay failed with the message of this id; how long it is left alone from *now*."""
        relay = self._relays.setdefault(key, _Relay())
        # Workers that were under way when it failed report the same failure: it counts once.
        counts = relay.probing or relay.paused_until <= now
        relay.fault, relay.probing = fault, False
        relay.tripped.add(message)
        if counts:
            relay.paused_until = now + self._pause(relay, fault)
            relay.faults += 1
            relay.passed.clear()
        return dt.timedelta(seconds=max(relay.paused_until - now, _WHILE_PROBING))

    def abandon(self, key: str) -> None:
        """Nothing was learned from the probe: another may go."""
        relay = self._relays.get(key)
        if relay is not None:
            relay.probing = False

    def _pause(self, relay: _Relay, fault: RelayFault) -> float:
        if self._hasty and relay.faults == 0:
            return 0.0
        first, most = _MISCONFIGURED if isinstance(fault, RelayMisconfigured) else _UNAVAILABLE
        return min(most, first * 2.0 ** min(relay.faults, _MAX_DOUBLINGS)) * self._rng.uniform(0.8, 1.2)


def _wait(seconds: float, fault: RelayFault, *, probing: bool = False) -> Wait:
    return Wait(dt.timedelta(seconds=seconds), str(fault), probing, fault)

"""Which relay may be spoken to now: a state machine that decides and does nothing.

It reads no clock and no die of its own: the moment comes with every call, in
seconds of the caller's monotonic clock, and the randomness is handed in.  It
is not safe for threads by itself: :mod:`outbox.breakers` asks it under one lock.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import Final, TypeAlias

import attrs

from .errors import RelayFault

__all__ = ["UNANSWERED", "Admission", "Go", "Pause", "Relays", "Wait"]

_UNAVAILABLE: Final = (5.0, 300.0)
_COSTLY: Final = (60.0, 900.0)
_WHILE_PROBING: Final = 1.0
_BEHIND: Final = 1.0
_MAX_DOUBLINGS: Final = 16
UNANSWERED: Final = 30.0
"""The seconds after which a relay that is not known yet is tried with a further message."""


@attrs.frozen
class Go:
    """Hand it over; *probe*: the others wait for what becomes of it."""

    probe: bool = False


@attrs.frozen
class Wait:
    """Not now: ask again after *delay*; *probing*: or as soon as the probe under way has reported.

    *under_way* are the seconds since that probe went; *fault* is what the
    relay is paused for, and None where it is not known yet.
    """

    delay: dt.timedelta
    reason: str
    probing: bool = False
    fault: RelayFault | None = None
    under_way: float = 0.0


Admission: TypeAlias = Go | Wait


@attrs.frozen
class Pause:
    """A relay is left alone for *delay*; *news*: by this very failure, and not by another before it."""

    delay: dt.timedelta
    news: bool


@attrs.define
class _Relay:
    """One relay's condition: not known yet (no fault), or paused until a moment, and perhaps being probed.

    *probe* is the id of the message that was let through to see how it is,
    *probed_at* when.  *tripped* are the ids of the messages that met its fault since it was
    last well; *passed* those of them that let the others go first since the
    pause ended.
    """

    faults: int = 0
    fault: RelayFault | None = None
    paused_until: float = 0.0
    probe: str | None = None
    probed_at: float = 0.0
    tripped: set[str] = attrs.Factory(set)
    passed: set[str] = attrs.Factory(set)


class Relays:
    """The breakers of several relays, by key.

    A relay that is not known yet is tried with one message, and the others
    wait for its report: what is wrong with the settings is met once, and not
    by every worker.  Where the report does not come, a further one goes
    every :data:`UNANSWERED` seconds, so that a slow first message holds up
    the others for no longer.

    A relay that fails is paused: five seconds at first, doubling to five
    minutes; one that is costly to ask (a misconfigured one, say) a minute,
    doubling to a quarter of an hour.
    When the pause is over one message goes as a probe, and the others wait
    for its report.  A message that has met the fault lets the others go
    first, for it may be the cause; it probes where there is no other.

    *hasty*: where the relay is unavailable the first fault pauses nothing,
    and the next message probes at once: for a run that is too short to wait
    a pause out.  What is costly is not asked twice in haste: a wrong
    password said again and again locks its account.
    """

    def __init__(self, rng: random.Random, *, hasty: bool = False) -> None:
        self._rng = rng
        self._hasty = hasty
        self._well: set[str] = set()
        self._relays: dict[str, _Relay] = {}

    def closed_for(self, key: str, now: float) -> Wait | None:
        """Why nothing may be handed over now, whatever it is; without taking the probe."""
        relay = self._relays.get(key)
        if relay is None:
            return None
        if relay.paused_until > now:
            return _wait(relay.paused_until - now, relay.fault)
        if relay.probe is None:
            return None
        under_way = now - relay.probed_at
        if relay.fault is None and under_way >= UNANSWERED:
            return None
        # The longer it lasts, the less often those who wait elsewhere come back to ask.
        return _wait(max(_WHILE_PROBING, under_way), relay.fault, under_way)

    def probing(self, key: str) -> bool:
        """Whether a probe is under way."""
        relay = self._relays.get(key)
        return relay is not None and relay.probe is not None

    def admit(self, key: str, now: float, message: str) -> Admission:
        """May the message of this id go to this relay?

        Every Go is answered by :meth:`answered` or :meth:`failed`, and a
        probe that comes to nothing by :meth:`abandon`.
        """
        closed = self.closed_for(key, now)
        if closed is not None:
            return closed
        if key in self._well:
            return Go()
        relay = self._relays.get(key)
        if relay is not None and message in relay.tripped and message not in relay.passed:
            relay.passed.add(message)
            return _wait(_BEHIND, relay.fault)
        return self.insist(key, now, message)

    def insist(self, key: str, now: float, message: str) -> Go:
        """The message goes to this relay as its probe, however it is."""
        self._well.discard(key)
        relay = self._relays.setdefault(key, _Relay())
        relay.probe, relay.probed_at = message, now
        return Go(probe=True)

    def answered(self, key: str, message: str) -> bool:
        """The relay answered to the message of this id; True where that ended a pause."""
        relay = self._relays.get(key)
        fault = None if relay is None else relay.fault
        if relay is not None and fault is not None and fault.costly and relay.probe != message:
            # Over a connection of before, perhaps: that says nothing of the password for the next one.
            return False
        self._relays.pop(key, None)
        self._well.add(key)
        return fault is not None

    def failed(self, key: str, fault: RelayFault, now: float, message: str) -> Pause:
        """The relay failed with the message of this id; how long it is left alone from *now*."""
        self._well.discard(key)
        relay = self._relays.setdefault(key, _Relay())
        counts = _counts(relay, fault, now, message)
        relay.tripped.add(message)
        if counts:
            relay.fault, relay.probe = fault, None
            relay.paused_until = now + self._pause(relay, fault)
            relay.faults += 1
            relay.passed.clear()
        return Pause(dt.timedelta(seconds=max(relay.paused_until - now, _WHILE_PROBING)), counts)

    def abandon(self, key: str, message: str) -> None:
        """Nothing was learned from the probe, if it was the message of this id: another may go."""
        relay = self._relays.get(key)
        if relay is not None and relay.probe == message:
            relay.probe = None

    def _pause(self, relay: _Relay, fault: RelayFault) -> float:
        if self._hasty and relay.faults == 0 and not fault.costly:
            return 0.0
        first, most = _COSTLY if fault.costly else _UNAVAILABLE
        return min(most, first * 2.0 ** min(relay.faults, _MAX_DOUBLINGS)) * self._rng.uniform(0.8, 1.2)


def _counts(relay: _Relay, fault: RelayFault, now: float, message: str) -> bool:
    """Whether a failure is one of its own: workers that were under way report the same one, and it counts once."""
    if relay.fault is None or relay.probe == message:
        return True
    if fault.costly and not relay.fault.costly:
        return True
    return relay.probe is None and relay.paused_until <= now


def _wait(seconds: float, fault: RelayFault | None, under_way: float | None = None) -> Wait:
    reason = "another message tries this relay first" if fault is None else str(fault)
    return Wait(
        dt.timedelta(seconds=seconds),
        reason,
        probing=under_way is not None,
        fault=fault,
        under_way=under_way or 0.0,
    )

"""Whether: one relay's condition, and whose turn it is to find out."""

from __future__ import annotations

import datetime as dt
import math
import random
from typing import Final

import attrs

from outbox.errors import RelayFault

from .admission import ROUNDING, UNANSWERED, Pause, Wait, lasting

__all__ = ["Breaker"]

_UNAVAILABLE: Final = (5.0, 300.0)
_COSTLY: Final = (60.0, 900.0)
_ASKED_AT_MOST: Final = 86400.0
_WHILE_PROBING: Final = 1.0
_BEHIND: Final = 1.0
_MAX_DOUBLINGS: Final = 16
_REMEMBERED: Final = 100
_IN_A_ROW: Final = 3
"""So many different messages whose connection was lost are the relay's doing."""


@attrs.define
class Breaker:
    """Not known yet (neither *proven* nor a fault), well, or paused until a moment; and perhaps being probed.

    *probe* is the id of the message that was let through to see how it is,
    *probed_at* when.  *_tripped* are the ids of the messages that met its
    fault since it was last well, the latest hundred; True for those that let
    the others go first since the pause ended.  *_cut* are those that lost
    their connection since the last that did not.

    *asked_until* is the moment until which the relay asked to be left alone,
    in whichever of its faults.  That ends with the time, or with the answer
    to a probe: what was under way already is no sign that it wants more.
    """

    proven: bool = False
    fault: RelayFault | None = None
    probe: str | None = None
    probed_at: float = 0.0
    paused_until: float = -math.inf
    asked_until: float = -math.inf
    _faults: int = 0
    _tripped: dict[str, bool] = attrs.Factory(dict)
    _cut: list[str] = attrs.Factory(list)

    def closed(self, now: float) -> Wait | None:
        """Why nothing may be handed over now, whatever it is."""
        if self._opens - now > ROUNDING:
            return _wait(self._opens - now, self.fault)
        if self.probe is None:
            return None
        under_way = now - self.probed_at
        if self.fault is None and under_way >= UNANSWERED:
            return None
        # The longer it lasts, the less often those who wait elsewhere come back to ask.
        return _wait(max(_WHILE_PROBING, under_way), self.fault, under_way)

    def behind(self, message: str) -> Wait | None:
        """A message that has met the fault lets the others probe first: once."""
        if self._tripped.get(message, True):
            return None
        self._tripped[message] = True
        return attrs.evolve(_wait(_BEHIND, self.fault), passing=True)

    def ask(self, message: str, now: float) -> None:
        """The message of this id is the probe."""
        self.proven = False
        self.probe, self.probed_at = message, now

    def answered(self, message: str) -> bool:
        """It answered to the message of this id; True where that ended a pause."""
        paused = self.fault is not None
        if self.fault is not None and self.probe != message and (self.fault.costly or self._asked):
            # Over a connection of before, perhaps: that says nothing of the password for the next one.
            return False
        self.proven, self.fault, self.probe = True, None, None
        self.paused_until = self.asked_until = -math.inf
        self._faults = 0
        if self._tripped or self._cut:
            self._tripped.clear()
            self._cut.clear()
        return paused

    def cut(self, message: str) -> int:
        """The message of this id lost its connection; how many different ones have, in a row."""
        self._trip(message)
        if message not in self._cut and len(self._cut) < _IN_A_ROW:
            self._cut.append(message)
        self.abandon(message)
        return len(self._cut)

    def opens_in(self, now: float) -> float:
        """The seconds until it may be tried again; 0 where it may."""
        left = self._opens - now
        return left if left > ROUNDING else 0.0

    @property
    def cut_off(self) -> bool:
        """Whether those that lost their connection are so many that it is the relay's doing."""
        return len(self._cut) >= _IN_A_ROW

    def failed(
        self, fault: RelayFault, now: float, message: str, rng: random.Random, *, hasty: bool
    ) -> Pause:
        """It failed with the message of this id; how long it is left alone from *now*."""
        self.proven = False
        counts = self._counts(fault, now, message)
        self._trip(message)
        if counts:
            self.fault, self.probe = fault, None
            self.paused_until = now + self._pause(fault, rng, hasty=hasty)
            self._faults += 1
            self._tripped = dict.fromkeys(self._tripped, False)
        self._hear(fault, now)
        return Pause(lasting(max(self._opens - now, _WHILE_PROBING)), counts, self.fault)

    def abandon(self, message: str) -> None:
        """Nothing was learned from the probe, if it was the message of this id: another may go."""
        if self.probe == message:
            self.probe = None

    @property
    def _opens(self) -> float:
        return max(self.paused_until, self.asked_until)

    @property
    def _asked(self) -> bool:
        return self.asked_until > -math.inf

    def _hear(self, fault: RelayFault, now: float) -> None:
        """For how long it wants to be left alone, whichever of its connections it says so on."""
        asked = _asked(fault)
        until = max(self.asked_until, now + asked if asked > 0 else -math.inf)
        self.asked_until = until if until > now else -math.inf

    def _trip(self, message: str) -> None:
        self._tripped.setdefault(message, False)
        if len(self._tripped) > _REMEMBERED:
            del self._tripped[next(iter(self._tripped))]

    def _counts(self, fault: RelayFault, now: float, message: str) -> bool:
        """Whether a failure is one of its own: workers that were under way report the same one, and it counts once."""
        if self.fault is None or self.probe == message:
            return True
        if fault.costly and not self.fault.costly:
            return True
        return self.probe is None and self._opens <= now

    def _pause(self, fault: RelayFault, rng: random.Random, *, hasty: bool) -> float:
        if hasty and self._faults == 0 and not fault.costly:
            return 0.0
        first, most = _COSTLY if fault.costly else _UNAVAILABLE
        return min(most, first * 2.0 ** min(self._faults, _MAX_DOUBLINGS)) * rng.uniform(0.8, 1.2)


def _asked(fault: RelayFault) -> float:
    """The seconds for which the relay itself asked, a day at most."""
    asked: object = fault.retry_after
    # A stranger's fault may hold anything there.
    return min(asked.total_seconds(), _ASKED_AT_MOST) if isinstance(asked, dt.timedelta) else 0.0


def _wait(seconds: float, fault: RelayFault | None, under_way: float | None = None) -> Wait:
    return Wait(
        lasting(seconds),
        "another message tries this relay first" if fault is None else str(fault),
        probing=under_way is not None,
        fault=fault,
        under_way=under_way or 0.0,
    )

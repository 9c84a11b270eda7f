"""What a simulated process knows of its relays: what runs in production, and beside it what may be let go, counted once more."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from outbox.breakers import Breakers
from outbox.clock import Clock
from outbox.errors import RelayFault, RelayUnavailable
from outbox.relay import Admission, Go, Pause, RelayLimits, Wait

from .kernel import Signal

if TYPE_CHECKING:
    from .processing import Process

__all__ = ["SimulatedBreakers"]

_EVERY_OTHER: Final = "*"
_IN_A_ROW: Final = 3
_FIRST_PAUSE: Final = 5.0
_FIRST_COSTLY_PAUSE: Final = 60.0
_SPREAD: Final = 0.8
_ROUNDING: Final = 0.01


@attrs.define(eq=False)
class _Watched:
    """One relay: *met* its fault, *passed* others by since, *cut* in a row; *gone* when so many were let go.

    It is paused *until* then, and has *asked* to be left alone until then.
    """

    met: set[str] = attrs.Factory(set)
    passed: set[str] = attrs.Factory(set)
    cut: set[str] = attrs.Factory(set)
    until: float = -math.inf
    asked: float = -math.inf
    fault: RelayFault | None = None
    probe: str = ""
    taken: int = 0
    gone: list[list[float]] = attrs.Factory(list)


class SimulatedBreakers(Breakers):
    """Who asks is the task that goes on, and who waits does so by the kernel."""

    def __init__(
        self,
        process: Process,
        clock: Clock,
        rng: random.Random,
        *,
        hasty: bool = False,
        limits: RelayLimits | Mapping[str, RelayLimits] | None = None,
    ) -> None:
        self._kernel = process.world.kernel
        self._process = process
        self._watched: dict[str, _Watched] = {}
        self.ever_paused = False
        super().__init__(clock, rng, hasty=hasty, limits=limits, who=self._asking)

    def apart(self, *, hasty: bool) -> Breakers:
        return SimulatedBreakers(self._process, self._clock, self._rng, hasty=hasty, limits=self._limits)

    def admit(
        self, keys: Collection[str], message: str, *, patience: float, wanted: int | None = None
    ) -> Mapping[str, Admission] | Wait:
        answer = super().admit(keys, message, patience=patience, wanted=wanted)
        for key, each in answer.items() if isinstance(answer, Mapping) else ():
            relay = self._of(key)
            if isinstance(each, Go):
                self._let_go(key, relay, each, message, connects=wanted is not None)
            elif each.passing:
                relay.passed.add(message)
        return answer

    def leave(self, key: str, go: Go, *, unused: int = 0, well: bool = True, in_vain: bool = False) -> None:
        super().leave(key, go, unused=unused, well=well, in_vain=in_vain)
        relay = self._of(key)
        relay.taken -= 1
        for entry in relay.gone:
            if entry == [go.at, go.number]:
                entry[1] -= unused
                break

    def failed(self, key: str, fault: RelayFault, message: str) -> Pause:
        pause = super().failed(key, fault, message)
        relay = self._of(key)
        relay.met.add(message)
        if fault.retry_after is not None:
            now = self._clock.monotonic()
            relay.asked = max(relay.asked, now + fault.retry_after.total_seconds())
        if pause.news:
            self._is_paused(key, fault, pause, message)
        return pause

    def cut(self, key: str, message: str, relay: str = "") -> Pause | None:
        """Three different messages in a row are the relay's doing, and no fewer."""
        watched = self._of(key)
        watched.cut.add(message)
        pause = super().cut(key, message, relay)
        enough = len(watched.cut) >= _IN_A_ROW
        self._must(
            (pause is not None) == enough,
            f"{len(watched.cut)} messages lost their connection to {key}: {pause}",
            message,
        )
        if pause is not None and pause.news:
            fault = RelayUnavailable(
                relay or key, f"{len(watched.cut)} messages in a row lost their connection"
            )
            self._is_paused(key, fault, pause, message)
        return pause

    def answered(self, key: str, message: str) -> bool:
        resumed = super().answered(key, message)
        relay = self._of(key)
        if resumed and relay.fault is not None and (relay.fault.costly or self._asked_for(relay)):
            fits = relay.probe == message
            self._must(
                fits, f"the pause of {key or 'the relay'} was ended by another than its probe", message
            )
        if resumed or relay.fault is None:
            relay.fault, relay.until, relay.asked = None, -math.inf, -math.inf
            relay.cut.clear()
        closed = self._known.relays.closed_for(key, self._clock.monotonic())
        if closed is None or closed.limited:
            relay.met.clear()
        return resumed

    def paused(self, key: str) -> bool:
        """Whether it is left alone for a fault that was reported."""
        relay = self._of(key)
        return self._clock.monotonic() < relay.until - _ROUNDING or self._asked_for(relay)

    @property
    def changed(self) -> Signal:
        return cast("Signal", self._known.changed)

    def worth_waiting(self, errand_behind: Sequence[str]) -> bool:
        return any(self._known.relays.probing(key) for key in errand_behind)

    def _is_paused(self, key: str, fault: RelayFault, pause: Pause, message: str) -> None:
        relay, least = self._of(key), self._least_pause(fault)
        self.ever_paused = True
        relay.passed.clear()
        relay.fault, relay.until = fault, self._clock.monotonic() + least
        told = pause.delay.total_seconds()
        long = told >= least - _ROUNDING
        self._must(long, f"{key or 'the relay'} is left alone for {told} s only, after {fault}", message)

    # -- what may go

    def _let_go(self, key: str, relay: _Watched, go: Go, message: str, *, connects: bool) -> None:
        self._must(not self.paused(key), f"let go to {key or 'the relay'} in its pause", message)
        if go.probe:
            relay.probe = message
            first = message in relay.met and message not in relay.passed
            self._must(not first, "the message that tripped a breaker is the first to probe it", message)
        limits = self._limits.get(key) or self._limits[_EVERY_OTHER]
        if connects:
            relay.taken += 1
            most = limits.connections or math.inf
            self._must(relay.taken <= most, f"{relay.taken} connections to {key or 'the relay'}", message)
        relay.gone.append([go.at, go.number])
        self._within(limits, relay.gone, message)

    def _within(self, limits: RelayLimits, gone: Sequence[Sequence[float]], message: str) -> None:
        """In no window until now are there more than the burst and what the time in it allows."""
        for number, period, share in ((limits.per_second, 1.0, 1.0), (limits.per_hour, 3600.0, 0.1)):
            if number is None:
                continue
            burst, total, (now, _) = max(1, math.floor(number * share)), 0.0, gone[-1]
            for at, went in reversed(gone):
                total += went
                most = burst + (now - at) * number / period + _ROUNDING
                self._must(total <= most, f"its limit is passed: {total} within {now - at:.2f} s", message)

    def _asked_for(self, relay: _Watched) -> bool:
        return self._clock.monotonic() < relay.asked - _ROUNDING

    def _least_pause(self, fault: RelayFault) -> float:
        asked = 0.0 if fault.retry_after is None else fault.retry_after.total_seconds()
        if fault.costly:
            return max(asked, _SPREAD * _FIRST_COSTLY_PAUSE)
        # A run that is too short to wait a pause out asks once more at once.
        return max(asked, 0.0 if self._hasty else _SPREAD * _FIRST_PAUSE)

    def _of(self, key: str) -> _Watched:
        return self._watched.setdefault(key, _Watched())

    def _must(self, holds: bool, text: str, message: str) -> None:
        self._process.world.witness.must(holds, text, message)

    def _asking(self) -> int:
        task = self._kernel.current
        return 0 if task is None else task.number

    def _condition(self) -> Any:
        return Signal(self._kernel)

"""How a claim is brought to its relays: to each for the recipients that are its own, and only where it may be spoken to.

What is known of the relays of one run is here: one breaker for each, and the
last fault of each that was paused.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from .clock import Clock
from .delivery import Handed
from .errors import RelayFault
from .events import Notice, RelayPaused, RelayResumed
from .handover import THE_ONLY_RELAY, hand_over, shares
from .lifecycle import Claim
from .outcome import Outcome, TempFailed, Uncertain, Untried
from .protocols import SupportsRelays, Transport
from .relay import Relays, Wait
from .report import failed, merged

__all__ = ["Errand", "Errands"]

_LOG: Final = logging.getLogger("outbox.runner")
_ZERO: Final = dt.timedelta(0)


@attrs.define(eq=False)
class Errand:
    """One worker's way to the relays of the claim at hand.

    *admitted* are the recipients who may be handed over, by relay;
    *kept_back* those whose relay is paused; *probing* the relays whose probe
    this is.  *interruptible*: the thread is its caller's, and what interrupts
    it is not the transport's doing.
    """

    interruptible: bool = False
    probing: set[str] = attrs.Factory(set)
    admitted: Mapping[str, Sequence[str]] = attrs.Factory(dict)
    kept_back: Sequence[tuple[Sequence[str], Wait]] = ()


class Errands:
    """Performs the errands of all workers of one run; safe from their threads.

    Args:
        tell: Is told when a relay is paused and when it is well again.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        *,
        hasty: bool,
        tell: Callable[[Notice], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._relays = Relays(rng, hasty=hasty)
        self._tell = tell
        self._lock = threading.Lock()
        self._faults: dict[str, RelayFault] = {}

    @property
    def faults(self) -> Mapping[str, RelayFault]:
        """The last fault of each relay that was paused."""
        with self._lock:
            return dict(self._faults)

    def open(self) -> Wait | None:
        """Why there is no relay to speak to; None where there may be one."""
        if isinstance(self._transport, SupportsRelays):
            # Which of its relays there is mail for, only a claim can tell.
            return None
        with self._lock:
            return self._relays.closed_for(THE_ONLY_RELAY, self._clock.monotonic())

    def admit(self, claim: Claim, errand: Errand) -> Wait | None:
        """May *claim* go to any of its relays now?  None is yes, and :meth:`deliver` follows."""
        by_relay = shares(self._transport, claim.message, claim.recipients)
        now = self._clock.monotonic()
        with self._lock:
            admissions = {key: self._relays.admit(key, now, claim.message.id) for key in by_relay}
        closed = {key: wait for key, wait in admissions.items() if isinstance(wait, Wait)}
        errand.admitted = {key: share for key, share in by_relay.items() if key not in closed}
        errand.kept_back = [(by_relay[key], wait) for key, wait in closed.items()]
        errand.probing = {key for key, go in admissions.items() if not isinstance(go, Wait) and go.probe}
        return None if errand.admitted else min(closed.values(), key=lambda wait: wait.delay)

    def deliver(self, claim: Claim, errand: Errand, goes_on: Callable[[Claim], bool]) -> Handed:
        """Hand *claim* over to those that admitted it, and report for all as one.

        *goes_on* is asked before each relay but the first whether more of it
        may be handed over.
        """
        begun = self._clock.monotonic()
        reports: list[tuple[Sequence[str], Outcome | RelayFault]] = []
        waits: list[dt.timedelta] = []
        for key, share in errand.admitted.items():
            if reports and not goes_on(claim):
                reports.append((share, Outcome.same(share, Untried())))
                continue
            report, wait = self._deliver_share(claim, key, share, errand)
            reports.append((share, report))
            waits += _waits_of(share, report, wait)
        self.abandon(errand)
        for share, closed in errand.kept_back:
            reports.append((share, closed.fault or Outcome.same(share, Untried())))
            waits.append(closed.delay)
        took = dt.timedelta(seconds=self._clock.monotonic() - begun)
        return Handed(merged(reports), took, min(waits, default=_ZERO))

    def abandon(self, errand: Errand) -> None:
        """Nothing is learned from the probes that are still out."""
        with self._lock:
            for key in errand.probing:
                self._relays.abandon(key)
        errand.probing = set()

    def _deliver_share(
        self, claim: Claim, key: str, share: Sequence[str], errand: Errand
    ) -> tuple[Outcome | RelayFault, dt.timedelta | None]:
        try:
            report = hand_over(self._transport, claim.message, share)
        except BaseException as error:
            if errand.interruptible:
                raise
            _LOG.exception("the transport failed with an exception of its own on %s", claim.message.id)
            report = failed(error, share)
        wait = self._note(key, report, claim.message.id)
        errand.probing.discard(key)
        return report, wait

    def _note(self, key: str, report: Outcome | RelayFault, message: str) -> dt.timedelta | None:
        """Tell the relay's breaker how it did; how long it is left alone, or None where it is well."""
        fault = report if isinstance(report, RelayFault) else report.fault
        if fault is None:
            with self._lock:
                resumed = self._relays.answered(key)
            if resumed:
                self._tell(RelayResumed(key))
            return None
        with self._lock:
            wait = self._relays.failed(key, fault, self._clock.monotonic(), message)
            self._faults[fault.relay] = fault
        self._tell(RelayPaused(fault.relay, fault, wait))
        return wait


def _waits_of(
    share: Sequence[str], report: Outcome | RelayFault, wait: dt.timedelta | None
) -> Sequence[dt.timedelta]:
    """How long a share keeps its message from the next attempt, beside what the policy says.

    Those whom a relay that is well put off wait for no other relay.
    """
    if wait is not None:
        return [wait]
    put_off = isinstance(report, Outcome) and any(
        isinstance(report.results.get(r), TempFailed | Uncertain | None) for r in share
    )
    return [_ZERO] if put_off else []

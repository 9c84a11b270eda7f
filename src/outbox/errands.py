"""How a claim is brought to its relays: to each for the recipients that are its own, and only where it may be spoken to.

What is known of the relays is shared with others (:mod:`outbox.breakers`);
the last fault of each that was paused is one run's own.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from .breakers import Breakers
from .clock import Clock
from .delivery import Handed
from .errors import RelayFault, RelayUnavailable
from .events import Notice, RelayPaused, RelayResumed
from .handover import THE_ONLY_RELAY, hand_over, shares
from .lifecycle import Claim
from .outcome import Outcome, TempFailed, Uncertain, Untried
from .protocols import SupportsRelays, Transport
from .relay import UNANSWERED, Wait
from .report import failed, merged

__all__ = ["Errand", "Errands"]

_LOG: Final = logging.getLogger("outbox.runner")
_ZERO: Final = dt.timedelta(0)
_AMONG_SEVERAL: Final = 1.0
"""The seconds for which a worker waits for another's probe, where there may be mail for other relays."""


@attrs.define(eq=False)
class Errand:
    """One worker's way to the relays of the claim at hand.

    *admitted* are the recipients who may be handed over, by relay;
    *kept_back* those whose relay is paused; *probing* the relays whose probe
    is, with the message of this id; *behind* those of which one is worth
    waiting for, for *patience* seconds more, before anything is admitted.
    *interruptible*: the thread is its caller's, and what interrupts it is
    not the transport's doing.
    """

    interruptible: bool = False
    message: str = ""
    behind: Sequence[str] = ()
    patience: float = 0.0
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
        breakers: Breakers,
        *,
        tell: Callable[[Notice], None],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._breakers = breakers
        self._tell = tell
        self._lock = threading.Lock()
        self._faults: dict[str, RelayFault] = {}
        self._probing: set[Errand] = set()

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
        return self._breakers.closed_for(THE_ONLY_RELAY)

    def await_opening(self, closed: Wait, until: Callable[[], bool]) -> None:
        """Wait for the report of the probe that :meth:`open` told of, and not long after *until* is so."""
        self._breakers.await_report([THE_ONLY_RELAY], closed.delay.total_seconds(), until)

    def admit(self, claim: Claim, errand: Errand) -> Wait | None:
        """May *claim* go to any of its relays now?  None is yes, and :meth:`deliver` follows."""
        by_relay = shares(self._transport, claim.message, claim.recipients)
        patience = self._patience(errand)
        errand.message, errand.admitted, errand.kept_back, errand.behind = claim.message.id, {}, (), ()
        # All that it may take: were it interrupted here, what it took is given back.
        errand.probing = set(by_relay)
        admissions = self._breakers.admit(by_relay, errand.message, patience=patience)
        if isinstance(admissions, Wait):
            errand.probing = set()
            errand.behind, errand.patience = tuple(by_relay), patience - admissions.under_way
            return admissions
        closed = {key: wait for key, wait in admissions.items() if isinstance(wait, Wait)}
        errand.admitted = {key: share for key, share in by_relay.items() if key not in closed}
        errand.kept_back = [(by_relay[key], _kept_back(key, wait)) for key, wait in closed.items()]
        self._take(errand, {key for key, go in admissions.items() if not isinstance(go, Wait) and go.probe})
        return None if errand.admitted else min(closed.values(), key=lambda wait: wait.delay)

    def await_probe(self, errand: Errand, until: Callable[[], bool]) -> bool:
        """Wait for the probe that keeps *errand* back, where that is worth it; False where it is not."""
        if not errand.behind:
            return False
        self._breakers.await_report(errand.behind, errand.patience, until)
        return True

    def deliver(self, claim: Claim, errand: Errand, goes_on: Callable[[Claim], bool]) -> Handed:
        """Hand *claim* over to those that admitted it, and report for all as one.

        *goes_on* is asked before each relay but the first whether more of it
        may be handed over.
        """
        begun = self._clock.monotonic()
        reports: list[tuple[Sequence[str], Outcome | RelayFault]] = []
        waits: list[dt.timedelta] = []
        news: list[Notice] = []
        try:
            for key, share in errand.admitted.items():
                if reports and not goes_on(claim):
                    reports.append((share, Outcome.same(share, Untried())))
                    continue
                report, wait = self._deliver_share(claim, key, share, errand, news)
                reports.append((share, report))
                waits += _waits_of(share, report, wait)
        finally:
            self.abandon(errand)
            # Not before: a listener who sends would wait for a probe that waits for him.
            for notice in news:
                self._tell(notice)
        for share, closed in errand.kept_back:
            reports.append((share, closed.fault or Outcome.same(share, Untried())))
            waits.append(closed.delay)
        took = dt.timedelta(seconds=self._clock.monotonic() - begun)
        return Handed(merged(reports), took, min(waits, default=_ZERO))

    def abandon(self, errand: Errand) -> None:
        """Nothing is learned from the probes that are still out."""
        with self._lock:
            keys, errand.probing = errand.probing, set()
            self._probing.discard(errand)
        for key in keys:
            self._breakers.abandon(key, errand.message)

    def give_up(self) -> None:
        """Nothing is learned from any probe of this run: those who have them are left behind."""
        with self._lock:
            left = list(self._probing)
        for errand in left:
            self.abandon(errand)
        self.wake()

    def wake(self) -> None:
        """Let all who wait for a probe ask whether they still have to."""
        self._breakers.wake()

    def _patience(self, errand: Errand) -> float:
        alone = errand.interruptible or not isinstance(self._transport, SupportsRelays)
        return UNANSWERED if alone else _AMONG_SEVERAL

    def _take(self, errand: Errand, probing: set[str]) -> None:
        with self._lock:
            errand.probing = probing
            if probing:
                self._probing.add(errand)

    def _deliver_share(
        self, claim: Claim, key: str, share: Sequence[str], errand: Errand, news: list[Notice]
    ) -> tuple[Outcome | RelayFault, dt.timedelta | None]:
        try:
            report = hand_over(self._transport, claim.message, share)
        except BaseException as error:
            if errand.interruptible:
                raise
            _LOG.exception("the transport failed with an exception of its own on %s", claim.message.id)
            report = failed(error, share)
        wait = self._note(key, report, claim.message.id, news)
        errand.probing.discard(key)
        return report, wait

    def _note(
        self, key: str, report: Outcome | RelayFault, message: str, news: list[Notice]
    ) -> dt.timedelta | None:
        """Tell the relay's breaker how it did; how long it is left alone, or None where it is well."""
        fault = report if isinstance(report, RelayFault) else report.fault
        if fault is None:
            if self._breakers.answered(key, message):
                news.append(RelayResumed(key))
            return None
        pause = self._breakers.failed(key, fault, message)
        with self._lock:
            self._faults[fault.relay] = fault
        if pause.news:
            news.append(RelayPaused(fault.relay, fault, pause.delay))
        return pause.delay


def _kept_back(key: str, wait: Wait) -> Wait:
    """With a fault in any case: who is kept back is not charged with an attempt."""
    return wait if wait.fault else attrs.evolve(wait, fault=RelayUnavailable(key, wait.reason))


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

"""How a claim is brought to its relays: to each for the recipients that are its own, and only where it may be spoken to.

What is known of the relays is shared with others (:mod:`outbox.breakers`);
the last fault of each that was paused is one run's own.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Final

import attrs

from .actions import Handed
from .breakers import Breakers
from .clock import Clock
from .errors import RelayFault, RelayUnavailable
from .events import Notice, RelayPaused, RelayResumed
from .handover import THE_ONLY_RELAY, hand_over, shares
from .lifecycle import Claim
from .outcome import Outcome, TempFailed, Uncertain, Untried
from .protocols import SupportsRelays, Transport
from .relay import UNANSWERED, Admission, Go, Pause, Wait
from .replies import ReplyRule, ruling
from .report import failed, merged

__all__ = ["Errand", "Errands"]

_LOG: Final = logging.getLogger("outbox.runner")
_ZERO: Final = dt.timedelta(0)
_UNBEGUN: Final = Untried("not begun: its lease ended, it expired, or the runner was stopped", _ZERO)
_FAULTS_KEPT: Final = 1000
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
        rules: What some answers are to be taken for.
        draw: Asks what this process may send of limits that several keep together.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        breakers: Breakers,
        *,
        tell: Callable[[Notice], None],
        rules: Sequence[ReplyRule] = (),
        draw: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._breakers = breakers
        self._tell = tell
        self._rules = rules
        self._draw = draw
        # A signal handler may stop the runner whose lock its own thread holds.
        self._lock = threading.RLock()
        self._faults: dict[str, RelayFault] = {}
        self._probing: set[Errand] = set()

    @property
    def breakers(self) -> Breakers:
        """What is known of the relays."""
        return self._breakers

    @property
    def faults(self) -> Mapping[str, RelayFault]:
        """The last fault of each relay that was paused; of the latest thousand."""
        with self._lock:
            return dict(self._faults)

    def open(self) -> Wait | None:
        """Why there is no relay to speak to; None where there may be one."""
        if isinstance(self._transport, SupportsRelays):
            # Which of its relays there is mail for, only a claim can tell.
            return None
        return self._breakers.closed_for(THE_ONLY_RELAY)

    def closed(self, lane: Sequence[str]) -> Wait | None:
        """Why nothing may go to a relay now; of several, who takes the message up asks himself."""
        return self._breakers.closed_for(lane[0]) if len(lane) == 1 else None

    def admit_run(self, key: str, message: str, wanted: int) -> Go | Wait:
        """May the message of this id go to this relay now, and others behind it, *wanted* in all?

        Whoever asked takes it at once (:meth:`take`), and leaves the relay when that is over (:meth:`leave`).
        """
        answer = self._breakers.admit([key], message, patience=math.inf, wanted=wanted)
        return answer if isinstance(answer, Wait) else answer[key]

    def leave(self, key: str, go: Go, handed: int, *, well: bool, in_vain: bool) -> None:
        """What was admitted is over: *handed* were handed over, *well* where no connection was lost by that.

        *in_vain*: none of them was taken or refused for good.
        """
        self._breakers.leave(key, go, unused=max(0, go.number - handed), well=well, in_vain=in_vain)

    def put_off(self, key: str) -> dt.timedelta:
        """For how long to give back a message of this relay that may not go now; not all for as long."""
        return self._breakers.put_off(key)

    def take(self, errand: Errand, key: str, message: str, go: Go) -> None:
        """*errand* goes to this relay, as :meth:`admit_run` allowed."""
        errand.message = message
        self._take(errand, {key} if go.probe else set())

    def report(
        self, errand: Errand, key: str, report: Outcome | RelayFault, message: str
    ) -> tuple[dt.timedelta, bool]:
        """What a relay reported of a message: how long it is left alone, and whether that is news to who waits."""
        news: list[Notice] = []
        probed = key in errand.probing
        wait = self._note(key, report, message, news)
        if probed:
            self.abandon(errand)
        # Not before: a listener who sends would wait for a probe that waits for him.
        for notice in news:
            self._tell(notice)
        return wait or _ZERO, probed or bool(news) or wait is not None

    def admit(self, claim: Claim, recipients: Sequence[str], errand: Errand) -> Wait | None:
        """May *claim* go to any relay of *recipients* now?  None is yes, and :meth:`deliver` follows."""
        by_relay = shares(self._transport, claim.message, recipients, interruptible=errand.interruptible)
        patience = self._patience(errand)
        errand.message, errand.admitted, errand.kept_back, errand.behind = claim.message.id, {}, (), ()
        # All that it may take: were it interrupted here, what it took is given back.
        errand.probing = set(by_relay)
        admissions = self._admitted(by_relay, errand.message, patience)
        if isinstance(admissions, Wait):
            errand.probing = set()
            errand.behind, errand.patience = tuple(by_relay), patience - admissions.under_way
            return admissions
        closed = {key: wait for key, wait in admissions.items() if isinstance(wait, Wait)}
        errand.admitted = {key: share for key, share in by_relay.items() if key not in closed}
        errand.kept_back = [(by_relay[key], _kept_back(key, wait)) for key, wait in closed.items()]
        self._take(errand, {key for key, go in admissions.items() if not isinstance(go, Wait) and go.probe})
        return None if errand.admitted else min(closed.values(), key=lambda wait: wait.delay)

    def _admitted(
        self, keys: Collection[str], message: str, patience: float
    ) -> Mapping[str, Admission] | Wait:
        """What the relays of these keys say; where they have to be drawn for, this thread does."""
        first = self._breakers.admit(keys, message, patience=patience)
        if isinstance(first, Wait):
            return first
        drawing = [key for key, each in first.items() if isinstance(each, Wait) and each.drawing]
        if not drawing:
            return first
        self._draw(drawing)
        then = self._breakers.admit(drawing, message, patience=0.0)
        return {**first, **(dict.fromkeys(drawing, then) if isinstance(then, Wait) else then)}

    def await_probe(self, errand: Errand, until: Callable[[], bool]) -> bool:
        """Wait for the probe that keeps *errand* back, where that is worth it; False where it is not."""
        if not errand.behind:
            return False
        self._breakers.await_report(errand.behind, errand.patience, until)
        return True

    def deliver(self, claim: Claim, errand: Errand, goes_on: Callable[[Claim], bool]) -> Handed:
        """Hand *claim* over to those that admitted it, and report for all as one.

        *goes_on* is asked before each relay whether (more of) it may be handed over.
        """
        script = self.delivering(claim, errand, goes_on)
        report: Outcome | RelayFault | None = None
        while True:
            try:
                share = next(script) if report is None else script.send(report)
            except StopIteration as end:
                handed: Handed = end.value
                return handed
            try:
                report = self.hand_over(claim, share, errand)
            except BaseException:
                script.close()
                raise

    def delivering(
        self, claim: Claim, errand: Errand, goes_on: Callable[[Claim], bool]
    ) -> Generator[Sequence[str], Outcome | RelayFault, Handed]:
        """:meth:`deliver` as a script: it yields whom to hand *claim* over for, and is sent what was reported.

        It may end before it yields anything.
        """
        if not goes_on(claim):
            # Much may have happened since it was taken up: its relays were asked for, others were at work.
            self.abandon(errand)
            return Handed(claim, _not_begun(errand), _ZERO)
        begun = self._clock.monotonic()
        reports: list[tuple[Sequence[str], Outcome | RelayFault]] = []
        waits: list[dt.timedelta] = []
        news: list[Notice] = []
        try:
            for key, share in errand.admitted.items():
                if reports and not goes_on(claim):
                    reports.append((share, Outcome.same(share, _UNBEGUN)))
                    continue
                report = yield share
                wait = self._note(key, report, claim.message.id, news)
                errand.probing.discard(key)
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
        return Handed(claim, merged(reports), took, min(waits, default=_ZERO))

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

    def hand_over(self, claim: Claim, share: Sequence[str], errand: Errand) -> Outcome | RelayFault:
        """One step of :meth:`delivering`: hand *claim* over for *share*."""
        try:
            return hand_over(self._transport, claim.message, share)
        except BaseException as error:
            if errand.interruptible:
                raise
            _LOG.exception("the transport failed with an exception of its own on %s", claim.message.id)
            return failed(error, share)

    def _note(
        self, key: str, report: Outcome | RelayFault, message: str, news: list[Notice]
    ) -> dt.timedelta | None:
        """Tell the relay's breaker how it did; how long it is left alone, or None where it is well."""
        fault = report if isinstance(report, RelayFault) else report.fault
        if self._rules and (said := ruling(self._rules, report, key)):
            fault = said.fault
            if said.per_second is not None:
                self._breakers.slow(key, said.per_second, said.lasting)
        if fault is not None:
            pause = self._breakers.failed(key, fault, message)
            return self._paused(pause, fault, news, key)
        if isinstance(report, Outcome) and report.cut:
            cut_off = self._breakers.cut(key, message, report.relay)
            if cut_off is not None and cut_off.fault is not None:
                self._paused(cut_off, cut_off.fault, news, key)
        elif self._breakers.answered(key, message):
            news.append(RelayResumed(key))
        return None

    def _paused(self, pause: Pause, fault: RelayFault, news: list[Notice], key: str) -> dt.timedelta:
        with self._lock:
            self._faults.pop(fault.relay, None)
            self._faults[fault.relay] = fault
            if len(self._faults) > _FAULTS_KEPT:
                del self._faults[next(iter(self._faults))]
        if pause.news:
            news.append(RelayPaused(fault.relay, fault, pause.delay, key))
        return pause.delay


def _not_begun(errand: Errand) -> Outcome:
    """Nobody was asked, and so it costs no attempt."""
    groups = [*errand.admitted.values(), *(share for share, _ in errand.kept_back)]
    return Outcome.same([recipient for share in groups for recipient in share], _UNBEGUN)


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

"""The shift of a simulated process: the one that runs in production, but it waits by the kernel.

Only what takes time is done here; each step in between is
:class:`outbox.shift.Shift`'s own, and so are the notifications between its
threads.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from outbox import delivery as act
from outbox.breakers import Breakers
from outbox.clock import Clock
from outbox.desk import Desk, Later, Run, Work
from outbox.errors import RelayFault, StoreError
from outbox.events import Notice
from outbox.lifecycle import Claim, Settlement
from outbox.performer import Orders, Worker
from outbox.protocols import Exchanged
from outbox.relay import Admission, Pause, RelayLimits, Wait
from outbox.shift import Hand, Shift

from .kernel import Flag, Signal, Waiting

if TYPE_CHECKING:
    from .processing import Process

__all__ = ["SimulatedBreakers", "SimulatedShift"]

Doing: TypeAlias = Generator[Waiting, bool, Any]


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
        self._met: dict[str, set[str]] = {}
        self._passed: dict[str, set[str]] = {}
        super().__init__(clock, rng, hasty=hasty, limits=limits, who=self._asking)

    def apart(self, *, hasty: bool) -> Breakers:
        return SimulatedBreakers(self._process, self._clock, self._rng, hasty=hasty, limits=self._limits)

    def admit(
        self, keys: Collection[str], message: str, *, patience: float, wanted: int | None = None
    ) -> Mapping[str, Admission] | Wait:
        """Watched: a message that met the fault lets the others go first, once after each pause."""
        answer = super().admit(keys, message, patience=patience, wanted=wanted)
        for key, each in answer.items() if isinstance(answer, Mapping) else ():
            if isinstance(each, Wait):
                if each.passing:
                    self._passed.setdefault(key, set()).add(message)
            elif each.probe and message in self._met.get(key, ()):
                first = message not in self._passed.get(key, ())
                self._process.world.witness.must(
                    not first, "the message that tripped a breaker is the first to probe it", message
                )
        return answer

    def failed(self, key: str, fault: RelayFault, message: str) -> Pause:
        pause = super().failed(key, fault, message)
        self._met.setdefault(key, set()).add(message)
        if pause.news:
            self._passed.pop(key, None)
        return pause

    def answered(self, key: str, message: str) -> bool:
        resumed = super().answered(key, message)
        closed = self._known.relays.closed_for(key, self._clock.monotonic())
        if closed is None or closed.limited:
            self._met.pop(key, None)
        return resumed

    @property
    def changed(self) -> Signal:
        return cast("Signal", self._known.changed)

    def worth_waiting(self, errand_behind: Sequence[str]) -> bool:
        return any(self._known.relays.probing(key) for key in errand_behind)

    def _asking(self) -> int:
        task = self._kernel.current
        return 0 if task is None else task.number

    def _condition(self) -> Any:
        return Signal(self._kernel)


class SimulatedShift(Shift):
    """Every wait is yielded to the kernel; so is a moment before each step, in which others may take theirs."""

    def __init__(self, orders: Orders, process: Process, *, draining: bool) -> None:
        kernel = process.world.kernel
        super().__init__(orders, limit=None, draining=draining)
        self._process = process
        self._kernel = kernel
        self._unwritten = False
        self._for_workers = cast("Any", Signal(kernel))
        self._for_clerk = cast("Any", Signal(kernel))
        self._for_listener = cast("Any", Signal(kernel))
        self.stopping = cast("Any", Flag(kernel))
        self._out_of_time = cast("Any", Flag(kernel))
        self._all_done = cast("Any", Flag(kernel))
        self._relays_known = cast("SimulatedBreakers", self.errands.breakers)

    def doing(self, action: act.Action[Any], worker: Worker | None) -> Doing:
        """Do *action* as :meth:`perform` does, and take as long as it takes."""
        yield None, self._kernel.lateness()
        performed = self._slow(action, worker)
        return self.perform(action, worker) if performed is None else (yield from performed)

    def _slow(self, action: act.Action[Any], worker: Worker | None) -> Doing | None:
        """How an action goes that takes time; None for the others."""
        match action:
            case act.Rest(delay=delay, within_grace=within_grace):
                flag = (
                    self._all_done if worker is None else self._out_of_time if within_grace else self.stopping
                )
                return self._resting(flag, delay.total_seconds())
            case act.Take(size=size) if isinstance(worker, Hand):
                return self._taking(size, worker)
            case act.Report() if isinstance(worker, Hand):
                return self._reporting(worker)
            case act.AwaitProbe() if worker is not None:
                return self._awaiting_probe(worker)
            case act.Deliver(claim=claim) if worker is not None:
                return self._delivering(claim, worker)
        return self._slow_at_the_store(action)

    def _slow_at_the_store(self, action: act.Action[Any]) -> Doing | None:
        match action:
            case act.Collect():
                return self._collecting()
            case act.Exchange(settlements=settlements, limit=limit, max_bytes=max_bytes):
                return self._exchanging(settlements, limit, max_bytes)
            case act.ExtendAll():
                return self._extending()
        return None

    def listening(self) -> Doing:
        """As :meth:`listen` does."""
        while not self.stopping.is_set():
            while not (self._desk.dry or self.stopping.is_set()):
                yield cast("Signal", self._for_listener), math.inf
            if self.stopping.is_set():
                return
            patience = self._patience(self._orders.store.next_due(self._orders.queues))  # type: ignore[attr-defined]  # the view has it
            yield self._process.news, self._process.lasts(patience.total_seconds())
            self._at_desk(Desk.news)

    @property
    def held(self) -> Sequence[Claim]:
        """What it extends now."""
        return [lease.claim for lease in self._leases.held()]

    def _tell(self, notice: Notice) -> None:
        if self._process.alive:
            super()._tell(notice)

    def forsake(self) -> None:
        super().forsake()
        self._unwritten = False

    def _pull(self, worker: Hand) -> Claim | None:
        """Watched: what could not be noted is not begun."""
        claim = super()._pull(worker)
        if claim is not None and self._unwritten:
            witness = self._process.world.witness
            witness.broken("begun while the store takes no settlement", claim.message.id)
        return claim

    # -- what workers wait for

    def _taking(self, size: int, worker: Hand) -> Generator[Waiting, bool, Run | None]:
        while isinstance(answer := self._next_run(size, worker), Later):
            yield cast("Signal", self._for_workers), self._process.lasts(answer.seconds)
        return self._taken(answer, worker)

    def _reporting(self, worker: Hand) -> Generator[Waiting, bool, act.Handed | Settlement | None]:
        begun = self._orders.clock.monotonic()
        told = self._next_report(worker)
        yield from self._process.courses()
        return self._told(told, worker, begun)

    def _awaiting_probe(self, worker: Worker) -> Generator[Waiting, bool, bool]:
        errand = worker.errand
        if not errand.behind:
            return False
        deadline = self._kernel.now + errand.patience
        while not self.stopping.is_set() and self._relays_known.worth_waiting(errand.behind):
            left = deadline - self._kernel.now
            if left <= 0:
                break
            yield self._relays_known.changed, left
        return True

    def _delivering(self, claim: Claim, worker: Worker) -> Generator[Waiting, bool, act.Handed]:
        self._process.takes_in_hand(claim)
        script = self.errands.delivering(claim, worker.errand, self._still_ours)
        share = next(script)
        while True:
            report = self.errands.hand_over(claim, share, worker.errand)
            yield from self._process.courses()
            try:
                share = script.send(report)
            except StopIteration as end:
                handed: act.Handed = end.value
                return handed

    # -- what takes its time at the store

    def _collecting(self) -> Generator[Waiting, bool, Work | None]:
        while isinstance(answer := self._next_work(), Later):
            yield cast("Signal", self._for_clerk), self._process.lasts(answer.seconds)
        return answer

    def _exchanging(
        self, settlements: Sequence[Settlement], limit: int, max_bytes: int
    ) -> Generator[Waiting, bool, Exchanged]:
        begun = self._orders.clock.monotonic()
        yield None, self._process.view.delay("stalls-before")
        try:
            exchanged, limit = self._ask_store(settlements, limit, max_bytes)
        except StoreError:
            yield None, self._process.view.delay("stalls-after")
            self._at_desk(Desk.faltered)
            self._unwritten = self._unwritten or bool(settlements)
            raise
        yield None, self._process.view.delay("stalls-after")
        self._unwritten = False
        return self._exchanged(exchanged, limit, begun)

    def _extending(self) -> Generator[Waiting, bool, None]:
        with self._lock:
            held = self._leases.held()
        if held:
            begun = self._orders.clock.monotonic()
            yield None, self._process.view.delay("stalls-before")
            lost = self._ask_to_extend(held)
            yield None, self._process.view.delay("stalls-after")
            self._extended(held, lost, begun)

    def _resting(self, flag: Any, seconds: float) -> Generator[Waiting, bool, bool]:
        return not (yield from flag.waited(self._process.lasts(seconds)))

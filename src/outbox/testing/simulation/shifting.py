"""The shift of a simulated process: the one that runs in production, but it waits by the kernel.

Only what takes time is done here; each step in between is
:class:`outbox.shift.Shift`'s own, and so are the notifications between its
threads.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast

from outbox import actions as act
from outbox.desk import Desk, Later, Run, Work
from outbox.errors import StoreError
from outbox.events import Notice
from outbox.lifecycle import Claim, Settlement
from outbox.message import Message
from outbox.performer import Orders, Performer, Worker
from outbox.protocols import Exchanged
from outbox.shift import Hand, Shift

from .breaking import SimulatedBreakers
from .kernel import Flag, Signal, Waiting

if TYPE_CHECKING:
    from .processing import Process

__all__ = ["SimulatedPerformer", "SimulatedSender", "SimulatedShift"]

Doing: TypeAlias = Generator[Waiting, bool, Any]

_SOON: Final = 0.02
_SUSPENSIONS_KNOWN: Final = 10.0
_LEAST_BACK_OFF: Final = 0.09


class SimulatedPerformer(Performer):
    """Every wait is yielded to the kernel; so is a moment before each step, in which others may take theirs."""

    def _simulate(self, process: Process) -> None:
        """Wait by the kernel from now on."""
        self._process = process
        self._kernel = kernel = process.world.kernel
        self.stopping = cast("Any", Flag(kernel))
        self._out_of_time = cast("Any", Flag(kernel))
        self._all_done = cast("Any", Flag(kernel))
        self._relays_known = cast("SimulatedBreakers", self.errands.breakers)

    def doing(self, action: act.Action[Any], worker: Worker | None) -> Doing:
        """Do *action* as :meth:`perform` does, and take as long as it takes."""
        yield None, self._kernel.lateness()
        slow = self._slow.get(type(action))
        performed = None if slow is None else slow(self, action, worker)
        return self.perform(action, worker) if performed is None else (yield from performed)

    def _tell(self, notice: Notice) -> None:
        if self._process.alive:
            super()._tell(notice)

    def _resting(self, action: act.Rest, worker: Worker | None) -> Doing:
        flag: Any = self._end_of_rest(worker, within_grace=action.within_grace)
        return not (yield from flag.waited(self._process.lasts(action.delay.total_seconds())))

    def _awaiting_probe(self, _action: act.AwaitProbe, worker: Worker) -> Generator[Waiting, bool, bool]:
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

    def _screening(self, action: act.Screen, _worker: Worker) -> None:
        self._process.takes_in_hand(action.claim)

    def _delivering(self, action: act.Deliver, worker: Worker) -> Generator[Waiting, bool, act.Handed]:
        claim = action.claim
        self._process.takes_in_hand(claim)
        script = self.errands.delivering(claim, worker.errand, self._still_ours)
        report: Any = None
        while True:
            try:
                share = script.send(report)
            except StopIteration as end:
                handed: act.Handed = end.value
                return handed
            try:
                report = self.errands.hand_over(claim, share, worker.errand)
            except BaseException:
                script.close()
                raise
            yield from self._process.courses()

    def _extending(self, _action: act.ExtendAll, _worker: Worker | None) -> Generator[Waiting, bool, bool]:
        extension = self._begin_extension()
        if not extension.held:
            return True
        yield None, self._process.view.delay("stalls-before")
        lost = self._ask_to_extend(extension)
        yield None, self._process.view.delay("stalls-after")
        return self._extended(extension, lost)

    _slow: ClassVar[dict[type[Any], Any]] = {
        act.Rest: _resting,
        act.AwaitProbe: _awaiting_probe,
        act.Screen: _screening,
        act.Deliver: _delivering,
        act.ExtendAll: _extending,
    }
    """How an action goes that takes time."""


class SimulatedSender(SimulatedPerformer):
    """Delivers in its callers' tasks, as :class:`outbox.sender.Sender` does in their threads."""

    def __init__(self, orders: Orders, process: Process) -> None:
        super().__init__(orders)
        self._simulate(process)

    def claimed(self, message: Message, worker: Worker) -> Claim | None:
        """Store it under the caller's lease; None where the store had it already, or keeps it back."""
        self.screener.look(older=_SUSPENSIONS_KNOWN)
        begun = self._orders.clock.monotonic()
        claims = self._process.view.put_claimed([message], lease=self._orders.lease)
        for claim in claims:
            self.grant(claim, worker, begun)
        return claims[0] if claims else None


class SimulatedShift(SimulatedPerformer, Shift):
    """A crew's."""

    def __init__(self, orders: Orders, process: Process, *, limit: int | None, draining: bool) -> None:
        kernel = process.world.kernel
        Shift.__init__(self, orders, limit=limit, draining=draining)
        self._simulate(process)
        self._unwritten = False
        self._faltered_at = -math.inf
        self._for_workers = cast("Any", Signal(kernel))
        self._for_clerk = cast("Any", Signal(kernel))
        self._for_listener = cast("Any", Signal(kernel))

    @property
    def met_a_pause(self) -> bool:
        """Whether a relay of its was paused, however it is now: a drain takes that for the end of what is due."""
        return self._relays_known.ever_paused

    def listening(self) -> Doing:
        """As :meth:`listen` does."""
        while not self.stopping.is_set():
            while not (self._desk.dry or self.stopping.is_set()):
                yield cast("Signal", self._for_listener), math.inf
            if self.stopping.is_set():
                return
            try:
                patience = self._until_due(self._process.view).total_seconds()
            except StoreError:
                yield from cast("Flag", self.stopping).waited(_SOON)
            else:
                yield self._process.news, self._process.lasts(patience)
            self._at_desk(Desk.news)

    def forsake(self) -> None:
        super().forsake()
        self._unwritten = False

    def _pull(self, worker: Hand) -> Claim | None:
        """Watched: what could not be noted is not begun, and nothing in a relay's pause but its probe."""
        claim, run = super()._pull(worker), worker.run
        if claim is None or run is None:
            return claim
        witness = self._process.world.witness
        witness.must(not self._unwritten, "begun while the store takes no settlement", claim.message.id)
        if run.admitted is not None and not run.admitted.probe:
            paused = self._relays_known.paused(run.lane[0])
            witness.must(not paused, "begun in the pause of its relay, and is no probe", claim.message.id)
        return claim

    def _screened(self, claim: Claim, worker: Hand) -> tuple[str, ...]:
        self._process.takes_in_hand(claim)
        return super()._screened(claim, worker)

    # -- what workers wait for

    def _taking(self, action: act.Take, worker: Hand) -> Generator[Waiting, bool, Run | None]:
        while isinstance(answer := self._next_run(action.size, worker), Later):
            yield cast("Signal", self._for_workers), self._process.lasts(answer.seconds)
        return self._taken(answer, worker)

    def _reporting(
        self, _action: act.Report, worker: Hand
    ) -> Generator[Waiting, bool, act.Handed | Settlement | None]:
        begun = self._orders.clock.monotonic()
        told = self._next_report(worker)
        yield from self._process.courses()
        return self._told(told, worker, begun)

    # -- what takes its time at the store

    def _collecting(self, _action: act.Collect, _worker: Worker) -> Generator[Waiting, bool, Work | None]:
        while isinstance(answer := self._next_work(), Later):
            yield cast("Signal", self._for_clerk), self._process.lasts(answer.seconds)
        return answer

    def _exchanging(self, action: act.Exchange, _worker: Worker) -> Generator[Waiting, bool, Exchanged]:
        view = self._process.view
        with self._asking() as take_in:
            yield None, view.delay("stalls-before")
            try:
                answer = self._ask_store(action.settlements, action.limit, action.max_bytes)
            except StoreError as error:
                yield None, view.delay("stalls-after")
                if error.left is None or self._draining:
                    self._falters(action.settlements)
                else:
                    self._unwritten = False
                raise
            yield None, view.delay("stalls-after")
            self._unwritten, self._faltered_at = False, -math.inf
            return take_in(*answer)

    def _falters(self, settlements: Sequence[Settlement]) -> None:
        """Watched: a store that failed is not asked again at once."""
        now = self._kernel.now
        soon = now - self._faltered_at < _LEAST_BACK_OFF and not self.stopping.is_set()
        self._process.world.witness.must(not soon, "a store that failed was asked again at once")
        self._faltered_at = now
        self._unwritten = self._unwritten or bool(settlements)

    _slow: ClassVar[dict[type[Any], Any]] = {
        **SimulatedPerformer._slow,  # noqa: SLF001 - these and those of its own
        act.Take: _taking,
        act.Report: _reporting,
        act.Collect: _collecting,
        act.Exchange: _exchanging,
    }

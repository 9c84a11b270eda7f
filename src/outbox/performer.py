"""How the actions of :mod:`outbox.delivery` are performed, and what the workers of one process share.

Nothing here decides: it claims, hands over, settles and waits when it is
told to, and keeps the leases, the relays, the turns and the tally under one
lock.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from . import delivery as act
from .breakers import Breakers
from .clock import Clock
from .errands import Errand, Errands
from .errors import RelayFault, StoreError
from .events import LeaseLost, Listener, Notice, Settled
from .leases import Leases
from .lifecycle import Claim, Event, Settlement
from .logs import log_notice
from .protocols import Store, SupportsIdle, SupportsMaintain, SupportsWait, Transport
from .relay import Wait
from .retry import RetryPolicy
from .turns import Gathering, Lounge, Turns, seconds
from .values import frozen_mapping

__all__ = ["Orders", "Performer", "Tally", "Worker", "follow"]

_LOG: Final = logging.getLogger("outbox.runner")
_POLL_AT_MOST: Final = dt.timedelta(seconds=5)
_POLL_WITHOUT_WAIT: Final = dt.timedelta(seconds=1)
_SOON: Final = dt.timedelta(milliseconds=20)
_FOR_ISOLATION: Final = dt.timedelta(seconds=1)
_PRUNE: Final = 1000
_COUNTED: Final[Mapping[Event, str]] = frozen_mapping(
    {
        Event.DELIVERED: "delivered",
        Event.DEAD: "dead",
        Event.HELD: "held",
        Event.EXPIRED: "expired",
        Event.RETRY: "retried",
        Event.RELEASED: "released",
    }
)


def _frozen_faults(faults: Mapping[str, RelayFault]) -> Mapping[str, RelayFault]:
    return frozen_mapping(faults)


@attrs.frozen(kw_only=True)
class Tally:
    """What became of the claims of one drain.

    *retried* wait for another attempt; *released* were not tried, because
    their relay could not be used; *lost* went to another runner meanwhile;
    *faults* are the last fault of each relay that was paused, by relay.
    """

    delivered: int = 0
    dead: int = 0
    held: int = 0
    expired: int = 0
    retried: int = 0
    released: int = 0
    lost: int = 0
    faults: Mapping[str, RelayFault] = attrs.field(factory=dict, converter=_frozen_faults, hash=False)


@attrs.frozen(kw_only=True)
class Orders:
    """What a crew is told: the Runner's settings, and what is known of the relays."""

    store: Store
    transport: Transport
    retry: Mapping[str, RetryPolicy]
    queues: Sequence[str]
    workers: int
    lease: dt.timedelta
    listeners: Sequence[Listener]
    clock: Clock
    rng: random.Random
    breakers: Breakers

    def policy(self, queue: str) -> RetryPolicy:
        """The policy of a queue; the default one where none is said."""
        return self.retry.get(queue) or RetryPolicy()


@attrs.define(eq=False)
class Worker:
    """What one thread holds beside its leases: its turn, whether alone, and its errand to the relays.

    *arrived*: it is at its end, and the others know.
    """

    in_turn: bool = False
    isolated: bool = False
    arrived: bool = False
    errand: Errand = attrs.Factory(Errand)


def follow(script: act.Script[None], perform: Callable[[act.Action[Any]], Any]) -> None:
    """Perform a script's actions until it ends; a store's error is thrown into it."""
    answer: Any = None
    error: StoreError | None = None
    while True:
        try:
            action = script.send(answer) if error is None else script.throw(error)
        except StopIteration:
            return
        answer, error = None, None
        try:
            answer = perform(action)
        except StoreError as raised:
            error = raised


class Performer:
    """Performs actions for all workers of one run; safe from their threads.

    *errands*: those of another performer, to share what is known of the
    relays.  *settle*: what writes verdicts, instead of the store's own.
    """

    def __init__(
        self,
        orders: Orders,
        *,
        limit: int | None,
        draining: bool,
        errands: Errands | None = None,
        settle: Callable[[Sequence[Settlement]], Sequence[Claim]] | None = None,
    ) -> None:
        self._orders = orders
        self._draining = draining
        self._left = limit
        self._lock = threading.Lock()
        self._leases = Leases(orders.lease)
        # A drain is too short to wait a relay's pause out, and is told of none: it begins anew.  It lasts
        # until all that is due was tried: it can wait for a suspect's turn.
        breakers = Breakers(orders.clock, orders.rng, hasty=True) if draining else orders.breakers
        self.errands = errands or Errands(orders.transport, orders.clock, breakers, tell=self._tell)
        self._write = settle or orders.store.settle
        self._counts: Counter[str] = Counter()
        self._turns = Turns(patience=None if draining else _FOR_ISOLATION)
        self._lounge = Lounge()
        self._gathering = Gathering(orders.workers)
        self.stopping = threading.Event()
        self._out_of_time = threading.Event()
        self._all_done = threading.Event()

    @property
    def tally(self) -> Tally:
        """What became of the claims so far."""
        with self._lock:
            return Tally(**self._counts, faults=self.errands.faults)

    @property
    def done(self) -> bool:
        """Whether the run is over, for its keepers too."""
        return self._all_done.is_set()

    def stop(self) -> None:
        """Claim nothing more: end every wait that is not for a settle."""
        self.stopping.set()
        self._turns.close()
        self._lounge.close()
        self._gathering.close()
        self.errands.wake()
        if isinstance(self._orders.store, SupportsWait):
            self._orders.store.wake()

    def give_up(self) -> None:
        """The grace time is over, or everybody has ended: end all waits."""
        self._out_of_time.set()
        self._all_done.set()
        self.errands.give_up()

    def leave(self, worker: Worker, *, stored: bool = True) -> None:
        """*worker* is gone: take back all that he holds; what he had claimed and not settled runs out.

        *stored*: the store has it, and gives it out again then.
        """
        self._end_turn(worker)
        self._arrive(worker)
        self.errands.abandon(worker.errand)
        with self._lock:
            left = self._leases.abandon(worker)
        if left and stored:
            _LOG.warning(
                "a worker ended and left without a verdict: %s; they are taken up again when their leases run out",
                ", ".join(claim.message.id for claim in left),
            )

    def grant(self, claims: Sequence[Claim], worker: Worker, begun: float) -> None:
        """*worker* has these claims, by a call to the store that began then: they are extended until he settles."""
        with self._lock:
            self._leases.grant(claims, worker, begun)

    def perform(self, action: act.Action[Any], worker: Worker | None) -> Any:
        """Do *action* for *worker* (None: for the keeper), and return its result.

        Raises:
            StoreError: the store failed; the script decides how it goes on.
        """
        match action:
            case act.Rest(delay=delay, within_grace=within_grace):
                return self._rest(delay, worker, within_grace=within_grace)
            case act.Tell(notice=notice):
                return self._tell(notice)
            case act.ExtendAll():
                return self._extend_all()
            case act.CloseIdle():
                return self._close_idle()
            case act.Prune():
                return self._prune()
            case _ if worker is not None:
                return self._perform_work(action, worker)
        raise AssertionError(f"only a worker can do {action!r}")

    def _perform_work(self, action: act.Action[Any], worker: Worker) -> Any:
        match action:
            case act.Proceed():
                return self._proceed(worker)
            case act.Open():
                return self.errands.open()
            case act.ClaimDue(limit=limit):
                return self._claim(limit, worker)
            case act.Isolate():
                return self._isolate(worker)
            case act.Idle(closed=closed):
                return self._idle(closed, worker)
            case act.Gather():
                self._arrive(worker)
                return self._gathering.wait()
        return self._perform_on_claim(action, worker)

    def _perform_on_claim(self, action: act.Action[Any], worker: Worker) -> Any:
        match action:
            case act.TakeUp(claim=claim):
                return self._take_up(claim)
            case act.Admit(claim=claim):
                return self.errands.admit(claim, worker.errand)
            case act.AwaitProbe():
                return self.errands.await_probe(worker.errand, self.stopping.is_set)
            case act.Deliver(claim=claim):
                return self.errands.deliver(claim, worker.errand, self._still_ours)
            case act.Settle(settlements=settlements):
                return self._settle(settlements)
        raise AssertionError(f"nobody knows how to do {action!r}")

    # -- turns and waiting

    def _proceed(self, worker: Worker) -> bool:
        self._end_turn(worker)
        worker.in_turn = self._turns.enter()
        return worker.in_turn

    def _end_turn(self, worker: Worker) -> None:
        if worker.in_turn:
            self._turns.leave(isolated=worker.isolated)
        worker.in_turn = worker.isolated = False

    def _arrive(self, worker: Worker) -> None:
        if not worker.arrived:
            worker.arrived = True
            self._gathering.arrive()

    def _isolate(self, worker: Worker) -> dt.timedelta | None:
        crowded = self._turns.isolate()
        worker.isolated = crowded is None
        return crowded

    def _idle(self, closed: Wait | None, worker: Worker) -> bool:
        self._end_turn(worker)
        if closed is None:
            return not self._draining and self._lounge.wait(self._listen)
        if closed.probing:
            self.errands.await_opening(closed, self.stopping.is_set)
            return not self.stopping.is_set()
        return not self._draining and not self.stopping.wait(seconds(closed.delay))

    def _listen(self) -> None:
        store = self._orders.store
        if not isinstance(store, SupportsWait):
            self.stopping.wait(_POLL_WITHOUT_WAIT.total_seconds())
            return
        try:
            due = store.next_due(self._orders.queues)
            # What is due already was just refused to this process: another has it, or will give it back.
            timeout = _POLL_AT_MOST if due is None else min(max(due, _SOON), _POLL_AT_MOST)
            store.wait(timeout)
        except StoreError:
            # The next claim meets the same error, tells it, and backs off.
            self.stopping.wait(_SOON.total_seconds())

    def _rest(self, delay: dt.timedelta, worker: Worker | None, *, within_grace: bool) -> bool:
        if worker is None:
            return not self._all_done.wait(seconds(delay))
        event = self._out_of_time if within_grace else self.stopping
        return not event.wait(seconds(delay))

    # -- claiming, delivering, settling

    def _claim(self, limit: int, worker: Worker) -> Sequence[Claim]:
        limit = self._budget(limit)
        if limit == 0:
            return ()
        claims: Sequence[Claim] = ()
        # Taken before the store is asked: the lease it grants cannot end before this one.
        begun = self._orders.clock.monotonic()
        try:
            claims = self._orders.store.claim(
                limit=limit, lease=self._orders.lease, queues=self._orders.queues
            )
        finally:
            self._budget(len(claims) - limit)
        self.grant(claims, worker, begun)
        if claims:
            self._lounge.call()
        return claims

    def _budget(self, number: int) -> int:
        """Take up to *number* from what the drain may still claim; a negative number gives back."""
        if self._left is None:
            return number
        with self._lock:
            taken = min(number, self._left)
            self._left -= taken
            return taken

    def _take_up(self, claim: Claim) -> act.Stop | dt.timedelta:
        if self.stopping.is_set():
            return act.Stop.STOPPING
        now = self._orders.clock.monotonic()
        with self._lock:
            lease = self._leases.alive(claim, now)
        return act.Stop.LOST if lease is None else dt.timedelta(seconds=now - lease.begun)

    def _still_ours(self, claim: Claim) -> bool:
        """Whether more of a claim may be handed over: its lease lives, and it has not expired meanwhile."""
        now = self._orders.clock.monotonic()
        with self._lock:
            lease = self._leases.alive(claim, now)
        if lease is None:
            return False
        return claim.expires_in is None or dt.timedelta(seconds=now - lease.begun) < claim.expires_in

    def _settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        lost = self._write(settlements)
        with self._lock:
            self._leases.end(settlement.claim for settlement in settlements)
        return lost

    def _tell(self, notice: Notice) -> None:
        with self._lock:
            if isinstance(notice, Settled):
                self._counts[_COUNTED[notice.verdict.event]] += 1
            elif isinstance(notice, LeaseLost):
                self._counts["lost"] += 1
        for listener in (log_notice, *self._orders.listeners):
            try:
                listener(notice)
            except BaseException:  # noqa: BLE001 - a listener is a stranger's, and may raise anything
                _LOG.exception("a listener failed; the delivery is not changed by it")

    # -- keeping

    def _extend_all(self) -> None:
        with self._lock:
            held = self._leases.held()
        if not held:
            return
        begun = self._orders.clock.monotonic()
        lost = self._orders.store.extend([lease.claim for lease in held], lease=self._orders.lease)
        with self._lock:
            self._leases.extended(held, lost, begun)

    def _close_idle(self) -> None:
        if not isinstance(self._orders.transport, SupportsIdle):
            return
        try:
            self._orders.transport.expire()
        except BaseException:  # noqa: BLE001 - a transport is a stranger's, and may raise anything
            _LOG.exception("the transport failed to close its idle connections")

    def _prune(self) -> bool:
        store = self._orders.store
        return isinstance(store, SupportsMaintain) and store.prune(limit=_PRUNE) >= _PRUNE

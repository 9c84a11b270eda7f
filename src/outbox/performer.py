"""How the actions of :mod:`outbox.actions` are performed that concern one claim, or the keeping of the house.

Nothing here decides: it hands over, settles and waits when it is told to, and
keeps the leases, the relays and the tally under one lock.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from . import actions as act
from .breakers import Breakers
from .clock import Clock
from .delays import Delays
from .drawing import Purser
from .errands import Errand, Errands
from .errors import RelayFault, StoreError
from .events import LeaseLost, Listener, Notice, RelayPaused, RelayResumed, Settled
from .herald import Herald
from .judge import Hook, amended
from .leases import Lease, Leases, Since
from .lifecycle import Claim, Event, Settlement, Verdict
from .logs import log_notice
from .outcome import Outcome
from .protocols import Store, SupportsIdle, SupportsMaintain, SupportsRegister, SupportsWait, Transport
from .replies import ReplyRule
from .retry import RetryPolicy
from .screener import Screener
from .screening import Suppress
from .values import frozen_mapping
from .waiting import Flag

__all__ = ["Orders", "Performer", "Tally", "Worker", "follow", "seconds"]

_LOG: Final = logging.getLogger("outbox.runner")
_PRUNE: Final = 1000
_LEFT_AT_MOST: Final = 100
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
    their relay could not be used or they are suspended; *lost* went to another runner meanwhile;
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
    hook: Hook | None = None
    suppress: Suppress | None = None
    delays: Delays = attrs.field(factory=lambda: Delays(None), repr=False)
    rules: Sequence[ReplyRule] = ()

    def policy(self, queue: str) -> RetryPolicy:
        """The policy of a queue; the default one where none is said."""
        return self.retry.get(queue) or RetryPolicy()


@attrs.define(eq=False)
class Worker:
    """Who performs: his errand to the relays, and the claim that he brought with him, where he brought one."""

    errand: Errand = attrs.Factory(Errand)
    brought: Sequence[Claim] = ()


@attrs.frozen
class _Extension:
    """The leases that are extended by a call to the store which began then."""

    held: Sequence[Lease]
    begun: float


def seconds(wait: dt.timedelta) -> float:
    """The seconds of a wait, as many as a thread can be asked to wait."""
    return min(max(0.0, wait.total_seconds()), threading.TIMEOUT_MAX)


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
    """Performs what has to do with a single claim, and with keeping house; safe from many threads.

    *errands*: those of another performer, to share what is known of the
    relays.  *settle*: what writes verdicts, instead of the store's own.
    """

    def __init__(
        self,
        orders: Orders,
        *,
        draining: bool = False,
        errands: Errands | None = None,
        settle: Callable[[Sequence[Settlement]], Sequence[Claim]] | None = None,
    ) -> None:
        self._orders = orders
        self._lock = threading.RLock()
        self._leases = Leases(orders.lease)
        # A drain is too short to wait a relay's pause out, and is told of none: it begins anew.
        breakers = orders.breakers.apart(hasty=True) if draining else orders.breakers
        self.purser = _purser(orders, breakers)
        self.errands = errands or Errands(
            orders.transport,
            orders.clock,
            breakers,
            tell=self._tell,
            rules=orders.rules,
            draw=self.purser.draw if self.purser else lambda _: None,
        )
        self.screener = Screener(
            orders.store, orders.transport, orders.suppress, clock=orders.clock, rng=orders.rng
        )
        self.herald = Herald(
            orders.store,
            orders.transport,
            breakers,
            orders.clock,
            queues=tuple(orders.queues),
            workers=orders.workers,
            done=self._counted,
            in_hand=self._in_hand,
            late=draining,
        )
        self._write = settle or orders.store.settle
        self._counts: Counter[str] = Counter()
        self._listeners = (log_notice, *orders.listeners)
        self._left_to_tell: deque[Notice] = deque(maxlen=_LEFT_AT_MOST)
        # A signal handler may stop the runner whose lock its own thread holds.
        self.stopping = Flag()
        self._out_of_time = Flag()
        self._all_done = Flag()

    @property
    def tally(self) -> Tally:
        """What became of the claims so far."""
        with self._lock:
            return Tally(**self._counts, faults=self.errands.faults)

    def _counted(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)

    def _in_hand(self) -> int:
        with self._lock:
            return sum(not lease.lost for lease in self._leases.held())

    @property
    def done(self) -> bool:
        """Whether all is over, for the keepers too."""
        return self._all_done.is_set()

    def stop(self) -> None:
        """Begin nothing more: end every wait that is not for a settle."""
        self.stopping.set()
        self.errands.wake()
        if isinstance(self._orders.store, SupportsWait):
            try:
                self._orders.store.wake()
            except BaseException:  # noqa: BLE001 - a store is a stranger's, and what it does must keep no stop from its end
                _LOG.exception("the store failed to end its waits: they end by themselves")

    def give_up(self) -> None:
        """The grace time is over, or everybody has ended: end all waits."""
        self._out_of_time.set()
        self._all_done.set()
        self.errands.give_up()

    def leave(self, worker: Worker) -> None:
        """*worker* is gone: take back all that he holds; what he had and did not settle runs out."""
        self.errands.abandon(worker.errand)
        with self._lock:
            self._leases.end(worker.brought)

    def grant(self, claim: Claim, worker: Worker, begun: float) -> None:
        """*worker* brings this claim, made by a call to the store that began then: it is extended until he leaves."""
        worker.brought = (claim,)
        with self._lock:
            self._leases.grant([claim], begun, self._orders.clock.monotonic())

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
            case act.TellLater(notice=notice):
                return self._tell_later(notice)
            case act.TellLeft():
                return self._tell_left()
        return self._perform_keeping(action) if worker is None else self._perform_on_claim(action, worker)

    def _perform_keeping(self, action: act.Action[Any]) -> Any:
        match action:
            case act.ExtendAll():
                return self._extend_all()
            case act.Announce():
                return self.herald.look()
            case act.Withdraw():
                return self.herald.leave()
            case act.Reread():
                return self.screener.look(older=0.0)
            case act.CloseIdle():
                return self._close_idle()
            case act.Prune():
                return self._prune()
        raise AssertionError(f"nobody but a worker can do {action!r}")

    def _perform_on_claim(self, action: act.Action[Any], worker: Worker) -> Any:
        match action:
            case act.TakeUp(claim=claim):
                return self._take_up(claim)
            case act.Screen(claim=claim):
                return self.screener.screen(claim, interruptible=worker.errand.interruptible)
            case act.Admit(claim=claim, recipients=recipients):
                return self.errands.admit(claim, recipients, worker.errand)
            case act.AwaitProbe():
                return self.errands.await_probe(worker.errand, self.stopping.is_set)
            case act.Deliver(claim=claim):
                return self.errands.deliver(claim, worker.errand, self._still_ours)
            case act.Amend(claim=claim, report=report, verdict=verdict):
                return self._amended(claim, report, verdict, worker)
            case act.Settle(settlements=settlements):
                return self._write(settlements)
        raise AssertionError(f"nobody knows how to do {action!r}")

    def _rest(self, delay: dt.timedelta, worker: Worker | None, *, within_grace: bool) -> bool:
        return not self._end_of_rest(worker, within_grace=within_grace).wait(seconds(delay))

    def _end_of_rest(self, worker: Worker | None, *, within_grace: bool) -> Flag:
        if worker is None:
            return self._all_done
        return self._out_of_time if within_grace else self.stopping

    # -- a single claim

    def _take_up(self, claim: Claim) -> act.Stop | Since:
        if self.stopping.is_set():
            return act.Stop.STOPPING
        since = self._since(claim)
        return act.Stop.LOST if since is None else since

    def _amended(
        self, claim: Claim, report: Outcome | RelayFault, judged: Verdict, worker: Worker
    ) -> Verdict:
        if self._orders.hook is None:
            return judged
        try:
            return amended(claim, report, judged, self._orders.hook(claim, report, judged))
        except BaseException as error:
            if worker.errand.interruptible and not isinstance(error, Exception):
                raise
            _LOG.exception("the hook failed on %s: the verdict stands, %s", claim.message.id, judged.event)
            return judged

    def _still_ours(self, claim: Claim) -> bool:
        """Whether (more of) a claim may be handed over: its lease lives, and it has not expired meanwhile.

        And what comes of it can be written: after the grace time nobody does.
        """
        since = None if self._out_of_time.is_set() else self._since(claim)
        return since is not None and (claim.expires_in is None or since.most < claim.expires_in)

    def _since(self, claim: Claim) -> Since | None:
        now = self._orders.clock.monotonic()
        with self._lock:
            lease = self._leases.alive(claim, now)
        return None if lease is None else lease.since(now)

    def _tell(self, notice: Notice) -> None:
        with self._lock:
            if isinstance(notice, Settled):
                self._counts[_COUNTED[notice.verdict.event]] += 1
            elif isinstance(notice, LeaseLost):
                self._counts["lost"] += 1
            late = self._orders.delays.of(notice)
        if isinstance(notice, RelayPaused | RelayResumed):
            self.herald.changed()
        self._call(self._listeners, notice)
        if late is not None:
            self._call(self._listeners, late)

    def _tell_later(self, notice: Notice) -> None:
        self._call((log_notice,), notice)
        self._left_to_tell.append(notice)

    def _tell_left(self) -> None:
        while self._left_to_tell:
            self._call(self._orders.listeners, self._left_to_tell.popleft())

    @staticmethod
    def _call(listeners: Sequence[Listener], notice: Notice) -> None:
        for listener in listeners:
            try:
                listener(notice)
            except BaseException:  # noqa: BLE001 - a listener is a stranger's, and may raise anything
                _LOG.exception("a listener failed; the delivery is not changed by it")

    # -- keeping

    def _extend_all(self) -> bool:
        extension = self._begin_extension()
        return not extension.held or self._extended(extension, self._ask_to_extend(extension))

    def _begin_extension(self) -> _Extension:
        with self._lock:
            held = self._leases.held()
        # Taken before the store is asked: the lease it grants cannot end before this one.
        return _Extension(held, self._orders.clock.monotonic())

    def _ask_to_extend(self, extension: _Extension) -> Sequence[Claim]:
        claims = [lease.claim for lease in extension.held]
        return self._orders.store.extend(claims, lease=self._orders.lease)

    def _extended(self, extension: _Extension, lost: Sequence[Claim]) -> bool:
        with self._lock:
            self._leases.extended(extension.held, lost, extension.begun)
        return not lost

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


def _purser(orders: Orders, breakers: Breakers) -> Purser | None:
    """Who draws at the store, where any limits are shared."""
    store = orders.store
    if not (breakers.shares and isinstance(store, SupportsRegister)):
        return None
    return Purser(store, orders.transport, breakers, orders.clock, orders.rng)

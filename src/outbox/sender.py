"""Delivery in the caller's own thread: the same script, judge and settle as a worker's, for one message.

A keeper extends the leases meanwhile, for a relay may take longer to answer
than a lease lasts.  It is there while anything is under way, and ends soon
after.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol, cast

import attrs

from . import actions as act, delivery
from .clock import Clock
from .errands import Errand
from .errors import AmbiguousPut, StoreError, UnsupportedError
from .events import LeaseLost, Notice, Settled
from .lifecycle import Claim, Delivered, Fate, Settlement, Verdict
from .message import Message, new_id
from .performer import Orders, Performer, Worker, follow, seconds
from .protocols import Store, SupportsHandOver, SupportsSuspend
from .waiting import Flag, Waiting

__all__ = ["Sender", "Sent"]

_LOG: Final = logging.getLogger("outbox.runner")
_STORE_TRIES: Final = 5
_KEEPERS_END: Final = 1.0
_SUSPENSIONS_KNOWN: Final = 1.0
_UNENDING: Final = dt.timedelta(days=365)


@attrs.frozen(kw_only=True)
class Sent:
    """What came of a message that was sent directly.

    Attributes:
        id: The message's.
        verdict: What became of it, as in its record.  None where this call
            handed nothing over: its id was known already (and what was
            submitted first stands), or it is not due yet, or its queue is
            suspended.  The store has it then.
        noted: Whether the store has the verdict.  False where another had
            the message meanwhile: he delivers it too, unless he knows better;
            and where the store did not say whether it took the message in
            (an ``AmbiguousPut``) and turns out to have: it goes out again.
    """

    id: str
    verdict: Verdict | None = None
    noted: bool = True

    @property
    def delivered(self) -> bool:
        """Whether the relay took it for every recipient."""
        return isinstance(self.verdict, Delivered)


class Sender:
    """Delivers in its callers' threads.  Safe to use from many; all of them share the relays' breakers."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._setup = delivery.Setup(
            policy=orders.policy, rng=orders.rng, store_tries=_STORE_TRIES, hooked=orders.hook is not None
        )
        self._stored = Performer(orders)
        self._reserve = _Reserve(_handing_over(orders.store), orders.lease)
        # No store can take away what it does not have: this lease outlasts every delivery.
        self._unstored = Performer(
            attrs.evolve(orders, lease=_UNENDING),
            errands=self._stored.errands,
            settle=self._reserve.settle,
        )
        # A signal handler may stop the runner whose lock its own thread holds.
        self._lock = threading.RLock()
        self._changed = Waiting()
        self._under_way: list[threading.Thread] = []
        self._leased = 0
        self._look_up = Flag()
        self._keeper: threading.Thread | None = None

    def send(self, message: Message) -> Sent:
        """Store *message* under a lease, deliver it, settle it."""
        with self._under_way_here(), self._kept():
            self._stored.screener.look(older=_SUSPENSIONS_KNOWN)
            # Taken before the store is asked: the lease it grants cannot end before this one.
            begun = self._orders.clock.monotonic()
            claims = self._reserve.store.put_claimed([message], lease=self._orders.lease)
            if not claims:
                return Sent(id=message.id)
            try:
                return self._deliver(self._stored, claims[0], begun)
            finally:
                # The keeper leaves to others whatever may take long.
                self._stored.perform(act.TellLeft(), None)

    def send_unstored(self, message: Message) -> Sent:
        """Deliver *message*, and store it with what came of it unless all took it."""
        if message.at_most_once:
            raise UnsupportedError(
                f"{message.id} is at-most-once: send it with store_first=True, for of what is not stored nobody "
                "can tell afterwards whether it was sent"
            )
        with self._under_way_here():
            if self._has_to_wait(message):
                self._orders.store.put([message])
                return Sent(id=message.id)
            self._unstored.screener.look(older=_SUSPENSIONS_KNOWN)
            claim = self._reserve.claim(message, self._orders.clock)
            try:
                return self._deliver(self._unstored, claim, self._orders.clock.monotonic())
            except BaseException as error:
                if isinstance(error, AmbiguousPut) or self._reserve.has(claim):
                    raise
                found = _of_what_is_nowhere(error, message.id)
                raise found from found.__cause__
            finally:
                self._reserve.forget(claim)

    def see_out(self, left: float) -> bool:
        """Wait until nothing is under way, for *left* seconds at most; True when all ended.

        The keeper ends with it; a send that follows has another.
        """
        ended = self._changed.wait_for(
            lambda: not self._under_way, min(max(0.0, left), threading.TIMEOUT_MAX)
        )
        with self._lock:
            keeper = None if self._leased else self._keeper
        if keeper is not None:
            self._look_up.set()
            keeper.join(_KEEPERS_END)
        return ended

    @property
    def is_here(self) -> bool:
        """Whether this very thread is at work for it, and whoever waits here for its end would wait for himself."""
        here = threading.current_thread()
        return here is self._keeper or here in self._under_way

    def _deliver(self, performer: Performer, claim: Claim, begun: float) -> Sent:
        worker = Worker(errand=Errand(interruptible=True))
        told: list[Notice] = []

        def perform(action: act.Action[Any]) -> Any:
            if isinstance(action, act.Tell):
                told.append(action.notice)
            return performer.perform(action, worker)

        performer.grant(claim, worker, begun)
        try:
            follow(delivery.deliver_now(self._setup, claim), perform)
        finally:
            # An interrupt leaves the lease to run out, as a crash does: whether it was sent is not known.
            performer.leave(worker)
        (end,) = (notice for notice in told if isinstance(notice, Settled | LeaseLost))
        return Sent(id=claim.message.id, verdict=end.verdict, noted=isinstance(end, Settled))

    def _has_to_wait(self, message: Message) -> bool:
        if message.not_before is not None and message.not_before > self._orders.clock.now():
            return True
        store = self._orders.store
        return isinstance(store, SupportsSuspend) and any(
            (s.kind, s.value) == ("queue", message.queue) for s in store.suspensions()
        )

    @contextlib.contextmanager
    def _under_way_here(self) -> Iterator[None]:
        here = threading.current_thread()
        self._under_way.append(here)
        try:
            yield
        finally:
            self._under_way.remove(here)
            self._changed.wake()

    # -- keeping the leases

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """While this lasts there is a keeper."""
        with self._lock:
            if self._keeper is None:
                keeper = threading.Thread(target=self._keep, name="outbox-sender-keeper", daemon=True)
                keeper.start()
                self._keeper = keeper
            self._leased += 1
        try:
            yield
        finally:
            with self._lock:
                self._leased -= 1

    def _keep(self) -> None:
        while True:
            try:
                return follow(delivery.keep(self._orders.lease), self._perform_keeping)
            except BaseException:  # noqa: BLE001 - a dead keeper costs second copies
                _LOG.exception("a keeper failed, and begins anew: this is a bug in outbox or in a store")

    def _perform_keeping(self, action: act.Action[Any]) -> Any:
        if not isinstance(action, act.Rest):
            return self._stored.perform(action, None)
        self._look_up.wait(seconds(action.delay))
        with self._lock:
            self._look_up.clear()
            if self._leased:
                return True
            # Under the same lock as the next one is started: there is never none where there is a lease.
            self._keeper = None
            return False


def _of_what_is_nowhere(error: BaseException, id: str) -> BaseException:
    """What ended the sending of a message that is not stored, with a note of that; no lease of it runs out."""
    lost = f"{id} is stored nowhere: whether it was sent is not known, and it is not sent again unless you do"
    if isinstance(error, StoreError):
        lost = f"{id} was not delivered to everybody, and is stored nowhere: send it again"
        # What is around it speaks of leases.
        error = error.__cause__ if isinstance(error.__cause__, StoreError) else error
    _LOG.warning("%s", lost)
    error.add_note(lost)
    return error


class _HandsOver(Store, SupportsHandOver, Protocol):
    """A store that stores under a lease."""


def _handing_over(store: Store) -> _HandsOver:
    if isinstance(store, SupportsHandOver):
        return cast("_HandsOver", store)
    raise UnsupportedError(
        f"{type(store).__name__} cannot store a message under a lease of its sender's (SupportsHandOver), and without "
        "one a Runner may send it at the same time: submit() it, and let a Runner deliver it"
    )


class _Reserve:
    """In the place of the store for what is stored only where it has to be: everything but what was delivered."""

    def __init__(self, store: _HandsOver, lease: dt.timedelta) -> None:
        self.store = store
        self._lease = lease
        self._lock = threading.Lock()
        self._taken_in: dict[str, Claim] = {}

    def claim(self, message: Message, clock: Clock) -> Claim:
        """What a store would have given for it."""
        expires_at = message.expires_at
        return Claim(
            message=message,
            fates=dict.fromkeys(message.recipients, Fate.WAITING),
            attempt=1,
            lost=0,
            age=dt.timedelta(0),
            expires_in=None if expires_at is None else expires_at - clock.now(),
            token=new_id(),
        )

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        """Store what was not delivered, with what came of it; those come back that the store has otherwise."""
        return [each.claim for each in settlements if not self._settle(each)]

    def has(self, claim: Claim) -> bool:
        """Whether the store has it, under the lease of this claim."""
        with self._lock:
            return claim.token in self._taken_in

    def forget(self, claim: Claim) -> None:
        """It is over with this claim."""
        with self._lock:
            self._taken_in.pop(claim.token, None)

    def _settle(self, settlement: Settlement) -> bool:
        claim, verdict = settlement.claim, settlement.verdict
        if isinstance(verdict, Delivered):
            return True
        with self._lock:
            own = self._taken_in.get(claim.token)
        if own is None:
            claims = self.store.put_claimed([claim.message], lease=self._lease, attempted=True)
            if not claims:
                # The store has it from elsewhere, and what befalls it there.
                return False
            own = claims[0]
            with self._lock:
                self._taken_in[claim.token] = own
        return not self.store.settle([Settlement(own, verdict)])

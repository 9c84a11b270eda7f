"""How the actions of a crew are performed: its clerk's and its workers', with the desk between them.

Nothing here decides: the desk does, under the one lock that it is asked under.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import attrs

from . import actions as act
from .desk import Desk
from .errors import RelayFault, StoreError
from .handover import THE_ONLY_RELAY, Handover, shares
from .lifecycle import Claim, Settlement
from .message import Message
from .outcome import Accepted, Outcome, PermFailed
from .performer import Orders, Performer, Worker
from .protocols import Delivery, Exchanged, SupportsExchange, SupportsRelays, SupportsWait
from .screening import Screened
from .slips import Later, Run, Work
from .stock import Lane

__all__ = ["Hand", "Shift"]

_LOG: Final = logging.getLogger("outbox.runner")
_POLL_AT_MOST: Final = dt.timedelta(seconds=5)
_POLL_WITHOUT_WAIT: Final = dt.timedelta(seconds=1)
_SOON: Final = dt.timedelta(milliseconds=20)
_LONGEST: Final = 3600.0
_A_MOMENT: Final = 1.0
"""So many seconds old what is suspended may be known when something is claimed."""


@attrs.define(eq=False)
class Hand(Worker):
    """A worker of a crew: beside his errand the run that he is at, and his way of handing it over.

    *screened* are those of the claims in *pulled* that go to some of their
    recipients only; *unsent* is what came of those that were not handed over.
    """

    run: Run | None = None
    handed: int = 0
    well: bool = True
    in_vain: bool = True
    handover: Handover | None = None
    pulled: deque[Claim] = attrs.Factory(deque)
    screened: dict[str, Screened] = attrs.Factory(dict)
    unsent: deque[act.Handed | Settlement] = attrs.Factory(deque)


class Shift(Performer):
    """Performs the actions of one crew; safe from its threads."""

    def __init__(self, orders: Orders, *, limit: int | None, draining: bool) -> None:
        super().__init__(orders, draining=draining)
        self._several = isinstance(orders.transport, SupportsRelays)
        self._draining = draining
        self._desk = Desk(
            workers=orders.workers,
            leases=self._leases,
            draining=draining,
            limit=limit,
            several=self._several,
            put_off=self.errands.put_off,
        )
        self._for_workers = threading.Condition(self._lock)
        self._for_clerk = threading.Condition(self._lock)
        self._for_listener = threading.Condition(self._lock)

    def stop(self) -> None:
        """Begin nothing more: end every wait that is not for a settle."""
        try:
            super().stop()
        finally:
            self._at_desk(Desk.stop)

    def give_up(self) -> None:
        """The grace time is over, or everybody has ended: end all waits."""
        super().give_up()
        self._at_desk(Desk.give_up)

    def leave(self, worker: Worker) -> None:
        """*worker* is gone: take back all that he holds; what he had claimed and not settled runs out."""
        if isinstance(worker, Hand):
            self._let_go(worker)
        super().leave(worker)
        with self._changed():
            left = self._desk.leave(worker)
        _warn_of(left)

    def depart(self) -> None:
        """One worker is gone, and none comes in his place."""
        self._at_desk(Desk.depart)

    def forsake(self) -> None:
        """The clerk fell: what he was dealing runs out, and what he was writing is the next one's."""
        with self._changed():
            left = self._desk.forsaken()
        _warn_of(left)

    def retire(self) -> None:
        """No clerk comes any more: what is not written runs out."""
        with self._changed():
            left = self._desk.retire()
        _warn_of(left)

    def listen(self) -> None:
        """Whenever nothing is left to claim, wait until there may be something again; until the shift ends."""
        self._begin_to_listen()
        while not self.stopping.is_set():
            with self._lock:
                self._for_listener.wait_for(lambda: self._desk.dry or self.stopping.is_set())
            if not self.stopping.is_set():
                try:
                    self._await_news()
                finally:
                    # Who hears nothing asks: polling is the truth.
                    with self._lock:
                        self._desk.news()
                        self._for_clerk.notify()

    def draw(self) -> None:
        """Draw what the relays want of limits that are shared, and wake those who wait for it; until the shift ends."""
        while self.purser is not None and not self.stopping.is_set():
            self.purser.serve(self.stopping.is_set, lambda: self._at_desk(lambda _: None))

    def _perform_on_claim(self, action: act.Action[Any], worker: Worker) -> Any:
        if isinstance(worker, Hand):
            return self._perform_work(action, worker)
        match action:
            case act.Collect():
                return self._collect()
            case act.Exchange(settlements=settlements, limit=limit, max_bytes=max_bytes):
                return self._exchange(settlements, limit, max_bytes)
            case act.Deal(claims=claims):
                return self._deal(claims)
            case act.Note(settlement=settlement):
                return self._at_desk(lambda desk: desk.note(settlement))
        raise AssertionError(f"no clerk can do {action!r}")

    def _perform_work(self, action: act.Action[Any], worker: Hand) -> Any:
        match action:
            case act.Report():
                return self._report(worker)
            case act.Note(settlement=settlement, took=took):
                return self._note(settlement, took, worker)
            case act.Take(size=size):
                return self._take(size, worker)
            case act.Begin():
                return self._begin(worker)
            case act.Pull():
                return self._pull(worker)
            case act.Drop():
                return self._drop(worker)
        return super()._perform_on_claim(action, worker)

    # -- the workers

    def _take(self, size: int, worker: Hand) -> Run | None:
        with self._lock:
            while isinstance(answer := self._next_run(size, worker), Later):
                self._for_workers.wait(min(answer.seconds, _LONGEST))
        return self._taken(answer, worker)

    def _next_run(self, size: int, worker: Hand) -> Run | Later | None:
        answer = self._desk.take(worker, size, self._orders.clock.monotonic(), self.errands.admit_run)
        self._for_clerk.notify()
        return answer

    def _taken(self, run: Run | None, worker: Hand) -> Run | None:
        worker.run, worker.handed, worker.well, worker.in_vain = run, 0, True, True
        if run is not None and run.admitted is not None:
            self.errands.take(worker.errand, run.lane[0], run.first, run.admitted)
        return run

    def _begin(self, worker: Hand) -> None:
        worker.handover = Handover(self._orders.transport, self._deliveries(worker))

    def _deliveries(self, worker: Hand) -> Iterator[Delivery]:
        while (claim := self._pull(worker)) is not None:
            recipients = self._screened(claim, worker)
            if not recipients:
                continue
            if self.screener.asks and not self._goes_on(claim):
                # A suppress may take long: the run ends here, and the desk sees to the claim.
                return
            worker.pulled.append(claim)
            yield Delivery(claim.message, recipients)

    def _screened(self, claim: Claim, worker: Hand) -> tuple[str, ...]:
        """Whom to hand it over for; what came of what goes to nobody is kept to be reported."""
        screened = self.screener.screen(claim)
        if screened is None:
            return claim.recipients
        if not isinstance(screened, Screened):
            worker.unsent.append(Settlement(claim, screened))
            return ()
        if screened.recipients:
            worker.screened[claim.message.id] = screened
        else:
            worker.unsent.append(act.Handed(claim, screened.outcome, dt.timedelta(0)))
        return screened.recipients

    def _pull(self, worker: Hand) -> Claim | None:
        run = worker.run
        if run is None or self._shut(run):
            return None
        with self._lock:
            claim = self._desk.pull(worker, self._orders.clock.monotonic())
            self._call_clerk()
        return claim

    def _report(self, worker: Hand) -> act.Handed | Settlement | None:
        begun = self._orders.clock.monotonic()
        return self._told(self._next_report(worker), worker, begun)

    def _told(
        self, told: tuple[Message, Outcome | RelayFault] | None, worker: Hand, begun: float
    ) -> act.Handed | Settlement | None:
        if told is not None:
            return self._reported(*told, worker, begun)
        return worker.unsent.popleft() if worker.unsent else None

    def _next_report(self, worker: Hand) -> tuple[Message, Outcome | RelayFault] | None:
        if worker.unsent:
            # What is known already comes first.
            return None
        if worker.handover is None:
            return None
        if worker.pulled and not worker.handover.gone and not self._goes_on(worker.pulled[0]):
            return None
        return worker.handover.next()

    def _reported(
        self, message: Message, report: Outcome | RelayFault, worker: Hand, begun: float
    ) -> act.Handed | None:
        if worker.run is None:
            return None
        claim = worker.pulled.popleft()
        worker.handed += 1
        worker.well &= isinstance(report, Outcome) and not (report.cut or report.fault)
        worker.in_vain = worker.in_vain and not _decided(report)
        wait, news = self.errands.report(worker.errand, worker.run.lane[0], report, message.id)
        if news:
            # Whoever waits for this relay asks again.
            self._at_desk(lambda _: None)
        took = dt.timedelta(seconds=self._orders.clock.monotonic() - begun)
        screened = worker.screened.pop(message.id, None) if worker.screened else None
        return act.Handed(claim, report if screened is None else screened.joined(report), took, wait)

    def _goes_on(self, claim: Claim) -> bool:
        # It was pulled ahead: much may have happened while the one before it was under way.
        with self._lock:
            return self._desk.goes_on(claim, self._orders.clock.monotonic())

    def _note(self, settlement: Settlement, took: dt.timedelta, worker: Hand) -> None:
        with self._lock:
            self._desk.note(settlement, took, worker)
            self._call_clerk()

    def _call_clerk(self) -> None:
        # Woken for each message he would take the processor from those who deliver.
        if self._desk.calls:
            self._for_clerk.notify()

    def _drop(self, worker: Hand) -> None:
        handover, worker.handover = worker.handover, None
        if handover is not None:
            handover.close()
        self.errands.abandon(worker.errand)
        worker.pulled.clear()
        worker.screened.clear()
        worker.unsent.clear()
        self._let_go(worker)
        with self._changed():
            self._desk.drop(worker, self._orders.clock.monotonic())

    def _let_go(self, worker: Hand) -> None:
        run, worker.run = worker.run, None
        if run is not None and run.admitted is not None:
            self.errands.leave(
                run.lane[0], run.admitted, worker.handed, well=worker.well, in_vain=worker.in_vain
            )

    def _shut(self, run: Run) -> bool:
        """Whether another has met a fault of the run's relay meanwhile."""
        if run.admitted is None or run.admitted.probe:
            return False
        closed = self.errands.closed(run.lane)
        return closed is not None and not closed.limited

    # -- the clerk

    def _collect(self) -> Work | None:
        with self._lock:
            while isinstance(answer := self._next_work(), Later):
                self._for_clerk.wait(min(answer.seconds, _LONGEST))
        return answer

    def _next_work(self) -> Work | Later | None:
        closed = None if self._several else self.errands.open()
        answer = self._desk.collect(self._orders.clock.monotonic(), closed)
        if self._draining and self._desk.over:
            # Whoever waits for more comes to his end.
            self._for_workers.notify_all()
        return answer

    def _exchange(self, settlements: Sequence[Settlement], limit: int, max_bytes: int) -> Exchanged:
        with self._asking() as take_in:
            return take_in(*self._ask_store(settlements, limit, max_bytes))

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Callable[[Exchanged, int], Exchanged]]:
        """While the store is asked; what it gave is taken in by what this yields, and what it raises goes on."""
        # Taken before the store is asked: the lease it grants cannot end before this one.
        begun = self._orders.clock.monotonic()
        try:
            yield lambda exchanged, limit: self._exchanged(exchanged, limit, begun)
        except StoreError as error:
            self._faltered(error.left)
            raise

    def _faltered(self, left: Collection[tuple[str, str]] | None) -> None:
        now = self._orders.clock.monotonic()
        self._at_desk(lambda desk: desk.faltered(now, left))

    def _ask_store(
        self, settlements: Sequence[Settlement], limit: int, max_bytes: int
    ) -> tuple[Exchanged, int]:
        """What the store answered, and how many claims it was asked for."""
        store, orders = self._orders.store, self._orders
        if limit:
            # Nothing is claimed before it is known what is suspended, as of a moment ago.
            self.screener.look(older=_A_MOMENT)
        if limit and settlements and isinstance(store, SupportsExchange):
            exchanged = store.exchange(
                settlements, limit=limit, lease=orders.lease, queues=orders.queues, max_bytes=max_bytes
            )
        elif limit and not settlements:
            claims = store.claim(limit=limit, lease=orders.lease, queues=orders.queues, max_bytes=max_bytes)
            exchanged = Exchanged((), claims)
        else:
            # What was sent is noted first, whatever becomes of the claim: that is the clerk's next.
            lost, limit = self._write(settlements) if settlements else (), 0
            exchanged = Exchanged(lost, ())
        return exchanged, limit

    def _exchanged(self, exchanged: Exchanged, limit: int, begun: float) -> Exchanged:
        with self._changed():
            self._desk.written()
            if limit:
                fresh = self._desk.claimed(exchanged.claims, self._orders.clock.monotonic(), begun)
                return attrs.evolve(exchanged, claims=fresh)
        return exchanged

    def _deal(self, claims: Sequence[Claim]) -> None:
        withheld = [(claim, self.screener.given_back(claim)) for claim in claims]
        dealt = [(self._lane(claim), claim) for claim, released in withheld if released is None]
        closed = {lane: self.errands.closed(lane) for lane, _ in dealt} if self._several else {}
        with self._changed():
            now = self._orders.clock.monotonic()
            self._desk.withhold([Settlement(claim, released) for claim, released in withheld if released])
            for lane, claim in dealt:
                self._desk.deal(lane, claim, now, closed.get(lane))

    def _lane(self, claim: Claim) -> Lane:
        if not self._several:
            return (THE_ONLY_RELAY,)
        return tuple(shares(self._orders.transport, claim.message, claim.recipients))

    # -- the listener

    def _begin_to_listen(self) -> None:
        # What is put from now on ends a wait of this thread: it never claims, and so has no claim to count from.
        if isinstance(self._orders.store, SupportsWait):
            with contextlib.suppress(StoreError):
                self._orders.store.wait(dt.timedelta(0))

    def _await_news(self) -> None:
        store = self._orders.store
        if not isinstance(store, SupportsWait):
            self.stopping.wait(_POLL_WITHOUT_WAIT.total_seconds())
            return
        try:
            store.wait(self._until_due(store))
        except StoreError:
            # The next claim meets the same error, tells it, and backs off.
            self.stopping.wait(_SOON.total_seconds())

    def _until_due(self, store: SupportsWait) -> dt.timedelta:
        due = store.next_due(self._orders.queues)
        # What is due already was just refused to this process: another has it, or will give it back.
        return _POLL_AT_MOST if due is None else min(max(due, _SOON), _POLL_AT_MOST)

    # -- what all share

    @contextlib.contextmanager
    def _changed(self) -> Iterator[None]:
        with self._lock:
            yield
            self._for_workers.notify_all()
            self._for_clerk.notify()
            self._for_listener.notify()

    def _at_desk(self, change: Callable[[Desk], object]) -> None:
        with self._changed():
            change(self._desk)


def _decided(report: Outcome | RelayFault) -> bool:
    """Whether the relay took or refused anybody."""
    return isinstance(report, Outcome) and any(
        isinstance(result, Accepted | PermFailed) for result in report.results.values()
    )


def _warn_of(left: Sequence[Claim]) -> None:
    if left:
        _LOG.warning(
            "a worker ended and left without a written verdict: %s; they are taken up again when their leases run out",
            ", ".join(claim.message.id for claim in left),
        )

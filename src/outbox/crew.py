"""The threads of one run: its workers and their clerk, who listens for news, its keeper and who tidies up."""

from __future__ import annotations

import datetime as dt
import logging
import math
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from . import delivery as act
from .errors import ConfigurationError, OutboxError, StoreError
from .performer import Orders, Tally, Worker, follow, seconds
from .shift import Hand, Shift

__all__ = ["Crew"]

W = TypeVar("W", bound=Worker)

_LOG: Final = logging.getLogger("outbox.runner")
_DRAIN_STORE_TRIES: Final = 5
_AFTER_A_BUG: Final = dt.timedelta(seconds=1)
_KEEPERS_END: Final = 1.0


class Crew:
    """The threads of one run.

    It is over when every worker has ended, or the grace time of a stop has
    run out and those that hang are left behind; *over* is called then, once
    or more often.
    """

    def __init__(
        self,
        orders: Orders,
        *,
        limit: int | None = None,
        draining: bool = False,
        over: Callable[[Crew], object] = lambda _: None,
    ) -> None:
        self._orders = orders
        self.draining = draining
        self._tell_over = over
        self._shift = Shift(orders, limit=limit, draining=draining)
        # Daemons: a relay that hangs must not keep the program from ending.
        self._workers = [
            threading.Thread(target=self._work, name=f"outbox-worker-{number}", daemon=True)
            for number in range(1, orders.workers + 1)
        ]
        clerk = threading.Thread(target=self._clerk, name="outbox-clerk", daemon=True)
        self._hands = [clerk, *self._workers]
        self._keepers = [
            threading.Thread(
                target=self._keep, args=(lambda: act.keep(orders.lease),), name="outbox-keeper", daemon=True
            ),
            threading.Thread(target=self._keep, args=(act.tidy,), name="outbox-tidier", daemon=True),
        ]
        if not draining:
            # A drain ends with what is due when it comes to its end.
            self._keepers.append(threading.Thread(target=self._listen, name="outbox-listener", daemon=True))
        # Waited for instead of join(): before Python 3.13 a join that a signal
        # handler's exception interrupts takes the thread for ended.
        self._changed = threading.Condition()
        self._ended: set[threading.Thread] = set()
        self._given_up = False
        self._deadline = math.inf
        self.error: OutboxError | None = None

    @property
    def tally(self) -> Tally:
        """What became of the claims so far."""
        return self._shift.tally

    @property
    def unasked(self) -> bool:
        """Whether nobody has asked it to stop."""
        return self._deadline == math.inf

    def start(self) -> None:
        """Start the threads; where one cannot be started, :meth:`stop` ends those that were."""
        try:
            for thread in [*self._keepers, *self._hands]:
                thread.start()
        except BaseException:
            for worker in self._workers:
                if worker.ident is None:
                    self._shift.depart()
            raise

    def join(self) -> None:
        """Wait until it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._given_up or self._all_ended())

    def wait_until_stopped(self) -> None:
        """Wait until somebody asks it to stop, or every worker has ended."""
        self._shift.stopping.wait()

    def sweep(self) -> None:
        """Prune what is past its retention, in the calling thread; a failure is told and changes nothing."""
        try:
            self._follow(act.sweep(), None)
        except Exception:  # noqa: BLE001 - what was delivered is delivered, whatever befalls the pruning
            _LOG.exception("pruning failed: this is a bug in outbox or in a store")

    def ask(self, grace: dt.timedelta) -> None:
        """Begin nothing more; what is under way may finish within *grace*, or what another stop leaves of its own."""
        with self._changed:
            self._deadline = min(self._deadline, self._orders.clock.monotonic() + grace.total_seconds())
        self._shift.stop()

    def see_out(self) -> bool:
        """Wait until it is over, for what is left of the grace time; True when all ended.

        In a thread of its own, as a listener is, there is nothing to wait
        for: it is under way itself.
        """
        if threading.current_thread() in self._hands:
            return False
        with self._changed:
            left = max(0.0, self._deadline - self._orders.clock.monotonic())
            self._changed.wait_for(
                lambda: self._given_up or not self._at_work(), min(left, threading.TIMEOUT_MAX)
            )
            all_ended = not self._at_work()
            self._given_up = True
            self._changed.notify_all()
        self._finish()
        for keeper in self._keepers:
            if keeper.ident is not None:
                keeper.join(_KEEPERS_END)
        return all_ended

    def stop(self, grace: dt.timedelta) -> bool:
        """:meth:`ask`, then :meth:`see_out`."""
        self.ask(grace)
        return self.see_out()

    def _all_ended(self) -> bool:
        return len(self._ended) == len(self._hands)

    def _at_work(self) -> list[threading.Thread]:
        # One that could not be started, or not any more, has no ident.
        return [hand for hand in self._hands if hand.ident is not None and hand not in self._ended]

    def _finish(self) -> None:
        self._shift.stop()
        self._shift.give_up()
        self._tell_over(self)

    def _work(self) -> None:
        try:
            self._live(act.work, Hand, self._shift.leave)
        finally:
            self._shift.depart()
            self._end()

    def _clerk(self) -> None:
        try:
            self._live(act.clerk, Worker, lambda _: self._shift.forsake())
        finally:
            # Without a clerk nobody has anything to do; before him all others end.
            self._shift.stop()
            self._shift.retire()
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended.add(threading.current_thread())
            last = self._all_ended()
            self._changed.notify_all()
        if last:
            self._finish()

    def _live(
        self,
        script: Callable[[act.Setup], act.Script[None]],
        kind: Callable[[], W],
        leave: Callable[[W], None],
    ) -> None:
        """Follow a script to its end, again and again where something ends it that should not."""
        setup = act.Setup(
            policy=self._orders.policy,
            rng=self._orders.rng,
            store_tries=_DRAIN_STORE_TRIES if self.draining else None,
            draining=self.draining,
            hooked=self._orders.hook is not None,
        )
        try:
            while not self._live_once(lambda: script(setup), kind(), leave):
                if self.draining or self._shift.stopping.wait(seconds(_AFTER_A_BUG)):
                    return
        except BaseException as error:  # noqa: BLE001 - a thread that ends unseen would let all seem well
            _LOG.exception("a worker ended for good: this is a bug in outbox")
            self.error = _failed(error)

    def _live_once(
        self, script: Callable[[], act.Script[None]], worker: W, leave: Callable[[W], None]
    ) -> bool:
        """Follow a script; True where it came to its end."""
        try:
            self._follow(script(), worker)
        except StoreError as error:
            self.error = error
        except ConfigurationError as error:
            # A store that cannot read what it is asked for, as it was opened: no message suffers for it.
            if self.draining:
                self.error = error
            else:
                _LOG.error("nothing can be claimed: %s", error)
        except BaseException as error:  # noqa: BLE001 - whatever ends a worker must be seen, and end no other
            _LOG.exception("a worker failed: this is a bug in outbox or in a store")
            if self.draining:
                self.error = _failed(error)
        else:
            return True
        finally:
            leave(worker)
        return False

    def _listen(self) -> None:
        while not self._shift.done and not self._shift.stopping.is_set():
            try:
                self._shift.listen()
            except BaseException:  # noqa: BLE001 - whoever hears of nothing any more would let all seem well
                _LOG.exception(
                    "a listener for news failed, and begins anew: this is a bug in outbox or in a store"
                )
                self._shift.stopping.wait(seconds(_AFTER_A_BUG))

    def _keep(self, script: Callable[[], act.Script[None]]) -> None:
        """Follow a script that rests first, again and again: none but the end of the run ends it."""
        while not self._shift.done:
            try:
                self._follow(script(), None)
            except BaseException:  # noqa: BLE001 - as for the workers; a dead keeper costs second copies
                _LOG.exception("a keeper failed, and begins anew: this is a bug in outbox or in a store")

    def _follow(self, script: act.Script[None], worker: Worker | None) -> None:
        follow(script, lambda action: self._shift.perform(action, worker))


def _failed(error: BaseException) -> OutboxError:
    failed = OutboxError(f"a worker failed ({type(error).__name__}): see the log of outbox.runner")
    failed.__cause__ = error
    return failed

"""The threads of one run: its workers and their clerk, who listens for news, its keeper and who tidies up."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from . import actions as act, delivery
from .errors import ConfigurationError, OutboxError, StoreError
from .performer import Orders, Tally, Worker, follow, seconds
from .shift import Hand, Shift
from .waiting import Waiting

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
        workers = [
            threading.Thread(target=self._work, name=f"outbox-worker-{number}", daemon=True)
            for number in range(1, orders.workers + 1)
        ]
        clerk = threading.Thread(target=self._clerk, name="outbox-clerk", daemon=True)
        # In the order of their beginning.  Without the clerk nothing is claimed, and with him all workers are there
        # who have to end before he does: a signal handler may stop it anywhere in between.
        self._hands = [*workers, clerk]
        self._keepers = [
            threading.Thread(
                target=self._keep,
                args=(lambda: delivery.keep(orders.lease),),
                name="outbox-keeper",
                daemon=True,
            ),
            threading.Thread(target=self._keep, args=(delivery.tidy,), name="outbox-tidier", daemon=True),
        ]
        if not draining:
            # A drain ends with what is due when it comes to its end.
            self._keepers.append(threading.Thread(target=self._listen, name="outbox-listener", daemon=True))
        if self._shift.purser is not None:
            self._keepers.append(threading.Thread(target=self._draw, name="outbox-purser", daemon=True))
        # Waited for instead of join(): before Python 3.13 a join that a signal
        # handler's exception interrupts takes the thread for ended.  Each change
        # of the following is one step, for a handler may stop it in between.
        self._changed = Waiting()
        self._begun: set[threading.Thread] = set()
        self._ended: set[threading.Thread] = set()
        self._asking: list[threading.Thread] = []
        self._given_up = False
        self._deadlines: list[float] = []
        self.error: OutboxError | None = None

    @property
    def tally(self) -> Tally:
        """What became of the claims so far."""
        return self._shift.tally

    @property
    def unasked(self) -> bool:
        """Whether nobody has asked it to stop."""
        return not self._deadlines

    def start(self) -> None:
        """Start the threads; where one cannot be started, :meth:`stop` ends those that were."""
        for thread in [*self._keepers, *self._hands]:
            thread.start()
            self._begun.add(thread)

    def join(self) -> None:
        """Wait until it is over."""
        self._changed.wait_for(lambda: self._given_up or self._all_ended())

    def wait_until_stopped(self) -> None:
        """Wait until somebody asks it to stop, or every worker has ended."""
        self._shift.stopping.wait()

    def sweep(self) -> None:
        """Prune what is past its retention, in the calling thread; a failure is told and changes nothing."""
        try:
            self._follow(delivery.sweep(), None)
        except Exception:  # noqa: BLE001 - what was delivered is delivered, whatever befalls the pruning
            _LOG.exception("pruning failed: this is a bug in outbox or in a store")

    @property
    def is_here(self) -> bool:
        """Whether this thread is one of its own, or has just asked it to stop (and is interrupted at that).

        Whoever waits here for its end would wait for himself.
        """
        return threading.current_thread() in [*self._keepers, *self._hands, *self._asking]

    def ask(self, grace: dt.timedelta) -> None:
        """Begin nothing more; what is under way may finish within *grace*, or what another stop leaves of its own."""
        here = threading.current_thread()
        self._asking.append(here)
        try:
            self._deadlines.append(self._orders.clock.monotonic() + grace.total_seconds())
            self._shift.stop()
        finally:
            self._asking.remove(here)

    def see_out(self) -> bool:
        """Wait until it is over, for what is left of the grace time; True when all ended."""
        left = max(0.0, min(self._deadlines) - self._orders.clock.monotonic())
        self._changed.wait_for(
            lambda: self._given_up or not self._at_work(), min(left, threading.TIMEOUT_MAX)
        )
        all_ended = not self._at_work()
        self._given_up = True
        self._changed.wake()
        self._finish()
        for keeper in self._keepers:
            if keeper in self._begun:
                keeper.join(_KEEPERS_END)
        return all_ended

    def stop(self, grace: dt.timedelta) -> bool:
        """:meth:`ask`, then :meth:`see_out`."""
        self.ask(grace)
        return self.see_out()

    def _all_ended(self) -> bool:
        return len(self._ended) == len(self._hands)

    def _at_work(self) -> list[threading.Thread]:
        # One that was not started ends no more, nor one whose start is interrupted by whoever waits here.
        return [hand for hand in self._hands if hand in self._begun and hand not in self._ended]

    def _finish(self) -> None:
        self._shift.stop()
        self._shift.give_up()
        self._tell_over(self)

    def _work(self) -> None:
        self._begun.add(threading.current_thread())
        try:
            self._live(delivery.work, Hand, self._shift.leave)
        finally:
            self._shift.depart()
            self._end()

    def _clerk(self) -> None:
        self._begun.add(threading.current_thread())
        try:
            if not self._live_as_clerk():
                # Nothing more is begun, and one more writes what he left and what comes in still.
                self._shift.stop()
                self._live_as_clerk()
        finally:
            # Without a clerk nobody has anything to do; before him all others end.
            self._shift.stop()
            self._shift.retire()
            self._end()

    def _live_as_clerk(self) -> bool:
        return self._live(delivery.clerk, Worker, lambda _: self._shift.forsake())

    def _end(self) -> None:
        purser = self._shift.purser
        if self.draining and self.error is None and purser is not None:
            # What was due may have been given back for it.
            self.error = purser.given_up
        self._ended.add(threading.current_thread())
        self._changed.wake()
        if self._all_ended():
            self._finish()

    def _live(
        self,
        script: Callable[[delivery.Setup], act.Script[None]],
        kind: Callable[[], W],
        leave: Callable[[W], None],
    ) -> bool:
        """Follow a script, again and again where something ends it that should not.

        False: it did not come to its end, and another try is not made here: of a drain, or while it stops.
        """
        setup = delivery.Setup(
            policy=self._orders.policy,
            rng=self._orders.rng,
            store_tries=_DRAIN_STORE_TRIES if self.draining else None,
            draining=self.draining,
            hooked=self._orders.hook is not None,
        )
        try:
            while not self._live_once(lambda: script(setup), kind(), leave):
                if self.draining or self._shift.stopping.wait(seconds(_AFTER_A_BUG)):
                    return False
        except BaseException as error:  # noqa: BLE001 - a thread that ends unseen would let all seem well
            _LOG.exception("a worker ended for good: this is a bug in outbox")
            self.error = _failed(error)
        return True

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

    def _draw(self) -> None:
        while not self._shift.done and not self._shift.stopping.is_set():
            try:
                self._shift.draw()
            except BaseException:  # noqa: BLE001 - who draws nothing any more would stop all mail
                _LOG.exception("a purser failed, and begins anew: this is a bug in outbox or in a store")
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

"""The threads of one run: its workers, its keeper and who tidies up."""

from __future__ import annotations

import datetime as dt
import logging
import math
import threading
from collections.abc import Callable
from typing import Final

from . import delivery as act
from .errors import ConfigurationError, OutboxError, StoreError
from .performer import Orders, Performer, Tally, Worker, follow
from .turns import seconds

__all__ = ["Crew"]

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
        self._performer = Performer(orders, limit=limit, draining=draining)
        # Daemons: a relay that hangs must not keep the program from ending.
        self._workers = [
            threading.Thread(target=self._work, name=f"outbox-worker-{number}", daemon=True)
            for number in range(1, orders.workers + 1)
        ]
        self._keepers = [
            threading.Thread(
                target=self._keep, args=(lambda: act.keep(orders.lease),), name="outbox-keeper", daemon=True
            ),
            threading.Thread(target=self._keep, args=(act.tidy,), name="outbox-tidier", daemon=True),
        ]
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
        return self._performer.tally

    @property
    def unasked(self) -> bool:
        """Whether nobody has asked it to stop."""
        return self._deadline == math.inf

    def start(self) -> None:
        """Start the threads; where one cannot be started, :meth:`stop` ends those that were."""
        for thread in [*self._keepers, *self._workers]:
            thread.start()

    def join(self) -> None:
        """Wait until it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._given_up or self._all_ended())

    def wait_until_stopped(self) -> None:
        """Wait until somebody asks it to stop, or every worker has ended."""
        self._performer.stopping.wait()

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
        self._performer.stop()

    def see_out(self) -> bool:
        """Wait until it is over, for what is left of the grace time; True when all ended.

        In a thread of its own, as a listener is, there is nothing to wait
        for: it is under way itself.
        """
        if threading.current_thread() in self._workers:
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
        return len(self._ended) == len(self._workers)

    def _at_work(self) -> list[threading.Thread]:
        # One that could not be started, or not any more, has no ident.
        return [w for w in self._workers if w.ident is not None and w not in self._ended]

    def _finish(self) -> None:
        self._performer.stopping.set()
        self._performer.give_up()
        self._tell_over(self)

    def _work(self) -> None:
        setup = act.Setup(
            policy=self._orders.policy,
            rng=self._orders.rng,
            store_tries=_DRAIN_STORE_TRIES if self.draining else None,
            draining=self.draining,
        )
        try:
            while self._work_once(setup):
                pass
        except BaseException as error:  # noqa: BLE001 - a thread that ends unseen would let all seem well
            _LOG.exception("a worker ended for good: this is a bug in outbox")
            self.error = _failed(error)
        finally:
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended.add(threading.current_thread())
            last = self._all_ended()
            self._changed.notify_all()
        if last:
            self._finish()

    def _work_once(self, setup: act.Setup) -> bool:
        """Follow a worker's script to its end; True where a new one must take its place."""
        worker = Worker()
        try:
            self._follow(act.work(setup), worker)
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
        finally:
            self._performer.leave(worker)
        if self.draining or self._performer.stopping.is_set():
            return False
        return not self._performer.stopping.wait(seconds(_AFTER_A_BUG))

    def _keep(self, script: Callable[[], act.Script[None]]) -> None:
        """Follow a script that rests first, again and again: none but the end of the run ends it."""
        while not self._performer.done:
            try:
                self._follow(script(), None)
            except BaseException:  # noqa: BLE001 - as for the workers; a dead keeper costs second copies
                _LOG.exception("a keeper failed, and begins anew: this is a bug in outbox or in a store")

    def _follow(self, script: act.Script[None], worker: Worker | None) -> None:
        follow(script, lambda action: self._performer.perform(action, worker))


def _failed(error: BaseException) -> OutboxError:
    failed = OutboxError(f"a worker failed ({type(error).__name__}): see the log of outbox.runner")
    failed.__cause__ = error
    return failed

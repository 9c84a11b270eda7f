"""The threads of one run: its workers and its keeper."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from typing import Any, Final

from . import delivery as act
from .errors import OutboxError, StoreError
from .performer import Orders, Performer, Tally, Worker
from .retry import RetryPolicy

__all__ = ["Crew"]

_LOG: Final = logging.getLogger("outbox.runner")
_DRAIN_STORE_TRIES: Final = 5
_AFTER_A_BUG: Final = dt.timedelta(seconds=1)
_KEEPER_ENDS: Final = 1.0


class Crew:
    """The workers and the keeper of one run."""

    def __init__(self, orders: Orders, *, limit: int | None = None, draining: bool = False) -> None:
        self._orders = orders
        self._draining = draining
        self._performer = Performer(orders, limit=limit, draining=draining)
        self._workers: list[threading.Thread] = []
        # Waited for instead of join(): before Python 3.13 a join that a signal
        # handler's exception interrupts takes the thread for ended.
        self._ended: list[threading.Event] = []
        self._keeper = threading.Thread(target=self._keep, name="outbox-keeper", daemon=True)
        self.error: OutboxError | None = None

    @property
    def tally(self) -> Tally:
        """What became of the claims so far."""
        return self._performer.tally

    def start(self) -> None:
        """Start the workers and the keeper."""
        setup = act.Setup(
            policy=lambda queue: self._orders.retry.get(queue) or RetryPolicy(),
            rng=self._orders.rng,
            store_tries=_DRAIN_STORE_TRIES if self._draining else None,
            draining=self._draining,
        )
        for number in range(1, self._orders.workers + 1):
            # Daemons: a relay that hangs must not keep the program from ending.
            ended = threading.Event()
            thread = threading.Thread(
                target=self._work, args=(setup, ended), name=f"outbox-worker-{number}", daemon=True
            )
            self._workers.append(thread)
            self._ended.append(ended)
        for thread in [*self._workers, self._keeper]:
            thread.start()

    def join(self) -> None:
        """Wait until every worker has ended."""
        for ended in self._ended:
            ended.wait()

    def wait_until_stopped(self) -> None:
        """Wait until :meth:`stop` is called."""
        self._performer.stopping.wait()

    def stop(self, grace: dt.timedelta) -> bool:
        """End the workers within *grace*, then the keeper; True when all ended."""
        self._performer.stop()
        deadline = self._orders.clock.monotonic() + grace.total_seconds()
        # An exception may have come while they were being started: those have no ident yet.
        started = [e for w, e in zip(self._workers, self._ended, strict=True) if w.ident is not None]
        for ended in started:
            ended.wait(max(0.0, deadline - self._orders.clock.monotonic()))
        all_ended = all(ended.is_set() for ended in started)
        self._performer.give_up()
        if self._keeper.ident is not None:
            self._keeper.join(_KEEPER_ENDS)
        return all_ended

    def _work(self, setup: act.Setup, ended: threading.Event) -> None:
        try:
            while self._work_once(setup):
                pass
        finally:
            ended.set()

    def _work_once(self, setup: act.Setup) -> bool:
        """Follow a worker's script to its end; True where a new one must take its place."""
        worker = Worker()
        try:
            self._follow(act.work(setup), worker)
        except StoreError as error:
            self.error = error
        except Exception:  # noqa: BLE001 - a worker's death must be seen, and must not stop the others
            _LOG.exception("a worker failed: this is a bug in outbox or in a store")
            if not self._draining:
                return not self._performer.stopping.wait(_AFTER_A_BUG.total_seconds())
            self.error = OutboxError("a worker failed: see the log of outbox.runner")
        finally:
            self._performer.leave(worker)
        return False

    def _keep(self) -> None:
        try:
            self._follow(act.keep(self._orders.lease), None)
        except Exception:  # noqa: BLE001 - as for the workers
            _LOG.exception("the keeper failed: leases are not extended any more")

    def _follow(self, script: act.Script[None], worker: Worker | None) -> None:
        """Perform a script's actions until it ends; a store's error is thrown into it."""
        answer: Any = None
        error: StoreError | None = None
        try:
            while True:
                action = script.send(answer) if error is None else script.throw(error)
                answer, error = None, None
                try:
                    answer = self._performer.perform(action, worker)
                except StoreError as raised:
                    error = raised
        except StopIteration:
            pass

"""The Runner: workers on threads that perform what :mod:`outbox.delivery` asks for."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Mapping, Sequence

from .clock import Clock, SystemClock
from .crew import Crew
from .errors import ConfigurationError
from .events import Listener
from .performer import Orders, Tally
from .protocols import Store, Transport
from .retry import RetryPolicy

__all__ = ["Runner", "Tally"]


class Runner:
    """Delivers what is due in *store* through *transport*, until it is stopped.

    Any number of runners, in any number of threads and processes, may share
    one store: each message is under one lease at a time.

    Args:
        retry: One policy for all queues, or one a queue; a queue that the
            mapping does not name has the default policy.
        queues: The queues that this transport serves; no other is claimed.
        workers: Threads that deliver; each has one connection at a time.
        lease: How long a message stays with a worker that went silent (a
            killed process).  Living workers extend their leases.
        grace: How long :meth:`stop` lets current transactions finish.
        listeners: Called after the fact, in the workers' threads.

    The runner closes neither the store nor the transport.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport,
        *,
        retry: RetryPolicy | Mapping[str, RetryPolicy] | None = None,
        queues: Sequence[str] = ("mail",),
        workers: int = 4,
        lease: dt.timedelta = dt.timedelta(seconds=60),
        grace: dt.timedelta = dt.timedelta(seconds=30),
        listeners: Sequence[Listener] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check(queues, workers, lease, grace)
        self._orders = Orders(
            store=store,
            transport=transport,
            retry=retry if isinstance(retry, Mapping) else {q: retry or RetryPolicy() for q in queues},
            queues=tuple(queues),
            workers=workers,
            lease=lease,
            listeners=tuple(listeners),
            clock=clock or SystemClock(),
            rng=rng or random.Random(),  # noqa: S311 - jitter is no secret
        )
        self._grace = grace
        self._lock = threading.Lock()
        self._crew: Crew | None = None

    def __repr__(self) -> str:
        return f"Runner({self._orders.store!r}, {self._orders.transport!r}, queues={self._orders.queues!r})"

    def start(self) -> None:
        """Begin to deliver on background threads; returns at once.

        Raises:
            ConfigurationError: it is running already.
        """
        with self._lock:
            if self._crew is not None:
                raise ConfigurationError("this Runner is running already: stop() it first, or make another")
            self._crew = Crew(self._orders)
            self._crew.start()

    def stop(self, grace: dt.timedelta | None = None) -> bool:
        """Claim nothing more, let current transactions finish up to *grace*, release the rest.

        Returns True when all that was under way has ended and was settled.
        False: a transaction hangs; its thread is abandoned, and its
        message returns when the lease runs out.  Stopping what does not run
        is harmless.
        """
        with self._lock:
            crew, self._crew = self._crew, None
        return crew is None or crew.stop(self._grace if grace is None else grace)

    def run_forever(self) -> None:
        """Deliver until :meth:`stop` is called from elsewhere.

        An exception raised in the calling thread, such as KeyboardInterrupt,
        stops it as :meth:`stop` does and is raised again.  No signal handler
        is installed.
        """
        try:
            self.start()
            crew = self._crew
            if crew is not None:
                crew.wait_until_stopped()
        finally:
            self.stop()

    def drain(self, *, limit: int | None = None) -> Tally:
        """Deliver what is due now, at most *limit* messages, and return what became of it.

        Returns when nothing that is due can be delivered now: it is done, or
        its relay cannot be used (:attr:`Tally.faults` says why), or another
        runner has it.  What failed and waits for its next attempt is not
        waited for.

        Raises:
            StoreError: the store failed repeatedly; what was delivered
                before is settled, unless the error says otherwise.
        """
        crew = Crew(self._orders, limit=limit, draining=True)
        try:
            crew.start()
            crew.join()
        finally:
            crew.stop(self._grace)
        if crew.error is not None:
            raise crew.error
        return crew.tally


def _check(queues: Sequence[str], workers: int, lease: dt.timedelta, grace: dt.timedelta) -> None:
    if isinstance(queues, str) or not queues:
        raise ConfigurationError(f"queues is {queues!r}: pass the names as a sequence, such as ['mail']")
    if workers < 1:
        raise ConfigurationError(f"workers is {workers}: at least one is needed")
    if lease <= dt.timedelta(0) or grace < dt.timedelta(0):
        raise ConfigurationError("lease must be positive, and grace not negative")

"""The Runner: workers on threads that perform what :mod:`outbox.delivery` asks for."""

from __future__ import annotations

import copy
import datetime as dt
import logging
import os
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from .breakers import Breakers
from .clock import Clock, SystemClock
from .crew import Crew
from .delays import Delays
from .drawing import require_register
from .errors import ConfigurationError
from .events import Listener
from .judge import Hook
from .message import Message
from .naming import fitted
from .performer import Orders, Tally
from .protocols import Store, Transport
from .relay import RelayLimits
from .replies import ReplyRule
from .retry import RetryPolicy
from .screening import Suppress
from .sender import Sender, Sent
from .values import quoted

__all__ = ["Runner", "Sent", "Tally"]

_LOG: Final = logging.getLogger("outbox.runner")


@attrs.define
class _Running:
    """Who is at work, in the process that started them: a forked child has none of their threads."""

    pid: int = attrs.Factory(os.getpid)
    # A signal handler may stop the runner whose lock its own thread holds.
    lock: threading.RLock = attrs.Factory(threading.RLock)
    crews: list[Crew] = attrs.Factory(list)
    sender: Sender | None = None


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
        limits: What each relay is asked to take at most, or what those of
            these keys are (``"*"``: all others); the keys are those that the
            transport names, and a route's are found in any case.  A key that
            no route has is warned of; where there is only one relay none can
            be named.  They hold for this process, but where they are *shared*
            for all that deliver from this store.
        grace: How long :meth:`stop` lets current transactions finish.
        listeners: Called after the fact, in the thread that writes what came of the
            messages (of a relay, in the worker's): nothing else is written or claimed
            meanwhile.  What the keeper of the leases met is told by another thread, up
            to ten seconds later.  Those of :meth:`send` are called in its caller's thread.
        hook: May discard, hold or put off otherwise what was judged, after an
            attempt of which nobody was newly accepted: see :data:`~outbox.Hook`.
        suppress: Says which recipients are not to be delivered to: see
            :data:`~outbox.Suppress`.
        warn_after: The age at which listeners are told that a message is late
            (:class:`~outbox.Delayed`); never where nothing is said.
        reply_rules: How relays that say certain things are treated for a
            while: see :class:`~outbox.ReplyRule`.

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
        limits: RelayLimits | Mapping[str, RelayLimits] | None = None,
        hook: Hook | None = None,
        suppress: Suppress | None = None,
        warn_after: dt.timedelta | None = None,
        reply_rules: Sequence[ReplyRule] = (),
    ) -> None:
        _check(queues, workers, lease, grace)
        _check_callable(hook=hook, suppress=suppress)
        clock, rng = clock or SystemClock(), rng or random.Random()  # noqa: S311 - jitter is no secret
        kept = _limits(limits, transport)
        require_register(kept, store)
        self._orders = Orders(
            store=store,
            transport=transport,
            retry=_policies(retry, queues),
            queues=tuple(queues),
            workers=workers,
            lease=lease,
            listeners=tuple(listeners),
            clock=clock,
            rng=rng,
            breakers=Breakers(clock, rng, limits=kept),
            hook=hook,
            suppress=suppress,
            delays=Delays(warn_after),
            rules=tuple(reply_rules),
        )
        self._grace = grace
        self._running = _Running()

    def __repr__(self) -> str:
        return f"Runner({self._orders.store!r}, {self._orders.transport!r}, queues={self._orders.queues!r})"

    def start(self) -> None:
        """Begin to deliver on background threads; returns at once.

        Raises:
            ConfigurationError: it is running already.
        """
        self._start()

    def stop(self, grace: dt.timedelta | None = None) -> bool:
        """Claim nothing more, let current transactions finish up to *grace*, release the rest.

        It ends drains too, and waits for what :meth:`send` has under way.  Any number may stop at once: each waits until
        it is over, and the shortest grace counts.

        Returns True when all that was under way has ended and was settled.
        False: a transaction hangs; its thread is abandoned, and its
        message returns when the lease runs out.  Called in a thread that is
        itself under way (by a listener or a transport of this runner, or by a
        signal handler that interrupted :meth:`send`) it asks for the end and
        returns False at once.  Stopping what does not run is harmless, and
        so is stopping in a signal handler, wherever it came.
        """
        grace = self._grace if grace is None else grace
        deadline = self._orders.clock.monotonic() + grace.total_seconds()
        running = self._here()
        with running.lock:
            crews, sender = list(running.crews), running.sender
        for crew in crews:
            crew.ask(grace)
        if any(each.is_here for each in crews) or (sender is not None and sender.is_here):
            return False
        ended = [crew.see_out() for crew in crews]
        if sender is not None:
            ended.append(sender.see_out(deadline - self._orders.clock.monotonic()))
        return all(ended)

    def run_forever(self) -> bool:
        """Deliver until :meth:`stop` is called from elsewhere; returns what that does, and no sooner.

        An exception raised in the calling thread, such as KeyboardInterrupt,
        stops it as :meth:`stop` does and is raised again.  No signal handler
        is installed.

        Raises:
            ConfigurationError: it is running already, and goes on.
            OutboxError: its workers ended although nobody stopped it.
        """
        crew = self._start()
        try:
            crew.wait_until_stopped()
        finally:
            ended = crew.stop(self._grace) if crew.unasked else crew.see_out()
        if crew.error is not None:
            raise crew.error
        return ended

    def drain(self, *, limit: int | None = None) -> Tally:
        """Deliver what is due now, at most *limit* messages, and return what became of it.

        Returns when nothing that is due can be delivered now: it is done, or
        its relay cannot be used (:attr:`Tally.faults` says why), or another
        runner has it.  What failed and waits for its next attempt is not
        waited for.

        Raises:
            ConfigurationError: *limit* is no whole number from 1; nothing was claimed.
            StoreError: the store failed repeatedly, or could not be asked what
                may go within limits that are shared; what was delivered
                before is settled, unless the error says otherwise.
        """
        _check_limit(limit)
        crew = self._enlist(Crew(self._orders, limit=limit, draining=True, over=self._forget))
        try:
            crew.start()
            crew.join()
            asked = not crew.unasked
        finally:
            crew.stop(self._grace)
        if crew.error is not None:
            crew.error.add_note(f"until then: {crew.tally}")
            raise crew.error
        if not asked:
            crew.sweep()
        return crew.tally

    def send(self, message: Message, *, store_first: bool = True) -> Sent:
        """Deliver *message* now, in this thread, and return what came of it; see :meth:`outbox.Outbox.send`.

        Raises:
            ConfigurationError: its queue is none of those served here; nothing was stored or sent.
            UnsupportedError: the store cannot lease what it is given (SupportsHandOver).
            StoreError: as :meth:`outbox.Outbox.send` says.
        """
        if message.queue not in self._orders.queues:
            raise ConfigurationError(
                f"queue {message.queue!r} is not served here ({', '.join(self._orders.queues)}): add it to queues=, "
                "or submit() the message for whoever serves it"
            )
        sender = self._sender()
        return sender.send(message) if store_first else sender.send_unstored(message)

    def _sender(self) -> Sender:
        running = self._here()
        with running.lock:
            if running.sender is None:
                running.sender = Sender(self._orders)
            return running.sender

    def _start(self) -> Crew:
        crew = self._enlist(Crew(self._orders, over=self._forget))
        try:
            crew.start()
        except BaseException:
            # Such as RuntimeError, where the system gives no more threads.
            crew.stop(self._grace)
            raise
        return crew

    def _here(self) -> _Running:
        if self._running.pid != os.getpid():
            self._running = _Running()
        return self._running

    def _enlist(self, crew: Crew) -> Crew:
        running = self._here()
        with running.lock:
            if not crew.draining and not all(other.draining for other in running.crews):
                raise ConfigurationError("this Runner is running already: stop() it first, or make another")
            running.crews.append(crew)
        return crew

    def _forget(self, crew: Crew) -> None:
        running = self._here()
        with running.lock:
            running.crews = [other for other in running.crews if other is not crew]


def beside(runner: Runner) -> Runner:
    """Another one with the same settings, which shares what is known of the relays."""
    other = copy.copy(runner)
    other._running = _Running()  # noqa: SLF001 - one Runner makes another
    return other


def _limits(
    limits: RelayLimits | Mapping[str, RelayLimits] | None, transport: Transport
) -> Mapping[str, RelayLimits]:
    found, strange = fitted(limits, transport)
    for name in strange:
        _LOG.warning(
            "limits names the relay %s, which the transport does not have: they hold for nothing",
            quoted(name),
        )
    return found


def _policies(
    retry: RetryPolicy | Mapping[str, RetryPolicy] | None, queues: Sequence[str]
) -> Mapping[str, RetryPolicy]:
    if retry is None or isinstance(retry, RetryPolicy):
        return dict.fromkeys(queues, retry or RetryPolicy())
    given: object = retry
    if isinstance(given, Mapping) and all(isinstance(policy, RetryPolicy) for policy in given.values()):
        return given
    raise ConfigurationError(
        f"retry is {given!r}: pass a RetryPolicy, such as RetryPolicy.parse('1m, 5m'), or a mapping "
        "from queues to them"
    )


def _check_callable(**given: object) -> None:
    for name, value in given.items():
        if value is not None and not callable(value):
            raise ConfigurationError(f"{name} is of type {type(value).__name__}: pass a function")


def _check_limit(limit: object) -> None:
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ConfigurationError(
            f"limit is {limit!r}: pass a whole number from 1, or None to deliver all that is due"
        )


def _check(queues: Sequence[str], workers: int, lease: dt.timedelta, grace: dt.timedelta) -> None:
    if isinstance(queues, str) or not queues:
        raise ConfigurationError(f"queues is {queues!r}: pass the names as a sequence, such as ['mail']")
    if workers < 1:
        raise ConfigurationError(f"workers is {workers}: at least one is needed")
    if lease <= dt.timedelta(0) or grace < dt.timedelta(0):
        raise ConfigurationError("lease must be positive, and grace not negative")

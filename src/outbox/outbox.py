"""Outbox: the facade.  Two lines embed it, and a program says its settings once."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict

from typing_extensions import Unpack

from .clock import Clock
from .errors import ConfigurationError, UnsupportedError
from .events import Listener
from .joining import join
from .judge import Hook
from .logs import log_notice
from .performer import Tally
from .protocols import Store, SupportsTransaction, SupportsWait, Transport
from .relay import RelayLimits
from .replies import ReplyRule
from .retry import RetryPolicy
from .runner import Runner, Sent, beside
from .screening import Suppress
from .staging import Stage
from .submitter import Annotate, Mail, MessageOptions, Submitter

__all__ = ["Outbox", "RunnerOptions"]


class RunnerOptions(TypedDict, total=False):
    """The settings of :class:`~outbox.Runner` that an Outbox passes on."""

    retry: RetryPolicy | Mapping[str, RetryPolicy] | None
    workers: int
    lease: dt.timedelta
    grace: dt.timedelta
    listeners: Sequence[Listener]
    limits: RelayLimits | Mapping[str, RelayLimits] | None
    hook: Hook | None
    suppress: Suppress | None
    warn_after: dt.timedelta | None
    reply_rules: Sequence[ReplyRule]


class Outbox(Submitter):
    """Stores outgoing messages durably, and delivers them where there is a transport.

    Without a transport it only submits: the shape for a web process whose
    messages another process delivers.

    Args:
        queues: The queues served here; mail goes to the first unless said
            otherwise.
        annotate: Is asked for attributes to store with each message: see :data:`~outbox.Annotate`.
        options: What else the :class:`~outbox.Runner` takes.

    Safe to use from many threads.  Leaving its ``with`` block stops its
    runners, and closes the store and the transport.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport | None = None,
        *,
        queues: Sequence[str] = ("mail",),
        clock: Clock | None = None,
        annotate: Annotate | None = None,
        **options: Unpack[RunnerOptions],
    ) -> None:
        if not queues or isinstance(queues, str):
            raise ConfigurationError(f"queues is {queues!r}: pass a sequence of at least one name")
        told = (log_notice, *options.get("listeners", ()))
        super().__init__(store, queue=queues[0], clock=clock, listeners=told, annotate=annotate)
        self.store = store
        self._transport = transport
        self._queues = queues
        self._options = options
        # A runner at work is kept alive by its own threads.
        self._runners: weakref.WeakSet[Runner] = weakref.WeakSet()
        # A signal handler may close it while its own thread makes a runner.
        self._lock = threading.RLock()
        # Made here, so that a wrong setting fails where it was said; what is sent directly goes through it.
        self._own: Runner | None = None
        self._own = None if transport is None else self.runner()

    def __repr__(self) -> str:
        return f"Outbox({self.store!r}, {self._transport!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def transport(self) -> Transport:
        """The transport.

        Raises:
            ConfigurationError: this Outbox has none.
        """
        if self._transport is None:
            raise ConfigurationError("this Outbox only submits: give it a transport to deliver from here")
        return self._transport

    def within(self, connection: Any, /) -> Submitter:
        """Submit within the caller's own database transaction.

        What is submitted to the result is there if and only if that
        transaction commits, as durable as the caller's database makes it; a
        savepoint that is rolled back takes what was submitted since with it.
        Nothing of ours commits or rolls back.  A Runner finds it by itself
        after the commit; :meth:`wake` makes one of this process look at once.

        Args:
            connection: The driver's own (``sqlite3.Connection``), SQLAlchemy's
                ``Session`` or ``Connection``, or Django's ``connection``.  Of the
                latter the transaction is the one that is open at each submit.

        Raises:
            UnsupportedError: the store cannot be part of another's transaction.
            ConfigurationError: the connection does not lead to the store's
                database, is asynchronous, or commits each statement by itself;
                some of it is known at the first submit only, and raised there.
        """
        if not isinstance(self.store, SupportsTransaction):
            raise UnsupportedError(
                f"{type(self.store).__name__} cannot store within a transaction of yours: keep the outbox in the "
                "same database, in a store that can (SQLiteStore with prefix=, PostgresStore); or stage() a message before the commit "
                "and publish() it after"
            )
        # Nobody is told: whether it will be there is for that transaction to say.
        return Submitter(
            join(self.store, connection), queue=self._queue, clock=self._clock, annotate=self._annotate
        )

    def stage(
        self,
        message: Mail,
        *,
        sender: str | None = None,
        recipients: Iterable[str] | None = None,
        **options: Unpack[MessageOptions],
    ) -> str:
        """Keep a message that is delivered once it is published.  Durable when it returns.  Returns its id.

        For a transaction that the store cannot be part of: stage before the
        commit, :meth:`publish` after it.  Write the id down within the
        transaction: a crash between the two leaves a staged message, and only
        your database can tell whether it is to be sent (:meth:`staged`).  It
        is never delivered, and never removed, by itself.

        Raises:
            InvalidMessage, StoreError: as :meth:`submit`; what is known here
                are the ids that are staged.  That one is known to the store
                itself shows when it is published.
            UnsupportedError: the store cannot find it again (SupportsBrowse, SupportsManage).
        """
        prepared = self._prepared(message, sender, recipients, None, options)
        Stage(self.store).stage(prepared)
        return prepared.id

    def publish(self, id: str) -> bool:
        """Submit what is staged under this id, as :meth:`submit` would now.

        May be repeated, after an error or a crash: it is submitted once, where
        that is before the store forgets the ids of what it has delivered
        (its ``remember``).

        Returns:
            False where nothing is staged under it: it was published, or
            unstaged, or never staged.

        Raises:
            ConflictError: the id is known with another envelope; it stays staged.
            StoreError: as :meth:`submit`, or a person holds it: publish it
                again; or it is on its way to another store, or there
                (``outbox move``): publish it there, once the move has ended.
        """
        return Stage(self.store).publish(id, lambda message: self._put([message]))

    def unstage(self, id: str) -> bool:
        """Forget what is staged under this id: its transaction did not commit.  False where nothing is.

        Raises:
            StoreError: the store fails; or it is on its way to another store,
                or there: unstage it there, once the move has ended.
        """
        return Stage(self.store).remove(id)

    def staged(self, *, older_than: dt.timedelta = dt.timedelta(0)) -> Iterator[str]:
        """The ids of what is staged, and was for longer than this, by the clocks of the store and of this machine.

        *older_than* must be longer than any of your transactions takes: of
        what is younger nobody knows yet whether it commits.  What a person
        holds is left out until he releases it.

        Raises:
            CorruptRecord: one cannot be read; all the others were given before.
        """
        return Stage(self.store).ids(older_than, self._clock.now())

    def send(
        self,
        message: Mail,
        *,
        sender: str | None = None,
        recipients: Iterable[str] | None = None,
        store_first: bool = True,
        **options: Unpack[MessageOptions],
    ) -> Sent:
        """Deliver one message now, in this thread, and return what came of it.

        It is stored first, under a lease of its own, so that nobody else
        sends it meanwhile, and a crash loses nothing: the lease runs out and
        a Runner takes over, as it does with whatever this attempt left (a
        recipient who was put off, a relay that is down).  So a
        :class:`~outbox.Sent` that is not ``delivered`` is no reason to send
        it again; its verdict says how it goes on.  The attempt is judged,
        counted, settled and told as a Runner's.  While a relay is known to be
        down it is not asked: the message waits as though it had been
        submitted.

        An id that is known already is not sent again, as with
        :meth:`submit`; nor is anything sent before its ``not_before`` or
        while its queue is suspended.  It is stored then, and the verdict None.

        It takes as long as the transport does: minutes, where a relay hangs.
        An exception that interrupts it (KeyboardInterrupt) leaves the message
        to its lease, as a crash would, and its recipients in doubt.

        Args:
            store_first: False stores the message only where it could not be
                delivered to everybody, with what came of the attempt, and
                spares the store's work for all others.  *A crash during the
                attempt then loses the message*: nothing stands anywhere, and
                nobody can tell whether it was sent.  No delivered message is
                remembered either: its id, sent again, is sent twice, and an
                id that the store knows already is sent all the same.

        Raises:
            InvalidMessage, ConflictError: as :meth:`submit`; nothing was sent.
            ConfigurationError: there is no transport, or its queue is not served here.
            UnsupportedError: the store cannot lease what it is given
                (SupportsHandOver), or an at-most-once message with
                ``store_first=False``; nothing was stored or sent.
            StoreError: it could not be stored, and was not sent (after
                AmbiguousPut repeat it with the same id); or it was handed
                over and that could not be noted, and the text says so.  With
                ``store_first=False`` it may have reached some recipients
                then, and is stored nowhere: a note of the error says so.
        """
        prepared = self._prepared(message, sender, recipients, None, options)
        runner = self._own or self.runner()
        return runner.send(prepared, store_first=store_first)

    def wake(self) -> None:
        """Let a Runner of this process look for messages now.  Never needed: a hint."""
        if isinstance(self.store, SupportsWait):
            self.store.wake()

    def runner(self) -> Runner:
        """A Runner with this Outbox's settings.

        All that are made here share what they know of the relays, also with
        :meth:`send`; a drain begins anew.

        Raises:
            ConfigurationError: there is no transport, or a setting is wrong.
        """
        if self._own is not None:
            runner = beside(self._own)
        else:
            runner = Runner(
                self.store, self.transport, queues=self._queues, clock=self._clock, **self._options
            )
        with self._lock:
            self._runners.add(runner)
        return runner

    def drain(self, *, limit: int | None = None) -> Tally:
        """Deliver what is due now; see :meth:`outbox.Runner.drain`."""
        return self.runner().drain(limit=limit)

    @contextlib.contextmanager
    def running(self) -> Iterator[Runner]:
        """Deliver on background threads for as long as the ``with`` block lasts."""
        runner = self.runner()
        runner.start()
        try:
            yield runner
        finally:
            runner.stop()

    def close(self) -> None:
        """Stop the runners made here, each within its grace time, then close the store and the transport.

        Closing twice is harmless.
        """
        with self._lock:
            runners = list(self._runners)
        for runner in runners:
            runner.stop()
        if self._transport is not None:
            self._transport.close()
        self.store.close()

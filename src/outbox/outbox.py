"""Outbox: the facade.  Two lines embed it, and a program says its settings once."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, TypedDict

import attrs
from typing_extensions import Unpack

from .clock import Clock, SystemClock
from .errors import ConfigurationError, InvalidMessage
from .events import Listener
from .message import Message
from .performer import Tally
from .protocols import Store, Transport
from .retry import RetryPolicy
from .runner import Runner

if TYPE_CHECKING:
    import email.message

__all__ = ["Mail", "MessageOptions", "Outbox", "RunnerOptions"]

Mail: TypeAlias = "Message | email.message.Message | bytes"
"""What can be submitted: a Message, an ``email.message.Message`` (an EmailMessage is one), or its bytes."""


class MessageOptions(TypedDict, total=False):
    """The fields of :class:`~outbox.Message` that a mail's headers do not say."""

    id: str
    queue: str
    priority: int
    attributes: Mapping[str, str]
    not_before: dt.datetime | None
    expires_at: dt.datetime | None
    at_most_once: bool


class RunnerOptions(TypedDict, total=False):
    """The settings of :class:`~outbox.Runner` that an Outbox passes on."""

    retry: RetryPolicy | Mapping[str, RetryPolicy] | None
    workers: int
    lease: dt.timedelta
    grace: dt.timedelta
    listeners: Sequence[Listener]


class Outbox:
    """Stores outgoing messages durably, and delivers them where there is a transport.

    Without a transport it only submits: the shape for a web process whose
    messages another process delivers.

    Args:
        queues: The queues served here; mail goes to the first unless said
            otherwise.
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
        **options: Unpack[RunnerOptions],
    ) -> None:
        self.store = store
        self._transport = transport
        self._queues = queues
        self._clock = clock or SystemClock()
        self._options = options
        # A runner at work is kept alive by its own threads.
        self._runners: weakref.WeakSet[Runner] = weakref.WeakSet()
        self._lock = threading.Lock()
        if transport is not None:
            self.runner()  # so that a wrong setting fails here, where it was said

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

    def submit(
        self,
        message: Mail,
        *,
        sender: str | None = None,
        recipients: Iterable[str] | None = None,
        delay: dt.timedelta | None = None,
        **options: Unpack[MessageOptions],
    ) -> str:
        """Store one message; durable when it returns.  Returns its id.

        A mail's envelope is taken from its headers, unless *sender* or
        *recipients* are given.  *id* is the idempotency key: submitting the
        same id again, with the same envelope, stores nothing new and returns
        the id.  *delay* is from now, by this machine's clock.

        Raises:
            InvalidMessage: a rule is broken, the text says which; nothing was stored.
            ConflictError: the id is known with another envelope.
            StoreError: it could not be stored; after AmbiguousPut repeat it
                with the same id.
        """
        prepared = self._prepared(message, sender, recipients, delay, options)
        (result,) = self.store.put([prepared])
        return result.id

    def submit_many(self, messages: Iterable[Mail]) -> list[str]:
        """Store many messages, all or none, in one commit.  Returns their ids, in order.

        Raises as :meth:`submit` does; nothing was stored then.
        """
        prepared = [self._prepared(message, None, None, None, {}) for message in messages]
        return [result.id for result in self.store.put(prepared)] if prepared else []

    def runner(self) -> Runner:
        """A Runner with this Outbox's settings.

        Raises:
            ConfigurationError: there is no transport, or a setting is wrong.
        """
        runner = Runner(self.store, self.transport, queues=self._queues, clock=self._clock, **self._options)
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

    def _prepared(
        self,
        mail: Mail,
        sender: str | None,
        recipients: Iterable[str] | None,
        delay: dt.timedelta | None,
        options: MessageOptions,
    ) -> Message:
        if isinstance(mail, Message):
            if sender is not None or recipients is not None or options:
                raise InvalidMessage(
                    "a Message carries its own envelope: use attrs.evolve(message, …) to change it"
                )
            message = mail
        else:
            # Only here: the email package is heavy, and a program that submits Messages needs none of it.
            from .mail import from_email  # noqa: PLC0415

            options = {"queue": self._queues[0], **options}
            message = from_email(mail, sender=sender, recipients=recipients, **options)
        return message if delay is None else self._delayed(message, delay)

    def _delayed(self, message: Message, delay: dt.timedelta) -> Message:
        if message.not_before is not None:
            raise InvalidMessage("both delay and not_before are given: say one of them")
        try:
            moment = self._clock.now() + delay
        except OverflowError:
            raise InvalidMessage(f"a delay of {delay} from now is later than a date can say") from None
        return attrs.evolve(message, not_before=moment)

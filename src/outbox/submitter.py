"""What a program hands in becomes a stored message: at the store, or within the program's own transaction."""

from __future__ import annotations

import datetime as dt
import hashlib  # noqa: F401 - a message needs it, and by then its files may be out of reach (chroot, setuid)
import logging
import secrets  # noqa: F401 - the same
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict

import attrs
from typing_extensions import Unpack

from .clock import Clock, SystemClock
from .errors import InvalidMessage
from .events import Listener, Submitted
from .lifecycle import PutResult
from .message import Message
from .protocols import Intake

if TYPE_CHECKING:
    import email.message

__all__ = ["Annotate", "Mail", "MessageOptions", "Submitter"]

_LOG: Final = logging.getLogger("outbox.submitter")

Annotate: TypeAlias = Callable[[Message], Mapping[str, str]]
"""Asked at each submit, in its caller's thread, for attributes to be stored with the message: a trace's context, say.

What the message has already stays as it is.  What it raises is logged, and the message goes without them.
"""

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


class Submitter:
    """Takes mail and messages, and puts them where it was told.

    Safe to use from as many threads as its intake is.

    Args:
        listeners: Are told of each message that was put.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        queue: str = "mail",
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
        annotate: Annotate | None = None,
    ) -> None:
        self._intake = intake
        self._queue = queue
        self._clock = clock or SystemClock()
        self._told = tuple(listeners)
        self._annotate = annotate

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
        (result,) = self._put([prepared])
        return result.id

    def submit_many(self, messages: Iterable[Mail]) -> list[str]:
        """Store many messages, all or none, in one commit.  Returns their ids, in order.

        Raises as :meth:`submit` does; nothing was stored then.
        """
        prepared = [self._prepared(message, None, None, None, {}) for message in messages]
        return [result.id for result in self._put(prepared)] if prepared else []

    def _put(self, messages: Sequence[Message]) -> Sequence[PutResult]:
        results = self._intake.put(messages)
        for message, result in zip(messages, results, strict=True):
            self._tell(Submitted(message, result.status))
        return results

    def _tell(self, notice: Submitted) -> None:
        for listener in self._told:
            try:
                listener(notice)
            except Exception:  # noqa: BLE001 - a listener is a stranger's, and the message is stored
                _LOG.exception("a listener failed; what was submitted is not changed by it")

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

            options = {"queue": self._queue, **options}
            message = from_email(mail, sender=sender, recipients=recipients, **options)
        if self._annotate is not None:
            message = self._annotated(message, self._annotate)
        return message if delay is None else self._delayed(message, delay)

    def _annotated(self, message: Message, annotate: Annotate) -> Message:
        try:
            attributes = dict(annotate(message))
            return (
                attrs.evolve(message, attributes={**attributes, **message.attributes})
                if attributes
                else message
            )
        except Exception:  # noqa: BLE001 - whoever watches must not keep a message from being stored
            _LOG.exception("no attributes were added to %s: what was asked for them failed", message.id)
            return message

    def _delayed(self, message: Message, delay: dt.timedelta) -> Message:
        if message.not_before is not None:
            raise InvalidMessage("both delay and not_before are given: say one of them")
        try:
            moment = self._clock.now() + delay
        except OverflowError:
            raise InvalidMessage(f"a delay of {delay} from now is later than a date can say") from None
        return attrs.evolve(message, not_before=moment)

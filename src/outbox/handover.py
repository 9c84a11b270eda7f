"""The one place that calls a transport, for workers and for transports that lead to others.

A transport is a stranger's: it may raise or return anything, and what comes
back from here is a report all the same.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from .errors import ConfigurationError, RelayFault, RelayMisconfigured
from .message import Message
from .outcome import Outcome, Uncertain
from .protocols import Delivery, SupportsBatch, SupportsRelays, Transport
from .report import failed, fault_of, understood
from .values import printable

__all__ = ["THE_ONLY_RELAY", "Handover", "hand_over", "shares"]

Report: TypeAlias = Outcome | RelayFault

_LOG: Final = logging.getLogger("outbox.runner")
THE_ONLY_RELAY: Final = ""
"""The key of a transport that leads to one relay."""


def hand_over(transport: Transport, message: Message, recipients: Sequence[str]) -> Outcome | RelayFault:
    """Hand *message* over for *recipients*; what *transport* reported, or the fault that it raised.

    A :class:`ConfigurationError` is a setting that a person has to mend, and
    so a fault of the relay.  Another exception counts as a temporary failure of all of them.  What is
    no :class:`Exception` (an interrupt, the end of the program) goes through.
    """
    try:
        answer: object = transport.deliver(message, recipients)
    except RelayFault as fault:
        return fault_of(fault)
    except ConfigurationError as error:
        return RelayMisconfigured(type(transport).__name__, printable(str(error)))
    except Exception as error:  # noqa: BLE001 - a transport is a stranger's, and may raise anything
        _LOG.exception("the transport failed with an exception of its own on %s", message.id)
        return failed(error, recipients)
    return _told(message, *understood(answer, recipients, f"{type(transport).__name__}.deliver"))


def _told(message: Message, outcome: Outcome, oddities: Sequence[str]) -> Outcome:
    for odd in oddities:
        _LOG.error("%s: %s", message.id, odd)
    return outcome


class Handover:
    """Several messages on their way to one relay, in one batch where the transport has such.

    For threads of our own: what would end a program is an exception of the
    transport like any other here.

    Args:
        deliveries: What to hand over, pulled one after the other; the first
            before the transport is called, so that whatever it does, it
            does to a message, and none is handed over again and again
            without an attempt.
    """

    def __init__(self, transport: Transport, deliveries: Iterator[Delivery]) -> None:
        self._transport = transport
        self._in_batches = transport if isinstance(transport, SupportsBatch) else None
        self._deliveries = deliveries
        self._pulled: deque[Delivery] = deque()
        self._shown = False
        self._batch: Iterator[object] | None = None
        self._silent = True
        self._over = False
        # How many of those pulled may be handed over already, as what answered for them is no generator.
        self._gone = 0

    @property
    def gone(self) -> bool:
        """Whether the next report is of what may be handed over already, although it was not told of."""
        return self._gone > 0

    def next(self) -> tuple[Message, Report] | None:
        """A message and what was reported of it, in the order pulled; None: there is no more.

        What was pulled and not told of then was not handed over.
        """
        if self._over and not self._gone:
            return None
        report = self._doubted() if self._over else self._report()
        if report is None or not self._pulled:
            self._over = True
            return None
        self._silent = False
        self._gone = max(0, self._gone - 1)
        return self._pulled.popleft().message, report

    def close(self) -> None:
        """End it; what was handed over and not told of is nobody's to learn."""
        batch, self._batch, self._over = self._batch, None, True
        close = getattr(batch, "close", None)
        if close is not None:
            try:
                close()
            except BaseException:  # noqa: BLE001 - a transport is a stranger's, and may raise anything
                _LOG.exception("the transport failed to end a batch")

    def _report(self) -> Report | None:
        try:
            if self._in_batches is not None:
                return self._of_batch(self._in_batches)
            delivery = self._pull()
            return (
                None
                if delivery is None
                else hand_over(self._transport, delivery.message, delivery.recipients)
            )
        except BaseException as error:  # noqa: BLE001 - a transport is a stranger's, and may raise anything
            self._over = True
            return self._failed(error)

    def _called(self, transport: SupportsBatch) -> Iterator[object]:
        """What its deliver_many brings, one report after the other."""
        answer: object = None
        try:
            answer = transport.deliver_many(self._pulling())
            return iter(answer)
        finally:
            # A generator has pulled nothing yet.  Who returns a list, say, has handed over what it pulled; one
            # message may only have been looked at.
            if not isinstance(answer, Generator) and len(self._pulled) > 1:
                self._gone = len(self._pulled)

    def _of_batch(self, transport: SupportsBatch) -> Report | None:
        # Before the transport may connect, refuse or return: what it does then, it does to this one.
        if self._batch is None and self._pull() is None:
            return None
        try:
            if self._batch is None:
                self._batch = self._called(transport)
            answer = next(self._batch)
        except StopIteration:
            self._over = True
            nothing = RuntimeError("its deliver_many reported nothing")
            return self._failed(nothing) if self._silent or self._gone else None
        except RelayFault as fault:
            return self._refused(fault_of(fault))
        except ConfigurationError as error:
            return self._refused(RelayMisconfigured(type(transport).__name__, printable(str(error))))
        return self._understood(answer)

    def _refused(self, fault: RelayFault) -> Report:
        self._over = True
        return attrs.evolve(self._doubted(), fault=fault) if self._gone else fault

    def _pull(self) -> Delivery | None:
        delivery = None if self._over else next(self._deliveries, None)
        if delivery is not None:
            self._pulled.append(delivery)
        return delivery

    def _pulling(self) -> Iterator[Delivery]:
        delivery: Delivery | None = self._pulled[0]
        self._shown = True
        while delivery is not None:
            yield delivery
            delivery = self._pull()

    def _understood(self, answer: object) -> Outcome | None:
        name = f"{type(self._transport).__name__}.deliver_many"
        if not (self._pulled and self._shown):
            self._over = True
            _LOG.error("%s reported of a message that it did not pull", name)
            return self._failed(RuntimeError("its deliver_many reported of a message that it did not pull"))
        first = self._pulled[0]
        return _told(first.message, *understood(answer, first.recipients, name))

    def _failed(self, error: BaseException) -> Outcome | None:
        if not self._pulled:
            return None
        first = self._pulled[0]
        _LOG.error(
            "the transport failed with an exception of its own on %s", first.message.id, exc_info=error
        )
        return self._doubted() if self._gone else failed(error, first.recipients)

    def _doubted(self) -> Outcome:
        """Of a message that may be handed over already, and nobody told of."""
        first = self._pulled[0]
        name = f"{type(self._transport).__name__}.deliver_many"
        odd = f"{name} is no generator, and did not report of all that it pulled: what it sent is not known"
        _LOG.error("%s: %s", first.message.id, odd)
        return Outcome.same(first.recipients, Uncertain(odd))


def shares(
    transport: Transport, message: Message, recipients: Sequence[str], *, interruptible: bool = False
) -> Mapping[str, tuple[str, ...]]:
    """Which of *recipients* go to which relay, by the key that limits and breakers go by.

    *interruptible*: the thread is its caller's, and what interrupts it is not
    the transport's doing.
    """
    if not isinstance(transport, SupportsRelays):
        return {THE_ONLY_RELAY: tuple(recipients)}
    found: dict[str, list[str]] = {}
    for recipient in recipients:
        found.setdefault(_key(transport, message, recipient, interruptible), []).append(recipient)
    return {key: tuple(share) for key, share in found.items()}


def _key(transport: SupportsRelays, message: Message, recipient: str, interruptible: bool) -> str:
    try:
        key: object = transport.relay(message, recipient)
    except BaseException as error:
        if interruptible and not isinstance(error, Exception):
            raise
        _LOG.exception("the transport cannot say which relay %s goes to", message.id)
        return THE_ONLY_RELAY
    if isinstance(key, str):
        return key
    _LOG.error("%s: the transport named a relay by a value of type %s", message.id, type(key).__name__)
    return THE_ONLY_RELAY

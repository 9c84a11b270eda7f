"""The one place that calls a transport, for workers and for transports that lead to others.

A transport is a stranger's: it may raise or return anything, and what comes
back from here is a report all the same.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from .errors import ConfigurationError, RelayFault, RelayMisconfigured
from .message import Message
from .outcome import Outcome
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
        self._batch: Generator[object, None, None] | None = None
        self._silent = True
        self._over = False

    def next(self) -> tuple[Message, Report] | None:
        """A message and what was reported of it, in the order pulled; None: there is no more.

        What was pulled and not told of then was not handed over.
        """
        if self._over:
            return None
        report = self._report()
        if report is None or not self._pulled:
            self._over = True
            return None
        self._silent = False
        return self._pulled.popleft().message, report

    def close(self) -> None:
        """End it; what was handed over and not told of is nobody's to learn."""
        batch, self._batch, self._over = self._batch, None, True
        if batch is not None:
            try:
                batch.close()
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

    def _of_batch(self, transport: SupportsBatch) -> Report | None:
        # Before the transport may connect, refuse or return: what it does then, it does to this one.
        if self._batch is None and self._pull() is None:
            return None
        try:
            if self._batch is None:
                self._batch = transport.deliver_many(self._pulling())
            answer = next(self._batch)
        except StopIteration:
            self._over = True
            return self._failed(RuntimeError("its deliver_many reported nothing")) if self._silent else None
        except RelayFault as fault:
            self._over = True
            return fault_of(fault)
        except ConfigurationError as error:
            self._over = True
            return RelayMisconfigured(type(transport).__name__, printable(str(error)))
        return self._understood(answer)

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
        return failed(error, first.recipients)


def shares(
    transport: Transport, message: Message, recipients: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    """Which of *recipients* go to which relay, by the key that limits and breakers go by."""
    if not isinstance(transport, SupportsRelays):
        return {THE_ONLY_RELAY: tuple(recipients)}
    found: dict[str, list[str]] = {}
    for recipient in recipients:
        found.setdefault(_key(transport, message, recipient), []).append(recipient)
    return {key: tuple(share) for key, share in found.items()}


def _key(transport: SupportsRelays, message: Message, recipient: str) -> str:
    try:
        key: object = transport.relay(message, recipient)
    except Exception:  # noqa: BLE001 - a transport is a stranger's, and may raise anything
        _LOG.exception("the transport cannot say which relay %s goes to", message.id)
        return THE_ONLY_RELAY
    if isinstance(key, str):
        return key
    _LOG.error("%s: the transport named a relay by a value of type %s", message.id, type(key).__name__)
    return THE_ONLY_RELAY

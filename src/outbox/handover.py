"""The one place that calls a transport, for workers and for transports that lead to others.

A transport is a stranger's: it may raise or return anything, and what comes
back from here is a report all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from .errors import ConfigurationError, RelayFault, RelayMisconfigured
from .message import Message
from .outcome import Outcome
from .protocols import SupportsRelays, Transport
from .report import failed, fault_of, understood
from .values import printable

__all__ = ["THE_ONLY_RELAY", "hand_over", "shares"]

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
    outcome, oddities = understood(answer, recipients, f"{type(transport).__name__}.deliver")
    for odd in oddities:
        _LOG.error("%s: %s", message.id, odd)
    return outcome


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

"""What transports that lead to others share: which they are, and how all of them are tidied and closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.message import Message
from outbox.protocols import SupportsIdle, Transport

__all__ = ["close_all", "distinct", "expire_all", "expired"]


def distinct(transports: Iterable[Transport]) -> Sequence[Transport]:
    """Each once, in order.

    Raises:
        ConfigurationError: one of them is no transport.
    """
    found: dict[int, Transport] = {}
    for transport in transports:
        given: object = transport
        if not callable(getattr(given, "deliver", None)) or isinstance(given, type):
            raise ConfigurationError(
                f"{given!r} is no transport: it has no method deliver(message, recipients)"
            )
        found[id(transport)] = transport
    return tuple(found.values())


def expire_all(transports: Sequence[Transport]) -> None:
    """Let each close what has been idle for too long, also where another fails to."""
    _each([transport.expire for transport in transports if isinstance(transport, SupportsIdle)])


def close_all(transports: Sequence[Transport]) -> None:
    """Close each, also where another fails to."""
    _each([transport.close for transport in transports])


def expired(message: Message, clock: Clock) -> bool:
    """Whether it is too late to hand *message* to another relay."""
    return message.expires_at is not None and message.expires_at <= clock.now()


def _each(calls: Sequence[Callable[[], None]]) -> None:
    """Make every call; then raise what the first of those raised that failed."""
    failure: Exception | None = None
    for call in calls:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a transport is a stranger's, and may raise anything
            failure = failure or error
    if failure is not None:
        raise failure

"""A transport that calls a function: for tests, for tasks, for whatever has no protocol of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result, TempFailed, Untried

__all__ = ["FunctionTransport"]


class FunctionTransport:
    """Delivers by calling ``function(message, recipient)`` for each recipient.

    The function returns a :data:`~outbox.Result`, or None for accepted.
    What it raises counts as a temporary failure of that recipient; a
    :class:`~outbox.RelayFault` concerns the relay.

    It is called from many threads at once.
    """

    def __init__(self, function: Callable[[Message, str], Result | None], *, relay: str = "function") -> None:
        self._function = function
        self._relay = relay

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        results: dict[str, Result] = dict.fromkeys(recipients, Untried())
        for recipient in recipients:
            try:
                results[recipient] = self._function(message, recipient) or Accepted()
            except RelayFault as fault:
                if all(isinstance(result, Untried) for result in results.values()):
                    raise
                return Outcome(results=results, relay=self._relay, fault=fault)
            except Exception as error:  # noqa: BLE001 - the function is a stranger's, and may raise anything
                results[recipient] = TempFailed(f"{type(error).__name__}: {error}")
        return Outcome(results=results, relay=self._relay)

    def close(self) -> None:
        """Nothing to give back."""

"""Asks who is not to be delivered to: the store what is suspended, and the user's ``suppress``.

The rules are :mod:`outbox.screening`'s.  A suppress is a stranger's: whatever
it does, what comes back from here is something to go on with.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from typing import Final

from .clock import Clock
from .handover import shares
from .lifecycle import Claim, Released
from .message import Message
from .outcome import Result
from .protocols import Store, SupportsSuspend, Suspension, Transport
from .screening import Screened, Suppress, Suspended, given_back, screened, suppressed, unsure

__all__ = ["Screener"]

_LOG: Final = logging.getLogger("outbox.runner")


class Screener:
    """One for each crew.  Safe from its threads; what is suspended is known once :meth:`look` has returned."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        suppress: Suppress | None,
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._store = store if isinstance(store, SupportsSuspend) else None
        self._transport = transport
        # What leads to one relay names none by message: it goes by what it is called itself.
        name: object = getattr(transport, "name", "")
        self._name = name if isinstance(name, str) else ""
        self._suppress = suppress
        self._clock = clock
        self._rng = rng
        self._suspended = Suspended()
        self._read_at = -math.inf

    @property
    def asks(self) -> bool:
        """Whether :meth:`screen` asks anything; it may take long then."""
        return bool(self._suspended or self._suppress)

    def look(self, *, older: float = math.inf) -> None:
        """Read what is suspended where it was never read, or *older* seconds ago and more.

        Raises:
            StoreError: what is suspended stays as it was known.
        """
        now = self._clock.monotonic()
        if self._store is not None and not now - self._read_at < older:
            self._suspended = Suspended(self._store.suspensions())
            self._read_at = now

    def given_back(self, claim: Claim) -> Released | None:
        """How a claim is given back of which all who wait are suspended; None where it is not."""
        withheld = self._withheld(claim)
        # Nearly always there is none, and it is asked of every claim.
        if not withheld or len(withheld) < len(claim.recipients):
            return None
        return given_back(claim, withheld.values(), self._clock.now(), self._rng)

    def screen(self, claim: Claim, *, interruptible: bool = False) -> Screened | Released | None:
        """Who of a claim's recipients may be handed over; None: all of them.

        *interruptible*: the thread is its caller's, and what interrupts it
        is not the suppress's doing.
        """
        if not self.asks:
            return None
        withheld = self._withheld(claim, interruptible)
        left = [r for r in claim.recipients if r not in withheld]
        if not left:
            return given_back(claim, withheld.values(), self._clock.now(), self._rng)
        return screened(claim.recipients, withheld, self._refused(claim.message, left, interruptible))

    def _withheld(self, claim: Claim, interruptible: bool = False) -> Mapping[str, Suspension]:
        suspended = self._suspended
        if not suspended:
            return {}
        keys: dict[str, str] = {}
        if suspended.names_relays:
            by_relay = shares(self._transport, claim.message, claim.recipients, interruptible=interruptible)
            keys = {recipient: key or self._name for key, share in by_relay.items() for recipient in share}
        return suspended.withheld(claim, keys, self._clock.now())

    def _refused(
        self, message: Message, recipients: Sequence[str], interruptible: bool
    ) -> Mapping[str, Result]:
        if self._suppress is None:
            return {}
        try:
            return suppressed(self._suppress(message, tuple(recipients)), recipients)
        except BaseException as error:
            if interruptible and not isinstance(error, Exception):
                raise
            _LOG.exception("suppress failed on %s: its recipients are put off", message.id)
            return unsure(error, recipients)

"""Asks the store what this process may send of limits that several keep together: see :mod:`outbox.relay.sharing`."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final

from .breakers import Breakers
from .clock import Clock
from .errors import ConfigurationError, StoreError
from .protocols import Register, Store, SupportsRegister, Transport
from .relay import Draft, Order, RelayLimits, draw
from .values import printable

__all__ = ["Purser", "register_of", "require_register"]

_LOG: Final = logging.getLogger("outbox.runner")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TRIES: Final = 20
_BACK_OFF: Final = 0.2
_BACK_OFF_AT_MOST: Final = 5.0
_FAILURES: Final = 5
"""After so many in a row nobody keeps claims any more for what the store may say in a moment."""
_LONG: Final = 60.0
_PATIENCE: Final = 5.0


def register_of(key: str, transport: Transport) -> str:
    """The name of the register of a relay: the same for all who call it the same, as ``outbox status`` shows it."""
    name: object = key or getattr(transport, "name", "")
    digest = hashlib.sha256(str(name).encode("utf-8", "backslashreplace")).hexdigest()
    return f"limits-{digest[:32]}"


def require_register(limits: Mapping[str, RelayLimits], store: Store) -> None:
    """Raise ConfigurationError where these limits are to be shared and the store keeps no register for them."""
    shared = [key for key, each in limits.items() if each.shared]
    if shared and not isinstance(store, SupportsRegister):
        raise ConfigurationError(
            f"limits are shared (of {', '.join(sorted(shared))}), and {type(store).__name__} cannot keep what several "
            "processes share (SupportsRegister): use a store of PostgreSQL or Redis, or say shared=False and give each "
            "process its part, RelayLimits(…).among(processes)"
        )


class Purser:
    """Draws permits for all relays whose limits are shared; safe from many threads, and holds no lock while it asks.

    Where the store cannot be asked nothing more goes to such a relay: that is
    said once, and so is its end.
    """

    def __init__(
        self,
        store: SupportsRegister,
        transport: Transport,
        breakers: Breakers,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._transport = transport
        self._breakers = breakers
        self._clock = clock
        self._rng = rng
        self._failures = 0

    def serve(self, until: Callable[[], bool]) -> bool:
        """Wait until something is wanted, and draw it; whether anything was drawn."""
        return self._draw_all(self._breakers.await_orders(_LONG, until), until)

    def draw(self, keys: Collection[str]) -> None:
        """Draw what is wanted now of these relays, in this thread; what another is drawing for them is waited for.

        It begins no look at a register after five seconds.
        """
        deadline = self._clock.monotonic() + _PATIENCE
        orders = self._breakers.await_orders(0.0, lambda: True, keys)
        self._draw_all(orders, lambda: self._clock.monotonic() >= deadline)
        self._breakers.await_drawn(keys, max(0.0, deadline - self._clock.monotonic()))

    def _draw_all(self, orders: Mapping[str, Order], over: Callable[[], bool]) -> bool:
        left = deque(orders.items())
        refused = 0.0
        try:
            # A store that cannot be asked for one of them cannot be for the others.
            while left and not refused and not over():
                refused = self._draw(*left.popleft())
        finally:
            # An order that nobody answers would keep its relay from asking again.
            for key, _ in left:
                self._breakers.refused(key, refused, again=self._failures >= _FAILURES)
        return bool(orders)

    def _draw(self, key: str, order: Order) -> float:
        """For how long the store is not to be asked again."""
        try:
            drawn = self._drawn(register_of(key, self._transport), order)
            self._breakers.drawn(key, *drawn)
        except StoreError as error:
            return self._failed(key, error)
        except BaseException:
            # Whatever it was, the next one may ask.
            self._breakers.refused(key, _BACK_OFF_AT_MOST)
            raise
        self._mended()
        return 0.0

    def _drawn(self, name: str, order: Order) -> tuple[Draft, float, float, int]:
        first = begun = self._clock.monotonic()
        found: Register = self._store.register(name)
        for _ in range(_TRIES):
            ended = self._clock.monotonic()
            at = _nanos(found)
            draft = draw(order, found.text, at, ended - first, ended - begun)
            if draft.text is None:
                return draft, begun, ended, at
            asked = self._clock.monotonic()
            stands = self._store.swap(name, found.text, draft.text)
            if stands is None:
                return draft, begun, ended, at
            found, begun = stands, asked
        # So many are at it that this one comes later.
        return Draft(None), begun, self._clock.monotonic(), _nanos(found)

    def _failed(self, key: str, error: StoreError) -> float:
        self._failures += 1
        wait = _back_off(self._failures) * self._rng.uniform(0.5, 1.0)
        self._breakers.refused(key, wait, again=self._failures >= _FAILURES)
        if self._failures == 1:
            _LOG.warning(
                "the store cannot be asked what may go to %s, whose limits are shared: nothing does until it can be: %s",
                printable(key) or "the relay",
                error,
            )
        return wait

    def _mended(self) -> None:
        if self._failures:
            self._failures = 0
            _LOG.info("the store can be asked again what may go to relays whose limits are shared")


def _back_off(failures: int) -> float:
    return min(_BACK_OFF * 2.0 ** min(failures, 10), _BACK_OFF_AT_MOST)


def _nanos(register: Register) -> int:
    # Whole numbers: a float of seconds since 1970 is not exact enough.
    return (register.at - _EPOCH) // dt.timedelta(microseconds=1) * 1000

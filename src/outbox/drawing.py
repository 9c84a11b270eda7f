"""Asks the store what this process may send of limits that several keep together: see :mod:`outbox.relay.sharing`."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import attrs

from .breakers import Breakers
from .clock import Clock
from .errors import ConfigurationError, StoreError, StoreUnavailable
from .protocols import Register, Store, SupportsRegister, Swap, Transport
from .relay import LATE, Draft, Drawn, Order, RelayLimits, draw
from .values import printable

__all__ = ["Purser", "register_of", "require_register"]

_LOG: Final = logging.getLogger("outbox.runner")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TRIES: Final = 20
_BACK_OFF: Final = 0.2
_BACK_OFF_AT_MOST: Final = 5.0
_FAILURES: Final = 5
"""After so many in a row nobody keeps claims any more for what the store may say in a moment."""
_FAR: Final = LATE
"""Seconds for both round trips of a draw: where they take no longer the store is not to blame that nothing is used."""
_TOGETHER: Final = 500
"""So many registers are asked for at once."""
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


@attrs.frozen
class _Ordered:
    """What a relay wants of its register."""

    key: str
    order: Order


class Purser:
    """Draws permits for all relays whose limits are shared; safe from many threads, and holds no lock while it asks.

    Where the store cannot be asked, or not in time, nothing more goes to such
    a relay: that is said once, and so is its end.

    Attributes:
        given_up: Why somebody was told not to wait for the store any more; None where nobody ever was.
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
        self._far = False
        self.given_up: StoreError | None = None

    def serve(self, until: Callable[[], bool], tell: Callable[[], object] = lambda: None) -> None:
        """Wait until something is wanted, and draw it; *tell* is called whenever relays were answered, before others are."""
        self._draw_all(self._breakers.await_orders(_LONG, until), until, tell)

    def draw(self, keys: Collection[str]) -> None:
        """Draw what is wanted now of these relays, in this thread; what another is drawing for them is waited for.

        It begins no look at registers after five seconds.
        """
        deadline = self._clock.monotonic() + _PATIENCE
        orders = self._breakers.await_orders(0.0, lambda: True, keys)
        self._draw_all(orders, lambda: self._clock.monotonic() >= deadline, lambda: None)
        self._breakers.await_drawn(keys, max(0.0, deadline - self._clock.monotonic()))

    def _draw_all(
        self, orders: Mapping[str, Order], over: Callable[[], bool], tell: Callable[[], object]
    ) -> None:
        left = dict(orders)
        refused = 0.0
        try:
            # A store that cannot be asked for some of them cannot be for the others.
            while left and not refused and not over():
                refused = self._draw(self._together(left), tell)
        finally:
            # An order that nobody answers would keep its relay from asking again.
            self._breakers.refused(left, refused, again=self._failures >= _FAILURES)
            if orders:
                tell()

    def _together(self, left: dict[str, Order]) -> dict[str, _Ordered]:
        """Those that are asked for at once, by the names of their registers, and no longer among those that are left."""
        found: dict[str, _Ordered] = {}
        for key in list(left)[:_TOGETHER]:
            name = register_of(key, self._transport)
            if name not in found:
                found[name] = _Ordered(key, left.pop(key))
        return found

    def _draw(self, ordered: dict[str, _Ordered], tell: Callable[[], object]) -> float:
        """For how long the store is not to be asked again; who was answered is no longer among *ordered*."""
        try:
            for drawn in self._looked(ordered):
                given = {ordered[name].key: each for name, each in drawn.items()}
                self._heed(given, self._breakers.drawn(given))
                for name in drawn:
                    del ordered[name]
                if ordered:
                    tell()
        except StoreError as error:
            return self._failed([each.key for each in ordered.values()], error)
        except BaseException:
            # Whatever it was, the next one may ask.
            self._breakers.refused([each.key for each in ordered.values()], _BACK_OFF_AT_MOST)
            raise
        self._mended()
        return 0.0

    def _looked(self, ordered: Mapping[str, _Ordered]) -> Iterator[Mapping[str, Drawn]]:
        """What became of some, until it is known of all: who is answered goes from *ordered* before the next look."""
        first = begun = self._clock.monotonic()
        found = self._store.registers(list(ordered))
        for _ in range(_TRIES):
            ended = self._clock.monotonic()
            drafts = {
                name: draw(each.order, found[name].text, _nanos(found[name]), ended - first, ended - begun)
                for name, each in ordered.items()
            }
            swaps = {
                name: Swap(found[name].text, draft.text)
                for name, draft in drafts.items()
                if draft.text is not None
            }
            asked = self._clock.monotonic()
            stands = self._store.swap(swaps) if swaps else {}
            yield {
                name: Drawn(draft, begun, ended, _nanos(found[name]))
                for name, draft in drafts.items()
                if name not in stands
            }
            if not ordered:
                return
            found, begun = stands, asked
        # So many are at it that these come later.
        ended = self._clock.monotonic()
        yield {name: Drawn(Draft(None), begun, ended, _nanos(found[name])) for name in ordered}

    def _failed(self, keys: Sequence[str], error: StoreError) -> float:
        self._failures += 1
        if self._failures >= _FAILURES:
            self.given_up = error
        wait = _back_off(self._failures) * self._rng.uniform(0.5, 1.0)
        self._breakers.refused(keys, wait, again=self._failures >= _FAILURES)
        if self._failures == 1:
            _LOG.warning(
                "the store cannot be asked what may go to %s, whose limits are shared: nothing does until it can be: %s",
                _named(keys),
                error,
            )
        return wait

    def _heed(self, given: Mapping[str, Drawn], vain: Mapping[str, int]) -> None:
        """A store that answers so late that what it gives is of no use any more is one that cannot be asked."""
        took = self._clock.monotonic() - min((each.begun for each in given.values()), default=math.inf)
        late = [key for key, times in vain.items() if times > _FAILURES] if took > _FAR else []
        if not late:
            if self._far and took <= _FAR and 1 in vain.values():
                self._far = False
                _LOG.info(
                    "the store answers in time what may go to relays whose limits are shared (%.2f s)", took
                )
            return
        text = (
            f"it took {took:.2f} s to say what may go to {_named(late)}, and that is of use for {LATE:g} s: "
            f"of what was drawn {_FAILURES} times in a row nothing was used"
        )
        self.given_up = StoreUnavailable(f"the store is too far away to share limits: {text}")
        self._breakers.refused(late, _BACK_OFF_AT_MOST * self._rng.uniform(0.5, 1.0), again=True)
        if not self._far:
            self._far = True
            _LOG.warning(
                "the store is too far away to share limits, and little or nothing goes: %s; keep it near, or give "
                "each process its part, RelayLimits(…).among(processes)",
                text,
            )

    def _mended(self) -> None:
        if self._failures:
            self._failures = 0
            _LOG.info("the store can be asked again what may go to relays whose limits are shared")


def _named(keys: Sequence[str]) -> str:
    others = f" and {len(keys) - 1} others" if len(keys) > 1 else ""
    return f"{printable(keys[0]) or 'the relay'}{others}"


def _back_off(failures: int) -> float:
    return min(_BACK_OFF * 2.0 ** min(failures, 10), _BACK_OFF_AT_MOST)


def _nanos(register: Register) -> int:
    # Whole numbers: a float of seconds since 1970 is not exact enough.
    return (register.at - _EPOCH) // dt.timedelta(microseconds=1) * 1000

"""What is known of the relays, shared by all who speak to them: safe from their threads, and after a fork."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import attrs

from .clock import Clock
from .errors import RelayFault
from .relay import Admission, Condition, Drawn, Go, Order, Pause, RelayLimits, Relays, Wait, limits_by_key

__all__ = ["Breakers"]

R = TypeVar("R")


@attrs.define(eq=False)
class _Known:
    """What one process knows; *probers* are the threads of the probes under way."""

    relays: Relays
    pid: int = attrs.Factory(os.getpid)
    changed: threading.Condition = attrs.Factory(threading.Condition)
    probers: dict[str, int] = attrs.Factory(dict)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Where something is to be asked of registers sooner than it was, whoever draws is woken; nobody else is for it."""
        before = self.relays.next_order
        yield
        if self.relays.next_order < before:
            self.changed.notify_all()


class Breakers:
    """:class:`~outbox.relay.Relays` for several threads, some of which wait for what another's probe brings.

    A forked child begins anew: none of its threads would report its parent's
    probes.  *who* tells those who ask apart.

    Attributes:
        shares: Whether any limits are kept by several processes, and somebody has to draw for this one.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        hasty: bool = False,
        limits: RelayLimits | Mapping[str, RelayLimits] | None = None,
        who: Callable[[], int] = threading.get_ident,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._hasty = hasty
        self._limits = limits_by_key(limits)
        self.shares: Final = any(each.shared for each in self._limits.values())
        self._who = who
        self._known = self._anew()

    def apart(self, *, hasty: bool) -> Breakers:
        """Others with the same limits, who know nothing of the relays yet."""
        return Breakers(self._clock, self._rng, hasty=hasty, limits=self._limits, who=self._who)

    def closed_for(self, key: str) -> Wait | None:
        """Why nothing may be handed over now; without taking the probe."""
        known = self._here()
        with known.changed:
            return known.relays.closed_for(key, self._clock.monotonic())

    def conditions(self, most: int = 100) -> Sequence[Condition]:
        """How *most* of the relays are found now, those that are not well first; by key."""
        known = self._here()
        with known.changed:
            return known.relays.conditions(self._clock.monotonic(), most)

    def admit(
        self, keys: Collection[str], message: str, *, patience: float, wanted: int | None = None
    ) -> Mapping[str, Admission] | Wait:
        """May the message of this id go to these relays, and up to *wanted* messages with it?

        With *wanted* each Go takes a connection, until :meth:`leave`.

        A Wait for all, and nothing is taken, where one is being probed and
        has been for less than *patience* seconds: see :meth:`await_report`.
        """
        known, here = self._here(), self._who()
        now = self._clock.monotonic()
        with known.changed:
            # Who is sent for by a delivery of this very thread would wait for himself.
            own = {key for key in keys if known.probers.get(key) == here}
            others = [key for key in keys if key not in own]
            for key in others:
                closed = known.relays.closed_for(key, now)
                if closed is not None and closed.probing and closed.under_way < patience:
                    return closed
            with known.drawing():
                found = {key: known.relays.admit(key, now, message, wanted) for key in others}
                joined = {key: known.relays.join(key, now, wanted) for key in own}
            known.probers.update((key, here) for key, go in found.items() if isinstance(go, Go) and go.probe)
            return {**found, **joined}

    def insist(self, key: str, message: str) -> None:
        """The message of this id goes to this relay, however it is."""
        known = self._here()
        with known.changed, known.drawing():
            known.relays.insist(key, self._clock.monotonic(), message)
            known.probers[key] = self._who()

    def await_report(
        self, keys: Collection[str], seconds: float, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until none of these is being probed, for *seconds* at most; *until* is asked again at :meth:`wake`."""
        known = self._here()
        with known.changed:
            known.changed.wait_for(
                lambda: until() or not any(known.relays.probing(key) for key in keys), max(0.0, seconds)
            )

    def leave(self, key: str, go: Go, *, unused: int = 0, well: bool = True, in_vain: bool = False) -> None:
        """A connection that was taken is free; see :meth:`outbox.relay.Relays.leave`."""
        now = self._clock.monotonic()
        self._report(
            key, lambda relays: relays.leave(key, now, go, unused=unused, well=well, in_vain=in_vain)
        )

    def put_off(self, key: str) -> dt.timedelta:
        """How long a message of this relay is given back for, that may not go now: not all for as long."""
        now = self._clock.monotonic()
        return self._report(key, lambda relays: relays.put_off(key, now))

    def answered(self, key: str, message: str) -> bool:
        """The relay answered; True where that ended a pause."""
        return self._report(key, lambda relays: relays.answered(key, message))

    def failed(self, key: str, fault: RelayFault, message: str) -> Pause:
        """The relay failed; how long it is left alone."""
        now = self._clock.monotonic()
        return self._report(key, lambda relays: relays.failed(key, fault, now, message))

    def cut(self, key: str, message: str, relay: str = "") -> Pause | None:
        """The connection was lost in the middle of the message; the pause, where it is the relay's doing."""
        now = self._clock.monotonic()
        return self._report(key, lambda relays: relays.cut(key, now, message, relay))

    def slow(self, key: str, per_second: float, lasting: dt.timedelta) -> None:
        """The relay is given so much at most, for so long."""
        now = self._clock.monotonic()
        self._report(key, lambda relays: relays.slow(key, now, per_second, lasting.total_seconds()))

    def abandon(self, key: str, message: str) -> None:
        """Nothing was learned from the probe, if it was this message: another may go."""
        self._report(key, lambda relays: relays.abandon(key, message))

    # -- limits that are kept by several processes

    def await_orders(
        self, seconds: float, until: Callable[[], bool], keys: Collection[str] | None = None
    ) -> Mapping[str, Order]:
        """Wait for what is to be asked of registers, for *seconds* at most; *until* as for :meth:`await_report`.

        *keys*: of these relays only.
        Each is answered by :meth:`drawn` or :meth:`refused`.
        """
        known = self._here()
        deadline = self._clock.monotonic() + seconds
        with known.changed:
            while True:
                now = self._clock.monotonic()
                orders = known.relays.orders(now, keys)
                if orders or until() or now >= deadline:
                    return orders
                known.changed.wait(max(0.0, min(deadline, known.relays.next_order) - now))

    def await_drawn(self, keys: Collection[str], seconds: float) -> None:
        """Wait until no order for these relays is under way, for *seconds* at most."""
        known = self._here()
        with known.changed:
            known.changed.wait_for(
                lambda: not any(known.relays.asking(key, self._clock.monotonic()) for key in keys), seconds
            )

    def drawn(self, found: Mapping[str, Drawn]) -> Mapping[str, int]:
        """The registers of these relays gave so much; how often in a row they gave in vain, as :meth:`outbox.relay.Relays.drawn`."""
        known, now = self._here(), self._clock.monotonic()
        with known.changed:
            vain = {key: known.relays.drawn(key, each, now) for key, each in found.items()}
            if found:
                known.changed.notify_all()
        return vain

    def refused(self, keys: Collection[str], seconds: float, *, again: bool = False) -> None:
        """They could not be asked: nothing goes there for so long; *again*: as they could not several times before."""
        known, now = self._here(), self._clock.monotonic()
        with known.changed:
            for key in keys:
                known.relays.refused(key, now + seconds, now, again=again)
            if keys:
                known.changed.notify_all()

    def wake(self) -> None:
        """Let all who wait ask whether they still have to."""
        known = self._here()
        with known.changed:
            known.changed.notify_all()

    def _report(self, key: str, report: Callable[[Relays], R]) -> R:
        known = self._here()
        with known.changed:
            with known.drawing():
                result = report(known.relays)
            if not known.relays.probing(key) and known.probers.pop(key, None) is not None:
                known.changed.notify_all()
        return result

    def _here(self) -> _Known:
        if self._known.pid != os.getpid():
            self._known = self._anew()
        return self._known

    def _anew(self) -> _Known:
        relays = Relays(self._rng, hasty=self._hasty, limits=self._limits)
        return _Known(relays, changed=self._condition())

    def _condition(self) -> threading.Condition:
        return threading.Condition()

"""Several processes that keep one relay's rates together, simulated: their clocks, a store that takes its time, and crashes."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from outbox.relay import Draft, Drawn, Go, Order, RelayLimits, Relays, draw
from outbox.relay.rates import LIMITS_OF_CONNECTIONS, LIMITS_OF_MESSAGES, Limit
from outbox.relay.sharing import LATE, LATE_TO_CONNECT

__all__ = ["NANO", "NOW", "SHARED", "Host", "Sent", "Town", "order", "passed", "permits", "worst_window"]

SHARED = RelayLimits(per_second=200, shared=True)
NANO = 1_000_000_000
NOW = 1_750_000_000 * NANO
STORE_SINCE = 1_750_000_000
"""The store's clock, in seconds, when a simulation begins."""


@attrs.frozen
class Sent:
    """So many messages that a host let go."""

    at: float
    number: int
    host: int


class Town:
    """The register, the time, and what happens next."""

    def __init__(self, seed: int, *, latency: float = 0.002) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.text: str | None = None
        self.latency = latency
        self.down = False
        self.sent: list[Sent] = []
        self.asked = 0
        self._number = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + max(0.0, seconds), next(self._number), act))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until

    def lag(self) -> float:
        """How long one way to the store takes."""
        return self.latency * self.rng.uniform(0.2, 2.0)

    @property
    def at(self) -> int:
        """The store's clock in nanoseconds, whole microseconds."""
        return (STORE_SINCE * 1_000_000 + math.floor(self.now * 1_000_000)) * 1000

    def total(self, host: int | None = None) -> int:
        return sum(each.number for each in self.sent if host in (None, each.host))


class Host:
    """One process: a worker who always asks again, and whoever draws for him.

    Args:
        backlog: So many messages it has to send; more come by :meth:`submit`.
        size: So many it wants at a time.
        took: How long it is at work on those that may go.
    """

    def __init__(
        self,
        town: Town,
        number: int,
        limits: RelayLimits,
        *,
        backlog: float = math.inf,
        size: int = 100,
        took: float = 0.0,
    ) -> None:
        self.town, self.number = town, number
        self.backlog, self.size, self.took = backlog, size, took
        self.offset = town.rng.uniform(0, 1e6)
        self.relays = Relays(town.rng, limits=limits)
        self.alive = True
        self._turn = 0
        town.after(town.rng.uniform(0, 0.01), self.work)

    @property
    def clock(self) -> float:
        """Its own, which nobody else's agrees with."""
        return self.town.now + self.offset

    def submit(self, number: int) -> None:
        self.backlog += number
        self._again(0.0)

    def crash(self) -> None:
        self.alive = False

    def _again(self, seconds: float) -> None:
        self._turn += 1
        turn = self._turn
        self.town.after(seconds, lambda: self.work() if turn == self._turn else None)

    def work(self) -> None:
        if not self.alive or not self.backlog:
            return
        now = self.clock
        message = f"m{self.number}-{now}"
        answer = self.relays.admit("mx", now, message, wanted=self.size)
        self._serve()
        if not isinstance(answer, Go):
            self._again(answer.delay.total_seconds())
            return
        went = int(min(answer.number, self.backlog))
        self.backlog -= went
        self.town.sent.append(Sent(self.town.now, went, self.number))
        self.relays.answered("mx", message)
        self.town.after(self.took, lambda: self._done(answer, answer.number - went))

    def _done(self, go: Go, unused: int) -> None:
        if self.alive:
            self.relays.leave("mx", self.clock, go, unused=unused)
            self._again(0.0)

    # -- who draws

    def _serve(self) -> None:
        if not self.alive:
            return
        now = self.clock
        for order in self.relays.orders(now).values():
            self._look(order, now)
        left = self.relays.next_order - now
        if left < math.inf:
            self.town.after(left + 1e-6, self._serve)

    def _look(self, order: Order, begun: float) -> None:
        town = self.town
        town.asked += 1

        def read() -> None:
            if town.down:
                town.after(town.lag(), self._refused)
                return
            text, at = town.text, town.at
            town.after(town.lag(), lambda: self._swap(order, begun, begun, text, at))

        town.after(town.lag(), read)

    def _refused(self) -> None:
        if self.alive:
            self.relays.refused("mx", self.clock + self.town.rng.uniform(0.1, 2.0), self.clock)

    def _swap(self, order: Order, first: float, begun: float, text: str | None, at: int) -> None:
        town, ended = self.town, self.clock
        draft = draw(order, text, at, ended - first, ended - begun)
        if draft.text is None:
            self._laid(draft, begun, ended, at)
            return
        asked = self.clock

        def write() -> None:
            # What was sent is written, whether the process lives to hear of it or not.
            if town.text == text:
                town.text = draft.text
                town.after(town.lag(), lambda: self._laid(draft, begun, ended, at))
            else:
                text_now, at_now = town.text, town.at
                town.after(town.lag(), lambda: self._swap(order, first, asked, text_now, at_now))

        if self.alive:
            town.after(town.lag(), write)

    def _laid(self, draft: Draft, begun: float, ended: float, at: int) -> None:
        if self.alive:
            self.relays.drawn("mx", Drawn(draft, begun, ended, at), self.clock)
            self._again(0.0)
            self._serve()


def allowed(kind: Limit, limits: RelayLimits) -> tuple[float, float]:
    """The burst of a limit, and its messages a second."""
    number: Any = kind.of(limits)
    late = LATE_TO_CONNECT if kind in LIMITS_OF_CONNECTIONS else LATE
    kept = late * number / kind.period
    return max(1, math.floor(number * kind.share - kept + 1e-9)) + kept, number / kind.period


def worst_window(sent: Sequence[Sent], limits: RelayLimits) -> float:
    """By how many messages the worst of all windows passes what any limit lets go in it; below 0 where none does."""
    kinds = [kind for kind in LIMITS_OF_MESSAGES if kind.of(limits) is not None]
    return max((passed(sent, *allowed(kind, limits)) for kind in kinds), default=-math.inf)


def passed(sent: Sequence[Sent], burst: float, rate: float) -> float:
    """The greatest sum of a window beyond its due, in one pass: as in the search for the greatest part of a sum."""
    worst, running, last = -math.inf, 0.0, 0.0
    for each in sent:
        running = max(0.0, running - (each.at - last) * rate) + each.number
        last, worst = each.at, max(worst, running)
    return worst - burst


def permits(order: Order, text: str | None, at: int) -> tuple[int, float, str | None]:
    draft = draw(order, text, at)
    return draft.messages.number, draft.messages.opens, draft.text


def order(messages: int = 1000, limits: RelayLimits = SHARED, **more: Any) -> Order:
    return Order(limits=limits, messages=messages, **more)

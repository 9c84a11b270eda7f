"""A relay that was down for a day, with 100,000 messages due, and is then up again: what comes over it, second by second.

A simulation: nothing is sent, and no clock is read.  It asks what a Runner
asks (:class:`outbox.relay.Relays`), with a relay that takes a message in ten
milliseconds over each of eight connections and no more over further ones.

Where it is the only relay nothing is claimed while it is down, and all is due
when it is up.  As one of several its messages are claimed and given back
(``--several``), and come as they were told to.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import plot

from outbox.errors import RelayUnavailable
from outbox.relay import Go, RelayLimits, Relays, Wait

_DAY: Final = 86400.0
_AN_HOUR: Final = 3600.0
_DUE: Final = 100_000
_KEY: Final = "mx"
_TAKES: Final = 0.01
_AT_ONCE: Final = 8
_OPENING: Final = 0.05
_SHOWN: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60, 120, 180, 240)
_DOWN: Final = RelayUnavailable("mx.example:25", "connection refused")


@attrs.define
class Curve:
    """What was seen, by the second since the relay was up."""

    delivered: Counter[int] = attrs.Factory(Counter)
    connections: Counter[int] = attrs.Factory(Counter)
    batch: Counter[int] = attrs.Factory(Counter)
    given_back: Counter[int] = attrs.Factory(Counter)
    probes: int = 0
    up_at: float = _DAY

    def second(self, now: float) -> int:
        return int(now - self.up_at)

    @property
    def last(self) -> int:
        return max(self.delivered)

    @property
    def found(self) -> int:
        """After how many seconds it was found to be up."""
        return min(self.delivered)


class Day:
    """The last hour of the outage, in which all is due; and what follows, until all is delivered."""

    def __init__(self, seed: int, due: int, limits: RelayLimits | None, *, several: bool) -> None:
        self.several = several
        self.relays = Relays(random.Random(seed), limits=limits)
        self.curve = Curve()
        self.due = due
        self.asleep: list[tuple[float, int]] = []
        self.ready: list[int] = list(range(due))
        self.under_way: list[tuple[float, int, Sequence[int], Go]] = []
        self.number = 0

    def run(self) -> Curve:
        self._before()
        now = self._outage(_DAY - _AN_HOUR)
        while sum(self.curve.delivered.values()) < self.due:
            self._wake(now)
            soonest = self._serve(now)
            now = min(self._next(), soonest)
            while self.under_way and self.under_way[0][0] <= now:
                self._end(*heapq.heappop(self.under_way))
        return self.curve

    def _before(self) -> None:
        """Half a minute in which it was well: 800 messages a second."""
        for now in range(-300, 0):
            taken: list[Go] = []
            while isinstance(go := self.relays.admit(_KEY, now / 10, "well", wanted=4), Go):
                taken.append(go)
                self.relays.answered(_KEY, "well")
            for go in taken:
                self.relays.leave(_KEY, now / 10, go)

    def _outage(self, until: float) -> float:
        """The probes of the first hours, each of which fails."""
        now = 0.0
        while now < until:
            self.number += 1
            go = self.relays.admit(_KEY, now, f"early {self.number}", wanted=1)
            if isinstance(go, Go):
                self.curve.probes += 1
                self.relays.failed(_KEY, _DOWN, now, f"early {self.number}")
                self.relays.leave(_KEY, now, go, well=False)
            closed = self.relays.closed_for(_KEY, now)
            now += closed.delay.total_seconds() if closed else 1.0
        return now

    def _wake(self, now: float) -> None:
        while self.asleep and self.asleep[0][0] <= now:
            self.ready.append(heapq.heappop(self.asleep)[1])

    def _next(self) -> float:
        ends = [heap[0][0] for heap in (self.asleep, self.under_way) if heap]
        return min(ends, default=float("inf"))

    def _serve(self, now: float) -> float:
        """Hand over what may be; the moment at which it is worth asking again."""
        while self.ready:
            answer = self.relays.admit(_KEY, now, str(self.ready[-1]), wanted=min(100, len(self.ready)))
            if isinstance(answer, Wait):
                return self._kept(answer, now)
            self._begin(answer, now)
        return float("inf")

    def _kept(self, wait: Wait, now: float) -> float:
        if wait.fault is None or wait.probing or not self.several:
            return now + wait.delay.total_seconds()
        self.curve.given_back[self.curve.second(now)] += len(self.ready)
        for message in self.ready:
            heapq.heappush(self.asleep, (now + self.relays.put_off(_KEY, now).total_seconds(), message))
        self.ready = []
        return float("inf")

    def _begin(self, go: Go, now: float) -> None:
        batch = [self.ready.pop() for _ in range(go.number)]
        crowd = max(1.0, (len(self.under_way) + 1) / _AT_ONCE)
        takes = _OPENING + (_TAKES * crowd * len(batch) if now >= _DAY else 0.0)
        heapq.heappush(self.under_way, (now + takes, batch[0], batch, go))
        second = self.curve.second(now)
        self.curve.connections[second] = max(self.curve.connections[second], len(self.under_way))
        self.curve.batch[second] = max(self.curve.batch[second], len(batch))
        self.curve.probes += go.probe

    def _end(self, now: float, first: int, batch: Sequence[int], go: Go) -> None:
        if now < _DAY:
            self.relays.failed(_KEY, _DOWN, now, str(first))
            self.relays.leave(_KEY, now, go, unused=len(batch), well=False)
            self.ready += batch
            return
        self.relays.answered(_KEY, str(first))
        self.relays.leave(_KEY, now, go)
        self.curve.delivered[self.curve.second(now)] += len(batch)


def rows(curve: Curve) -> Iterator[str]:
    yield "| seconds since it was found to be up | connections | messages in a batch | messages a second | delivered |"
    yield "|---:|---:|---:|---:|---:|"
    for shown in (*(each for each in _SHOWN if curve.found + each < curve.last), curve.last - curve.found):
        second = curve.found + shown
        total = sum(number for at, number in curve.delivered.items() if at <= second)
        around = [curve.delivered[at] for at in range(max(curve.found, second - 2), second + 1)]
        rate = sum(around) / len(around)
        # Where batches take longer than a second none may begin in one.
        connections, batch = (
            max(each[second - 1], each[second]) for each in (curve.connections, curve.batch)
        )
        yield f"| {shown} | {connections} | {batch} | {rate:,.0f} | {total:,} |"


def words(curve: Curve) -> str:
    # All come at the beginning of the hour; from then on as they were told to.
    came = [number for second, number in sorted(curve.given_back.items())][1:]
    told = f"; {sum(came):,} came too early in an hour, {max(came):,} in a second at most" if came else ""
    return f"{curve.probes} probes in the day; found to be up after {curve.found} s{told}"


def drawing(curve: Curve) -> str:
    panels = [
        ("Connections in use", _smooth(curve.connections, curve, max)),
        ("Messages in a batch", _smooth(curve.batch, curve, max)),
        ("Messages a second", _smooth(curve.delivered, curve, lambda some: sum(some) / len(some))),
    ]
    title = "A relay that was down for a day, with 100,000 messages due"
    parts = [
        plot.text(0, 16, title, "title"),
        plot.text(0, 36, "Seconds since it was found to be up", "quiet"),
    ]
    for number, (name, values) in enumerate(panels):
        parts += _panel(name, values, 60 + number * 130)
    return plot.page(title, parts, 60 + len(panels) * 130)


def _smooth(seen: Counter[int], curve: Curve, of: Callable[[Sequence[float]], float]) -> Sequence[float]:
    """By the second, over three seconds: a batch takes one, and is counted when it ends."""
    return [
        of([seen[each] for each in range(max(curve.found, second - 2), second + 1)])
        for second in range(curve.found, curve.last)
    ]


def _panel(name: str, values: Sequence[float], top: float) -> Iterator[str]:
    left, width, height = 60.0, plot.WIDTH - 80.0, 80.0
    most, last = max(values) or 1, max(1, len(values) - 1)
    bottom = top + 10 + height
    points = " ".join(
        f"{left + width * second / last:.1f},{bottom - height * value / most:.1f}"
        for second, value in enumerate(values)
    )
    yield plot.text(0, top, name, "title")
    yield plot.text(left - 8, top + 20, f"{most:,.0f}", "quiet", end=True)
    yield f'<line class="axis" x1="{left}" y1="{bottom}" x2="{left + width}" y2="{bottom}"/>'
    yield f'<polyline class="line" points="{points}"/>'
    yield plot.text(left, bottom + 16, "0", "quiet")
    yield plot.text(left + width, bottom + 16, f"{last:,} s", "quiet", end=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--due", type=int, default=_DUE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--several", action="store_true", help="it is one of several relays")
    parser.add_argument("--per-second", type=float)
    parser.add_argument("--record", type=Path, metavar="ROOT", help="keep the plot in ROOT/docs/img/ramp.svg")
    options = parser.parse_args(arguments)
    curve = Day(
        options.seed, options.due, RelayLimits(per_second=options.per_second), several=options.several
    ).run()
    print(words(curve), *rows(curve), sep="\n")
    if options.record:
        (options.record / "docs" / "img" / "ramp.svg").write_text(drawing(curve), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

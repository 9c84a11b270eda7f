"""Timing: one lap of work on some threads, races of laps in turn, and what is said of them.

Standard library only: the peers' processes import it too, and have no attrs.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

__all__ = ["Entrant", "Lap", "Spread", "lap", "percentile", "race", "ratios", "spread"]

T = TypeVar("T")


class Lap(NamedTuple):
    """*waits* are the seconds that each call took."""

    messages: int
    seconds: float
    waits: Sequence[float] = ()

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


class Entrant(NamedTuple):
    """Who takes part in a race; *run* prepares untimed and returns one lap."""

    name: str
    run: Callable[[], Lap]


class Spread(NamedTuple):
    median: float
    low: float
    high: float


def lap(call: Callable[[T], Any], items: Sequence[T], *, threads: int = 1, size: int = 1) -> Lap:
    """Time *call* over *items*, shared by *threads*; each item is *size* messages.

    The first item of each thread is not timed: it opens connections.
    """
    barrier = threading.Barrier(threads)

    def work(share: Sequence[T]) -> tuple[float, float, list[float]]:
        try:
            call(share[0])
        except BaseException:
            # The others are not to wait for this one.
            barrier.abort()
            raise
        barrier.wait()
        return _timed(call, share[1:])

    shares = [items[number::threads] for number in range(threads)]
    if threads == 1:
        done = [work(shares[0])]
    else:
        with ThreadPoolExecutor(threads) as pool:
            done = _results([pool.submit(work, share) for share in shares])
    seconds = max(end for _, end, _ in done) - min(start for start, _, _ in done)
    waits = [wait for _, _, each in done for wait in each]
    return Lap(len(waits) * size, seconds, waits)


def _results(futures: Sequence[Future[T]]) -> list[T]:
    errors = [error for each in futures if (error := each.exception()) is not None]
    # The cause first: those who waited for it know nothing.
    for error in sorted(errors, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error
    return [each.result() for each in futures]


def _timed(call: Callable[[T], Any], share: Sequence[T]) -> tuple[float, float, list[float]]:
    waits = []
    before = start = time.perf_counter()
    for item in share:
        call(item)
        now = time.perf_counter()
        waits.append(now - before)
        before = now
    return start, before, waits


def race(entrants: Sequence[Entrant], rounds: int) -> dict[str, list[Lap]]:
    """A lap of each in turn, *rounds* times, so that the machine's moods meet all of them."""
    laps: dict[str, list[Lap]] = {entrant.name: [] for entrant in entrants}
    for _ in range(rounds):
        for entrant in entrants:
            laps[entrant.name].append(entrant.run())
    return laps


def spread(figures: Sequence[float]) -> Spread:
    return Spread(statistics.median(figures), min(figures), max(figures))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of the figures of the same round, each to each."""
    return spread([mine / reference for mine, reference in zip(ours, theirs, strict=True)])


def percentile(figures: Sequence[float], part: float) -> float:
    """The figure below which *part* of them are, 0 to 1."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

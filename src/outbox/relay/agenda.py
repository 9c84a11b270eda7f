"""Whose turn is next."""

from __future__ import annotations

import heapq
import math
from typing import Final

__all__ = ["Agenda"]

_STALE: Final = 100


class Agenda:
    """A moment for each of some keys: to find the soonest, or all that have come, costs the same however many there are."""

    def __init__(self) -> None:
        self._moments: dict[str, float] = {}
        # Beside those that hold also some that held once.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._moments)

    def put(self, key: str, moment: float) -> None:
        """Its moment is this from now on; never, where it is infinite."""
        if self._moments.get(key, math.inf) == moment:
            return
        if moment == math.inf:
            del self._moments[key]
            return
        self._moments[key] = moment
        heapq.heappush(self._heap, (moment, key))
        if len(self._heap) > 2 * len(self._moments) + _STALE:
            self._heap = [(at, each) for each, at in self._moments.items()]
            heapq.heapify(self._heap)

    @property
    def soonest(self) -> float:
        """The first moment; infinite where there is none."""
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def take(self, now: float) -> list[str]:
        """The keys whose moment has come, the first before the others; they have none any more."""
        found = []
        while self.soonest <= now and self._heap:
            _, key = heapq.heappop(self._heap)
            del self._moments[key]
            found.append(key)
        return found

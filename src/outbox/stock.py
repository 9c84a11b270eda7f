"""The claims that lie ready in one process, in lanes: one for each relay, or set of relays, that they go to.

It holds no rule of who gets what: that is the desk's (:mod:`outbox.desk`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import TypeAlias

from .lifecycle import Claim
from .relay import Wait

__all__ = ["Lane", "Stock"]

Lane: TypeAlias = tuple[str, ...]
"""The keys of the relays that a message goes to; almost always one."""


class Stock:
    """Claims in the order that they came, by lane.  *number* of them, with *size* bytes of content."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Claim]] = {}
        self._blocked: dict[Lane, tuple[Wait, float]] = {}
        self.number = 0
        self.size = 0

    @property
    def lanes(self) -> Sequence[Lane]:
        """Those with something in them, the one whose turn it is first."""
        return list(self._lanes)

    def waiting(self, lane: Lane) -> int:
        """How many there are in a lane."""
        return len(self._lanes.get(lane, ()))

    @property
    def blocked(self) -> Sequence[tuple[Lane, Wait, float]]:
        """Those of which nothing may go now, why, and since when, the longest first; what is empty is not blocked."""
        return sorted(((lane, *why) for lane, why in self._blocked.items()), key=itemgetter(2))

    @property
    def held_up(self) -> int:
        """How many there are in those."""
        return sum(self.waiting(lane) for lane in self._blocked)

    def block(self, lane: Lane, wait: Wait, now: float) -> None:
        """Nothing of it may go now."""
        if lane in self._lanes:
            before = self._blocked.get(lane)
            self._blocked[lane] = (wait, now - wait.under_way if before is None else before[1])

    def turn(self, lane: Lane) -> None:
        """It had its turn: the others come first, and nothing blocks it."""
        self._blocked.pop(lane, None)
        if lane in self._lanes:
            self._lanes[lane] = self._lanes.pop(lane)

    def put(self, lane: Lane, claim: Claim, *, first: bool = False) -> None:
        """Lay a claim behind the others of its lane, or before them."""
        claims = self._lanes.setdefault(lane, deque())
        (claims.appendleft if first else claims.append)(claim)
        self.number += 1
        self.size += len(claim.message.content)

    def first(self, lane: Lane) -> Claim | None:
        """The lane's first claim, left where it is."""
        claims = self._lanes.get(lane)
        return claims[0] if claims else None

    def pop(self, lane: Lane) -> Claim:
        """The lane's first claim, taken away."""
        claims = self._lanes[lane]
        claim = claims.popleft()
        if not claims:
            del self._lanes[lane]
            self._blocked.pop(lane, None)
        self.number -= 1
        self.size -= len(claim.message.content)
        return claim

    def clear(self, lane: Lane) -> Sequence[Claim]:
        """All of a lane, taken away."""
        claims = self._lanes.pop(lane, ())
        self._blocked.pop(lane, None)
        self.number -= len(claims)
        self.size -= sum(len(claim.message.content) for claim in claims)
        return list(claims)

    def clear_all(self) -> Sequence[Claim]:
        """All that there is, taken away."""
        return [claim for lane in self.lanes for claim in self.clear(lane)]

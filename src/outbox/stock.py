"""The claims that lie ready in one process, in lanes: one for each relay, or set of relays, that they go to.

It holds no rule of who gets what: that is the desk's (:mod:`outbox.desk`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from .lifecycle import Claim

__all__ = ["Lane", "Stock"]

Lane: TypeAlias = tuple[str, ...]
"""The keys of the relays that a message goes to; almost always one."""


class Stock:
    """Claims in the order that they came, by lane.  *number* of them, with *size* bytes of content."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Claim]] = {}
        self.number = 0
        self.size = 0

    @property
    def lanes(self) -> Sequence[Lane]:
        """Those with something in them, the one whose turn it is first."""
        return list(self._lanes)

    def waiting(self, lane: Lane) -> int:
        """How many there are in a lane."""
        return len(self._lanes.get(lane, ()))

    def turn(self, lane: Lane) -> None:
        """It had its turn: the others come first."""
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
        self.number -= 1
        self.size -= len(claim.message.content)
        return claim

    def clear(self, lane: Lane) -> Sequence[Claim]:
        """All of a lane, taken away."""
        claims = self._lanes.pop(lane, ())
        self.number -= len(claims)
        self.size -= sum(len(claim.message.content) for claim in claims)
        return list(claims)

    def clear_all(self) -> Sequence[Claim]:
        """All that there is, taken away."""
        return [claim for lane in self.lanes for claim in self.clear(lane)]

"""The ids that the memory store still knows when their messages are gone."""

from __future__ import annotations

import attrs

from outbox.moving import Remembered

from .instants import moment
from .retention import Retention

__all__ = ["Tombstones"]


@attrs.frozen
class _Tombstone:
    digest: bytes
    settled: int
    left: bool


class Tombstones:
    """Ids with the digest of their envelopes, each for as long as *retention* says."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._stones: dict[str, _Tombstone] = {}

    def bury(self, id: str, digest: bytes, settled: int, *, left: bool = False) -> None:
        """Keep it; *left* is that of a message that stands in another store from now on."""
        self._stones[id] = _Tombstone(digest, settled, left)

    def remember(self, id: str, digest: bytes, settled: int) -> None:
        """Keep it where none of this id is kept, or that of a message which has left: it came to its end elsewhere."""
        stone = self._stones.get(id)
        if stone is None:
            self.bury(id, digest, settled)
        elif stone.left:
            self.bury(id, stone.digest, max(stone.settled, settled))

    def known(self, now: int) -> list[Remembered]:
        """Those that are known of messages that were settled here."""
        since = self._retention.known_since(now)
        return [
            Remembered(id, stone.digest, moment(stone.settled))
            for id, stone in self._stones.items()
            if not stone.left and stone.settled > since
        ]

    def digest(self, id: str, now: int) -> bytes | None:
        """The digest of an id that is known."""
        stone = self._stones.get(id)
        known = stone is not None and stone.settled > self._retention.known_since(now)
        return stone.digest if stone is not None and known else None

    def has_left(self, id: str) -> bool:
        """Whether it is kept of a message that stands in another store."""
        stone = self._stones.get(id)
        return stone is not None and stone.left

    def forget(self, id: str) -> None:
        self._stones.pop(id, None)

    def prune(self, limit: int, now: int) -> int:
        """Forget up to *limit* of those whose time is over or that are too many, the oldest first."""
        oldest = sorted(self._stones, key=lambda name: (self._stones[name].settled, name))
        since = self._retention.known_since(now)
        over = sum(stone.settled <= since for stone in self._stones.values())
        excess = len(oldest) - self._retention.remember_at_most
        gone = oldest[: min(limit, max(over, excess))]
        for name in gone:
            del self._stones[name]
        return len(gone)

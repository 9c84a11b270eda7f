"""The memory store as the model of another: it can be asked what is due, and follow what that one has claimed."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence

from outbox.lifecycle import Claim
from outbox.protocols import MAX_BYTES
from outbox.stores.instants import later
from outbox.stores.memory import MemoryStore
from outbox.stores.rows import Row

__all__ = ["Model", "require_sound_choice"]


class Model(MemoryStore):
    """Which queue is first the contract leaves to each store; of one that lacks the order, every choice."""

    def due(self, queues: Sequence[str]) -> list[Row]:
        """What can be claimed now, the best first."""
        with self._lock:
            now = self._now()
            served = self._shelf.served(queues, now)
            rows = [row for row in self._shelf.rows.values() if row.message.queue in served]
            there = [row for row in rows if row.standing.queued and row.standing.due <= now]
            return sorted(there, key=lambda row: row.candidate.key)

    def follow(self, ids: Sequence[str], *, lease: dt.timedelta) -> Sequence[Claim]:
        """Claim these, which are due."""
        with self._lock:
            now = self._now()
            return [self._shelf.lease(self._shelf.rows[id], now, later(now, lease)) for id in ids]


def require_sound_choice(
    claims: Sequence[Claim], due: Sequence[Row], *, limit: int, room: int, ordered: bool
) -> None:
    """See that a store may have claimed these, of all that was *due*."""
    ids = [claim.message.id for claim in claims]
    lost = any(claim.lost for claim in claims)
    assert len(set(ids)) == len(ids) <= limit
    assert set(ids) <= {row.id for row in due}
    assert bool(ids) == bool(due and limit)
    assert len(ids) == 1 or not lost
    assert len(ids) <= 1 or sum(len(claim.message.content) for claim in claims) <= room
    if room == MAX_BYTES and not any(row.standing.suspect for row in due):
        assert len(ids) == min(limit, len(due))
        _require_even_shares(Counter(c.message.queue for c in claims), Counter(r.message.queue for r in due))
    if ordered:
        first = [row.id for row in due if row.standing.suspect == lost]
        for queue in {row.message.queue for row in due}:
            mine = [claim.message.id for claim in claims if claim.message.queue == queue]
            theirs = {row.id for row in due if row.message.queue == queue}
            assert mine == [id for id in first if id in theirs][: len(mine)]


def _require_even_shares(taken: Counter[str], due: Counter[str]) -> None:
    for queue in due:
        assert taken[queue] == due[queue] or taken[queue] >= max(taken.values(), default=0) - 1

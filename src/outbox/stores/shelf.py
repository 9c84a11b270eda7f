"""What the memory store holds, and what each verb makes of it: without a lock and without a clock."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from outbox.lifecycle import Claim, Fate, PutResult, Settlement, State
from outbox.moving import Remembered
from outbox.protocols import Change, Expected, QueueCount, Suspension

from . import standing as standings
from .instants import later
from .intake import Draft, sift
from .lanes import Lanes
from .limits import Limits, Load
from .retention import FAILED, Retention
from .rows import Row, counted
from .selection import PROMOTED, Turns, choose
from .standing import Standing, Step
from .suspending import in_force, served
from .tombstones import Tombstones

__all__ = ["Command", "Shelf"]

Command: TypeAlias = Callable[[str, Standing, int], Step]


class Shelf:
    """All messages of a store.  Each verb is whole: it raises before it has changed anything."""

    def __init__(self, retention: Retention, limits: Limits) -> None:
        self.rows: dict[str, Row] = {}
        self._retention = retention
        self._limits = limits
        self._load = Load()
        self._lanes = Lanes()
        self._turns = Turns()
        self._tombstones = Tombstones(retention)
        self._suspensions: dict[tuple[str, str], Suspension] = {}
        # One count for all messages: the token of a purged message never fits a later one of its id.
        self._generations = itertools.count(1)

    # -- in

    def put(self, drafts: Sequence[Draft], now: int) -> tuple[list[Row], list[PutResult]]:
        """The rows of what was new, and the answer for each of all."""
        new, results = sift(drafts, self._known(drafts, now))
        self._limits.require_room(self._load, Load.of(len(draft.message.content) for draft in new))
        return [self._add(draft, now) for draft in new], results

    def _known(self, drafts: Sequence[Draft], now: int) -> dict[str, bytes]:
        known: dict[str, bytes] = {}
        for draft in drafts:
            row = self.rows.get(draft.id)
            digest = row.digest if row else self._tombstones.digest(draft.id, now)
            if digest is not None:
                known[draft.id] = digest
        return known

    def _add(self, draft: Draft, now: int) -> Row:
        message = draft.message
        row = Row(
            message=message,
            digest=draft.envelope_digest,
            size=len(message.content),
            standing=standings.fresh(message, now),
        )
        self.rows[row.id] = row
        self._load += Load.of([row.size])
        self._tombstones.forget(row.id)
        self._lanes.enqueue(row, now)
        return row

    # -- leases

    def claim(
        self, queues: Sequence[str], now: int, *, limit: int, lease: dt.timedelta, max_bytes: int
    ) -> list[Claim]:
        open_queues = self.served(queues, now)
        promoted = PROMOTED // (len(open_queues) or 1) or 1
        offers = [self._lanes.offer(name, now, limit, promoted) for name in open_queues]
        chosen = choose(self._turns.sort(offers), limit=limit, max_bytes=max_bytes)
        return [self.lease(self.rows[name], now, later(now, lease)) for name in chosen]

    def lease(self, row: Row, now: int, until: int) -> Claim:
        """Whatever it stands like: that it may be claimed is the caller's affair."""
        row.standing = standings.claimed(row.standing, until)
        row.generation = next(self._generations)
        self._lanes.schedule(row)
        return standings.claim(row.message, row.standing, str(row.generation), now)

    def extend(self, claims: Sequence[Claim], until: int) -> list[Claim]:
        lost: list[Claim] = []
        for claim in claims:
            row = self.held(claim)
            if row is None:
                lost.append(claim)
            else:
                row.standing = attrs.evolve(row.standing, due=until)
                self._lanes.schedule(row)
        return lost

    def held(self, claim: Claim) -> Row | None:
        """The row that *claim* still holds; None where its token is stale."""
        row = self.rows.get(claim.message.id)
        if row is None or row.standing.state is not State.CLAIMED or str(row.generation) != claim.token:
            return None
        return row

    def settle(
        self, settlements: Sequence[Settlement], fates: Sequence[tuple[Fate, ...]], now: int
    ) -> list[Claim]:
        """*fates* are the verdicts', in the order of the recipients."""
        stale: list[Claim] = []
        for settlement, new in zip(settlements, fates, strict=True):
            row = self.held(settlement.claim)
            if row is None:
                stale.append(settlement.claim)
                continue
            attempt = standings.attempt(row.standing.attempts, settlement.verdict, now)
            row.history[:] = standings.recorded(row.history, attempt)
            self.stand(row, standings.settled(row.standing, new, settlement.verdict, now), now)
        return stale

    def stand(self, row: Row, standing: Standing, now: int) -> None:
        """Let it stand so, wherever it belongs by that."""
        load = Load.of([row.size])
        self._load += load if standing.queued else Load()
        self._load -= load if row.standing.queued else Load()
        row.standing = standing
        row.place = 0
        if standing.queued:
            self._lanes.enqueue(row, now)
        elif standing.state is State.DELIVERED:
            self._delivered(row, now)

    def _delivered(self, row: Row, now: int) -> None:
        if self._retention.keep_delivered is None:
            self.discard(row, now)
        elif not self._retention.keep_content:
            row.message = attrs.evolve(row.message, content=b"")

    # -- out

    def steer(self, ids: Sequence[str], command: Command, now: int) -> list[Change]:
        """Apply a command of :mod:`.standing` to each, in order."""
        changes: list[Change] = []
        for name in ids:
            row = self.rows.get(name)
            step = Step(standings.unknown(name)) if row is None else command(name, row.standing, now)
            if row is not None and step.standing is not None:
                self.stand(row, step.standing, now)
            changes.append(step.change)
        return changes

    def purge(self, ids: Sequence[str], now: int, expected: Expected | None = None) -> list[Change]:
        def purged(id: str, standing: Standing, now: int) -> Step:
            change = standings.purge(id, standing, now, expected=expected)
            if change.status == "done":
                self.discard(self.rows[id], now)
            return Step(change)

        return self.steer(ids, purged, now)

    def discard(self, row: Row, now: int) -> None:
        """Remove what has left the queue; its id stays known where somebody has it or may have."""
        del self.rows[row.id]
        row.place = 0
        if self._retention.buries(row.id, row.standing, now):
            settled = now if row.standing.settled is None else row.standing.settled
            self._tombstones.bury(row.id, row.digest, settled)

    def prune(self, limit: int, now: int) -> int:
        """Ids first, then records, state by state and of each the oldest first."""
        left = limit - self._tombstones.prune(limit, now)
        for state in (State.DELIVERED, *FAILED):
            gone = self._aged(state, now)[:left]
            for row in gone:
                self.discard(row, now)
            left -= len(gone)
        return limit - left

    def _aged(self, state: State, now: int) -> list[Row]:
        since = self._retention.kept_since(now, state)
        if since is None:
            return []
        rows = (row for row in self.rows.values() if row.standing.state is state)
        aged = [(row.standing.settled or 0, row.id, row) for row in rows]
        return [row for settled, _, row in sorted(aged) if settled <= since]

    # -- from one store to another

    def detain(self, row: Row, standing: Standing) -> None:
        """Let it stand so, under a lease that nobody has the token of."""
        self._load += Load() if row.standing.queued else Load.of([row.size])
        row.standing = standing
        row.generation = next(self._generations)
        self._lanes.schedule(row)

    def part(self, row: Row, now: int) -> None:
        """Remove what is in another store from now on; its id stays known."""
        load = Load.of([row.size])
        self._load -= load if row.standing.queued else Load()
        del self.rows[row.id]
        row.place = 0
        if self._retention.remembers:
            self._tombstones.bury(row.id, row.digest, now, left=True)

    def has_left(self, id: str) -> bool:
        return self._tombstones.has_left(id)

    def admit(self, rows: Sequence[Row], now: int) -> None:
        """Add what stood in another store, as it stood there."""
        queued = [row for row in rows if row.standing.queued]
        self._limits.require_room(self._load, Load.of(row.size for row in queued))
        for row in rows:
            self.rows[row.id] = row
            self._tombstones.forget(row.id)
        for row in queued:
            self._load += Load.of([row.size])
            self._lanes.enqueue(row, now)

    def remembered(self, now: int) -> list[Remembered]:
        """The ids that are known of what was settled here."""
        return self._tombstones.known(now)

    def remember(self, id: str, digest: bytes, settled: int) -> None:
        if id not in self.rows and self._retention.remembers:
            self._tombstones.remember(id, digest, settled)

    # -- suspensions

    def suspend(self, suspension: Suspension) -> None:
        self._suspensions[suspension.kind, suspension.value] = suspension

    def unsuspend(self, kind: str, value: str, now: int) -> bool:
        gone = self._suspensions.pop((kind, value), None)
        return gone is not None and bool(in_force([gone], now))

    def suspensions(self, now: int) -> list[Suspension]:
        return in_force(self._suspensions.values(), now)

    def served(self, queues: Sequence[str], now: int) -> list[str]:
        """Those of *queues* that are not suspended."""
        return served(queues, self.suspensions(now))

    # -- what there is to see

    def due_at(self, queues: Sequence[str], now: int) -> int | None:
        """When the first message of *queues* can be claimed; None where there is none."""
        return self._lanes.due_at(self.served(queues, now))

    def count(self, now: int) -> list[QueueCount]:
        groups: dict[tuple[str, State], list[Standing]] = {}
        for row in self.rows.values():
            groups.setdefault((row.message.queue, row.standing.state), []).append(row.standing)
        going_on = self.served([queue for queue, _ in groups], now)
        return [
            counted(queue, state, groups[queue, state], now, served=queue in going_on)
            for queue, state in sorted(groups)
        ]

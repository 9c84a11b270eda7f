"""A person's word: requeue, cancel, purge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from outbox.errors import CorruptRecord
from outbox.protocols import Change, Expected
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing, Step

from . import damage, rows
from .naming import Sql

__all__ = ["Command", "purge", "steer"]

Command: TypeAlias = Callable[[str, Standing, int], Step]


def steer(sql: Sql, ids: Sequence[str], command: Command, now: int) -> list[Change]:
    """Apply a command of :mod:`outbox.stores.standing` to each, in order; what cannot be read is held first."""
    changes: list[Change] = []
    for name in ids:
        standing = _stands(sql, name, now)
        step = Step(standings.unknown(name)) if standing is None else command(name, standing, now)
        if step.standing is not None:
            rows.write(sql, [(name, step.standing)], now)
        changes.append(step.change)
    return changes


def _stands(sql: Sql, name: str, now: int) -> Standing | None:
    """How it stands that is shown by this name, once it can be read."""
    facts = damage.find(sql, name)
    if facts is None:
        return None
    try:
        return facts.standing
    except CorruptRecord as error:
        if facts.likely.leased(now):
            return facts.likely
        return damage.hold(sql, facts.key, str(error), now)


def purge(
    sql: Sql,
    ids: Sequence[str],
    retention: Retention,
    now: int,
    *,
    expected: Expected | None = None,
    whole: bool = True,
) -> list[Change]:
    """See :meth:`SQLiteStore.purge`; *whole* as in :func:`.rows.discard`."""
    gone: list[str] = []
    buried: list[str] = []
    seen: set[str] = set()

    def purged(id: str, standing: Standing, now: int) -> Step:
        if id in seen:
            return Step(standings.unknown(id))
        change = standings.purge(id, standing, now, expected=expected)
        if change.status == "done":
            seen.add(id)
            gone.append(id)
            if retention.buries(id, standing, now):
                buried.append(id)
        return Step(change)

    changes = steer(sql, ids, purged, now)
    # All at once: one by one it costs as much again, while others wait.
    if whole:
        damage.detach(sql, gone)
    rows.discard(sql, gone, buried, now, whole=whole)
    return changes

"""A person's word: requeue, cancel, purge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from outbox.protocols import Change
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing, Step

from . import rows
from .naming import Sql

__all__ = ["Command", "purge", "steer"]

_STANDING: Final = f"SELECT {rows.STANDING} FROM outbox_message WHERE id = ? AND stage < 4"  # noqa: S608 - column names of our own

Command: TypeAlias = Callable[[str, Standing, int], Step]


def steer(sql: Sql, ids: Sequence[str], command: Command, now: int) -> list[Change]:
    """Apply a command of :mod:`outbox.stores.standing` to each, in order."""
    changes: list[Change] = []
    for name in standings.named(ids):
        row = sql.execute(_STANDING, (name,)).fetchone()
        step = Step(standings.unknown(name)) if row is None else command(name, rows.standing(row), now)
        if step.standing is not None:
            rows.write(sql, [(name, step.standing)], now)
        changes.append(step.change)
    return changes


def purge(sql: Sql, ids: Sequence[str], retention: Retention, now: int) -> list[Change]:
    """See :meth:`SQLiteStore.purge`."""

    def purged(id: str, standing: Standing, now: int) -> Step:
        change = standings.purge(id, standing, now)
        if change.status == "done":
            rows.discard(sql, [id], [id] if retention.buries(standing, now) else [], now)
        return Step(change)

    return steer(sql, ids, purged, now)

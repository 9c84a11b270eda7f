"""A person's word: requeue, cancel, purge."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from outbox.protocols import Change
from outbox.stores import standing as standings
from outbox.stores.standing import Standing, Step

from . import rows

__all__ = ["Command", "purge", "steer"]

_STANDING: Final = f"SELECT {rows.STANDING} FROM outbox_message WHERE id = ?"  # noqa: S608 - column names of our own

Command: TypeAlias = Callable[[str, Standing], Step]


def steer(sql: sqlite3.Connection, ids: Sequence[str], command: Command, now: int) -> list[Change]:
    """Apply a command of :mod:`outbox.stores.standing` to each, in order."""
    changes: list[Change] = []
    for name in ids:
        row = sql.execute(_STANDING, (name,)).fetchone()
        step = Step(standings.unknown(name)) if row is None else command(name, rows.standing(row))
        if step.standing is not None:
            rows.write(sql, [(name, step.standing)], now)
        changes.append(step.change)
    return changes


def purge(sql: sqlite3.Connection, ids: Sequence[str], *, now: int, remembered_since: int) -> list[Change]:
    """See :meth:`SQLiteStore.purge`."""

    def purged(id: str, standing: Standing) -> Step:
        change = standings.purge(id, standing, now)
        if change.status == "done":
            bury = standings.remembered(standing)
            rows.remove(sql, [id], now=now, remembered_since=remembered_since if bury else None)
        return Step(change)

    return steer(sql, ids, purged, now)

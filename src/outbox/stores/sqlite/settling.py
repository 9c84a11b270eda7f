"""Verdicts into rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from outbox.lifecycle import Attempt, Claim, Fate, Settlement, State
from outbox.stores import standing as standings
from outbox.stores.standing import Standing

from . import rows

__all__ = ["settle"]

_HELD: Final = f"""
    SELECT m.id, m.generation, {rows.STANDING}
    FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
    WHERE m.state = 'claimed'
"""  # noqa: S608 - column names of our own


def settle(
    sql: sqlite3.Connection,
    settlements: Sequence[Settlement],
    fates: Sequence[tuple[Fate, ...]],
    *,
    now: int,
    keep_delivered: bool,
    remembered_since: int,
) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.settle`; *fates* are the verdicts', in the recipients' order."""
    held = _held(sql, [settlement.claim.message.id for settlement in settlements])
    stale: list[Claim] = []
    after: list[tuple[str, Standing]] = []
    made: list[tuple[str, Attempt]] = []
    for settlement, new in zip(settlements, fates, strict=True):
        name = settlement.claim.message.id
        # Taken out: a second settlement of the same claim comes too late.
        standing = held.pop((name, settlement.claim.token), None)
        if standing is None:
            stale.append(settlement.claim)
            continue
        attempt = standings.attempt(standing.attempts, settlement.verdict, now)
        made += [] if attempt is None else [(name, attempt)]
        after.append((name, standings.settled(standing, new, settlement.verdict, now)))
    gone = [name for name, standing in after if standing.state is State.DELIVERED and not keep_delivered]
    _write(sql, after, made, gone, now)
    if gone:
        rows.remove(sql, gone, now=now, remembered_since=remembered_since)
    return stale


def _held(sql: sqlite3.Connection, ids: Sequence[str]) -> dict[tuple[str, str], Standing]:
    """How the claimed ones among them stand, by id and token."""
    return {
        (name, str(generation)): rows.standing(tuple(columns))
        for name, generation, *columns in sql.execute(_HELD, (rows.listed(ids),))
    }


def _write(
    sql: sqlite3.Connection,
    after: Sequence[tuple[str, Standing]],
    made: Sequence[tuple[str, Attempt]],
    gone: Sequence[str],
    now: int,
) -> None:
    """What stays; of what is about to be removed nothing is written first."""
    removed = frozenset(gone)
    rows.write(sql, [(name, standing) for name, standing in after if name not in removed], now)
    rows.record(sql, [(name, attempt) for name, attempt in made if name not in removed])

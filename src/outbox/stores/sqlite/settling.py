"""Verdicts into rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outbox.lifecycle import Attempt, Claim, Fate, Settlement, State
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import rows
from .naming import Sql

__all__ = ["settle"]

_HELD: Final = f"""
    SELECT m.id, m.generation, {rows.STANDING}
    FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
    WHERE m.state = 'claimed'
"""  # noqa: S608 - column names of our own


def settle(
    sql: Sql,
    settlements: Sequence[Settlement],
    fates: Sequence[tuple[Fate, ...]],
    retention: Retention,
    now: int,
) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.settle`; *fates* are the verdicts', in the recipients' order."""
    held = _held(sql, [settlement.claim.message.id for settlement in settlements])
    stale: list[Claim] = []
    stays: list[tuple[str, Standing]] = []
    goes: dict[str, Standing] = {}
    bare: list[Message] = []
    made: list[tuple[str, Attempt]] = []
    for settlement, new in zip(settlements, fates, strict=True):
        name = settlement.claim.message.id
        # Taken out: a second settlement of the same claim comes too late.
        before = held.pop((name, settlement.claim.token), None)
        if before is None:
            stale.append(settlement.claim)
            continue
        after = standings.settled(before, new, settlement.verdict, now)
        if after.state is State.DELIVERED and retention.keep_delivered is None:
            goes[name] = after
            continue
        if after.state is State.DELIVERED and not retention.keep_content:
            bare.append(settlement.claim.message)
        stays.append((name, after))
        attempt = standings.attempt(before.attempts, settlement.verdict, now)
        made += [] if attempt is None else [(name, attempt)]
    if stays:
        rows.write(sql, stays, now)
        rows.record(sql, made)
        rows.redact(sql, bare)
    rows.discard(sql, goes, retention, now)
    return stale


def _held(sql: Sql, ids: Sequence[str]) -> dict[tuple[str, str], Standing]:
    """How the claimed ones among them stand, by id and token."""
    return {
        (name, str(generation)): rows.standing(tuple(columns))
        for name, generation, *columns in sql.execute(_HELD, (rows.listed(ids),))
    }

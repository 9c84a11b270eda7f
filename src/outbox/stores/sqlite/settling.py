"""Verdicts into rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from outbox.lifecycle import Attempt, Claim, Delivered, Fate, Settlement
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
    gone: list[str] = []
    stays: list[_Stay] = []
    for settlement, new in zip(settlements, fates, strict=True):
        name = settlement.claim.message.id
        # Taken out: a second settlement of the same claim comes too late.
        row = held.pop((name, settlement.claim.token), None)
        if row is None:
            stale.append(settlement.claim)
        elif retention.keep_delivered is None and isinstance(settlement.verdict, Delivered):
            gone.append(name)
        else:
            stays.append(_Stay(settlement, rows.standing(row), new))
    if stays:
        _write(sql, stays, retention, now)
    rows.discard(sql, gone, gone if retention.remembers else [], now)
    return stale


def _held(sql: Sql, ids: Sequence[str]) -> dict[tuple[str, str], rows.Row]:
    """The rows of the claimed ones among them, by id and token."""
    return {
        (name, str(generation)): tuple(columns)
        for name, generation, *columns in sql.execute(_HELD, (rows.listed(ids),))
    }


@attrs.frozen
class _Stay:
    """A message that is settled, and stays in the store."""

    settlement: Settlement
    before: Standing
    fates: tuple[Fate, ...]

    def after(self, now: int) -> Standing:
        return standings.settled(self.before, self.fates, self.settlement.verdict, now)

    def attempt(self, now: int) -> Attempt | None:
        return standings.attempt(self.before.attempts, self.settlement.verdict, now)


def _write(sql: Sql, stays: Sequence[_Stay], retention: Retention, now: int) -> None:
    named = [(stay.settlement.claim.message.id, stay) for stay in stays]
    rows.write(sql, [(name, stay.after(now)) for name, stay in named], now)
    made = [(name, stay.attempt(now)) for name, stay in named]
    rows.record(sql, [(name, attempt) for name, attempt in made if attempt is not None])
    if not retention.keep_content:
        delivered = [s.settlement for s in stays if isinstance(s.settlement.verdict, Delivered)]
        rows.redact(sql, [settlement.claim.message for settlement in delivered])

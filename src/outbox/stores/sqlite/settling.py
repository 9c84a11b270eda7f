"""Verdicts into rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from outbox.errors import CorruptRecord
from outbox.lifecycle import Attempt, Claim, Delivered, Fate, Settlement, State
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import damage, rows
from .naming import Sql

__all__ = ["settle"]

# Only what a verdict keeps: what it replaces may be damaged.
_HELD: Final = """
    SELECT m.id, m.generation, 'claimed', 'w', 0, m.since, m.submitted, NULL, m.attempts, m.lost, '', NULL
    FROM json_each(?) AS w CROSS JOIN outbox_message AS m ON m.id = w.value
    WHERE m.state = 'claimed'
"""


def settle(
    sql: Sql,
    settlements: Sequence[Settlement],
    fates: Sequence[tuple[Fate, ...]],
    retention: Retention,
    now: int,
    *,
    whole: bool = True,
) -> list[Claim]:
    """See :meth:`outbox.protocols.Store.settle`; *fates* are the verdicts', in the recipients' order.

    A message whose row cannot be read is held, with these fates.

    Args:
        whole: False leaves bodies and histories as they are, for damage is in the way.
    """
    look = _held if whole else _seemingly_held
    held = look(sql, [settlement.claim.message.id for settlement in settlements])
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
            stays.append(_Stay(settlement, row, new))
    _write(sql, stays, retention, now, whole=whole)
    rows.discard(sql, gone, gone if retention.remembers else [], now, whole=whole)
    return stale


def _held(sql: Sql, ids: Sequence[str]) -> dict[tuple[str, str], rows.Row]:
    """The rows of the claimed ones among them, by id and token."""
    return {
        (name, str(generation)): tuple(columns)
        for name, generation, *columns in sql.execute(_HELD, (rows.listed(ids),))
    }


def _seemingly_held(sql: Sql, ids: Sequence[str]) -> dict[tuple[str, str], rows.Row]:
    """The same of rows that SQLite itself cannot read."""
    found = [damage.look(sql, damage.Key.of(name)) for name in ids]
    return {
        (facts.key.name, str(facts.columns["generation"])): facts.row
        for facts in found
        if facts is not None and facts.columns["state"] == State.CLAIMED
    }


@attrs.frozen
class _Stay:
    """A message that is settled, and stays in the store."""

    settlement: Settlement
    row: rows.Row
    fates: tuple[Fate, ...]

    @property
    def name(self) -> str:
        return self.settlement.claim.message.id

    def after(self, now: int) -> Standing:
        return standings.settled(rows.standing(self.row), self.fates, self.settlement.verdict, now)

    def attempt(self, now: int) -> Attempt | None:
        return standings.attempt(self.settlement.claim.attempt, self.settlement.verdict, now)


def _write(sql: Sql, stays: Sequence[_Stay], retention: Retention, now: int, *, whole: bool) -> None:
    if not stays:
        return
    news: list[tuple[str, Standing]] = []
    for stay in stays:
        try:
            news.append((stay.name, stay.after(now)))
        except CorruptRecord as error:
            _hold(sql, stay, str(error), now)
    rows.write(sql, news, now)
    if not whole:
        return
    rows.record(sql, [(stay.name, made) for stay in stays if (made := stay.attempt(now)) is not None])
    if not retention.keep_content:
        delivered = [stay.settlement for stay in stays if isinstance(stay.settlement.verdict, Delivered)]
        rows.redact(sql, [settlement.claim.message for settlement in delivered])


def _hold(sql: Sql, stay: _Stay, error: str, now: int) -> None:
    """Hold what is settled and cannot be read; whom the verdict says to have it, has it."""
    reason = f"{error}; its last verdict: {stay.settlement.verdict.event}"
    damage.hold(sql, damage.Key.of(stay.name), reason, now, fates=stay.fates)

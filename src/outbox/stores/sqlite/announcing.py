"""What runners say of themselves: rows of the table that tells of the store, which earlier releases pass over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outbox.protocols import Presence
from outbox.stores.presence import Said, shown, spent

from . import rows
from .naming import Sql

__all__ = ["announce", "announced", "withdraw"]

_HERE: Final = "here:"
_BEYOND: Final = "here;"
_SAY: Final = """
    INSERT INTO outbox_meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_SAID: Final = "SELECT name, value FROM outbox_meta WHERE name >= ? AND name < ?"
_FORGET: Final = "DELETE FROM outbox_meta WHERE name IN (SELECT value FROM json_each(?))"


def announce(sql: Sql, said: Said, now: int) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.announce`."""
    sql.execute(_SAY, (_HERE + said.name, said.data))
    kept = _said(sql)
    gone = [
        *spent([each for each in kept.values() if each], now),
        *(name for name, each in kept.items() if not each),
    ]
    if gone:
        sql.execute(_FORGET, (rows.listed(_HERE + name for name in gone),))


def withdraw(sql: Sql, name: str) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
    sql.execute(_FORGET, (rows.listed([_HERE + name]),))


def announced(sql: Sql, now: int) -> Sequence[Presence]:
    """See :meth:`outbox.protocols.SupportsPresence.announced`."""
    return shown(_said(sql).values(), now)


def _said(sql: Sql) -> dict[str, Said | None]:
    """By name; None where it cannot be read."""
    found = {}
    for row in sql.execute(_SAID, (_HERE, _BEYOND)):
        name = rows.legible(row[0]).removeprefix(_HERE)
        found[name] = Said.read(name, rows.legible(row[1]))
    return found

"""What runners say of themselves: rows of the table that tells of the store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from outbox.protocols import Presence
from outbox.stores.instants import later
from outbox.stores.presence import Said, shown, spent

from . import rows
from .naming import Sql

__all__ = ["announce", "announced", "withdraw"]

_HERE: Final = "here:"
# It may be lost with the server: nobody waits for the disk.
_HASTY: Final = "SELECT set_config('synchronous_commit', 'off', true)"
_NOW: Final = f"SELECT {rows.NOW}"
_SAY: Final = """
    INSERT INTO outbox_meta (name, value) VALUES (%(name)s, %(value)s)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_SAID: Final = "SELECT name, value FROM outbox_meta WHERE name >= 'here:' AND name < 'here;'"
_FORGET: Final = "DELETE FROM outbox_meta WHERE name = ANY(%(names)s)"


def announce(sql: Sql, name: str, text: str, for_: dt.timedelta, now: int | None) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.announce`."""
    at = _time(sql, now)
    said = Said(name, text, at, later(at, for_))
    with sql.connection.pipeline():
        sql.execute(_HASTY)
        sql.execute(_SAY, {"name": _HERE + name, "value": said.data})
        kept = _said(sql)
        gone = [
            *spent([each for each in kept.values() if each], at),
            *(key for key, each in kept.items() if not each),
        ]
        if gone:
            sql.execute(_FORGET, {"names": sorted(_HERE + each for each in gone)})


def withdraw(sql: Sql, name: str) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
    with sql.connection.pipeline():
        sql.execute(_HASTY)
        sql.execute(_FORGET, {"names": [_HERE + name]})


def announced(sql: Sql, now: int | None) -> Sequence[Presence]:
    """See :meth:`outbox.protocols.SupportsPresence.announced`."""
    return shown(_said(sql).values(), _time(sql, now))


def _time(sql: Sql, now: int | None) -> int:
    ((at,),) = sql.execute(_NOW, {"now": now}).fetchall()
    return int(at)


def _said(sql: Sql) -> dict[str, Said | None]:
    """By name; None where it cannot be read."""
    found = {}
    for key, value in sql.execute(_SAID).fetchall():
        name = key.removeprefix(_HERE)
        found[name] = Said.read(name, value)
    return found

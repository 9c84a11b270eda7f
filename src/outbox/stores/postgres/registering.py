"""What processes keep together: rows of the table that tells of the store, each with when it was written before its text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from outbox.protocols import Register, Swap
from outbox.stores.instants import moment

from . import rows
from .driver import Cursor, array
from .naming import Sql

__all__ = ["registers", "swap"]

_OURS: Final = "register:"
_OLD: Final = 2 * 86_400 * 1_000_000
# It may be lost with the server: nobody waits for the disk.
_HASTY: Final = "SELECT set_config('synchronous_commit', 'off', true)"
_TEXT: Final = r"substr(m.value, strpos(m.value, E'\n') + 1)"
_LOOK: Final = f"""
    SELECT w.name, {_TEXT}, {rows.NOW}
    FROM unnest(%(names)s::text[]) AS w (name) LEFT JOIN outbox_meta AS m ON m.name = 'register:' || w.name
"""  # noqa: S608 - expressions of our own
# In one order for all: whoever waits for another's row holds none that he would wait for.
_SWAP: Final = f"""
    INSERT INTO outbox_meta AS m (name, value)
    SELECT 'register:' || w.name, {rows.NOW}::text || E'\\n' || w.new
    FROM unnest(%(names)s::text[], %(old)s::text[], %(new)s::text[]) AS w (name, old, new)
    WHERE w.old IS NULL OR EXISTS (SELECT FROM outbox_meta AS known WHERE known.name = 'register:' || w.name)
    ORDER BY w.name
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
    WHERE (m.name, {_TEXT}) IN (
        SELECT 'register:' || w.name, w.old FROM unnest(%(names)s::text[], %(old)s::text[]) AS w (name, old)
        WHERE w.old IS NOT NULL
    )
    RETURNING m.name
"""  # noqa: S608 - as above
_FORGET: Final = f"""
    DELETE FROM outbox_meta
    WHERE name >= 'register:' AND name < 'register;' AND split_part(value, E'\\n', 1)::bigint < {rows.NOW} - %(old)s::bigint
"""  # noqa: S608 - as above


def registers(sql: Sql, names: Collection[str], now: int | None) -> Mapping[str, Register]:
    """See :meth:`outbox.protocols.SupportsRegister.registers`."""
    return _found(sql.execute(_LOOK, {"names": array("text", list(names)), "now": now}))


def swap(sql: Sql, swaps: Mapping[str, Swap], now: int | None) -> Mapping[str, Register]:
    """See :meth:`outbox.protocols.SupportsRegister.swap`; one round trip."""
    told: dict[str, Any] = {
        "names": array("text", list(swaps)),
        "old": array("text", [each.old for each in swaps.values()]),
        "new": array("text", [each.new for each in swaps.values()]),
        "now": now,
    }
    with sql.connection.pipeline():
        sql.execute(_HASTY)
        done = sql.execute(_SWAP, told)
        stands = sql.execute(_LOOK, told)
        if any(each.old is None for each in swaps.values()):
            # Whoever begins one tidies up: those of relays that nobody speaks to any more.
            sql.execute(_FORGET, {"old": _OLD, "now": now})
    written = {name.removeprefix(_OURS) for (name,) in done.fetchall()}
    return {name: register for name, register in _found(stands).items() if name not in written}


def _found(cursor: Cursor) -> dict[str, Register]:
    return {name: Register(text, moment(int(at))) for name, text, at in cursor.fetchall()}

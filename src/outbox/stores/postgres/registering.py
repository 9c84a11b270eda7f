"""What processes keep together: rows of the table that tells of the store, each with when it was written before its text."""

from __future__ import annotations

from typing import Any, Final

from outbox.protocols import Register
from outbox.stores.instants import moment

from . import rows
from .naming import Sql

__all__ = ["register", "swap"]

_OURS: Final = "register:"
_OLD: Final = 2 * 86_400 * 1_000_000
# It may be lost with the server: nobody waits for the disk.
_HASTY: Final = "SELECT set_config('synchronous_commit', 'off', true)"
_TEXT: Final = r"substr(value, strpos(value, E'\n') + 1)"
_LOOK: Final = f"SELECT (SELECT {_TEXT} FROM outbox_meta WHERE name = %(name)s), {rows.NOW}"  # noqa: S608 - expressions of our own
_SWAP: Final = f"""
    UPDATE outbox_meta SET value = {rows.NOW}::text || E'\\n' || %(new)s
    WHERE name = %(name)s AND {_TEXT} = %(old)s RETURNING true
"""  # noqa: S608 - as above
_BEGIN: Final = f"""
    INSERT INTO outbox_meta (name, value) VALUES (%(name)s, {rows.NOW}::text || E'\\n' || %(new)s)
    ON CONFLICT (name) DO NOTHING RETURNING true
"""  # noqa: S608 - as above
_FORGET: Final = f"""
    DELETE FROM outbox_meta
    WHERE name >= 'register:' AND name < 'register;' AND split_part(value, E'\\n', 1)::bigint < {rows.NOW} - %(old)s::bigint
"""  # noqa: S608 - as above


def register(sql: Sql, name: str, now: int | None) -> Register:
    """See :meth:`outbox.protocols.SupportsRegister.register`."""
    return _register(sql.execute(_LOOK, {"name": _OURS + name, "now": now}).fetchone())


def swap(sql: Sql, name: str, old: str | None, new: str, now: int | None) -> Register | None:
    """See :meth:`outbox.protocols.SupportsRegister.swap`; one round trip."""
    told: dict[str, Any] = {"name": _OURS + name, "old": old, "new": new, "now": now}
    with sql.connection.pipeline():
        sql.execute(_HASTY)
        done = sql.execute(_BEGIN if old is None else _SWAP, told)
        stands = sql.execute(_LOOK, told)
        if old is None:
            # Whoever begins one tidies up: those of relays that nobody speaks to any more.
            sql.execute(_FORGET, {"old": _OLD, "now": now})
    return None if done.fetchone() else _register(stands.fetchone())


def _register(row: Any) -> Register:
    text, at = row
    return Register(text, moment(int(at)))

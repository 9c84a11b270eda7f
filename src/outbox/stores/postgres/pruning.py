"""What is past its retention is removed; what somebody has in hand is left to the next time."""

from __future__ import annotations

from typing import Final

from outbox.lifecycle import State
from outbox.stores.instants import FOREVER
from outbox.stores.retention import FAILED, Retention

from . import rows, suspending
from .links import Links, transaction
from .naming import Sql
from .steering import discard

__all__ = ["prune"]

_NOW: Final = f"SELECT {rows.NOW}"
_AGED: Final = f"""
    SELECT m.id, {rows.STANDING} FROM outbox_message AS m
    WHERE m.stage = 0 AND m.state = %(state)s AND m.settled <= %(since)s
    ORDER BY m.settled, m.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - columns of our own
_FORGET: Final = """
    WITH gone AS (
        DELETE FROM outbox_message WHERE id = ANY(ARRAY(
            SELECT id FROM outbox_message WHERE stage = 4 AND settled <= %(since)s
            ORDER BY settled, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )) RETURNING 1
    )
    SELECT count(*) FROM gone
"""
_GONE_IN_ALL: Final = (
    "SELECT count(*) FROM (SELECT FROM outbox_message WHERE stage = 4 LIMIT %(limit)s) AS gone"
)
_STATES: Final = (State.DELIVERED, *FAILED)


def prune(links: Links, retention: Retention, *, limit: int, now: int | None) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`."""

    def act(sql: Sql) -> int:
        with transaction(sql):
            ((at,),) = sql.execute(_NOW, {"now": now}).fetchall()
            suspending.prune(sql, at)
            left = limit - _forget(sql, retention, limit, at)
            for state in _STATES:
                since = retention.kept_since(at, state)
                if since is not None and left > 0:
                    left -= _discard(sql, retention, state=state, since=since, limit=left, now=at)
        return limit - left

    return links.use(act)


def _forget(sql: Sql, retention: Retention, limit: int, now: int) -> int:
    """Forget the oldest of the ids that are known for long enough, or are too many; return how many."""
    old = _forgotten(sql, retention.known_since(now), limit)
    most = retention.remember_at_most + limit
    ((known,),) = sql.execute(_GONE_IN_ALL, {"limit": most}).fetchall()
    spare = min(limit - old, known - retention.remember_at_most)
    return old if spare <= 0 else old + _forgotten(sql, FOREVER, spare)


def _forgotten(sql: Sql, since: int, limit: int) -> int:
    ((number,),) = sql.execute(_FORGET, {"since": since, "limit": limit}).fetchall()
    return int(number)


def _discard(sql: Sql, retention: Retention, *, state: State, since: int, limit: int, now: int) -> int:
    found = sql.execute(_AGED, {"state": state.value, "since": since, "limit": limit}).fetchall()
    discard(sql, {id: rows.steered(tuple(columns), now) for id, *columns in found}, retention, now)
    return len(found)

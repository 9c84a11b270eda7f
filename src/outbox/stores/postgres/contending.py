"""Rows that somebody else's transaction has locked: the others are written past them, and they when they are free.

Those who lock rows of ours for moments are waited for, in the one statement
that there is.  Where that lasts (``BEGIN; SELECT ... FOR UPDATE`` in a session
that somebody has forgotten), one row would keep the verdicts of all others
waiting until their leases have run out, and they would be sent again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from outbox.clock import SystemClock
from outbox.errors import StoreUnavailable
from outbox.protocols import Finding
from outbox.values import quoted

from .driver import Cursor, Error, distrust, errors
from .naming import Sql

__all__ = ["AT_MOST", "BRIEFLY", "LOCK", "Key", "Locked", "check", "locked", "write"]

Key: TypeAlias = tuple[str, int]
"""The id and the token of a claim."""

Locked = errors.LockNotAvailable

AT_MOST: float = 1.0
"""The seconds that one verb waits for rows that somebody has locked, when it has done what it could do at once."""
BRIEFLY: Final = "set_config('lock_timeout', '1s', true)"
"""Within a statement: it waits for no row for longer, and neither does what follows in its transaction."""
LOCK: Final = "SELECT FROM outbox_message WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE"
"""Locks the rows of several statements in the order of their ids: who waits for a row waits for nobody who waits for him."""

_BRIEFLY: Final = f"SELECT {BRIEFLY}"
_FREE: Final = "SELECT id FROM outbox_message WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED"
_LOCK_ATTEMPTS: Final = "SELECT FROM outbox_attempt WHERE id = ANY(%(ids)s) ORDER BY id, row FOR UPDATE"
# All of a message's attempts or none of it: one that was skipped would be waited for when they are written.
_FREE_WITH_ATTEMPTS: Final = """
    WITH own AS MATERIALIZED (
        SELECT id FROM outbox_message WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED
    ),
    told AS MATERIALIZED (
        SELECT id FROM outbox_attempt WHERE id = ANY(ARRAY(SELECT id FROM own)) ORDER BY id, row FOR UPDATE SKIP LOCKED
    )
    SELECT own.id FROM own WHERE (SELECT count(*) FROM told WHERE told.id = own.id)
        = (SELECT count(*) FROM outbox_attempt AS a WHERE a.id = own.id)
"""
_CLAIMED: Final = "SELECT id, generation FROM outbox_message WHERE id = ANY(%(ids)s) AND state = 'claimed'"
_LATELY: Final = 10
_SHOWN: Final = 5
# Of who has locked a row alone, the row itself tells the transaction; of several who share it, it does not.
_HOLDERS: Final = """
    WITH m AS (
        SELECT id, xmax AS holder FROM outbox_message WHERE stage <> 4 AND id = ANY(coalesce(%(ids)s::text[], ARRAY[id]))
        UNION
        SELECT id, xmax FROM outbox_attempt WHERE id = ANY(coalesce(%(ids)s::text[], ARRAY[id]))
    )
    SELECT m.id, coalesce(
        'process ' || l.pid::text || coalesce(' (' || nullif(a.application_name, '') || ')', ''),
        'the prepared transaction ' || p.gid
    ), extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::int8
    FROM pg_locks AS l
    JOIN m ON m.holder = l.transactionid
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    LEFT JOIN pg_prepared_xacts AS p ON p.transaction = l.transactionid AND p.database = current_database()
    WHERE l.locktype = 'transactionid' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND coalesce(
            coalesce(a.xact_start, p.prepared) < clock_timestamp() - make_interval(secs => %(lately)s::int8),
            %(lately)s::int8 < 0
        )
    ORDER BY m.id
"""


def write(
    sql: Sql,
    keys: Sequence[Key],
    act: Callable[[Sql, Sequence[Key]], Sequence[Cursor]],
    wrote: Callable[[set[Key]], None],
    *,
    attempts: bool,
) -> list[Key]:
    """Write those of *keys* that nobody has locked, at once, and the others as they become free; return what stays locked.

    Args:
        act: Writes rows that are locked by then, within a pipeline; what it returns gives the keys of those that were ours.
        wrote: Is told what was committed.
        attempts: Whether *act* writes the rows of their attempts, too.

    Raises:
        Locked: not rows are locked but a table, and nothing is written.
    """
    distrust(sql.connection)
    clock = SystemClock()
    until = clock.monotonic() + AT_MOST
    left, looked, waits = list(keys), False, False
    while True:
        try:
            written, left = _round(sql, left, act, attempts=attempts, waits=waits)
            wrote(written)
            looked = True
        except Locked:
            # Before anybody has looked which rows are free, nobody can say that the others are written.
            if not looked and clock.monotonic() >= until:
                raise
        if not left or clock.monotonic() >= until:
            return left
        # Who stands in line has the row before whoever only looks for rows that are free.
        waits = not waits


def _round(
    sql: Sql,
    keys: list[Key],
    act: Callable[[Sql, Sequence[Key]], Sequence[Cursor]],
    *,
    attempts: bool,
    waits: bool,
) -> tuple[set[Key], list[Key]]:
    with sql.connection.pipeline():
        if waits:
            sql.execute(_BRIEFLY)
            for lock in (LOCK, _LOCK_ATTEMPTS) if attempts else (LOCK,):
                sql.execute(lock, {"ids": [keys[0][0]]})
        look = _FREE_WITH_ATTEMPTS if attempts else _FREE
        free = {id for (id,) in sql.execute(look, {"ids": [id for id, _ in keys]}).fetchall()}
        cursors = act(sql, [key for key in keys if key[0] in free])
        rest = [key for key in keys if key[0] not in free]
        claimed = sql.execute(_CLAIMED, {"ids": [id for id, _ in rest]})
    there = set(claimed.fetchall())
    return {key for cursor in cursors for key in cursor.fetchall()}, [key for key in rest if key in there]


def locked(sql: Sql, name: str, keys: Sequence[Key]) -> StoreUnavailable:
    """What to raise where these stay locked; *name* is the database's."""
    ids = [id for id, _ in keys]
    who = set[str]()
    # A table that is locked by now takes nothing back of what is written.
    with contextlib.suppress(Error):
        who.update(holder for _, holder, _ in sql.execute(_HOLDERS, {"ids": ids, "lately": -1}).fetchall())
    by = f" ({', '.join(sorted(who))})" if who else ""
    return StoreUnavailable(
        f"{name}: what came of {_listed(ids)} cannot be written: another transaction{by} has locked it; end that one "
        "(pg_stat_activity); all else is written"
    )


def check(sql: Sql) -> Iterator[Finding]:
    """Who has had messages locked for longer than anybody of ours has."""
    found = sql.execute(_HOLDERS, {"ids": None, "lately": _LATELY}).fetchall()
    held: dict[tuple[str, int], list[str]] = {}
    for id, holder, seconds in found:
        held.setdefault((holder, seconds), []).append(id)
    for (holder, seconds), ids in held.items():
        yield Finding(
            "warning",
            f"a transaction that was begun {seconds:,} s ago has locked {_listed(ids)}: {holder}; until it ends nobody can "
            "claim them, and what came of them cannot be written",
            "end it: SELECT pg_terminate_backend(PID), or ROLLBACK PREPARED",
        )


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(quoted, ids[:_SHOWN])) + more

"""The claim of one queue in which nothing is suspect, nothing has just become due and nothing is coded: one statement.

What such a queue has is chosen by the server, as :func:`outbox.stores.selection.choose`
would: its ready messages in their order, as many as there is room for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from outbox.stores.instants import FOREVER, width

from . import rows
from .claiming import Order
from .naming import Sql
from .settling import BURY, DELETE, Settling, T
from .suspending import OPEN

__all__ = ["Answer", "ask", "is_plain"]

_FIRST_OF: Final = """
    SELECT m.due FROM outbox_message AS m WHERE m.stage = {0} AND m.queue = q.queue{1} ORDER BY {2} LIMIT 1
"""
# No EXISTS and no join with the table: PostgreSQL may make that a table of all that wait, and read every row for it.
_CLAIM: Final = f"""
    WITH {{0}}
    first AS MATERIALIZED (
        SELECT -m.priority::int8 AS rank, m.due, m.id, m.size, m.coding FROM outbox_message AS m
        WHERE m.stage = 2 AND m.queue = %(queue)s ORDER BY m.priority DESC, m.due, m.id LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ),
    queue AS MATERIALIZED (
        SELECT ({_FIRST_OF.format(3, "", "m.priority DESC, m.due, m.id")}) IS NULL
            AND ({_FIRST_OF.format(1, " AND m.due <= t.now", "m.due, m.id")}) IS NULL
            AND NOT EXISTS (SELECT FROM first WHERE coding <> '') AND {OPEN} AS plain
        FROM (SELECT %(queue)s::text AS queue) AS q, t
    ),
    taken AS (
        UPDATE outbox_message AS m
        SET stage = 1, state = 'claimed', due = least(t.now + %(lease)s::int8, {FOREVER}),
            generation = greatest(m.generation + 1, {rows.GENERATION}), attempts = m.attempts + 1
        FROM t WHERE m.stage IN (1, 2, 3) AND (SELECT plain FROM queue) AND m.id = ANY(ARRAY(
            SELECT f.id FROM (
                SELECT id, sum(size) OVER o AS room, row_number() OVER o AS place FROM first
                WINDOW o AS (ORDER BY rank, due, id ROWS UNBOUNDED PRECEDING)
            ) AS f WHERE f.room <= %(max_bytes)s OR f.place = 1
        ))
        RETURNING t.now, m.id AS name, m.generation, m.digest, m.envelope, m.content, m.coding AS kept, {rows.STANDING}
    )
    SELECT queue.plain, {{1}}, taken.* FROM queue LEFT JOIN (taken JOIN first ON first.id = taken.name) ON true
    ORDER BY first.rank, first.due, first.id
"""  # noqa: S608 - columns of our own
# Which of them went is told only where some did not.
_WENT: Final = (
    "CASE WHEN (SELECT count(*) FROM gone) < cardinality(%(ids)s::text[]) THEN (SELECT array_agg(id) FROM gone) END, "
    "CASE WHEN (SELECT count(*) FROM gone) < cardinality(%(ids)s::text[]) THEN (SELECT array_agg(generation) FROM gone) END, "
    "(SELECT count(*) FROM gone) < cardinality(%(ids)s::text[])"
)
_STATEMENTS: Final = {
    "": _CLAIM.format(f"t AS MATERIALIZED (SELECT {rows.NOW} AS now),", "NULL, NULL, false"),
    **{part: _CLAIM.format(f"{T}, {part},", _WENT) for part in (BURY, DELETE)},
}


_WIDEST: Final = 1 << 62


@attrs.frozen
class Answer:
    """Whether the queue was plain; and if so what was taken, in order, for :func:`outbox.stores.postgres.claiming.taken`."""

    plain: bool
    found: Sequence[rows.Row]

    @property
    def ids(self) -> list[str]:
        return [row[1] for row in self.found]


def is_plain(order: Order) -> bool:
    """Whether it can be asked for in this way."""
    return len(order.queues) == 1 and order.limit >= 1


def ask(sql: Sql, order: Order, settled: Settling | None, now: int | None) -> Answer:
    """Take what there is, if it is so; and write what was settled in any case: one round trip."""
    parameters = {
        "queue": order.queues[0],
        "limit": order.limit,
        "max_bytes": min(order.max_bytes, _WIDEST),
        "lease": width(order.lease),
        "now": now,
    }
    if settled is None:
        return _answer(sql.execute(_STATEMENTS[""], parameters).fetchall())
    if settled.part:
        found = sql.execute(_STATEMENTS[settled.part], {**parameters, **settled.parameters}).fetchall()
        _, ids, tokens, some = found[0][:4]
        settled.wrote(zip(ids or (), tokens or (), strict=True) if some else None)
        return _answer(found)
    with sql.connection.pipeline():
        settled.write(sql, now)
        cursor = sql.execute(_STATEMENTS[""], parameters)
    return _answer(cursor.fetchall())


def _answer(found: Sequence[rows.Row]) -> Answer:
    return Answer(plain=bool(found[0][0]), found=[row[4:] for row in found if row[5] is not None])

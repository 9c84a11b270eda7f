"""From the tables of earlier releases to those of this one: a step a version, all in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .naming import Sql

__all__ = ["OLDEST", "migrate"]

OLDEST: Final = 1

_STEPS: Final[Mapping[int, Sequence[str]]] = {
    1: (
        # A tombstone becomes a message of which only the id is left; the envelope's digest moves to the hot row.
        "ALTER TABLE outbox_message ADD COLUMN digest BLOB NOT NULL DEFAULT x''",
        """
        UPDATE outbox_message
        SET digest = coalesce((SELECT digest FROM outbox_body WHERE number = outbox_message.body), x'')
        """,
        """
        INSERT OR IGNORE INTO outbox_message (
            id, queue, priority, stage, state, fates, due, since, submitted, settled, generation, attempts, lost,
            reason, size, body, digest
        )
        SELECT id, '', 0, 4, 'delivered', '', settled, settled, settled, settled, 0, 0, 0, '', 0, 0, digest
        FROM outbox_tombstone
        """,
        "DROP TABLE outbox_tombstone",
        "ALTER TABLE outbox_body DROP COLUMN digest",
        "ALTER TABLE outbox_body ADD COLUMN coding TEXT NOT NULL DEFAULT ''",
        "DROP INDEX outbox_kept",
        # With the size in them the claims and the limits need not look at the rows.
        "DROP INDEX outbox_scheduled",
        "DROP INDEX outbox_ready",
        "DROP INDEX outbox_suspect",
        "CREATE INDEX outbox_scheduled ON outbox_message (queue, due, id, size) WHERE stage = 1",
        "CREATE INDEX outbox_ready ON outbox_message (queue, priority DESC, due, id, size) WHERE stage = 2",
        "CREATE INDEX outbox_suspect ON outbox_message (queue, priority DESC, due, id, size) WHERE stage = 3",
        "CREATE INDEX outbox_aged ON outbox_message (state, settled, id) WHERE stage = 0",
        "CREATE INDEX outbox_gone ON outbox_message (settled, id) WHERE stage = 4",
        """
        CREATE TABLE outbox_suspension (
            kind TEXT NOT NULL,
            value TEXT NOT NULL,
            until INTEGER,
            reason TEXT NOT NULL,
            PRIMARY KEY (kind, value)
        ) WITHOUT ROWID
        """,
    ),
    2: ("ALTER TABLE outbox_attempt ADD COLUMN dialogue TEXT NOT NULL DEFAULT ''",),
    # Whatever was held until now, no person held it.
    3: ("ALTER TABLE outbox_message ADD COLUMN resumes INTEGER",),
}
"""What leads from each version to the next."""


def migrate(sql: Sql, version: int) -> int:
    """Take the tables from *version* on, within the caller's transaction; return the version reached."""
    while version in _STEPS:
        for statement in _STEPS[version]:
            sql.execute(statement)
        version += 1
    return version

"""The tables, their indexes and their version.

One table has all of a message.  Its content is kept apart by PostgreSQL itself
(TOAST, for rows of more than half a KiB), so that the steps of a message
rewrite a small row and never its content.  *stage* keeps apart, each in its
own partial index, what a claim must not wade through:

====== ==========================================================
stage
====== ==========================================================
0      settled: no claim ever looks at it
1      scheduled: due at *due*, or leased until then
2      ready, in the order in which it is claimed
3      ready and suspect: its last claim never settled
4      gone: only its id is remembered
====== ==========================================================

Instants are microseconds since 1970 by the server's clock; *fates* is one
letter a recipient, in the order of *recipients*; *resumes* is when a message
was due that a person holds; *coding* says how *content* is coded at rest;
*digest* tells whether another message of the same id has the same envelope.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["CHANNEL", "INDEXES", "TABLES", "VERSION", "Index"]

VERSION: Final = 1
"""What this release writes."""

CHANNEL: Final = "outbox"
"""Notifications go out on the channel of this name, and of the schema behind a dot."""

TABLES: Final = (
    'CREATE TABLE IF NOT EXISTS outbox_meta (name text COLLATE "C" PRIMARY KEY, value text NOT NULL)',
    """
    CREATE TABLE IF NOT EXISTS outbox_message (
        id text COLLATE "C" PRIMARY KEY,
        queue text COLLATE "C" NOT NULL,
        priority smallint NOT NULL,
        stage smallint NOT NULL,
        state text COLLATE "C" NOT NULL,
        fates text COLLATE "C" NOT NULL,
        due bigint NOT NULL,
        since bigint NOT NULL,
        submitted bigint NOT NULL,
        settled bigint,
        generation bigint NOT NULL,
        attempts integer NOT NULL,
        lost integer NOT NULL,
        reason text NOT NULL,
        resumes bigint,
        size integer NOT NULL,
        digest bytea NOT NULL,
        coding text COLLATE "C" NOT NULL,
        sender text NOT NULL,
        recipients text NOT NULL,
        envelope bytea NOT NULL,
        content bytea NOT NULL
    ) WITH (
        fillfactor = 90, toast_tuple_target = 512,
        autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05
    )
    """,
    # Content alone goes out of the row, and as it is: what is compressed was compressed by its sender.
    "ALTER TABLE outbox_message ALTER COLUMN content SET STORAGE EXTERNAL",
    "ALTER TABLE outbox_message ALTER COLUMN envelope SET STORAGE MAIN",
    "ALTER TABLE outbox_message ALTER COLUMN recipients SET STORAGE MAIN",
    """
    CREATE TABLE IF NOT EXISTS outbox_attempt (
        row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text COLLATE "C" NOT NULL,
        number integer NOT NULL,
        at bigint NOT NULL,
        event text NOT NULL,
        relay text NOT NULL,
        results text NOT NULL,
        reason text NOT NULL,
        dialogue text NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS outbox_suspension (
        kind text COLLATE "C" NOT NULL,
        value text COLLATE "C" NOT NULL,
        until bigint,
        reason text NOT NULL,
        PRIMARY KEY (kind, value)
    )
    """,
    # What this store, and its copies, are told from every other by.
    "INSERT INTO outbox_meta (name, value) VALUES ('store', gen_random_uuid()::text) ON CONFLICT (name) DO NOTHING",
)


@attrs.frozen
class Index:
    """An index, which may be made beforehand and without a lock: what is there already is left as it is."""

    name: str
    on: str

    def statement(self, schema: str, *, concurrently: bool = False) -> str:
        how = "CONCURRENTLY " if concurrently else ""
        table, _, rest = self.on.partition(" ")
        return f"CREATE INDEX {how}IF NOT EXISTS {self.name} ON {schema}.{table} {rest}"


INDEXES: Final = (
    Index("outbox_scheduled", "outbox_message (queue, due, id) INCLUDE (size) WHERE stage = 1"),
    Index("outbox_ready", "outbox_message (queue, priority DESC, due, id) INCLUDE (size) WHERE stage = 2"),
    Index("outbox_suspect", "outbox_message (queue, priority DESC, due, id) INCLUDE (size) WHERE stage = 3"),
    Index("outbox_settled", "outbox_message (state, id) WHERE stage = 0"),
    Index("outbox_aged", "outbox_message (state, settled, id) WHERE stage = 0"),
    Index("outbox_gone", "outbox_message (settled, id) WHERE stage = 4"),
    Index("outbox_history", "outbox_attempt (id, row)"),
)

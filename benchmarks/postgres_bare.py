"""What a program writes that keeps messages in PostgreSQL by itself: one table, and the statements that everybody knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

TABLE = """
    DROP TABLE IF EXISTS bare;
    CREATE TABLE bare (id text COLLATE "C" PRIMARY KEY, content bytea NOT NULL, taken timestamptz);
"""
INSERT = "INSERT INTO bare (id, content) VALUES (%b, %b)"
INSERT_MANY = "INSERT INTO bare (id, content) SELECT * FROM unnest(%b::text[], %b::bytea[])"
CLAIM = """
    UPDATE bare SET taken = now() WHERE id = ANY(ARRAY(
        SELECT id FROM bare WHERE taken IS NULL ORDER BY id LIMIT %b FOR UPDATE SKIP LOCKED
    )) RETURNING id, content
"""
DELETE = "DELETE FROM bare WHERE id = ANY(%b)"


class Bare:
    """One connection; each statement is prepared, and commits by itself."""

    def __init__(self, dsn: str) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)

    def put(self, id: str, content: bytes) -> None:
        self._connection.execute(INSERT, (id, content))

    def put_many(self, ids: Sequence[str], contents: Sequence[bytes]) -> None:
        self._connection.execute(INSERT_MANY, (list(ids), list(contents)))

    def work(self, limit: int) -> int:
        """Claim and delete until there is nothing: nothing is leased, so what a killed worker had is lost."""
        done = 0
        while taken := self.turn(limit):
            done += taken
        return done

    def turn(self, limit: int) -> int:
        taken = self._connection.execute(CLAIM, (limit,), binary=True).fetchall()
        if taken or not limit:
            self._connection.execute(DELETE, ([id for id, _ in taken],))
        return len(taken)

    def close(self) -> None:
        self._connection.close()

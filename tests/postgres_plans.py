"""What PostgreSQL does for a verb: each statement explained beside its execution."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from outbox.lifecycle import Claim, Settlement
from outbox.stores.postgres import PostgresStore
from outbox.stores.postgres.driver import Cursor, cursor
from outbox.stores.postgres.naming import Sql
from outbox.testing.clauses.scene import LEASE, delivered

__all__ = ["Explained", "explained", "settled"]


class Explained:
    """Each statement of a verb, explained beside its execution and undone: the nodes of the plans, and what they touched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.blocks = 0
        really = Sql.execute

        def execute(sql: Sql, statement: str, parameters: Any = None) -> Cursor:
            if "outbox_message" in statement and not statement.lstrip().startswith("EXPLAIN"):
                sql.connection.execute("SAVEPOINT explained")
                look = cursor(sql.connection).execute(
                    b"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) " + sql._names(statement),
                    parameters,
                )
                ((plan,),) = look.fetchall()
                sql.connection.execute("ROLLBACK TO SAVEPOINT explained")
                self._walk((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"], top=True)
            return really(sql, statement, parameters)

        monkeypatch.setattr(Sql, "execute", execute)

    def _walk(self, node: dict[str, Any], *, top: bool = False) -> None:
        if top:
            self.blocks += node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        self.nodes.append(node)
        for each in node.get("Plans", ()):
            self._walk(each)

    def require_indexed(self, most: int) -> None:
        """See that the messages are come to by indexes alone, and by no more than so many rows each."""
        assert self.nodes
        for node in self.nodes:
            if node.get("Relation Name") != "outbox_message":
                continue
            assert "Seq Scan" not in node["Node Type"], node
            touched = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert touched <= most, node
        assert not [node for node in self.nodes if node["Node Type"] == "Sort" and node["Actual Rows"] > most]


def explained(store: PostgresStore, monkeypatch: pytest.MonkeyPatch, verb: Callable[[], object]) -> Explained:
    """The verb in one transaction, so that what is explained can be undone."""
    with monkeypatch.context() as patched:
        really = store._links.use

        def use(act: Callable[[Sql], Any], **_: Any) -> Any:
            def within(sql: Sql) -> Any:
                sql.connection.execute("BEGIN")
                answer = act(sql)
                sql.connection.execute("COMMIT")
                return answer

            return really(within)

        patched.setattr(store._links, "use", use)
        patched.setattr(psycopg.Connection, "pipeline", lambda _: contextlib.nullcontext())
        seen = Explained(patched)
        verb()
    return seen


def settled(store: PostgresStore, number: int, claims: Sequence[Claim] = ()) -> None:
    """Settle *claims*, or so many that are claimed here, as delivered."""
    while number > 0:
        mine = claims or store.claim(limit=100, lease=LEASE, queues=["mail"])
        assert mine
        store.settle([Settlement(claim, delivered(claim)) for claim in mine])
        number -= len(mine)

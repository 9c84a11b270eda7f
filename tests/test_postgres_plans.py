"""What PostgreSQL does for each verb, however many messages there are: along which index, over how many rows, in how many round trips.

``OUTBOX_PLANS=long`` takes a million scheduled and a million ready messages.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from postgres_cutter import cutting
from postgres_places import Places

from outbox.lifecycle import Claim, Settlement
from outbox.stores.postgres import PostgresStore
from outbox.stores.postgres.driver import Cursor, cursor
from outbox.stores.postgres.naming import Sql
from outbox.testing.clauses.scene import LEASE, delivered, mail, put, retry, take

MANY: Final = 1_000_000 if os.environ.get("OUTBOX_PLANS") == "long" else 20_000
FEW: Final = 1_000
LIMIT: Final = 10
FILL: Final = """
    INSERT INTO {0}.outbox_message (
        id, queue, priority, stage, state, fates, due, since, submitted, generation, attempts, lost, reason, size, digest,
        coding, sender, recipients, envelope, content
    )
    SELECT '{1}-' || n, 'mail', n %% 3, {2}, 'queued', 'w', {3} + n, 0, 0, 1, 0, 0, '', 0, '', '', '', '[]', '', ''
    FROM generate_series(1, %s) AS n
"""
FAR: Final = 1 << 60


@pytest.fixture
def path(tmp_path: Path, postgres: Places) -> Iterator[Path]:
    yield tmp_path
    postgres.leave(tmp_path)


@pytest.fixture
def store(path: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(path, notify=False)) as store:
        yield store


def fill(postgres: Places, path: Path, number: int, *, analyze: bool = True) -> None:
    """So many that are ready behind all that is put, and so many that are not due for long."""
    schema = postgres.schema(path)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for name, stage, due in (("ready", 2, 0), ("later", 1, FAR)):
            connection.execute(FILL.format(schema, name, stage, due).encode(), (number,))
        connection.execute(f"VACUUM {'ANALYZE' if analyze else ''} {schema}.outbox_message".encode())


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

        def use(act: Callable[[Sql], Any]) -> Any:
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


def claimed(store: PostgresStore) -> list[Claim]:
    return list(store.claim(limit=LIMIT, lease=LEASE, queues=["mail"]))


@pytest.mark.parametrize("analyze", [True, False])
def test_a_claim_touches_no_more_rows_than_it_takes_however_many_wait(
    store: PostgresStore, postgres: Places, path: Path, monkeypatch: pytest.MonkeyPatch, *, analyze: bool
) -> None:
    fill(postgres, path, MANY, analyze=analyze)
    put(store, *(mail(f"m{n}", priority=9) for n in range(2 * LIMIT)))
    found: list[Claim] = []
    seen = explained(store, monkeypatch, lambda: found.extend(claimed(store)))

    assert len(found) == LIMIT
    seen.require_indexed(2 * LIMIT)


def test_a_claim_reads_no_more_pages_where_a_hundred_times_as_many_wait(
    store: PostgresStore, postgres: Places, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres, path, FEW)
    put(store, *(mail(f"a{n}", priority=9) for n in range(LIMIT)))
    few = explained(store, monkeypatch, lambda: claimed(store)).blocks
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"DELETE FROM {postgres.schema(path)}.outbox_message".encode())
    fill(postgres, path, MANY)
    put(store, *(mail(f"b{n}", priority=9) for n in range(LIMIT)))
    many = explained(store, monkeypatch, lambda: claimed(store)).blocks

    # An index of a million rows is one level higher; each of its scans reads one page more.
    assert many <= 1.5 * few + 30


def test_what_has_become_due_is_made_ready_along_an_index_and_a_thousand_at_a_time(
    store: PostgresStore, postgres: Places, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres, path, MANY)
    put(store, *(mail(f"m{n}", priority=9) for n in range(LIMIT)))
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        schema = postgres.schema(path)
        connection.execute(f"UPDATE {schema}.outbox_message SET due = 0 WHERE stage = 1".encode())
        connection.execute(f"VACUUM ANALYZE {schema}.outbox_message".encode())
    seen = explained(store, monkeypatch, lambda: claimed(store))

    seen.require_indexed(1000)


def test_settling_extending_and_putting_come_to_their_rows_by_their_ids(
    store: PostgresStore, postgres: Places, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, *(mail(f"m{n}", priority=9) for n in range(3 * LIMIT)))
    claims = take(store, 2 * LIMIT)
    fill(postgres, path, MANY)
    some, others = claims[:LIMIT], claims[LIMIT:]
    verbs: list[Callable[[], object]] = [
        lambda: store.extend(claims, lease=LEASE),
        lambda: store.settle([Settlement(claim, delivered(claim)) for claim in some]),
        lambda: store.settle([Settlement(claim, retry(claim)) for claim in others]),
        lambda: store.put([mail(f"m{n}") for n in range(LIMIT)]),
        lambda: store.cancel([claim.message.id for claim in others]),
        lambda: store.get("m1"),
        lambda: store.next_due(["mail", "other"]),
        lambda: store.browse(after="m1", limit=LIMIT),
        lambda: store.prune(limit=LIMIT),
    ]
    for verb in verbs:
        explained(store, monkeypatch, verb).require_indexed(4 * LIMIT)


# -- round trips


def test_each_verb_takes_as_few_round_trips_as_it_can(postgres: Places, path: Path) -> None:
    host = str(psycopg.conninfo.conninfo_to_dict(postgres.dsn).get("host", ""))
    if not host.startswith("/"):
        pytest.skip("the server is the user's own, and not behind a Unix socket that can be stood before")
    schema = postgres.schema(path)
    with (
        cutting(host) as between,
        contextlib.closing(
            PostgresStore(f"{postgres.dsn} host={between.folder}", schema=schema, notify=False)
        ) as store,
    ):
        put(store, *(mail(f"m{n:03}") for n in range(40)))
        claims = take(store, 5)
        more = take(store, 10)

        def turns(verb: Callable[[], object]) -> int:
            before = between.turns
            verb()
            return between.turns - before

        assert {
            "put one": turns(lambda: put(store, "one")),
            "put a hundred": turns(lambda: put(store, *(mail(f"h{n}") for n in range(100)))),
            "extend": turns(lambda: store.extend(claims, lease=LEASE)),
            "settle as delivered": turns(
                lambda: store.settle([Settlement(claim, delivered(claim)) for claim in claims])
            ),
            "claim": turns(lambda: take(store, 5)),
            "exchange": turns(
                lambda: store.exchange(
                    [Settlement(claim, retry(claim, dt.timedelta(hours=1))) for claim in more],
                    limit=5,
                    lease=LEASE,
                    queues=["mail"],
                )
            ),
            "next_due": turns(lambda: store.next_due(["mail"])),
        } == {
            "put one": 1,
            "put a hundred": 2,
            "extend": 1,
            "settle as delivered": 1,
            "claim": 2,
            "exchange": 2,
            "next_due": 1,
        }

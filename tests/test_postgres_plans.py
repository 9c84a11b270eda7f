"""What PostgreSQL does for each verb, however many messages there are: along which index, over how many rows, in how many round trips.

``OUTBOX_PLANS=long`` takes a million scheduled and a million ready messages.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from postgres_cutter import cutting
from postgres_places import Places
from postgres_plans import explained

from outbox.lifecycle import Claim, Settlement, State
from outbox.stores.postgres import PostgresStore, browsing
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
def store(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place, notify=False)) as store:
        yield store


def fill(postgres: Places, place: Path, number: int, *, analyze: bool = True) -> None:
    """So many that are ready behind all that is put, and so many that are not due for long."""
    schema = postgres.schema(place)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for name, stage, due in (("ready", 2, 0), ("later", 1, FAR)):
            connection.execute(FILL.format(schema, name, stage, due).encode(), (number,))
        connection.execute(f"VACUUM {'ANALYZE' if analyze else ''} {schema}.outbox_message".encode())


def claimed(store: PostgresStore) -> list[Claim]:
    return list(store.claim(limit=LIMIT, lease=LEASE, queues=["mail"]))


@pytest.mark.parametrize("analyze", [True, False])
def test_a_claim_touches_no_more_rows_than_it_takes_however_many_wait(
    store: PostgresStore, postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch, *, analyze: bool
) -> None:
    fill(postgres, place, MANY, analyze=analyze)
    put(store, *(mail(f"m{n}", priority=9) for n in range(2 * LIMIT)))
    found: list[Claim] = []
    seen = explained(store, monkeypatch, lambda: found.extend(claimed(store)))

    assert len(found) == LIMIT
    seen.require_indexed(2 * LIMIT)


def test_a_claim_reads_no_more_pages_where_a_hundred_times_as_many_wait(
    store: PostgresStore, postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres, place, FEW)
    put(store, *(mail(f"a{n}", priority=9) for n in range(LIMIT)))
    few = explained(store, monkeypatch, lambda: claimed(store)).blocks
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"DELETE FROM {postgres.schema(place)}.outbox_message".encode())
    fill(postgres, place, MANY)
    put(store, *(mail(f"b{n}", priority=9) for n in range(LIMIT)))
    many = explained(store, monkeypatch, lambda: claimed(store)).blocks

    # An index of a million rows is one level higher; each of its scans reads one page more.
    assert many <= 1.5 * few + 30


def test_what_has_become_due_is_made_ready_along_an_index_and_a_thousand_at_a_time(
    store: PostgresStore, postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres, place, MANY)
    put(store, *(mail(f"m{n}", priority=9) for n in range(LIMIT)))
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        schema = postgres.schema(place)
        connection.execute(f"UPDATE {schema}.outbox_message SET due = 0 WHERE stage = 1".encode())
        connection.execute(f"VACUUM ANALYZE {schema}.outbox_message".encode())
    seen = explained(store, monkeypatch, lambda: claimed(store))

    seen.require_indexed(1000)


def test_settling_extending_and_putting_come_to_their_rows_by_their_ids(
    store: PostgresStore, postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, *(mail(f"m{n}", priority=9) for n in range(3 * LIMIT)))
    claims = take(store, 2 * LIMIT)
    fill(postgres, place, MANY)
    some, others = claims[:LIMIT], claims[LIMIT:]
    verbs: list[Callable[[], object]] = [
        lambda: store.extend(claims, lease=LEASE),
        lambda: store.settle([Settlement(claim, delivered(claim)) for claim in some]),
        lambda: store.settle([Settlement(claim, retry(claim)) for claim in others]),
        lambda: store.put([mail(f"m{n}") for n in range(LIMIT)]),
        lambda: store.cancel([claim.message.id for claim in others]),
        lambda: store.get("m1"),
        lambda: store.next_due(["mail", "other"]),
        lambda: store.prune(limit=LIMIT),
    ]
    for verb in verbs:
        explained(store, monkeypatch, verb).require_indexed(4 * LIMIT)
    # What waits is counted first, as far as it is few.
    explained(store, monkeypatch, lambda: store.browse(after="m1", limit=LIMIT)).require_indexed(
        browsing.FEW + 1
    )


SETTLED: Final = """
    INSERT INTO {0}.outbox_message (
        id, queue, priority, stage, state, fates, due, since, submitted, settled, generation, attempts, lost, reason, size,
        digest, coding, sender, recipients, envelope, content
    )
    SELECT '{1}-' || n, 'mail', 0, {2}, '{3}', 'a', 0, 0, 0, n, 1, 1, 0, '', 0, '', '', '', '[]', '', ''
    FROM generate_series(1, %s) AS n
"""


@pytest.mark.parametrize("queued", [FEW, MANY])
def test_a_list_and_the_ages_pass_over_what_is_settled_and_what_only_its_id_is_remembered_of(
    postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch, queued: int
) -> None:
    schema = postgres.schema(place)
    # As for a disk without arms: of a table as small as this the planner reads all as cheaply, and which way it goes is luck.
    dsn = f"{postgres.dsn} options='-c random_page_cost=1.1'"
    with contextlib.closing(PostgresStore(dsn, schema=schema)) as store:
        lists_and_ages(store, postgres, place, monkeypatch, queued)


def lists_and_ages(
    store: PostgresStore, postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch, queued: int
) -> None:
    schema = postgres.schema(place)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for name, stage, state in (("a-gone", 4, "delivered"), ("b-dead", 0, "dead"), ("c-held", 0, "held")):
            connection.execute(SETTLED.format(schema, name, stage, state).encode(), (MANY,))
    fill(postgres, place, queued)

    listed = explained(store, monkeypatch, lambda: store.browse(limit=LIMIT))
    # Where more wait than are sorted, the way is along the ids, past those that are remembered.
    listed.require_indexed(FEW if queued == FEW else 3 * MANY + LIMIT)
    if queued == FEW:
        # As many of each kind wait; for a group they may be sorted together.
        explained(store, monkeypatch, lambda: list(store.ages([]))).require_indexed(2 * FEW)


@pytest.mark.parametrize("disk", [1.1, 4, 20])
def test_a_page_of_what_is_settled_is_read_from_its_state_alone_whatever_the_planner_thinks_of_the_disk(
    postgres: Places, place: Path, monkeypatch: pytest.MonkeyPatch, disk: float
) -> None:
    """Along all ids it would come past those of every other state, and past those that are only remembered."""
    schema = postgres.schema(place)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for name, stage, state in (("a-gone", 4, "delivered"), ("b-dead", 0, "dead"), ("c-held", 0, "held")):
            connection.execute(SETTLED.format(schema, name, stage, state).encode(), (MANY // 4,))
        connection.execute(f"VACUUM ANALYZE {schema}.outbox_message".encode())
    dsn = f"{postgres.dsn} options='-c random_page_cost={disk}'"
    with contextlib.closing(PostgresStore(dsn, schema=schema)) as store:
        for after in ("", "b-dead-4", "c-held-4"):
            page = explained(store, monkeypatch, lambda after=after: store.browse(after=after, limit=LIMIT))  # type: ignore[misc]  # mypy infers no default
            page.require_indexed(2 * LIMIT)
        held = explained(store, monkeypatch, lambda: store.browse(states=[State.HELD], limit=LIMIT))
        held.require_indexed(LIMIT)


# -- round trips


def test_each_verb_takes_as_few_round_trips_as_it_can(postgres: Places, place: Path) -> None:
    host = str(psycopg.conninfo.conninfo_to_dict(postgres.dsn).get("host", ""))
    if not host.startswith("/"):
        pytest.skip("the server is the user's own, and not behind a Unix socket that can be stood before")
    schema = postgres.schema(place)
    with (
        cutting(host) as between,
        contextlib.closing(
            PostgresStore(f"{postgres.dsn} host={between.folder}", schema=schema, notify=False)
        ) as store,
    ):
        put(store, *(mail(f"m{n:03}") for n in range(40)))
        claims = take(store, 5)
        more, last = take(store, 10), take(store, 5)

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
            "exchange, all delivered": turns(
                lambda: store.exchange(
                    [Settlement(claim, delivered(claim)) for claim in last],
                    limit=5,
                    lease=LEASE,
                    queues=["mail"],
                )
            ),
            "next_due": turns(lambda: store.next_due(["mail"])),
        } == {
            "put one": 1,
            "put a hundred": 1,
            "extend": 1,
            "settle as delivered": 1,
            "claim": 1,
            "exchange": 1,
            "exchange, all delivered": 1,
            "next_due": 1,
        }

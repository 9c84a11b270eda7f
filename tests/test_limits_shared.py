"""Several processes over one store keep the limit of one relay together: what the relay itself sees of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psycopg
import pytest
from limits_run import LONG, PER_SECOND, RUNNERS, Seen, seen_by_the_relay
from postgres_places import Places
from redis_server import started

from outbox.stores.postgres import PostgresStore
from outbox.stores.redis import RedisStore

SECONDS = 40 if LONG else 3


def require_the_limit(seen: Seen) -> None:
    assert seen.passed() < 0.001
    if not LONG:
        return
    (rate,) = seen.rates(30.0, first=4.0)[:1]
    stretches = ", ".join(f"{each:.0f}" for each in seen.rates(5.0, first=4.0))
    print(f"{len(seen.shares)} runners, a limit of {PER_SECOND}/s: {rate:.1f}/s over 30 s")
    print(f"by five seconds: {stretches}")
    print(f"each of them sent {seen.shares[0]} to {seen.shares[-1]} messages")
    assert len(seen.shares) == RUNNERS
    assert 0.95 * PER_SECOND <= rate <= 1.05 * PER_SECOND


def test_runners_over_postgresql_keep_one_relay_s_limit(postgres: Places, tmp_path: Path) -> None:
    schema = postgres.schema(tmp_path)
    said = psycopg.conninfo.conninfo_to_dict(postgres.dsn)
    secret = f":{said['password']}" if "password" in said else ""
    url = (
        f"postgresql://{said['user']}{secret}@/{said['dbname']}?host={said['host']}"
        f"&port={said.get('port', 5432)}&schema={schema}"
    )
    try:
        with contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as store:
            require_the_limit(seen_by_the_relay(store, url, tmp_path, SECONDS * PER_SECOND))
    finally:
        postgres.leave(tmp_path)


@pytest.mark.parametrize("fsync", ["everysec"])
def test_runners_over_redis_keep_one_relay_s_limit(fsync: str, tmp_path: Path) -> None:
    with (
        started("--appendonly", "yes", "--appendfsync", fsync) as server,
        contextlib.closing(RedisStore(server.url)) as store,
    ):
        require_the_limit(seen_by_the_relay(store, server.url, tmp_path, SECONDS * PER_SECOND))

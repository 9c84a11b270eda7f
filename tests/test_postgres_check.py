"""What the settings of a server do to a store: it is refused where it cannot work, and ``check`` names what would lose mail."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psycopg
import pytest
from postgres_places import Places

from outbox.errors import ConfigurationError
from outbox.stores.postgres import PostgresStore


@pytest.fixture
def schema(place: Path, postgres: Places) -> str:
    return postgres.schema(place)


def said(store: PostgresStore) -> dict[str, list[str]]:
    return {
        level: [f"{each.text} {each.advice}" for each in store.check() if each.level == level]
        for level in ("ok", "warning", "error")
    }


@pytest.mark.parametrize("isolation", ["serializable", r"repeatable\\ read"])
def test_transactions_that_are_isolated_further_are_refused_with_what_to_do(
    postgres: Places, schema: str, isolation: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"is (serializable|repeatable read), .*ALTER ROLE"):
        PostgresStore(
            f"{postgres.dsn} options='-cdefault_transaction_isolation={isolation}'", schema=schema
        ).close()


def test_what_is_to_be_done_is_taken(postgres: Places, schema: str) -> None:
    stricter = "-cdefault_transaction_isolation=serializable"
    less = r"-cdefault_transaction_isolation=read\\ committed"
    PostgresStore(f"{postgres.dsn} options='{stricter} {less}'", schema=schema).close()


def test_check_names_the_isolation_where_it_was_changed_since(postgres: Places, schema: str) -> None:
    with contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as store:
        assert not any("isolation" in each for each in said(store)["error"])
        (connection,) = store._links._open
        connection.execute("SET default_transaction_isolation = 'serializable'")

        (found,) = [each for each in said(store)["error"] if "isolation" in each]
    assert "default_transaction_isolation is serializable" in found
    assert "ALTER ROLE" in found


def test_check_names_the_rights_that_its_user_lacks(postgres: Places, schema: str) -> None:
    with contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as store:
        assert not any("may not" in each for each in said(store)["warning"])
    role = f"looker_of_{schema}"
    with psycopg.connect(postgres.dsn, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role}".encode())
        owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}".encode())
        owner.execute(f"GRANT INSERT ON {schema}.outbox_attempt TO {role}".encode())
    try:
        with contextlib.closing(
            PostgresStore(f"{postgres.dsn} options=-crole={role}", schema=schema)
        ) as store:
            (attempt, *others) = [each for each in said(store)["warning"] if "may not" in each]
    finally:
        with psycopg.connect(postgres.dsn, autocommit=True) as owner:
            owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())

    assert f"the user {role!r} may not UPDATE, DELETE in outbox_attempt" in attempt
    assert f'GRANT UPDATE, DELETE ON "{schema}".outbox_attempt TO "{role}"' in attempt
    assert len(others) == 3


def test_check_does_not_say_that_commits_are_on_the_disk_where_they_are_not(
    postgres: Places, schema: str
) -> None:
    with contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as store:
        assert any("on the disk" in each for each in said(store)["ok"])
    dsn = f"{postgres.dsn} options=-csynchronous_commit=off"
    with contextlib.closing(PostgresStore(dsn, schema=schema)) as store:
        found = said(store)

    assert [each for each in found["ok"] if "on the disk" in each] == []
    assert any("synchronous_commit is off" in each for each in found["error"])

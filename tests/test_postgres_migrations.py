"""How a database comes by the tables: once, under a lock, by hand where somebody wants it, and while others work."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator

import psycopg
import pytest
from command_line import CommandLine
from postgres_places import Places

from outbox.errors import ConfigurationError, FormatError, StoreUnavailable
from outbox.locate import migration_from_url, store_from_url
from outbox.stores.postgres import PostgresStore, migrations
from outbox.stores.postgres.links import linked
from outbox.stores.postgres.migrations import STEPS, PostgresMigration, Step, require_known
from outbox.stores.postgres.naming import Names
from outbox.stores.postgres.schema import INDEXES, VERSION, Index
from outbox.testing.clauses.scene import ids, put, take

PASSWORD = "hunter2-very-secret"


@pytest.fixture
def schema(postgres: Places) -> Iterator[str]:
    """One that is not there."""
    name = f"m{secrets.token_hex(6)}"
    yield name
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE".encode())


@pytest.fixture
def url(postgres: Places, schema: str) -> str:
    said = psycopg.conninfo.conninfo_to_dict(postgres.dsn)
    host = f"host={said['host']}&" if str(said["host"]).startswith("/") else ""
    where = "" if host else f"{said['host']}:{said.get('port', 5432)}"
    secret = f":{said['password']}@" if "password" in said else "@"
    return f"postgresql://{said['user']}{secret}{where}/{said['dbname']}?{host}schema={schema}"


@pytest.fixture
def modest(postgres: Places) -> Iterator[str]:
    """A user who may make no schema."""
    name = f"u{secrets.token_hex(6)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        yield name
        connection.execute(f"DROP OWNED BY {name} CASCADE".encode())
        connection.execute(f"DROP ROLE {name}".encode())


def test_the_script_for_a_schema_that_is_there_asks_for_no_right_to_make_one(
    postgres: Places, schema: str, modest: str
) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        connection.execute(f"GRANT ALL ON SCHEMA {schema} TO {modest}".encode())
        script = PostgresMigration(postgres.dsn, schema=schema).script()
        connection.execute(f"SET ROLE {modest}".encode())
        for statement in script:
            connection.execute(statement.encode())

    assert PostgresMigration(postgres.dsn, schema=schema).script() == []


def described(postgres: Places, schema: str) -> list[tuple[object, ...]]:
    """All columns and indexes of a schema."""
    with psycopg.connect(postgres.dsn) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns "
            "WHERE table_schema = %s ORDER BY 1, 2",
            (schema,),
        ).fetchall()
        indexes = connection.execute(
            "SELECT indexname, replace(indexdef, schemaname || '.', '') FROM pg_indexes WHERE schemaname = %s ORDER BY 1",
            (schema,),
        ).fetchall()
    return [*columns, *indexes]


def test_a_command_that_looks_makes_no_tables_and_says_what_does(url: str) -> None:
    with pytest.raises(ConfigurationError, match="outbox migrate makes one"):
        store_from_url(url, create=False)


def test_migrate_makes_the_tables_and_the_second_time_does_nothing(url: str, outbox: CommandLine) -> None:
    assert outbox("migrate", "--store", url).out.startswith(f"made the tables of version {VERSION}")
    assert outbox("migrate", "--store", url).out.startswith("there was nothing to do")
    with contextlib.closing(store_from_url(url, create=False)) as store:
        put(store, "a")
        assert ids(take(store)) == ["a"]


def test_what_migrate_says_by_sql_makes_the_same_tables(
    url: str, outbox: CommandLine, postgres: Places, schema: str
) -> None:
    script = outbox("migrate", "--sql", "--store", url).out
    assert not described(postgres, schema)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(script.encode())
    by_hand = described(postgres, schema)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    outbox("migrate", "--store", url)

    assert by_hand == described(postgres, schema) != []
    assert outbox("migrate", "--sql", "--store", url).out.startswith("-- nothing to do")


def test_of_many_who_migrate_at_once_one_does(postgres: Places, schema: str) -> None:
    done: list[list[str]] = []
    begin = threading.Barrier(6)

    def migrate() -> None:
        begin.wait()
        done.append(list(PostgresMigration(postgres.dsn, schema=schema).run()))

    threads = [threading.Thread(target=migrate) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert sorted(map(len, done)) == [0] * 5 + [1]


ADDED = "ALTER TABLE outbox_message ADD COLUMN IF NOT EXISTS note text NOT NULL DEFAULT ''"
NEXT = Step(
    VERSION + 1,
    VERSION,
    (ADDED,),
    [Index("outbox_of_sender", "outbox_message (sender)"), Index("outbox_noted", "outbox_message (note)")],
)
"""As the next release may have it: it adds a column, with an index of it and another."""


def taken_to(dsn: str, schema: str, *steps: Step) -> list[str]:
    with contextlib.closing(linked(dsn, Names(schema))) as links:
        return links.use(lambda sql: migrations.migrate(sql, Names(schema), steps))


def executed(postgres: Places, lines: list[str]) -> None:
    """As psql does it: statement by statement."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for line in lines:
            connection.execute(line.encode())


def test_what_the_next_release_says_by_sql_makes_what_it_makes_without_locking_a_big_table(
    postgres: Places, schema: str
) -> None:
    """An index of a column that the same step adds comes behind that column, and before the version that says all is there."""
    PostgresStore(postgres.dsn, schema=schema).close()
    script = migrations.script(VERSION, Names(schema), [*STEPS, NEXT])
    executed(postgres, script)
    by_hand = described(postgres, schema)
    assert migrations.script(VERSION + 1, Names(schema), [*STEPS, NEXT]) == []
    assert taken_to(postgres.dsn, schema, *STEPS, NEXT) == []
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    PostgresStore(postgres.dsn, schema=schema).close()
    taken_to(postgres.dsn, schema, *STEPS, NEXT)

    assert by_hand == described(postgres, schema)
    made = [line for line in script if "INDEX" in line]
    assert ["CONCURRENTLY" in line for line in made] == [True, True]


def test_what_was_made_beforehand_by_its_first_lines_is_left_as_it_is(postgres: Places, schema: str) -> None:
    PostgresStore(postgres.dsn, schema=schema).close()
    script = migrations.script(VERSION, Names(schema), [*STEPS, NEXT])
    last = max(n for n, line in enumerate(script) if "CONCURRENTLY" in line)
    executed(postgres, script[: last + 1])
    before = numbers(postgres, schema)

    assert taken_to(postgres.dsn, schema, *STEPS, NEXT) == [f"brought to version {VERSION + 1}"]
    assert numbers(postgres, schema) == before
    assert {"outbox_of_sender", "outbox_noted"} <= set(before)


def numbers(postgres: Places, schema: str) -> dict[str, int]:
    """By which each index is told from one that was made anew."""
    with psycopg.connect(postgres.dsn) as connection:
        return dict(
            connection.execute(
                "SELECT c.relname, c.oid::int8 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
                "WHERE n.nspname = %s AND c.relkind = 'i'",
                (schema,),
            ).fetchall()
        )


def test_whatever_a_step_does_it_can_do_again(postgres: Places, schema: str) -> None:
    PostgresStore(postgres.dsn, schema=schema).close()
    before = described(postgres, schema)
    for step in STEPS:
        executed(postgres, step.all(Names(schema)))

    assert described(postgres, schema) == before


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE outbox_message ADD COLUMN note text",
        "CREATE TABLE outbox_note (id text)",
        "CREATE INDEX outbox_noted ON outbox_message (note)",
    ],
)
def test_a_step_that_cannot_be_done_again_is_refused(statement: str) -> None:
    with pytest.raises(ValueError, match=r"IF NOT EXISTS.*beforehand"):
        Step(VERSION + 1, VERSION, (statement,))


def test_programs_of_this_release_work_beside_those_of_the_next(postgres: Places, schema: str) -> None:
    """The next one has added a column and an index, and says that this one may go on."""
    with contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as old:
        put(old, "a")
        done = taken_to(postgres.dsn, schema, *STEPS, NEXT)
        assert done == [f"brought to version {VERSION + 1}"]
        put(old, "b")
        assert ids(take(old)) == ["a", "b"]
        with contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as again:
            put(again, "c")
            assert ids(take(old)) == ["c"]


def test_a_migration_that_would_wait_for_another_transaction_keeps_no_runner_waiting(
    postgres: Places, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits to alter a table has all wait behind him who only want to use it."""
    monkeypatch.setattr(migrations, "_PATIENCE", "50ms")
    dsn = f"{postgres.dsn} options='-c statement_timeout=5s'"
    with (
        contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as old,
        psycopg.connect(dsn) as report,
    ):
        report.execute(f"SELECT count(*) FROM {schema}.outbox_message".encode())
        with pytest.raises(StoreUnavailable, match="has it locked"):
            taken_to(dsn, schema, *STEPS, NEXT)
        put(old, "a")
        report.rollback()
        assert len(taken_to(dsn, schema, *STEPS, NEXT)) == 1
        assert ids(take(old)) == ["a"]


def test_a_version_that_is_not_for_this_release_is_refused() -> None:
    names = Names("public")
    with pytest.raises(FormatError, match="newer release"):
        require_known({"version": VERSION + 2, "readable": VERSION + 1}, "db", names)
    with pytest.raises(ConfigurationError, match="outbox migrate"):
        require_known({"version": 0, "readable": 0}, "db", names)
    require_known({"version": VERSION + 1, "readable": VERSION}, "db", names)


def test_check_names_an_index_that_is_missing_and_how_to_make_it(postgres: Places, schema: str) -> None:
    with (
        contextlib.closing(PostgresStore(postgres.dsn, schema=schema)) as store,
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
    ):
        for index in INDEXES:
            connection.execute(f"DROP INDEX {schema}.{index.name}".encode())
            (found,) = [each for each in store.check() if each.level == "error"]
            assert index.name in found.text
            for statement in found.advice.split("; "):
                connection.execute(statement.encode())
            assert not [each for each in store.check() if each.level == "error"]


# -- no secret is shown


def test_no_password_is_shown_where_the_server_is_not_there(outbox: CommandLine) -> None:
    url = f"postgresql://ann:{PASSWORD}@127.0.0.1:1/shop"
    with pytest.raises(StoreUnavailable) as caught:
        store_from_url(url)
    ran = outbox("status", "--store", url)

    for text in (str(caught.value), repr(caught.value), ran.out, ran.err):
        assert PASSWORD not in text
    assert "postgresql://127.0.0.1:1/shop" in str(caught.value)


@pytest.mark.parametrize(
    "dsn", [f"postgresql://ann:{PASSWORD}%@h/db", f"password={PASSWORD} host", f"host=h {PASSWORD}=x"]
)
def test_no_part_of_a_dsn_that_cannot_be_read_is_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PostgresStore(dsn)

    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_neither_the_store_nor_what_it_holds_shows_the_password(postgres: Places, schema: str) -> None:
    with contextlib.closing(PostgresStore(f"{postgres.dsn} password={PASSWORD}", schema=schema)) as store:
        assert PASSWORD not in repr(store)
        assert not [each for each in store.check() if PASSWORD in each.text + each.advice]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://host", "names no database"),
        ("postgresql://host/a/b", "names no database"),
        ("postgresql://host/db?schem=x", "did you mean 'schema'"),
        ("postgresql://host/db?max_connections=many", "no whole number"),
        ("postgresql://host/db?schema=Public", "small letter"),
        ("postgresql://host/db?min_free=1", "unknown option"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, says: str) -> None:
    for find in (store_from_url, migration_from_url):
        with pytest.raises(ConfigurationError, match=says):
            find(url)

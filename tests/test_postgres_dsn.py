"""What is said of a database that cannot be meant, or reached: what to do about it, and nothing of its password."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import psycopg
import pytest
from postgres_server import Server, kill, own_server

from outbox.errors import ConfigurationError, StoreUnavailable
from outbox.locate import store_from_url
from outbox.locate.masking import OPTIONS
from outbox.locate.readers import SETTINGS
from outbox.stores.postgres import PostgresStore
from outbox.stores.postgres.links import SETTINGS as OURS


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://shop:c4n/4ry@db/shop",
        "postgresql://shop:c4n/4ry@db:5432/shop",
        "postgresql://shop:c4n@4ry@db/shop",
        "postgresql://shop:c4n4ry@db/sh op=1",
        "host=db password=c4n4ry port",
        "host=db dbname='shop password=c4n4ry'",
        "host='db password=c4n4ry' dbname=shop",
        "service=shop:c4n4ry@db",
        "host=shop:c4n4ry@db dbname=shop",
        "host=db,shop:c4n4ry@db dbname=shop",
        "hostaddr=shop:c4n4ry@127.0.0.1 dbname=shop",
        "host=db dbname=shop:c4n4ry@db/shop",
        "host=db port=5432:c4n4ry@db dbname=shop",
        "host=db port=c4n4ry dbname=shop",
        "postgresql://db/shop?service=shop:c4n4ry@db",
        "postgresql://db/shop?host=shop:c4n4ry@db",
    ],
)
def test_a_password_with_a_slash_is_shown_by_no_error(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        PostgresStore(dsn)

    assert not [part for part in ("c4n", "4ry") if part in str(refused.value)]


@pytest.mark.parametrize("dsn", ["host=@socket dbname=shop", "host=127.0.0.1 port=1 dbname=shop@home"])
def test_an_at_that_is_no_passwords_may_stand_in_it(dsn: str) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        PostgresStore(dsn)


@pytest.mark.parametrize(
    "option",
    [
        "sslmode=bad",
        "connect_timeout=abc",
        "target_session_attrs=bad",
        "channel_binding=bad",
        "keepalives_idle=soon",
        "load_balance_hosts=bad",
        "ssl_min_protocol_version=bad",
    ],
)
def test_an_option_that_libpq_does_not_understand_is_a_setting_to_be_mended(option: str) -> None:
    """And nothing that comes right by itself, as a server that cannot be reached."""
    name, _, value = option.partition("=")
    with pytest.raises(ConfigurationError, match=f"cannot be used: .*{name}") as refused:
        PostgresStore(f"host=127.0.0.1 port=1 dbname=shop password=c4n4ry {option}")
    assert value in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"^store postgresql://") as refused:
        store_from_url(f"postgresql://shop:c4n4ry@127.0.0.1:1/shop?{option}")
    assert "c4n4ry" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() & set(OPTIONS["postgresql"])))
@pytest.mark.parametrize(
    "dsn", ["postgresql://shop:c4n4ry@db/shop?{}=7", "host=db password=c4n4ry dbname=shop {}=7"]
)
def test_a_setting_of_the_store_in_the_dsn_is_named_and_where_it_belongs(dsn: str, name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        PostgresStore(dsn.format(name))

    told = str(refused.value)
    assert f"{name}=" in told
    assert f"PostgresStore(dsn, {name}=...)" in told
    assert "c4n4ry" not in told


def test_the_settings_of_the_store_are_those_of_its_url() -> None:
    assert SETTINGS.keys() & set(OPTIONS["postgresql"]) == OURS


def test_any_other_word_that_libpq_does_not_know_may_be_part_of_a_password_and_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="no connection string") as refused:
        PostgresStore("host=db password=a c4n4ry=b")

    assert "c4n4ry" not in str(refused.value)


def test_of_several_hosts_it_is_said_of_each_why_it_gave_no_connection() -> None:
    with contextlib.ExitStack() as nobodies:
        ports = []
        for _ in range(2):
            nobody = nobodies.enter_context(contextlib.closing(socket.socket()))
            nobody.bind(("127.0.0.1", 0))
            ports.append(nobody.getsockname()[1])
        with pytest.raises(StoreUnavailable, match="cannot be reached") as refused:
            PostgresStore(f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]} dbname=shop password=c4n4ry")
    for port in ports:
        assert str(refused.value).count(f"port {port} failed: Connection refused") == 1
    assert "c4n4ry" not in str(refused.value)


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server that asks for passwords, and takes one connection of one user at a time."""
    with own_server() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE ROLE one LOGIN CONNECTION LIMIT 1")
            connection.execute("CREATE ROLE shop LOGIN PASSWORD 'another'")
        rules = ("local all shop scram-sha-256", "local all all trust")
        (server.data / "pg_hba.conf").write_text("".join(f"{rule}\n" for rule in rules))
        # A server that is told to read them anew does so in its own time.
        kill(server)
        server.start()
        yield server


def refusal(server: Server, said: str) -> str:
    with pytest.raises(StoreUnavailable, match="cannot be reached") as refused:
        PostgresStore(f"host={server.home} {said}")
    return str(refused.value)


def test_who_finds_no_connection_left_is_told_what_helps(strict: Server) -> None:
    with contextlib.closing(psycopg.connect(f"host={strict.home} user=one dbname=postgres")):
        assert "lower max_connections" in refusal(strict, "user=one dbname=postgres")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("user=shop dbname=postgres password=c4n4ry", "look at the user and the password"),
        ("user=shop dbname=postgres", "look at the user and the password"),
        ("user=outbox dbname=nosuch", "createdb"),
        ("user=nosuch dbname=postgres", "createuser"),
    ],
)
def test_who_is_refused_at_the_door_is_told_what_to_look_at(strict: Server, said: str, advice: str) -> None:
    told = refusal(strict, said)
    assert advice in told
    assert "c4n4ry" not in told

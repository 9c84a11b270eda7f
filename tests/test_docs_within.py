"""What docs/within.md shows is so: each of its sections is a program, and is played."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
import pytest
from postgres_places import Places
from psycopg.conninfo import make_conninfo
from shops import SHOPS, Postgres, SQLite, database
from sqlalchemy.exc import IntegrityError
from test_docs import ROOT, blocks

from outbox.testing.clauses.scene import ids, take

PAGE: Final = ROOT / "docs" / "within.md"
SECTIONS: Final = re.split(r"^##+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
EXAMPLES: Final = {
    text.partition("\n")[0]: [block for block in blocks(PAGE, text) if block.language == "python"]
    for text in SECTIONS
}
ORDERS: Final = "CREATE TABLE orders (number INTEGER PRIMARY KEY, what TEXT NOT NULL)"

Play: TypeAlias = Callable[..., dict[str, Any]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """Run the program of a section; gives the names that it bound."""
    monkeypatch.chdir(tmp_path)
    closing = contextlib.ExitStack()

    def play(section: str, schema: Postgres | None = None) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        (example,) = EXAMPLES[section]
        code = example.code.replace("SHOP", str(tmp_path / "shop.db"))
        if schema:
            place = make_conninfo(**schema.parameters)
            code = code.replace(
                'PostgresStore("postgresql:///shop"', f'PostgresStore("{place}", schema="{schema.schema}"'
            )
            code = code.replace("postgresql:///shop", place)
        exec(compile(code, str(example), "exec", dont_inherit=True), bound)
        closing.callback(bound["outbox"].close)
        if "shop" in bound:
            closing.callback(bound["shop"].close)
        return bound

    with closing:
        yield play


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute(ORDERS)
        yield connection


def ordered(shop: sqlite3.Connection) -> list[int]:
    return [number for (number,) in shop.execute("SELECT number FROM orders ORDER BY number")]


def test_every_example_of_the_page_is_played() -> None:
    assert {heading for heading, examples in EXAMPLES.items() if examples} == {
        "sqlite3",
        "psycopg",
        "SQLAlchemy",
        "Flask-SQLAlchemy",
        "Django",
        "In another database: stage and publish",
    }


def test_sqlite3(play: Play) -> None:
    page = play("sqlite3")
    page["order"]("a teapot")
    page["confirmation"] = None
    with pytest.raises(TypeError):
        page["order"]("a kettle")

    assert ordered(page["shop"]) == [1]
    assert ids(take(page["outbox"].store)) == ["order-1"]


def test_psycopg(play: Play, tmp_path: Path, postgres: Places) -> None:
    with database("postgres", tmp_path) as made, made.connect() as shop:
        assert isinstance(made, Postgres)
        shop.execute("DROP TABLE IF EXISTS orders")
        shop.execute(ORDERS)
        shop.commit()
        page = play("psycopg", made)
        page["order"](1)
        with pytest.raises(psycopg.errors.UniqueViolation):
            page["order"](1)
        page["confirmation"] = None
        with pytest.raises(TypeError):
            page["order"](2)

        assert ordered(shop) == [1]
        shop.rollback()
        assert ids(take(page["outbox"].store)) == ["order-1"]
        shop.execute("DROP TABLE orders")


@pytest.mark.parametrize("order", ["order", "order_by_connection"])
def test_sqlalchemy(play: Play, shop: sqlite3.Connection, order: str) -> None:
    page = play("SQLAlchemy")
    page[order](1)
    with pytest.raises(IntegrityError):
        page[order](1)
    page["confirmation"] = None
    with pytest.raises(TypeError):
        page[order](2)
    page["engine"].dispose()

    assert ordered(shop) == [1]
    assert ids(take(page["outbox"].store)) == ["order-1"]


def test_flask_sqlalchemy(play: Play, shop: sqlite3.Connection) -> None:
    page = play("Flask-SQLAlchemy")
    client = page["app"].test_client()
    assert client.post("/order/1").text == "ordered"
    assert client.post("/order/1").status_code == 500
    with page["app"].app_context():
        page["db"].engine.dispose()

    assert ordered(shop) == [1]
    assert ids(take(page["outbox"].store)) == ["order-1"]


def test_django(play: Play, shop: sqlite3.Connection, tmp_path: Path) -> None:
    with contextlib.closing(SHOPS["django"](SQLite(tmp_path / "shop.db"))):
        page = play("Django")
        page["order"](1)
        page["Message"] = None
        with pytest.raises(TypeError):
            page["order"](2)

    assert ordered(shop) == [1]
    assert ids(take(page["outbox"].store)) == ["order-1"]


STAGE: Final = "In another database: stage and publish"


def test_stage_and_publish(play: Play) -> None:
    page = play(STAGE)
    page["order"](1)
    with pytest.raises(sqlite3.IntegrityError):
        page["order"](1)

    assert list(page["outbox"].staged()) == []
    assert len(take(page["outbox"].store)) == 1


def test_what_was_unstaged_before_it_was_published_is_submitted(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = play(STAGE)
    outbox, publish = page["outbox"], page["outbox"].publish

    def late(staged: str) -> bool:
        outbox.unstage(staged)
        return bool(publish(staged))

    monkeypatch.setattr(outbox, "publish", late)
    page["order"](1)

    assert ids(take(outbox.store)) == [mail for (mail,) in page["shop"].execute("SELECT mail FROM orders")]


def test_what_a_crash_left_staged_is_reconciled(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    page = play(STAGE)
    outbox, shop = page["outbox"], page["shop"]
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "publish", None)
        with pytest.raises(TypeError):  # it fell behind the commit
            page["order"](1)
    outbox.stage(page["Message"](id="before", recipients=("a@b.example",), content=b"x"))  # and before it

    page["reconcile"]()
    assert len(list(outbox.staged())) == 2, "they are younger than any transaction may be old"
    page["reconcile"](older_than=page["timedelta"](0))

    assert list(outbox.staged()) == []
    assert ids(take(outbox.store)) == [mail for (mail,) in shop.execute("SELECT mail FROM orders")]

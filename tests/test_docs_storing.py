"""What docs/storing.md shows is so: its examples run in order, each in the names of those before it."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import attrs
import pytest
from test_docs import ROOT, blocks

from outbox import SQLiteStore
from outbox.contrib.cryptography import Sealed, new_key
from outbox.errors import ConfigurationError
from outbox.stores.limits import Limits
from outbox.stores.retention import Retention
from outbox.testing.clauses.scene import Whole, delivered, ids, known, put, settle, states, take

PAGE: Final = ROOT / "docs" / "storing.md"
SECTIONS: Final = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
EXAMPLES: Final = {
    text.partition("\n")[0]: [block for block in blocks(PAGE, text) if block.language == "python"]
    for text in SECTIONS[1:]
}


Play: TypeAlias = Callable[[str], dict[str, Any]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """Run the examples of a section in order; gives the names that they bound."""
    monkeypatch.chdir(tmp_path)
    bound: dict[str, Any] = {}
    opened: list[Any] = []

    def play(section: str) -> dict[str, Any]:
        for example in EXAMPLES[section]:
            exec(compile(example.code, str(example), "exec", dont_inherit=True), bound)
            opened.extend(bound[name] for name in ("outbox", "store", "shop") if name in bound)
        return bound

    yield play
    for each in opened:
        each.close()


def test_every_example_of_the_page_is_played() -> None:
    assert {heading: len(examples) for heading, examples in EXAMPLES.items()} == {
        "In your own transaction": 1,
        "When it is full": 1,
        "Content at rest": 3,
        "What stays, and for how long": 1,
        "When another process submits": 0,
        "A newer release, and a disk that errs": 0,
    }


def test_an_order_and_its_mail_are_there_together_or_not_at_all(play: Play) -> None:
    page = play("In your own transaction")
    assert ids(take(page["outbox"].store)) == ["order-1"]

    page["confirmation"] = None
    with pytest.raises(TypeError):
        page["order"]("a kettle")
    assert page["shop"].execute("SELECT what FROM orders").fetchall() == [("a teapot",)]
    assert take(page["outbox"].store) == []


def test_a_full_store_says_so(play: Play) -> None:
    page = play("When it is full")

    assert "max_messages=2" in page["full"]
    assert ids(take(page["outbox"].store)) == ["a", "b"]


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_what_is_sealed_is_read_with_the_key_and_is_nowhere_on_the_disk(play: Play, tmp_path: Path) -> None:
    page = play("Content at rest")

    assert b"ann@example.com" in on_disk(tmp_path)
    assert b"tr0ub4dor" not in on_disk(tmp_path)
    with contextlib.closing(SQLiteStore("sealed.db", coding=[Sealed(new_key())])) as stranger:
        with contextlib.suppress(ConfigurationError):
            assert take(stranger) == []
        assert states(cast(Whole, stranger)) == {"reset": "queued"}
    (tmp_path / "new.key").write_bytes(page["new"])
    (tmp_path / "old.key").write_bytes(page["key"])
    alone: dict[str, Any] = {}
    exec(EXAMPLES["Content at rest"][-1].code, alone)
    with contextlib.closing(alone["sealed"]()) as store:
        (claim,) = take(store)
    assert claim.message.content.endswith(b"tr0ub4dor.")


def test_what_was_delivered_is_kept_as_long_as_was_said_and_without_its_content(play: Play) -> None:
    store = play("What stays, and for how long")["store"]
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, delivered(claim))

    assert known(store, "a").message.content == b""
    assert store.prune() == 0


def test_the_tables_of_the_page_name_every_setting_and_its_default() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert Retention() == Retention(
        remember=dt.timedelta(days=7), remember_at_most=1_000_000, keep_content=True
    )
    for setting in (*attrs.fields(Retention), *attrs.fields(Limits)):
        assert f"| `{setting.name}` |" in text

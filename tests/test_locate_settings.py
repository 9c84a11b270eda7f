"""The settings of a store, said in its URL: each reaches the store, and what is none is refused by its name."""

from __future__ import annotations

import datetime as dt
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from test_docs import ROOT

from outbox.errors import ConfigurationError
from outbox.locate import holds_secret, masked, store_from_url
from outbox.locate.masking import OPTIONS
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.sqlite import SQLiteStore

SCHEMES: Final = [
    "sqlite",
    pytest.param(
        "file",
        marks=pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems"),
    ),
]
SAID: Final[dict[str, tuple[str, Any]]] = {
    "remember": ("2d", dt.timedelta(days=2)),
    "remember_at_most": ("0", 0),
    "keep_delivered": ("1h30m", dt.timedelta(minutes=90)),
    "keep_content": ("no", False),
    "discard_after": ("90d", dt.timedelta(days=90)),
    "max_messages": ("100000", 100_000),
    "max_bytes": ("2GiB", 2 << 30),
    "min_free": ("512MiB", 512 << 20),
    "poll": ("0.2s", dt.timedelta(milliseconds=200)),
}
OF_SQLITE: Final = {"prefix": ("shop_", "shop_"), "busy_timeout": ("5s", dt.timedelta(seconds=5))}


def url_of(scheme: str, path: Path, options: str) -> str:
    return f"{scheme}://{'/' * (scheme == 'sqlite')}{path}/store?{options}"


def options(said: dict[str, tuple[str, Any]]) -> str:
    return "&".join(f"{name}={text}" for name, (text, _) in said.items())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_setting_that_can_be_text_reaches_the_store(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = SAID | (OF_SQLITE if scheme == "sqlite" else {})
    heard: dict[str, Any] = {}
    store = SQLiteStore if scheme == "sqlite" else FilesystemStore
    monkeypatch.setattr(store, "__init__", lambda _, path, **settings: heard.update(settings))

    store_from_url(url_of(scheme, tmp_path, options(said)))

    ours = {"migrate": True} if scheme == "sqlite" else {}
    assert heard == ours | {name: value for name, (_, value) in said.items()}
    assert set(said) == set(OPTIONS[scheme])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_store_is_opened_with_all_its_settings(scheme: str, tmp_path: Path) -> None:
    said = SAID | (OF_SQLITE if scheme == "sqlite" else {})

    store_from_url(url_of(scheme, tmp_path, options(said))).close()

    assert (tmp_path / "store").exists()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("keep_content=maybe", "option keep_content: 'maybe' is neither yes nor no"),
        ("keep_content=", "neither yes nor no"),
        ("max_messages=many", "option max_messages: 'many' is no whole number"),
        ("max_messages=-1", "option max_messages: '-1' is no whole number"),
        ("max_messages=1e3", "no whole number"),
        ("max_messages=%D9%A2", "no whole number"),
        ("max_messages=0", "max_messages must be at least 1"),
        ("remember_at_most=1.5", "option remember_at_most: '1.5' is no whole number"),
        ("max_bytes=2GB", "option max_bytes: '2GB' is no size: write bytes, or 64KiB, 512MiB, 2GiB"),
        ("max_bytes=0", "max_bytes must be at least 1"),
        ("min_free=a%20lot", "option min_free: 'a lot' is no size"),
        ("discard_after=never", "option discard_after: 'never' is not a duration"),
        ("poll=0", "poll must be positive"),
        ("max_mesages=3", "did you mean 'max_messages'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_its_name(
    scheme: str, tmp_path: Path, option: str, says: str
) -> None:
    url = url_of(scheme, tmp_path, option)

    with pytest.raises(ConfigurationError, match="^" + re.escape(f"store {masked(url)}: ")) as caught:
        store_from_url(url)

    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prefix", ["", "Shop_", "sqlite_", "a-b"])
def test_a_prefix_that_is_none_is_refused_with_the_url(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^store sqlite:.*prefix"):
        store_from_url(url_of("sqlite", tmp_path, f"prefix={prefix}"))
    assert not list(tmp_path.iterdir())


def test_a_prefix_is_sqlite_s_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'prefix'"):
        store_from_url(f"file://{tmp_path}/spool?prefix=shop_")


def test_a_command_that_only_looks_lays_no_tables_into_a_program_s_database(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE orders (number)")
    url = url_of("sqlite", tmp_path, "prefix=shop_")

    with pytest.raises(ConfigurationError, match="there are no tables shop_… in"):
        store_from_url(url, create=False)
    with closing(sqlite3.connect(path)) as sql:
        assert sql.execute("SELECT name FROM sqlite_schema").fetchall() == [("orders",)]

    store_from_url(url).close()
    store_from_url(url, create=False).close()


def test_no_setting_of_a_store_is_a_secret(tmp_path: Path) -> None:
    for url in (
        url_of("sqlite", tmp_path, options(SAID | OF_SQLITE)),
        url_of("file", tmp_path, options(SAID)),
    ):
        assert not holds_secret(url)


def test_the_reference_lists_every_option() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = reference.partition("## URLs\n")[2].partition("\n## ")[0]

    assert not [
        f"{scheme}: {name}"
        for scheme in ("sqlite", "file", "smtp")
        for name in OPTIONS[scheme]
        if not re.search(rf"\b{name}\b", section)
    ]

"""One bit flips in the file of the SQLite store, as disks let it happen: nothing stops for it, and `check` says so.

The bits are flipped in the file itself, for SQL would mend the index together with the row.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
import struct
from pathlib import Path

import pytest

from outbox.errors import CorruptRecord
from outbox.filters import Filter
from outbox.lifecycle import Settlement, State
from outbox.stores.sqlite import SQLiteStore, salvage
from outbox.testing.clauses.scene import delivered, ids, put, states, statuses, take

PAGE = 4096
INNER = 2
NAMES = [f"message{number:02}" for number in range(50)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "outbox.db"
    with contextlib.closing(SQLiteStore(path)) as store:
        put(store, *NAMES)
    return path


def flip(path: Path, tree: str, text: bytes, *, at: int, bit: int) -> None:
    """Flip a bit in the first place where *text* stands in the pages of a table or index."""
    with contextlib.closing(sqlite3.connect(path)) as sql:
        (root,) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (tree,)).fetchone()
    data = bytearray(path.read_bytes())
    places = (data.find(text, (page - 1) * PAGE, page * PAGE) for page in [root, *leaves(data, root)])
    data[next(place for place in places if place >= 0) + at] ^= 1 << bit
    path.write_bytes(data)


def leaves(data: bytearray, root: int) -> list[int]:
    """The pages that an inner page leads to; none where it is a leaf itself."""
    start = (root - 1) * PAGE
    if data[start] != INNER:
        return []
    (cells,) = struct.unpack_from(">H", data, start + 3)
    places = [start + place for place in struct.unpack_from(f">{cells}H", data, start + 12)]
    return [struct.unpack_from(">I", data, place)[0] for place in (*places, start + 8)]


def claimed(store: SQLiteStore) -> list[str]:
    """All that can be claimed, ten at a time."""
    found: list[str] = []
    while claims := take(store, 10):
        found += ids(claims)
    return found


def errors(store: SQLiteStore) -> list[str]:
    return [finding.text for finding in store.check() if finding.level == "error"]


@pytest.mark.parametrize(("at", "bit"), [(0, 0), (3, 5), (8, 6)])
def test_a_bit_that_flipped_in_an_index_keeps_no_message_from_its_claim(
    path: Path, at: int, bit: int
) -> None:
    flip(path, "outbox_ready", b"message25", at=at, bit=bit)

    with contextlib.closing(SQLiteStore(path)) as store:
        assert sorted(claimed(store)) == NAMES
        assert errors(store) == []


@pytest.mark.parametrize(("at", "bit"), [(0, 0), (3, 5), (8, 6)])
def test_a_bit_that_flipped_in_the_id_of_a_row_is_found_by_check_and_mended_as_it_says(
    path: Path, at: int, bit: int
) -> None:
    flip(path, "outbox_message", b"message25", at=at, bit=bit)

    with contextlib.closing(SQLiteStore(path)) as store:
        assert [finding.advice for finding in store.check() if "REINDEX" in finding.advice]
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("REINDEX")
    with contextlib.closing(SQLiteStore(path)) as store:
        assert sorted(claimed(store)) == [name for name in NAMES if name != "message25"]
        (held,) = store.browse(states=[State.HELD])
        assert "not the one that was stored" in held.reason


@pytest.mark.parametrize("tree", ["outbox_message", "outbox_ready"])
def test_a_list_of_all_shows_all_where_a_bit_flipped_in_a_row_or_an_index(path: Path, tree: str) -> None:
    flip(path, tree, b"message25", at=8, bit=6)

    with contextlib.closing(SQLiteStore(path)) as store:
        for listed in (store.browse(), list(store.find(Filter()))):
            assert len(listed) == 50
            assert [each.id for each in listed if each.id not in NAMES] == (
                ["message2u"] if tree == "outbox_message" else []
            )


def test_a_put_and_a_settle_and_a_command_go_on_past_a_bit_that_flipped_in_an_index(path: Path) -> None:
    with contextlib.closing(SQLiteStore(path)) as store:
        claims = take(store, 50)
    flip(path, "outbox_scheduled", b"message25", at=0, bit=0)

    with contextlib.closing(SQLiteStore(path)) as store:
        assert store.settle([Settlement(claim, delivered(claim)) for claim in claims[:-1]]) == []
        put(store, "new")
        assert statuses(store.cancel(["new"])) == ["done"]
        assert errors(store) == []


def test_a_prune_goes_on_past_a_bit_that_flipped_in_an_index(path: Path) -> None:
    with contextlib.closing(SQLiteStore(path)) as store:
        store.cancel(NAMES)
    flip(path, "outbox_aged", b"message25", at=0, bit=0)

    with contextlib.closing(SQLiteStore(path, discard_after=dt.timedelta(0))) as store:
        for _ in range(2):
            store.prune()
        assert states(store) == {}


def test_check_finds_a_bit_that_flipped_in_an_index_and_says_what_mends_it(path: Path) -> None:
    flip(path, "outbox_ready", b"message25", at=0, bit=0)

    with contextlib.closing(SQLiteStore(path)) as store:
        found = [finding for finding in store.check() if finding.level == "error"]
        assert found
        assert all("REINDEX" in finding.advice for finding in found)
        assert states(store)["message25"] == State.QUEUED


def test_what_new_indexes_do_not_mend_is_not_tried_again_by_every_claim(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    monkeypatch.setattr(salvage.Indexes, "_make", lambda self, sql: made.append(True))
    flip(path, "outbox_ready", b"message25", at=0, bit=0)

    with contextlib.closing(SQLiteStore(path)) as store:
        for _ in range(3):
            with pytest.raises(CorruptRecord):
                take(store, 50)
    assert made == [True]


def test_the_indexes_beside_another_program_s_are_made_anew_too(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with contextlib.closing(SQLiteStore(path, prefix="mail_")) as store:
        put(store, *NAMES)
    flip(path, "mail_ready", b"message25", at=0, bit=0)

    with contextlib.closing(SQLiteStore(path, prefix="mail_")) as store:
        assert sorted(claimed(store)) == NAMES

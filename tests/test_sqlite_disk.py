"""The SQLite store on a disk that fails or fills, and what it leaves there."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outbox.errors import StoreUnavailable
from outbox.stores.sqlite import SQLiteStore, grouping, wal
from outbox.testing.clauses.scene import delivered, mail, put, settle, take

DAY = dt.timedelta(days=1)
SECRET = b"c4narybody-" * 500
FULL = 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def connecting(monkeypatch: pytest.MonkeyPatch, kind: type[sqlite3.Connection]) -> None:
    """From now on connections are of this kind."""
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=kind))


def failure(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    return error


# -- a disk that fails


class Unsynced(sqlite3.Connection):
    """Its commits fail where they have to reach the disk."""

    failing = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        due = sql == "COMMIT" and self.failing and self.total_changes
        if due and super().execute("PRAGMA synchronous").fetchone() == (FULL,):
            raise failure("SQLITE_IOERR_FSYNC")
        return super().execute(sql, *parameters)


def test_a_claim_that_the_disk_refuses_leaves_nobody_a_lease(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting(monkeypatch, Unsynced)
    with contextlib.closing(SQLiteStore(path)) as store:
        put(store, "a", "b", mail("once", at_most_once=True))
        monkeypatch.setattr(Unsynced, "failing", True)
        with pytest.raises(StoreUnavailable):
            take(store)

        monkeypatch.setattr(Unsynced, "failing", False)
        assert [(claim.message.id, claim.attempt, claim.lost) for claim in take(store)] == [
            ("a", 1, 0),
            ("b", 1, 0),
            ("once", 1, 0),
        ]


class Ending(sqlite3.Connection):
    """An error ends its transaction, as a disk that cannot be read makes SQLite do."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if "integrity_check" in sql:
            super().execute("ROLLBACK")
            raise failure("SQLITE_IOERR_READ")
        return super().execute(sql, *parameters)


def test_check_tells_what_it_found_although_an_error_ended_its_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting(monkeypatch, Ending)
    with contextlib.closing(SQLiteStore(path)) as store:
        texts = [finding.text for finding in store.check()]

    assert any("cannot read the file" in text for text in texts)
    assert any("can be written" in text for text in texts)


def test_check_says_where_the_file_may_only_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(SQLiteStore(path)) as store:
        real = sqlite3.connect
        monkeypatch.setattr(
            sqlite3, "connect", lambda name, **k: real(name.replace("mode=rw", "mode=ro"), **k)
        )

        errors = [finding.text for finding in store.check() if finding.level == "error"]

        assert len(errors) == 1
        assert "cannot be written" in errors[0]


# -- a file behind a link


@pytest.fixture
def linked(tmp_path: Path, path: Path) -> Iterator[SQLiteStore]:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    SQLiteStore(elsewhere / "real.db").close()
    path.symlink_to(elsewhere / "real.db")
    with contextlib.closing(SQLiteStore(path)) as store:
        yield store


def test_room_is_asked_for_on_the_disk_where_the_file_is_and_not_where_a_link_is(
    linked: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> Any:
        asked.append(Path(place))
        return type("Usage", (), {"free": 1 << 40})

    monkeypatch.setattr("shutil.disk_usage", usage)

    put(linked, mail("a", content=b"x" * 1_000_000))

    assert set(asked) == {tmp_path / "elsewhere"}
    assert linked._database.wal.reserve(exactly=True) > 1_000_000


def test_a_wal_that_is_deleted_behind_a_link_is_noticed(linked: SQLiteStore, tmp_path: Path) -> None:
    put(linked, "a")
    (tmp_path / "elsewhere" / "real.db-wal").unlink()

    with pytest.raises(StoreUnavailable, match="was deleted or replaced"):
        put(linked, "b")


# -- what others write, and how long they take


def test_a_wal_that_others_have_made_long_is_moved_when_the_store_is_looked_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "WAL_SIZE", 100_000)
    with contextlib.closing(SQLiteStore(path, prefix="mail_")) as store:
        shop = sqlite3.connect(path, isolation_level=None)
        shop.execute("PRAGMA wal_autocheckpoint = 0")
        shop.execute("CREATE TABLE orders (text)")
        shop.execute("INSERT INTO orders VALUES (zeroblob(200000))")
        before = path.stat().st_size

        store.prune()

        assert path.stat().st_size >= before + 200_000
        shop.close()


def test_a_thread_waits_for_another_s_write_as_long_as_that_may_wait_for_other_programs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    waiting = threading.Event()
    real = grouping.Write.wait

    def wait(write: grouping.Write[Any], seconds: float) -> bool:
        waits.append(seconds)
        waiting.set()
        return real(write, seconds)

    monkeypatch.setattr(grouping.Write, "wait", wait)
    with contextlib.closing(SQLiteStore(path, busy_timeout=DAY)) as store:
        second = threading.Thread(target=put, args=(store, "b"))

        def first(_: Any) -> None:
            second.start()
            assert waiting.wait(60)

        store._database.write(first)
        second.join()

        assert waits[0] > DAY.total_seconds()


# -- what is gone


class Careless(sqlite3.Connection):
    """As SQLite is where it was not built to overwrite what is deleted."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.execute("PRAGMA secure_delete = OFF")


@pytest.mark.parametrize("end", ["delivered", "redacted", "purged", "pruned"])
def test_content_that_is_gone_is_not_left_in_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    connecting(monkeypatch, Careless)
    settings = {"keep_delivered": DAY, "keep_content": False} if end == "redacted" else {}
    with contextlib.closing(SQLiteStore(path, discard_after=dt.timedelta(0), **settings)) as store:  # type: ignore[arg-type]  # each is what its setting takes
        put(store, *(mail(f"{n}", content=SECRET) for n in range(3)))
    assert SECRET[:10] in path.read_bytes()
    with contextlib.closing(SQLiteStore(path, discard_after=dt.timedelta(0), **settings)) as store:  # type: ignore[arg-type]  # each is what its setting takes
        if end in ("delivered", "redacted"):
            for claim in take(store):
                settle(store, claim, delivered(claim))
        else:
            store.cancel(["0", "1", "2"])
            store.purge(["0", "1", "2"]) if end == "purged" else store.prune()

    assert SECRET[:10] not in path.read_bytes()

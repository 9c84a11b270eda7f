"""The SQLite store is held to the contract, and keeps what it says of its file."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import settings

from outbox.clock import Clock
from outbox.errors import (
    AmbiguousPut,
    ConfigurationError,
    CorruptRecord,
    FormatError,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UnsupportedError,
)
from outbox.lifecycle import Settlement, State
from outbox.stores import forking
from outbox.stores.sqlite import SQLiteStore, grouping, links, opening, upkeep, wal
from outbox.stores.sqlite.naming import Sql
from outbox.stores.sqlite.translation import CommitFailed, Locked, commit_failed, translated
from outbox.testing.clauses.scene import (
    LEASE,
    Whole,
    dead,
    delivered,
    ids,
    mail,
    put,
    retry,
    settle,
    states,
    take,
)
from outbox.testing.state_machine import StoreStateMachine
from outbox.testing.store_suite import StoreSuite

MILLISECONDS = dt.timedelta(milliseconds=1)
POSIX = pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")


class TestSQLiteStore(StoreSuite):
    def open(self, clock: Clock, path: Path, **settings: Any) -> SQLiteStore:
        return SQLiteStore(path / "outbox.db", clock=clock, **settings)

    def corrupt(self, store: Whole, id: str) -> None:
        assert isinstance(store, SQLiteStore)
        spoil(store, id, "content = zeroblob(length(content))")

    @contextlib.contextmanager
    def transaction(self, store: Whole, path: Path) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(path / "outbox.db")) as connection, connection:
            yield connection


class SQLiteMachine(StoreStateMachine):
    def open(self, clock: Clock, path: Path, **settings: Any) -> SQLiteStore:
        return SQLiteStore(path / "outbox.db", clock=clock, **settings)


TestSQLiteMachine = SQLiteMachine.TestCase
TestSQLiteMachine.settings = settings(max_examples=examples(50), stateful_step_count=30, deadline=None)


def test_a_wal_that_was_deleted_in_use_is_told_before_anything_is_acknowledged(
    store: SQLiteStore, path: Path
) -> None:
    put(store, "a")
    path.with_name(f"{path.name}-wal").unlink()

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="-wal was deleted"):
            put(store, "b")


def limited(sql: sqlite3.Connection) -> sqlite3.Connection:
    """A connection that finds the disk full soon."""
    (pages,) = sql.execute("PRAGMA page_count").fetchone()
    sql.execute(f"PRAGMA max_page_count = {pages + 2}")
    return sql


@contextlib.contextmanager
def writing(store: SQLiteStore) -> Iterator[sqlite3.Connection]:
    """A transaction of this thread's own."""
    connection = store._database._links.reads().connection
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def spoil(store: SQLiteStore, id: str, change: str, *parameters: object) -> None:
    with writing(store) as sql:
        sql.execute(
            f"UPDATE outbox_body SET {change} WHERE number = (SELECT body FROM outbox_message WHERE id = ?)",
            (*parameters, id),
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, busy_timeout=50 * MILLISECONDS)
    yield store
    store.close()


# -- the file


@POSIX
def test_its_files_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o022, 0o777):
        before = os.umask(umask)
        try:
            store = SQLiteStore(tmp_path / f"{umask}.db")
            put(store, "a")
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob(f"{umask}.db*")}
            store.close()
        finally:
            os.umask(before)
        assert modes == {f"{umask}.db{end}": 0o600 for end in ("", "-wal", "-shm")}


def test_making_it_leaves_nothing_else_behind(store: SQLiteStore, path: Path) -> None:
    store.close()

    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_path_may_be_a_string_and_may_hold_any_character(tmp_path: Path) -> None:
    name = tmp_path / "a b?c#d%20ü.db"
    store = SQLiteStore(os.fspath(name))
    put(store, "a")
    store.close()

    assert name.exists()
    assert repr(store) == f"SQLiteStore({os.fspath(name)!r})"


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    store = SQLiteStore(path)
    put(store, "a")
    store.close()


@pytest.mark.parametrize("name", ["", ":memory:", "file:outbox.db?mode=memory"])
def test_a_database_in_memory_is_refused_with_a_pointer(name: str) -> None:
    with pytest.raises(ConfigurationError, match="MemoryStore"):
        SQLiteStore(name)


def test_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no directory .*nowhere: create it"):
        SQLiteStore(tmp_path / "nowhere" / "outbox.db")


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a directory"):
        SQLiteStore(tmp_path)


@POSIX
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do everything")
def test_what_may_not_be_opened_says_so(tmp_path: Path, path: Path) -> None:
    path.touch(0o000)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        SQLiteStore(path)
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnavailable, match="cannot be created"):
        SQLiteStore(tmp_path / "other.db")


def test_a_link_that_leads_nowhere_is_said_to_be_unopenable(tmp_path: Path, path: Path) -> None:
    path.symlink_to(tmp_path / "gone.db")

    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        SQLiteStore(path)


def test_another_kind_of_file_is_left_alone(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 200)

    with pytest.raises(ConfigurationError, match="not an SQLite database"):
        SQLiteStore(path)
    assert path.read_bytes() == b"Dear diary, " * 200


def test_the_database_of_something_else_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as sql:
        sql.execute("CREATE TABLE auth_user (id)")
    sql.close()
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match=r"something else .*auth_user.*file of its own"):
        SQLiteStore(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_newer_format_is_refused_and_left_alone(store: SQLiteStore, path: Path) -> None:
    with writing(store) as sql:
        sql.execute("UPDATE outbox_meta SET value = '7' WHERE name = 'version'")
    store.close()
    before = path.read_bytes()

    with pytest.raises(FormatError, match="of version '7', and this release knows versions up to 4"):
        SQLiteStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "bad",
    [
        {"remember": -MILLISECONDS},
        {"keep_delivered": -MILLISECONDS},
        {"busy_timeout": -MILLISECONDS},
        {"busy_timeout": dt.timedelta.max},
        {"poll": 0 * MILLISECONDS},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        SQLiteStore(path, **bad)
    assert not path.exists()


def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))

    with pytest.raises(UnsupportedError, match=r"3\.35"):
        SQLiteStore(path)


def test_a_file_system_without_wal_is_refused(path: Path) -> None:
    sql = sqlite3.connect(":memory:")
    with pytest.raises(UnsupportedError, match=r"WAL.*local disk"):
        opening._make_wal(sql, path, MILLISECONDS)
    sql.close()


def test_a_deleted_file_takes_no_more_messages(store: SQLiteStore, path: Path) -> None:
    put(store, "a")
    path.unlink()

    with pytest.raises(StoreUnavailable, match="deleted while it was in use"):
        put(store, "b")
    assert not path.exists()


def test_a_replaced_file_takes_no_more_messages(store: SQLiteStore, path: Path, tmp_path: Path) -> None:
    put(store, "a")
    SQLiteStore(tmp_path / "other.db").close()
    (tmp_path / "other.db").replace(path)

    with pytest.raises(StoreUnavailable, match="replaced by another file"):
        put(store, "b")
    with pytest.raises(StoreUnavailable, match="replaced by another file"):
        in_a_thread(lambda: take(store))


def test_what_is_settled_or_purged_leaves_no_row_behind(store: SQLiteStore) -> None:
    put(store, "a", "b")
    for claim in take(store):
        settle(store, claim, retry(claim))
    a, b = take(store)
    settle(store, a, delivered(a))
    settle(store, b, dead(b))
    store.purge(["b"])

    def count(sql: Any, table: str) -> object:
        return sql.execute(f"SELECT count(*) FROM outbox_{table}").fetchone()[0]

    read = store._database.read
    left = read(lambda sql: {table: count(sql, table) for table in ("message", "body", "attempt")})
    remembered = read(lambda sql: sql.execute("SELECT id, stage FROM outbox_message").fetchall())
    assert left == {"message": 1, "body": 0, "attempt": 0}
    assert remembered == [("a", 4)]


def test_it_waits_for_another_program_that_is_making_the_file(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.1, lambda: other.execute("ROLLBACK"))
    done.start()
    store = SQLiteStore(path, busy_timeout=dt.timedelta(seconds=30))
    put(store, "a")
    store.close()
    done.join()
    other.close()


def test_opening_a_store_that_is_there_waits_for_no_writer(store: SQLiteStore, path: Path) -> None:
    with writing(store):
        SQLiteStore(path, busy_timeout=0 * MILLISECONDS).close()


# -- what it asks of SQLite


def test_every_connection_is_durable_and_never_checkpoints_by_itself(store: SQLiteStore) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "fullfsync": 1,
        "checkpoint_fullfsync": 1,
        "wal_autocheckpoint": 0,
        "mmap_size": 0,
        "secure_delete": 1,
    }

    def pragmas() -> dict[str, object]:
        return store._database.read(
            lambda sql: {name: sql.execute(f"PRAGMA {name}").fetchone()[0] for name in expected}
        )

    assert pragmas() == expected
    assert in_a_thread(pragmas) == expected


def test_a_journal_mode_that_was_changed_behind_its_back_is_noticed(store: SQLiteStore, path: Path) -> None:
    put(store, "a")
    store._database._links.writes().close()
    with sqlite3.connect(path, isolation_level=None) as sql:
        assert sql.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    sql.close()

    with pytest.raises(StoreUnavailable, match="journal_mode is delete"):
        put(store, "b")


def test_what_is_committed_moves_from_the_wal_into_the_database(store: SQLiteStore, path: Path) -> None:
    put(store, *(mail(f"m{n}", content=b"x" * 4096) for n in range(700)))
    put(store, "last")

    assert path.stat().st_size > 700 * 4096
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size
    for batch in range(3):
        put(store, *(mail(f"b{batch}-{n}", content=b"x" * 4096) for n in range(700)))
    assert wal.stat().st_size < 2 * size


def test_a_checkpoint_waits_for_no_reader(store: SQLiteStore, path: Path) -> None:
    put(store, "a")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM outbox_message").fetchall()

    put(store, *(mail(f"m{n}", content=b"x" * 4096) for n in range(700)))

    assert store._database.wal.unmoved < 100
    reader.close()


class Intruding(sqlite3.Connection):
    """A connection beside whose checkpoints another program tries to write."""

    outcomes: list[str] = []  # noqa: RUF012 - told to the test
    path: Path

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if "wal_checkpoint(" in sql:
            intruder = sqlite3.Connection(self.path, timeout=0, isolation_level=None)
            try:
                intruder.execute("BEGIN IMMEDIATE")
                self.outcomes.append("a commit could have come between")
            except sqlite3.OperationalError as error:
                self.outcomes.append(error.sqlite_errorname)
            intruder.close()
        return super().execute(sql, *parameters)


def test_no_commit_comes_between_a_checkpoint(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is how SQLite before 3.51.3 can damage a database."""
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Intruding))
    monkeypatch.setattr(Intruding, "path", path, raising=False)
    monkeypatch.setattr(Intruding, "outcomes", [])
    put(store, *(mail(f"m{n}", content=b"x" * 4096) for n in range(700)))

    assert Intruding.outcomes == ["SQLITE_BUSY"]


def test_a_checkpoint_waits_for_no_other_writer(store: SQLiteStore, path: Path) -> None:
    """The put that comes upon it is done already."""
    other = sqlite3.connect(path, isolation_level=None)
    checkpoint, started = store._database.wal.move, []

    def beside_a_writer() -> None:
        other.execute("BEGIN IMMEDIATE")
        started.append(True)
        checkpoint()
        other.execute("ROLLBACK")

    store._database.wal.move = beside_a_writer  # type: ignore[method-assign]  # another program's writing, at that moment
    put(store, *(mail(f"m{n}", content=b"x" * 4096) for n in range(700)))

    assert started
    assert store._database.wal.unmoved > 0
    store._database.wal.move = checkpoint  # type: ignore[method-assign]  # and now nobody is writing
    put(store, *(mail(f"n{n}") for n in range(60)))
    assert store._database.wal.unmoved == 0
    other.close()


def test_a_checkpoint_that_fails_harms_nobody(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a")

    def broken(*_: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patch:
        patch.setattr(wal, "connect", broken)
        put(store, *(mail(f"m{n}", content=b"x" * 4096) for n in range(700)))
    put(store, "b")

    assert len(take(store, 1000)) == 702


def test_another_program_that_writes_too_long_is_named(store: SQLiteStore, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match=r"locked by another program for longer than 0\.05 s"):
        put(store, "a")
    assert take(store) == []
    other.execute("ROLLBACK")
    other.close()
    put(store, "a")
    assert ids(take(store)) == ["a"]


def test_a_thread_that_writes_too_long_is_told_apart(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "_PATIENCE", 0.01)

    def during(sql: Sql) -> None:
        with pytest.raises(StoreUnavailable, match="another thread of this process"):
            in_a_thread(lambda: put(store, "a"))

    store._database.write(during)
    assert take(store) == []


# -- errors


def test_a_full_disk_is_store_full_and_nothing_is_stored(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")
    with monkeypatch.context() as patch:
        patch.setattr(links, "connect", lambda *args: limited(opening.connect(*args)))
        with contextlib.closing(SQLiteStore(path)) as full:
            with pytest.raises(StoreFull, match="disk is full"):
                put(full, "b", mail("c", content=b"x" * 100_000))
            assert states(full) == {"a": State.QUEUED}

    assert ids(take(store)) == ["a"]
    put(store, "b")
    assert ids(take(store)) == ["b"]


class Failing(sqlite3.Connection):
    """A connection whose commits fail as a disk makes them fail."""

    failures: list[str] = []  # noqa: RUF012 - told to by the test

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.failures and self.in_transaction and self.total_changes:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self.failures.pop()
            raise error
        return super().execute(sql, *parameters)


@pytest.fixture
def failing(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Failing))
    monkeypatch.setattr(Failing, "failures", [])
    store = SQLiteStore(path)
    yield store
    store.close()


def test_a_put_whose_commit_failed_can_be_repeated(failing: SQLiteStore) -> None:
    put(failing, "a")
    Failing.failures.append("SQLITE_IOERR_FSYNC")

    with pytest.raises(AmbiguousPut, match="put it again with the same id") as caught:
        put(failing, "b")
    assert isinstance(caught.value.__cause__, sqlite3.Error)

    assert [result.status for result in failing.put([mail("b")])] == ["stored"]
    assert ids(take(failing)) == ["a", "b"]


def test_a_put_that_found_no_room_at_its_commit_left_nothing(failing: SQLiteStore) -> None:
    Failing.failures.append("SQLITE_FULL")

    with pytest.raises(StoreFull):
        put(failing, "a")
    assert take(failing) == []


def test_after_a_failed_commit_another_connection_goes_on(failing: SQLiteStore) -> None:
    put(failing, "a")
    (claim,) = take(failing)
    before = failing._database.version()[0]
    Failing.failures.append("SQLITE_IOERR_FSYNC")

    with pytest.raises(StoreUnavailable) as caught:
        failing.settle([Settlement(claim, delivered(claim))])
    assert not isinstance(caught.value, AmbiguousPut)

    assert failing._database.version()[0] != before
    settle(failing, claim, delivered(claim))


def sqlite_error(name: str, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("what SQLite says")
    if name:
        error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("SQLITE_BUSY", StoreUnavailable, "locked"),
        ("SQLITE_BUSY_SNAPSHOT", StoreUnavailable, "BEGIN IMMEDIATE"),
        ("SQLITE_LOCKED", StoreUnavailable, "locked"),
        ("SQLITE_FULL", StoreFull, "disk is full"),
        ("SQLITE_READONLY", StoreUnavailable, "cannot be written"),
        ("SQLITE_READONLY_DIRECTORY", StoreUnavailable, "cannot be written"),
        ("SQLITE_CANTOPEN", StoreUnavailable, "cannot be opened"),
        ("SQLITE_IOERR_WRITE", StoreUnavailable, "reading or writing failed"),
        ("SQLITE_CORRUPT", CorruptRecord, "check"),
        ("SQLITE_CORRUPT_INDEX", CorruptRecord, "check"),
        ("SQLITE_NOTADB", CorruptRecord, "check"),
        ("SQLITE_INTERNAL", StoreUnavailable, "SQLITE_INTERNAL"),
        ("", StoreUnavailable, "what SQLite says"),
    ],
)
def test_each_error_of_sqlite_says_what_it_means_here(
    name: str, kind: type[StoreError], word: str, path: Path
) -> None:
    meaning = translated(sqlite_error(name), path, dt.timedelta(seconds=30))

    assert isinstance(meaning, kind)
    assert isinstance(meaning, Locked) is (word == "locked")
    assert word in str(meaning)
    assert str(path) in str(meaning)


def test_an_io_error_on_a_full_disk_is_a_full_disk_and_at_a_commit_leaves_in_doubt_what_was_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 4096})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    error = sqlite_error("SQLITE_IOERR_SHMSIZE")
    assert type(translated(error, path, MILLISECONDS)) is StoreFull
    assert type(commit_failed(error, path, MILLISECONDS)) is CommitFailed
    assert type(commit_failed(sqlite_error("SQLITE_FULL"), path, MILLISECONDS)) is StoreFull


# -- damaged records


def held_reason(store: SQLiteStore, id: str) -> str:
    assert ids(take(store)) == ["z"]
    record = next(summary for summary in store.browse() if summary.id == id)
    assert record.state == "held"
    return record.reason


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("content = x'00'", "bytes"),
        ("content = zeroblob(length(content))", "digest"),
        ("envelope = x'ff'", "cannot be read"),
        ("envelope = '[]'", "cannot be read"),
        (
            "envelope = CAST(replace(envelope, 'a@example.org', 'b@example.org') AS BLOB)",
            "digest is not the one",
        ),
        ('envelope = CAST(replace(envelope, \'"id":"a"\', \'"id":"b"\') AS BLOB)', "digest is not the one"),
        ("envelope = CAST(replace(envelope, '\"outbox\":2', '\"outbox\":3') AS BLOB)", "upgrade"),
        ("number = 99", "missing"),
    ],
)
def test_what_is_not_as_it_was_put_is_held_with_the_reason(
    store: SQLiteStore, change: str, word: str
) -> None:
    put(store, mail("a", priority=1), "z")
    spoil(store, "a", change)

    reason = held_reason(store, "a")

    assert word in reason
    with pytest.raises((CorruptRecord, FormatError), match="a: "):
        store.get("a")


def test_a_record_without_readable_recipients_is_still_listed(store: SQLiteStore) -> None:
    put(store, "a")
    spoil(store, "a", "recipients = 'no JSON'")

    (summary,) = store.browse()
    assert (summary.id, summary.recipients) == ("a", ())


def test_a_damaged_history_is_reported(store: SQLiteStore) -> None:
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, retry(claim))
    with writing(store) as sql:
        sql.execute("UPDATE outbox_attempt SET results = '{'")

    with pytest.raises(CorruptRecord):
        store.get("a")
    assert ids(take(store)) == ["a"]


# -- check


def levels(store: SQLiteStore) -> dict[str, str]:
    return {finding.text: finding.level for finding in store.check()}


@POSIX
def test_check_warns_of_a_file_that_others_can_read(store: SQLiteStore, path: Path) -> None:
    assert "warning" not in levels(store).values()
    path.chmod(0o640)

    (warning,) = [finding for finding in store.check() if finding.level == "warning"]
    assert "0640" in warning.text
    assert "chmod 600" in warning.advice


def test_check_finds_messages_that_lost_their_body(store: SQLiteStore) -> None:
    put(store, "a")
    with writing(store) as sql:
        sql.execute("DELETE FROM outbox_body")

    assert [text for text, level in levels(store).items() if level == "error"] == [
        "1 messages have lost their content and envelope"
    ]


def test_check_finds_damage(store: SQLiteStore, path: Path) -> None:
    put(store, *(mail(f"m{n}", content=b"x" * 3000) for n in range(400)))
    root = "SELECT rootpage FROM sqlite_schema WHERE name = 'outbox_ready'"
    (page,) = store._database.read(lambda sql: sql.execute(root).fetchone())
    store.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)

    damaged = SQLiteStore(path)
    with_errors = [finding for finding in damaged.check() if finding.level == "error"]
    damaged.close()
    assert with_errors
    assert all(".recover" in finding.advice for finding in with_errors)


@pytest.mark.parametrize(
    ("version", "sound"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 0), True),
    ],
)
def test_check_knows_which_sqlite_has_the_wal_reset_bug(version: tuple[int, int, int], sound: bool) -> None:
    assert upkeep.sound(version) is sound


# -- threads


def in_a_thread(act: Callable[[], Any]) -> Any:
    """The result of *act* in a thread of its own; what it raises is raised here."""
    results: list[Any] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def test_a_thread_that_ended_leaves_no_connection_open(store: SQLiteStore) -> None:
    put(store, "mine")
    for n in range(5):
        in_a_thread(functools.partial(put, store, f"m{n}"))
    gc.collect()

    assert len(list(store._database._links)) == 1


def test_each_thread_reads_with_its_own_connection_and_one_writes_for_all(store: SQLiteStore) -> None:
    links = store._database._links
    mine, writer = links.reads(), links.writes()

    assert in_a_thread(links.reads) not in {mine, writer}
    assert in_a_thread(links.writes) is writer
    assert links.reads() is mine is not writer


def test_many_threads_that_only_submit_open_one_connection(store: SQLiteStore) -> None:
    for number in range(5):
        in_a_thread(functools.partial(put, store, f"m{number}"))

    assert len(list(store._database._links)) == 1


def test_while_this_process_writes_the_version_is_what_was_last_seen(store: SQLiteStore, path: Path) -> None:
    """An idle worker does not wait behind a commit to learn whether there is news."""
    other = SQLiteStore(path)
    before = store._database.version()
    versions: list[object] = []
    put(other, "a")

    store._database.write(lambda _: versions.append(in_a_thread(store._database.version)))
    assert versions == [before]
    assert store._database.version() != before
    other.close()


def test_a_store_that_is_dropped_closes_its_connections(path: Path) -> None:
    """On Python 3.13 an open one would warn, and warnings are errors here."""
    store = SQLiteStore(path)
    put(store, "a")
    del store
    gc.collect()

    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_closing_ends_the_waits(path: Path) -> None:
    store = SQLiteStore(path, poll=dt.timedelta.max)
    waiting = threading.Event()
    answers: list[object] = []

    def wait() -> None:
        take(store)
        waiting.set()
        try:
            answers.append(store.wait(dt.timedelta.max))
        except StoreUnavailable as error:
            answers.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    waiting.wait()
    store.close()
    thread.join(timeout=30)
    assert len(answers) == 1


def test_another_program_s_put_ends_the_wait(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    assert take(store) == []
    put(other, "a")

    assert store.wait(dt.timedelta(seconds=30)) is True
    assert ids(take(store)) == ["a"]
    other.close()


def test_each_piece_of_news_of_another_program_ends_a_wait_once(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    take(store)
    put(other, "a")

    assert store.wait(dt.timedelta(seconds=30)) is True
    assert store.wait(40 * MILLISECONDS) is False
    other.close()


def test_what_another_program_did_before_the_claim_is_no_news(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    put(other, "a")
    take(store)

    assert store.wait(40 * MILLISECONDS) is False
    other.close()


def test_an_empty_claim_writes_nothing(store: SQLiteStore, path: Path) -> None:
    """Otherwise idle workers would wake each other for ever."""
    other = SQLiteStore(path)
    before = other._database.version()
    for _ in range(3):
        assert take(store) == []

    assert other._database.version() == before
    other.close()


def test_what_one_program_claims_another_can_settle(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    put(store, "a")
    (claim,) = take(other)

    assert take(store) == []
    settle(store, claim, dead(claim))
    assert states(other) == {"a": "dead"}
    other.close()


# -- one damaged row or page


@pytest.mark.parametrize(
    "change",
    [
        "fates = 'zz'",
        "since = 'q'",
        "size = 'x'",
        "reason = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_row_that_cannot_be_read_is_held_and_stops_no_other(store: SQLiteStore, change: str) -> None:
    put(store, mail("a", priority=1), "z")
    with writing(store) as sql:
        sql.execute(f"UPDATE outbox_message SET {change} WHERE id = 'a'")

    assert store.browse()[0].id == "a"
    assert ids(take(store)) == ["z"]
    assert states(store) == {"a": State.HELD, "z": State.CLAIMED}
    assert "cannot be read" in store.browse()[0].reason or "a: " in store.browse()[0].reason
    assert [change.status for change in store.purge(["a"])] == ["done"]


def test_a_damaged_page_of_one_body_stops_no_other(store: SQLiteStore, path: Path) -> None:
    put(store, mail("a", priority=1, content=b"A" * 50_000), "y", "z")
    store.close()
    data = path.read_bytes()
    # The first overflow page of its content, by what is on it: its pointer to the next leads nowhere.
    page = data.index(b"A" * 4000) // 4096
    path.write_bytes(data[: page * 4096] + b"\xff\xff\xff\xf0" + data[page * 4096 + 4 :])

    with contextlib.closing(SQLiteStore(path)) as again:
        assert ids(take(again)) == ["y", "z"]
        assert states(again)["a"] is State.HELD


def test_a_settle_is_written_although_the_next_claim_meets_damage(store: SQLiteStore) -> None:
    put(store, "a", "b", "c")
    (a,) = take(store, 1)
    with writing(store) as sql:
        sql.execute("UPDATE outbox_message SET fates = 'zz' WHERE id = 'b'")

    exchanged = store.exchange([Settlement(a, delivered(a))], limit=5, lease=LEASE, queues=["mail"])

    assert (ids(exchanged.claims), list(exchanged.lost)) == (["c"], [])
    assert states(store) == {"b": State.HELD, "c": State.CLAIMED}


# -- room


def test_a_disk_that_the_wal_has_filled_is_used_again(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")
    checkpoints: list[bool] = []
    real = wal.Wal.move

    def made(moved: wal.Wal) -> None:
        checkpoints.append(True)
        real(moved)

    def full(sql: Any) -> None:
        if not checkpoints:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error

    monkeypatch.setattr(wal.Wal, "move", made)
    store._database.write(full)
    assert checkpoints == [True]


def test_check_says_where_nothing_can_be_written(store: SQLiteStore, path: Path) -> None:
    assert [finding.level for finding in store.check()].count("error") == 0
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    found = [finding.text for finding in store.check() if finding.level == "error"]

    assert len(found) == 1
    assert "locked by another program" in found[0]
    other.close()


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="no regular file"):
        SQLiteStore(tmp_path / "pipe")


def test_a_runner_s_claim_notices_that_the_file_was_replaced(store: SQLiteStore, path: Path) -> None:
    assert take(store) == []
    path.rename(path.with_name("old.db"))
    SQLiteStore(path).close()

    with pytest.raises(StoreUnavailable, match="replaced by another file"):
        take(store)
    with pytest.raises(StoreUnavailable, match="replaced by another file"):
        store.cancel(["a"])


# -- how much room it takes


def test_stores_that_come_and_go_keep_the_wal_within_bounds(path: Path) -> None:
    """One a request, while another program keeps the file open: none of them lives to make a checkpoint."""
    with contextlib.closing(SQLiteStore(path)) as other:
        put(other, "first")
        for number in range(60):
            with contextlib.closing(SQLiteStore(path)) as store:
                put(store, mail(f"m{number}", content=b"x" * 1_000_000))

        wal = path.with_name(path.name + "-wal")
        assert wal.stat().st_size < 2 * opening.WAL_SIZE


def test_what_delivering_may_need_is_not_taken_up_by_what_comes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint may need as much room again as the WAL has: without it nothing could be settled."""
    with contextlib.closing(SQLiteStore(path)) as store:
        put(store, mail("a", content=b"x" * 1_000_000))
        usage = type("Usage", (), {"free": 2_000_000})
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

        with pytest.raises(StoreFull, match="as good as full"):
            put(store, "b")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))


def test_a_relative_path_is_that_of_the_directory_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon changes its directory."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(SQLiteStore("outbox.db")) as store:
        put(store, "a")
        monkeypatch.chdir(tmp_path / "elsewhere")
        in_a_thread(lambda: put(store, "b"))
        assert ids(take(store, 2)) == ["a", "b"]


def test_stores_that_are_gone_leave_nothing_behind_for_forks(tmp_path: Path) -> None:
    for number in range(3):
        SQLiteStore(tmp_path / f"{number}.db").close()
    gc.collect()
    before = len(forking._FORKS._watched)
    for number in range(20):
        SQLiteStore(tmp_path / f"{number}.db").close()
    gc.collect()
    assert len(forking._FORKS._watched) == before


def test_programs_that_put_in_turn_pass_no_limit_together(path: Path) -> None:
    stores = [SQLiteStore(path, max_messages=10) for _ in range(2)]
    for number in range(10):
        put(stores[number % 2], f"m{number}")

    for store in stores:
        with pytest.raises(StoreFull, match="max_messages=10"):
            put(store, "more")
        store.close()

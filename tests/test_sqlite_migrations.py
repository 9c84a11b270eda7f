"""A database of an earlier release is brought to this one's format, with all that was in it.

``stored/version-1.db`` was written by the first cut of the store, at the
time at which a ManualClock starts; ``version-2.db`` by one that kept no
dialogues yet.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from outbox.cli import main
from outbox.errors import ConflictError, StoreUnavailable
from outbox.lifecycle import Fate, Settlement, State
from outbox.outcome import Outcome, TempFailed
from outbox.stores.sqlite import SQLiteStore, migrations, schema
from outbox.testing.clauses.scene import LEASE, delivered, ids, known, mail, put, retry, states, take
from outbox.testing.clock import ManualClock

FIRST_CUT = Path(__file__).parent / "stored" / "version-1.db"
SECOND_CUT = FIRST_CUT.with_name("version-2.db")
DECADE = dt.timedelta(days=3650)


@pytest.fixture
def clock() -> ManualClock:
    """When the leases of the first cut have run out."""
    clock = ManualClock()
    clock.advance(LEASE)
    return clock


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copy(FIRST_CUT, tmp_path / "old.db"))


@pytest.fixture
def store(old: Path, clock: ManualClock) -> Iterator[SQLiteStore]:
    store = SQLiteStore(old, clock=clock, remember=DECADE, keep_delivered=DECADE)
    yield store
    store.close()


def test_every_message_stands_where_it_stood(store: SQLiteStore) -> None:
    assert states(store) == {
        "cancelled": State.CANCELLED,
        "claimed": State.CLAIMED,
        "dead": State.DEAD,
        "delivered": State.DELIVERED,
        "expired": State.EXPIRED,
        "held": State.HELD,
        "later": State.QUEUED,
        "queued": State.CLAIMED,
        "retried": State.QUEUED,
    }
    dead = known(store, "dead")
    assert dead.message == mail(
        "dead", "dead1@example.org", "dead2@example.org", attributes={"made": "by the first cut"}
    )
    assert set(dead.summary.fates.values()) == {Fate.FAILED}
    assert [attempt.results[r].reply for attempt in dead.history for r in attempt.results] == [
        "550 no such user"
    ] * 2


def test_what_was_delivered_and_forgotten_is_still_known(store: SQLiteStore) -> None:
    assert [result.status for result in store.put([mail("gone")])] == ["known"]
    with pytest.raises(ConflictError):
        store.put([mail("gone", "another@example.org")])
    assert "gone" not in states(store)


def test_its_messages_are_claimed_and_settled_as_ever(store: SQLiteStore, clock: ManualClock) -> None:
    clock.advance(dt.timedelta(days=2))
    done: list[str] = []
    while claims := take(store, 1):
        assert store.settle([Settlement(claim, delivered(claim)) for claim in claims]) == []
        done += ids(claims)

    assert sorted(done) == ["claimed", "later", "queued", "retried"]
    put(store, "new")
    assert ids(take(store)) == ["new"]


def test_it_has_the_same_tables_and_indexes_as_a_new_one(old: Path, tmp_path: Path) -> None:
    SQLiteStore(old).close()
    SQLiteStore(tmp_path / "new.db").close()

    def structure(path: Path) -> dict[str, object]:
        with contextlib.closing(sqlite3.connect(path)) as sql:
            names = [name for (name,) in sql.execute("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")]
            indexes = sql.execute(
                "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
            )
            columns = {
                name: sorted(row[1:] for row in sql.execute("SELECT * FROM pragma_table_info(?)", (name,)))
                for name in names
            }
            made = {name: " ".join(text.split()) for name, text in indexes}
        return {
            "columns": {
                name: sorted((row[0], row[1], row[2]) for row in rows) for name, rows in columns.items()
            },
            "indexes": made,
        }

    assert structure(old) == structure(tmp_path / "new.db")


def test_sqlite_finds_nothing_amiss_afterwards(store: SQLiteStore) -> None:
    assert [finding.text for finding in store.check() if finding.level == "error"] == []


def test_who_holds_a_lease_is_not_migrated_away_from_under_it(old: Path) -> None:
    """Its settle would fail, and the mail would go again."""
    before = old.read_bytes()

    with pytest.raises(StoreUnavailable, match=r"2 messages under leases, until 20.*stop them"):
        SQLiteStore(old, clock=ManualClock())

    assert old.read_bytes() == before


def test_a_lease_that_damage_made_endless_keeps_nobody_from_migrating(old: Path, clock: ManualClock) -> None:
    with contextlib.closing(sqlite3.connect(old)) as sql, sql:
        sql.execute("UPDATE outbox_message SET due = 9223372036854775807 WHERE id = 'claimed'")
        sql.execute("UPDATE outbox_message SET due = 'abc' WHERE id = 'queued'")

    SQLiteStore(old, clock=clock).close()


def test_who_only_looks_migrates_nothing(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = old.read_bytes()
    for command in (["status"], ["list"], ["show", "dead"], ["check"], ["cancel", "queued"]):
        assert main([*command, "--store", f"sqlite:///{old}"]) != 0
        out, err = capsys.readouterr()
        assert "version 1" in out + err

    assert old.read_bytes() == before


def test_many_programs_may_open_it_at_once(old: Path, clock: ManualClock) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: SQLiteStore(old, clock=clock), range(8)))
    for store in stores:
        assert len(states(store)) == 9
        store.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    old: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        steps = {1: [*migrations._STEPS[1], "SELECT no_such_column FROM outbox_meta"]}
        patch.setattr(migrations, "_STEPS", steps)
        with pytest.raises(Exception, match="no_such_column"):
            SQLiteStore(old, clock=clock)

    with contextlib.closing(sqlite3.connect(old)) as sql:
        assert sql.execute("SELECT value FROM outbox_meta").fetchall() == [("1",)]
        assert sql.execute("SELECT id FROM outbox_tombstone").fetchall() == [("gone",)]
    SQLiteStore(old, clock=clock).close()


def test_there_is_a_step_from_every_version_that_ever_was() -> None:
    assert sorted(migrations._STEPS) == list(range(migrations.OLDEST, schema.VERSION))


def test_a_history_without_dialogues_is_read_and_goes_on_with_them(
    tmp_path: Path, clock: ManualClock
) -> None:
    store = SQLiteStore(shutil.copy(SECOND_CUT, tmp_path / "old.db"), clock=clock)
    (before,) = known(store, "retried").history
    assert (before.relay, before.dialogue) == ("mx.example.org:25", "")

    clock.advance(dt.timedelta(days=1))
    (claim,) = take(store)
    said = TempFailed("450 4.7.1 not now")
    outcome = Outcome(results={"a@example.org": said}, dialogue="     0 S: 220 hello")
    store.settle([Settlement(claim, attrs.evolve(retry(claim), outcome=outcome))])

    assert [attempt.dialogue for attempt in known(store, "retried").history] == ["", "     0 S: 220 hello"]
    store.close()

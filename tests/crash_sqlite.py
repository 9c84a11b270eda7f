"""The SQLite store on the bench of the crash tests, and the steps that only it can make."""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from crashing import Bench, Kind, Step

from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import mail
from outbox.testing.clock import ManualClock

__all__ = ["SQLITE", "first_cut", "with_checkpoint", "within"]

FIRST_CUT: Final = Path(__file__).parent / "stored" / "version-1.db"


def open_store(folder: Path, clock: ManualClock, **settings: Any) -> SQLiteStore:
    settings.setdefault("busy_timeout", dt.timedelta(seconds=5))
    return SQLiteStore(folder / "outbox.db", clock=clock, **settings)


SQLITE: Final = Kind(open=open_store, atomic=True)


def with_checkpoint(step: Step) -> Step:
    """So much has been written that the step ends with a checkpoint."""

    def checkpointed(bench: Bench) -> None:
        assert isinstance(bench.store, SQLiteStore)
        bench.store._database.wal.unmoved = 10_000
        step(bench)

    return checkpointed


def within(bench: Bench) -> None:
    store = bench.store
    assert isinstance(store, SQLiteStore)
    with closing(sqlite3.connect(bench.path / "outbox.db")) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        store.within(connection).put([mail("a"), mail("b")])


def first_cut(bench: Bench) -> None:
    shutil.copy(FIRST_CUT, bench.path / "outbox.db")

"""Which syncs each verb of the SQLite store makes: what has returned is on the disk, and nothing waits for more."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from crash_faults import BEGIN, OVER
from crash_scenes import DAY, LARGE, SETTLED, SIX, claiming, exchanging, in_turn, putting, settling
from crash_sqlite import SQLITE, with_checkpoint
from crashing import Bench, Scene, Step, Trial
from tracing import Call

from outbox.protocols import Suspension
from outbox.stores.sqlite import SQLiteStore, grouping
from outbox.testing.clauses.scene import LEASE, delivered, mail, put


def traced(folder: Path, step: Step, prepare: Step, **settings: Any) -> list[Call]:
    """The calls of one step, in a process that has the store open and has written to it."""
    scene = Scene(name="counted", prepare=prepare, steps=[step], settings=settings)
    return Trial(SQLITE, scene, folder).undisturbed().between(BEGIN, OVER)


def syncs(calls: list[Call]) -> list[str]:
    return [call.path for call in calls if call.name == "sync"]


DURABLE = {
    "a put of one message": (putting("a"), putting()),
    "a put of six messages": (putting("a", "b", "c", "d", "e", "f"), putting()),
    "a put of something large": (putting("a", content=LARGE), putting()),
    "a put under a lease": (lambda bench: bench.store.put_claimed([mail("a")], lease=LEASE), putting()),
    "a claim of at_most_once messages": (claiming(5), putting("a", "b", at_most_once=True)),
    "a settle of one claim": (settling(delivered, 0), SIX),
    "a settle of six claims": (settling(delivered, 0, 1, 2, 3, 4, 5), SIX),
    "an exchange": (exchanging, in_turn(putting("a", "b"), claiming(2), putting("c", "d"))),
    "a requeue": (lambda bench: bench.store.requeue(["a", "b"], uncertain=True), SETTLED),
    "a cancel": (lambda bench: bench.store.cancel(["a", "b"]), putting("a", "b")),
    "a purge": (lambda bench: bench.store.purge(["a", "b", "c"]), SETTLED),
    "a suspend": (lambda bench: bench.store.suspend(Suspension(kind="queue", value="mail")), putting()),
}


@pytest.mark.parametrize("verb", DURABLE)
def test_one_sync_puts_all_of_a_verb_on_the_disk_before_it_returns(verb: str, traced_folder: Path) -> None:
    step, prepare = DURABLE[verb]
    calls = traced(traced_folder, step, prepare)
    assert syncs(calls) == ["outbox.db-wal"]
    assert any(call.name == "write" for call in calls)
    # And nothing is written after it.
    assert [call.name for call in calls if call.name in ("write", "sync", "say")][-2:] == ["sync", "say"]


WAITING = {
    "a claim": (claiming(5), putting("a", "b")),
    "a claim of nothing": (claiming(5), putting()),
    "an extension of leases": (lambda bench: bench.store.extend(bench.claims, lease=DAY), SIX),
    "a look": (lambda bench: bench.store.browse(), SIX),
}


@pytest.mark.parametrize("verb", WAITING)
def test_what_need_not_outlive_a_loss_of_power_waits_for_no_disk(verb: str, traced_folder: Path) -> None:
    step, prepare = WAITING[verb]
    assert syncs(traced(traced_folder, step, prepare)) == []


def test_opening_makes_the_wal_itself_durable_and_the_first_write_needs_one_sync(traced_folder: Path) -> None:
    opening: Step = lambda bench: bench.store  # noqa: E731 - one of two steps
    scene = Scene(name="first", warm=False, begin=lambda _: None, steps=[in_turn(opening, putting("a"))])
    calls = Trial(SQLITE, scene, traced_folder).undisturbed().between(BEGIN, OVER)
    assert syncs(calls)[-3:] == ["outbox.db-wal", ".", "outbox.db-wal"]


def test_a_checkpoint_syncs_the_wal_before_it_writes_the_database_and_that_before_the_wal_starts_anew(
    traced_folder: Path,
) -> None:
    calls = traced(traced_folder, in_turn(with_checkpoint(putting("b")), putting("c")), putting("a"))
    steps = [str(call) for call in calls if call.name in ("write", "sync") and not call.path.endswith("-shm")]
    once = [step for step, _ in itertools.groupby(steps)]
    wal, database = "outbox.db-wal", "outbox.db"
    # The put; the checkpoint; the next put, which writes the WAL from its start: its head, then the rest.
    put_once = [f"write {wal}", f"sync {wal}"]
    assert once == [*put_once, "sync .", f"write {database}", f"sync {database}", *put_once, *put_once]


def test_the_puts_of_many_threads_share_their_syncs(
    traced_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = 32
    came, real = threading.Semaphore(0), grouping.Write.wait

    def wait(write: grouping.Write[Any], seconds: float) -> bool:
        came.release()
        return real(write, seconds)

    monkeypatch.setattr(grouping.Write, "wait", wait)

    def crowd(bench: Bench) -> None:
        store = bench.store
        assert isinstance(store, SQLiteStore)
        crew = [threading.Thread(target=put, args=(store, f"t{number}")) for number in range(threads)]

        def until_all_wait(_: object) -> None:
            """Left to themselves they may come one after the other."""
            for each in crew:
                each.start()
            assert all(came.acquire(timeout=60) for _ in crew)

        store._database.write(until_all_wait)
        for each in crew:
            each.join()

    calls = traced(traced_folder, crowd, putting())
    assert 1 <= len(syncs(calls)) < threads / 2

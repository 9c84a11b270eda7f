"""A spool whose folders a person tidies away, or moves, below the programs that use it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox.lifecycle import State
from outbox.stores.filesystem import FilesystemStore
from outbox.testing.clauses.scene import dead, delivered, ids, put, settle, statuses, take
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def stores(path: Path) -> Iterator[list[FilesystemStore]]:
    clock = ManualClock()
    stores = [FilesystemStore(path, clock=clock) for _ in range(2)]
    yield stores
    for each in stores:
        each.close()


def worked(store: FilesystemStore, *names: str) -> None:
    """It has all folders open that a message goes through."""
    put(store, *names)
    for claim in take(store):
        settle(store, claim, delivered(claim) if claim.message.id != names[0] else dead(claim))
    store.purge(names[:1])


def tidy(path: Path) -> None:
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def test_empty_folders_may_be_tidied_away_below_running_stores(
    path: Path, stores: list[FilesystemStore]
) -> None:
    one, other = stores
    worked(one, "a", "b")
    worked(other, "a", "c")
    for turn in range(2):
        tidy(path)
        put(one, f"d{turn}", f"e{turn}", f"f{turn}", "a")

        assert statuses(other.cancel([f"e{turn}"])) == ["done"]
        claims = take(other)
        assert ids(claims) == ["a", f"d{turn}", f"f{turn}"]
        for claim in claims:
            settle(other, claim, dead(claim))
        assert statuses(one.purge(["a", f"d{turn}", f"e{turn}", f"f{turn}"])) == ["done"] * 4
    assert {finding.level for finding in one.check()} == {"ok"}


def test_an_id_is_found_whose_folder_was_tidied_away_and_made_anew(
    path: Path, stores: list[FilesystemStore]
) -> None:
    one, other = stores
    worked(one, "a")
    tidy(path)
    put(other, "a")

    assert [summary.state for summary in one.browse()] == [State.QUEUED]
    assert (record := one.get("a")) is not None
    assert record.message.content
    assert statuses(one.cancel(["a"])) == ["done"]


def test_a_queue_that_was_deleted_below_running_stores_begins_anew(
    path: Path, stores: list[FilesystemStore]
) -> None:
    one, other = stores
    for each in stores:
        worked(each, "a", "b")
    put(one, "lost")
    assert len(take(other, 1)) == 1
    shutil.rmtree(path / "queues" / "mail")
    put(one, "c", "d")

    assert ids(take(other, 1)) == ["c"]
    assert ids(take(one)) == ["d"]


def test_nothing_is_put_into_a_queue_that_was_moved_away(path: Path, stores: list[FilesystemStore]) -> None:
    one, other = stores
    put(one, "a", "b", "c")
    assert ids(take(other, 1)) == ["a"]
    (path / "queues" / "mail").rename(path.with_name("archived"))
    put(one, "d", "e")

    assert [summary.id for summary in other.browse()] == ["d", "e"]
    assert ids(take(other)) == ["d", "e"]
    assert len([each for each in path.with_name("archived").rglob("*") if each.is_file()]) == 3

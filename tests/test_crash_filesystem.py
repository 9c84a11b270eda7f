"""The filesystem store is killed, and its disk fails, at each system call: each message is there, or as before.

The loss of power is in ``test_filesystem_crash.py``, on a disk that is a model.
``OUTBOX_CRASH=long`` tries every kind of kill and every error at every call
(``nox -s crash``); without it each call is visited once or twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import crash_scenes
import pytest
from crash_scenes import DAY, SETTLED, SIX, putting, settling
from crashing import Kind, Scene, Trial

from outbox.stores.filesystem import FilesystemStore
from outbox.testing.clauses.scene import delivered
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")


def open_store(folder: Path, clock: ManualClock, **settings: Any) -> FilesystemStore:
    return FilesystemStore(folder / "spool", clock=clock, **settings)


def copy(source: Path, target: Path) -> None:
    """With the hard links among its files, and their times."""
    links: dict[int, Path] = {}
    for here, _, files in os.walk(source):
        there = target / Path(here).relative_to(source)
        there.mkdir(mode=0o700)
        for name in files:
            copy_file(Path(here, name), there / name, links)


def copy_file(source: Path, target: Path, links: dict[int, Path]) -> None:
    found = source.stat()
    if found.st_ino in links:
        os.link(links[found.st_ino], target)
        return
    target.write_bytes(source.read_bytes())
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    target.chmod(found.st_mode & 0o777)
    links[found.st_ino] = target


FILESYSTEM = Kind(open=open_store, atomic=False, copy=copy, holds_unreadable=True)

SCENES = [
    *crash_scenes.SCENES,
    *crash_scenes.CAPABLE,
    # What could not be taken back after an error is known to the second attempt: it waits for anybody.
    attrs.evolve(crash_scenes.HAND_OVER, instead=[putting("a", "b")]),
    Scene(
        name="settle and keep",
        prepare=SIX,
        settings={"keep_delivered": DAY},
        steps=[settling(delivered, 0, 1)],
    ),
    # What cannot be read is left for another time.
    attrs.evolve(crash_scenes.PRUNE, instead=[]),
    Scene(
        name="put what was delivered long ago",
        prepare=SETTLED,
        later=30 * DAY,
        settings={"remember": DAY},
        forgets=True,
        steps=[putting("d")],
        strict=True,
    ),
]


@pytest.fixture
def trial(request: pytest.FixtureRequest, traced_folder: Path) -> Trial:
    return Trial(FILESYSTEM, request.param, traced_folder)


@pytest.mark.parametrize("trial", SCENES, ids=str, indirect=True)
def test_a_kill_at_any_call_leaves_each_message_as_it_was_or_as_it_was_to_be(trial: Trial) -> None:
    visited = trial.kill()
    print(f"{visited} kill points")
    assert visited


@pytest.mark.parametrize("trial", SCENES, ids=str, indirect=True)
def test_an_error_at_any_call_is_told_and_leaves_each_message_as_it_was_or_as_it_was_to_be(
    trial: Trial,
) -> None:
    injected = trial.fail()
    print(f"{injected} errors injected")
    assert injected

"""The SQLite store is killed, and its disk fails, at each system call of each verb: all is there, or all as before.

``OUTBOX_CRASH=long`` tries every kind of kill and every error at every call
(``nox -s crash``); without it each call is visited once or twice.
"""

from __future__ import annotations

from pathlib import Path

import crash_scenes
import pytest
from crash_scenes import DAY, SIX, claiming, exchanging, in_turn, putting, settling
from crash_sqlite import SQLITE, first_cut, with_checkpoint, within
from crashing import Scene, Trial

from outbox.testing.clauses.scene import delivered, retry

SCENES = [
    *crash_scenes.SCENES,
    *crash_scenes.CAPABLE,
    crash_scenes.HAND_OVER,
    Scene(
        name="put first", warm=False, begin=lambda bench: bench.store, steps=[putting("a", "b")], strict=True
    ),
    Scene(name="put within", steps=[within], raw=True),
    Scene(
        name="put with a checkpoint",
        prepare=putting("a"),
        steps=[with_checkpoint(putting("b", "c")), putting("d")],
        strict=True,
    ),
    Scene(
        name="settle with a checkpoint",
        prepare=SIX,
        steps=[with_checkpoint(settling(delivered, 0, 1)), settling(retry, 2)],
    ),
    Scene(
        name="exchange",
        prepare=in_turn(putting("a", "b"), claiming(2), putting("c", "d")),
        steps=[exchanging],
    ),
    crash_scenes.PRUNE,
    Scene(name="open one that is there", prepare=putting("a"), warm=False, steps=[lambda bench: bench.store]),
    Scene(name="migrate", prepare=first_cut, later=DAY, warm=False, steps=[lambda bench: bench.store]),
]


@pytest.fixture
def trial(request: pytest.FixtureRequest, traced_folder: Path) -> Trial:
    return Trial(SQLITE, request.param, traced_folder)


@pytest.mark.parametrize("trial", SCENES, ids=str, indirect=True)
def test_a_kill_at_any_call_leaves_what_was_before_or_what_was_to_be(trial: Trial) -> None:
    visited = trial.kill()
    print(f"{visited} kill points")
    assert visited


@pytest.mark.parametrize("trial", SCENES, ids=str, indirect=True)
def test_an_error_at_any_call_is_told_and_leaves_what_was_before_or_what_was_to_be(trial: Trial) -> None:
    injected = trial.fail()
    print(f"{injected} errors injected")
    assert injected

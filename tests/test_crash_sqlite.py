"""The SQLite store is killed, and its disk fails, at each system call of each verb: all is there, or all as before.

``OUTBOX_CRASH=long`` tries every kind of kill and every error at every call
(``nox -s crash``); without it each call is visited once or twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import crash_scenes
import pytest
from crash_scenes import DAY, SETTLED, SIX, claiming, exchanging, in_turn, putting, settling
from crash_sqlite import SQLITE, first_cut, with_checkpoint, within
from crashing import Bench, Scene, Trial, workplace
from tracing import missing

from outbox.protocols import Suspension
from outbox.testing.clauses.scene import LEASE, delivered, mail, retry


@pytest.fixture(autouse=True, scope="module")
def traceable() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with workplace(tmp_path) as place:
        yield place


SCENES = [
    *crash_scenes.SCENES,
    crash_scenes.PURGE,
    Scene(
        name="put first", warm=False, begin=lambda bench: bench.store, steps=[putting("a", "b")], strict=True
    ),
    Scene(
        name="put under a lease",
        steps=[lambda bench: bench.store.put_claimed([mail("a"), mail("b")], lease=LEASE)],
        strict=True,
    ),
    Scene(name="put within", steps=[within], raw=True),
    Scene(
        name="put with a checkpoint",
        prepare=putting("a"),
        steps=[with_checkpoint(putting("b", "c")), putting("d")],
        strict=True,
    ),
    Scene(
        name="settle and keep",
        prepare=SIX,
        settings={"keep_delivered": DAY, "keep_content": False},
        steps=[settling(delivered, 0, 1)],
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
    Scene(
        name="prune",
        prepare=SETTLED,
        later=30 * DAY,
        settings={"remember": DAY, "discard_after": DAY},
        steps=[lambda bench: bench.store.prune(limit=2), lambda bench: bench.store.prune()],
    ),
    Scene(
        name="suspend",
        prepare=putting("a"),
        steps=[
            lambda bench: bench.store.suspend(Suspension(kind="queue", value="mail", reason="a test")),
            lambda bench: bench.store.unsuspend("queue", "mail"),
        ],
    ),
    Scene(name="open one that is there", prepare=putting("a"), warm=False, steps=[lambda bench: bench.store]),
    Scene(name="migrate", prepare=first_cut, later=DAY, warm=False, steps=[lambda bench: bench.store]),
    Scene(name="close", prepare=putting("a"), steps=[putting("b"), Bench.close]),
]


@pytest.fixture
def trial(request: pytest.FixtureRequest, folder: Path) -> Trial:
    return Trial(SQLITE, request.param, folder)


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

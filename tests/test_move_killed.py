"""A move in processes of their own, each killed by SIGKILL at a boundary that was said, or its server: there and back.

``OUTBOX_MOVE=100000`` is the long form, with so many messages.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from moves import contents, fill
from postgres_places import Places, places
from redis_places import open_redis
from redis_server import LASTING, OWN, SHARED, started

from outbox.clock import SystemClock
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import states
from outbox.testing.clock import ManualClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL")

NUMBER: Final = int(os.environ.get("OUTBOX_MOVE", "2000"))
LONG: Final = NUMBER > 2000
KILLS: Final = (8, 6, 301, 95, 47) if LONG else (8, 6, 14, 9, 3)
"""Between take and give, between give and conclude, behind that, and others, with nothing under way before one."""
KINDS: Final[Mapping[str, Callable[..., Any]]] = {
    "sqlite": SQLiteStore,
    "spool": FilesystemStore,
    "postgres": lambda path, **settings: places().open(Path(path), **settings),
    "redis": open_redis,
}

MOVE: Final = """
import datetime as dt, os, signal, sys
from moves import moved, seamed
from test_move_killed import KINDS
from outbox.testing.clock import ManualClock

now, at, victim, *ends = sys.argv[1:]
clock = ManualClock(dt.datetime.fromisoformat(now))
here, there = (KINDS[each.partition(":")[0]](each.partition(":")[2], clock=clock) for each in ends)

def kill(moment):
    if moment == int(at):
        os.kill(int(victim) or os.getpid(), signal.SIGKILL)

moved(*seamed(here, there, kill), limit=500)
"""


def move(now: dt.datetime, at: int, *ends: str, victim: int = 0) -> int:
    """The status of a process that moves from one to the other, and is killed at this boundary, or kills *victim* there."""
    command = [sys.executable, "-c", MOVE, now.isoformat(), str(at), str(victim), *ends]
    found = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "PYTHONPATH": found.rstrip(os.pathsep)}
    return subprocess.run(command, env=environ, check=False).returncode


@pytest.mark.parametrize("kind", ["postgres", "redis", "sqlite", "spool"])
def test_killed_five_times_each_way_it_is_the_same_set_in_the_same_order(
    kind: str, tmp_path: Path, postgres: Places
) -> None:
    # To find one message in a spool takes a walk through all of them.
    number = 300 if kind == "spool" else NUMBER
    clock = ManualClock()
    one: Any = SQLiteStore(tmp_path / "one", clock=clock)
    other: Any = KINDS[kind](tmp_path / "other", clock=clock)
    fill(one, clock, number)
    before = contents(one)
    assert len(before.records) + len(before.known) == number

    names = f"sqlite:{tmp_path / 'one'}", f"{kind}:{tmp_path / 'other'}"
    for here, there, ends in ((one, other, names), (other, one, names[::-1])):
        began = SystemClock().monotonic()
        ended = [move(clock.now(), at, *ends) for at in (*(KILLS if number == NUMBER else KILLS[:2]), 0)]
        assert ended[-1] == 0
        assert set(ended[:-1]) == {-signal.SIGKILL}
        print(
            f"{number} {' -> '.join(ends)}: {SystemClock().monotonic() - began:.0f} s, killed {len(ended) - 1} times"
        )
        found = contents(there)
        assert found == before
        assert found.order == before.order
        assert states(here) == {}


def test_a_redis_server_that_is_killed_again_and_again_each_way_has_lost_nothing_of_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started again over its file, and the next process goes on."""
    clock = ManualClock()
    with started(*LASTING) as server:
        # What the tests share is another server, and is not to be killed.
        monkeypatch.delenv(OWN, raising=False)
        monkeypatch.setenv(SHARED, server.url)
        one: Any = SQLiteStore(tmp_path / "one", clock=clock)
        other: Any = open_redis(tmp_path / "other", clock=clock)
        fill(one, clock, NUMBER)
        before = contents(one)

        names = f"sqlite:{tmp_path / 'one'}", f"redis:{tmp_path / 'other'}"
        for here, there, ends in ((one, other, names), (other, one, names[::-1])):
            for at in KILLS if LONG else KILLS[:2]:
                assert move(clock.now(), at, *ends, victim=server.pid) == 1
                server.kill()
                server.start()
            assert move(clock.now(), 0, *ends) == 0
            found = contents(there)
            assert (found, found.order) == (before, before.order)
            assert states(here) == {}

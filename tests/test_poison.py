"""A message that kills the process which delivers it: it is held, and it takes nobody with it."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from outbox.lifecycle import State
from outbox.locate import store_from_url
from outbox.message import Message

WORKERS = 2
MESSAGES = 300
POISON_AT = 200
DEATHS = 4
PATIENCE = 600.0

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def the_mail() -> list[Message]:
    """Far enough behind the first that a batch of a hundred is in somebody's hands when its turn comes."""
    made = [a_message(f"m{each:03}") for each in range(MESSAGES)]
    made[POISON_AT] = a_message("poison", priority=0)
    return made


def a_message(id: str, priority: int = 0) -> Message:
    return Message(
        id=id, recipients=["to@example.org"], content=b"Subject: x\r\n\r\nx\r\n", priority=priority
    )


def drain(url: str, path: Path) -> int:
    command = [
        sys.executable,
        "-m",
        "outbox",
        "drain",
        "--quiet",
        "--lease",
        "2s",
        "--workers",
        str(WORKERS),
    ]
    places = ["--store", url, "--transport", f"python:poisonous:transport?path={path}"]
    found = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": found.rstrip(os.pathsep)}
    done = subprocess.run(
        [*command, *places], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def drain_to_the_end(store: Any, url: str, path: Path) -> int:
    """How many of the processes died."""
    deaths = 0
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        due = store.next_due(["mail"])
        if due is None:
            return deaths
        if due > dt.timedelta(0):
            store.wait(due)
            continue
        deaths += drain(url, path) != 0
    raise AssertionError(f"after {deaths} deaths there is still something to deliver: {store.count()}")


@pytest.mark.parametrize("place", ["sqlite:///{}/outbox.db", "file://{}/spool"])
def test_exactly_the_message_that_kills_its_process_is_held_and_the_others_of_its_batch_arrive(
    place: str, tmp_path: Path
) -> None:
    url, path = place.format(tmp_path), tmp_path / "handed"
    store = store_from_url(url)
    try:
        for message in the_mail():
            store.put([message])
        deaths = drain_to_the_end(store, url, path)
        left: Any = store
        held = [(summary.id, summary.state) for summary in left.browse()]
    finally:
        store.close()
    handed = Counter(path.read_text(encoding="utf-8").split())

    assert held == [("poison", State.HELD)]
    # A process that the machine let wait for longer than a lease counts as one that was lost.
    assert 1 < handed["poison"] == deaths <= DEATHS
    assert len(handed) == MESSAGES, "somebody was never handed over"
    # Alone from its second time on, it had nobody beside it; the first death met a batch a worker.
    twice = sum(number - 1 for id, number in handed.items() if id != "poison")
    assert twice <= 100 * WORKERS

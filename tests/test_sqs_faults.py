"""Four runners over one queue, killed and stopped past their leases: nothing is lost, and each second copy has its cause.

``OUTBOX_SQS_FAULTS=long`` is 20,000 messages and ten times as many strikes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from sqs_runner import LEASE
from sqs_server import open_sqs, prefix_of
from sqs_wire import Raw
from started import end_all

from outbox.message import Message

LONG: Final = os.environ.get("OUTBOX_SQS_FAULTS") == "long"
MESSAGES: Final = 20_000 if LONG else 2_000
STRIKES: Final = 40 if LONG else 4
PATIENCE: Final = 3600.0 if LONG else 600.0
RUNNERS: Final = 4
AT_ONCE: Final = 100
AHEAD: Final = 1_000
LOOKS: Final = 3
COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class Scene:
    """A queue, four runners over it, and what they write down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.store = open_sqs(None, folder)
        self.submitted = 0
        self.feed()
        self.raw = Raw(prefix_of(folder))
        self.runners = [self.runner() for _ in range(RUNNERS)]
        self.until = time.monotonic() + PATIENCE

    def runner(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(__file__).with_name("sqs_runner.py")), str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*command, str(self.ledger)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, place: int) -> None:
        self.runners[place].kill()
        self.runners[place].wait()
        self.runners[place] = self.runner()

    def stop_past_its_lease(self, place: int) -> None:
        pid = self.runners[place].pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(LEASE.total_seconds() + 1)
        os.kill(pid, signal.SIGCONT)

    def feed(self) -> int:
        """So many ahead of what is delivered, and how many that is: moto looks through the whole queue at each request."""
        delivered = self.ledger.read_bytes().count(b"delivered")
        while self.submitted < min(MESSAGES, delivered + AHEAD):
            names = [f"m{self.submitted + number}" for number in range(AT_ONCE)]
            self.store.put([Message(id=name, recipients=("a@b.org",), content=b"x" * 200) for name in names])
            self.submitted += AT_ONCE
        return delivered

    def wait_for(self, share: int) -> None:
        while self.feed() < share:
            self.require_patience()
            time.sleep(0.05)

    def wait_until_empty(self) -> None:
        # Some may be held, and never be delivered.
        self.wait_for(MESSAGES - AHEAD)
        assert self.submitted == MESSAGES
        empty = 0
        # What becomes visible while it is counted is in none of the three numbers.
        while empty < LOOKS:
            empty = 0 if any(self.counts().values()) else empty + 1
            self.require_patience()
            time.sleep(0.2)

    def counts(self, queue: str = "mail") -> Mapping[str, int]:
        answer = self.raw.client.get_queue_attributes(QueueUrl=self.raw.url(queue), AttributeNames=[*COUNTS])
        return {name: int(answer["Attributes"][name]) for name in COUNTS}

    def require_patience(self) -> None:
        assert time.monotonic() < self.until, f"after {PATIENCE} s there are still {self.counts()}"

    def held(self) -> set[str]:
        found: set[str] = set()
        while bodies := [*self.raw.taken("mail-held")]:
            found.update(body["id"] for body in bodies)
        return found

    def end(self) -> None:
        end_all(self.runners)
        self.store.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.end()


def test_runners_that_are_killed_and_stopped_past_their_leases_lose_nothing_and_double_nothing_unexplained(
    scene: Scene,
) -> None:
    for number in range(STRIKES):
        scene.wait_for(MESSAGES * (number + 1) // (STRIKES + 2))
        (scene.kill, scene.stop_past_its_lease)[number % 2](number % RUNNERS)
    scene.wait_until_empty()
    scene.end()

    lines = [line.split() for line in scene.ledger.read_text().splitlines()]
    delivered = {id for what, id, *_ in lines if what == "delivered"}
    held = scene.held()
    missing = {f"m{number}" for number in range(MESSAGES)} - delivered - held
    assert not missing, f"{len(missing)} of {len(delivered)}, now {scene.counts()}: {sorted(missing)[:100]}"
    assert not any(scene.counts("mail-dead").values())
    assert unexplained(lines) == []


def unexplained(lines: list[list[str]]) -> list[str]:
    """Who was sent a message for which SQS was asked when somebody had settled it already.

    Where it was asked for before, a claim had run out, though it was settled
    later.  So it had where the message had come to another before whoever
    settled it was told so: that one may have given it back as a letter of its own.
    """
    come: dict[str, set[int]] = {}
    for what, id, at, *_ in lines:
        if what == "come":
            come.setdefault(id, set()).add(int(at))
    settled: dict[str, int] = {}
    for what, id, at, *asked in lines:
        if what == "settled" and not any(int(asked[0]) < each < int(at) for each in come[id]):
            settled[id] = min(int(at), settled.get(id, int(at)))
    return [id for what, id, at, *_ in lines if what == "delivered" and settled.get(id, int(at)) < int(at)]


def test_a_copy_that_was_asked_for_after_its_message_was_settled_is_not_explained() -> None:
    def story(*told: str) -> list[list[str]]:
        lines = [each.split() for each in told]
        return [["come", *line[1:]] for line in lines if line[0] == "delivered"] + lines

    assert unexplained(story("delivered a 1", "settled a 5 1", "delivered b 1", "delivered b 2")) == []
    assert unexplained(story("delivered a 1", "settled a 5 1", "delivered a 4")) == []
    assert unexplained(story("delivered a 1", "settled a 5 1", "delivered a 6")) == ["a"]
    assert unexplained(story("delivered a 1", "settled a 5 1", "delivered a 6", "settled a 9 6")) == ["a"]
    assert unexplained(story("delivered a 1", "come a 3", "settled a 5 1", "delivered a 6")) == []
    assert unexplained(story("come a 1", "delivered a 3", "settled a 5 3", "delivered a 6")) == ["a"]

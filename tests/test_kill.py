"""kill -9 in mid-work: nothing is lost, and every second copy has a cause."""

import datetime as dt
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from started import PATIENCE

from outbox.lifecycle import State
from outbox.message import Message
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.smtp_sink import Heard, SMTPSink

MESSAGES = 4000
STEPS = ("connect", "ehlo", "mail", "rcpt", "data", "content", "dot")
KILLS = 20

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


class Killer:
    """A hook of the sink that kills the drain at a step of a transaction, while the drain waits for the answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._victim: subprocess.Popen[bytes] | None = None
        self._step = ""
        self._after = 0
        self._seen = 0

    def aim(self, victim: "subprocess.Popen[bytes]", step: str, after: int) -> None:
        """Kill *victim* at the first *step* once *after* messages were taken in its life."""
        with self._lock:
            self._victim, self._step, self._after, self._seen = victim, step, after, 0

    def __call__(self, heard: Heard) -> None:
        with self._lock:
            # A new connection has its steps "connect" and "ehlo" at the start of a drain only.
            ripe = self._seen >= self._after or heard.step in ("connect", "ehlo")
            if self._victim is not None and heard.step == self._step and ripe:
                os.kill(self._victim.pid, signal.SIGKILL)
                self._victim = None
            self._seen += heard.step == "dot"


def the_messages() -> Iterator[Message]:
    for number in range(MESSAGES):
        content = f"From: a@example.org\r\nSubject: {number}\r\nMessage-ID: <m{number}@example.org>\r\n\r\nhello\r\n"
        yield Message(
            id=f"m{number}", sender="a@example.org", recipients=["b@example.org"], content=content.encode()
        )


def a_drain(path: Path, sink: SMTPSink) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "outbox", "drain", "--quiet", "--lease", "1h"]
    place = ["--store", f"sqlite:///{path}", "--transport", sink.url]
    return subprocess.Popen([*command, *place], stderr=subprocess.PIPE)


def unsettled(path: Path) -> set[str]:
    """The ids that are under a dead worker's lease."""
    store = SQLiteStore(path)
    try:
        return {s.id for s in store.browse(states=[State.CLAIMED], limit=MESSAGES)}
    finally:
        store.close()


def received(sink: SMTPSink) -> Counter[str]:
    return Counter(f"m{message.email()['Subject']}" for message in sink.messages)


def test_a_drain_killed_at_twenty_moments_loses_nothing_and_doubles_only_what_was_between_dot_and_settle(
    tmp_path: Path,
) -> None:
    path, killer = tmp_path / "outbox.db", Killer()
    store = SQLiteStore(path)
    store.put(list(the_messages()))
    store.close()
    # How often a kill found each message under a lease.  What the receiver had taken by then was
    # not settled: the kill fell between its final dot and the settle.
    excused: Counter[str] = Counter()
    with SMTPSink(hook=killer) as sink:
        for number, step in zip(range(KILLS), itertools.cycle(STEPS), strict=False):
            drain = a_drain(path, sink)
            killer.aim(drain, step, after=10 + number * 5)
            _, errors = drain.communicate(timeout=PATIENCE)
            assert drain.returncode == -signal.SIGKILL, f"kill {number} at {step} missed: {errors.decode()}"
            claimed = unsettled(path) - excused.keys()
            assert claimed, f"kill {number} at {step} was not in mid-work"
            excused.update(claimed)
        finish(path, sink)
        copies = received(sink)
    assert len(copies) == MESSAGES, "lost"
    unexplained = {id: n for id, n in copies.items() if n > 1 + excused[id]}
    assert not unexplained
    assert max(copies.values()) > 1, "no kill fell between the dot and the settle: the test shows nothing"


def finish(path: Path, sink: SMTPSink) -> None:
    """Drain until the store is empty; the leases of the dead end now.

    Of the living none runs out, however long a busy machine lets them wait: that would be a second copy, too.
    """
    store = SQLiteStore(path)
    try:
        store._database.write(
            lambda sql: sql.execute("UPDATE outbox_message SET due = 0 WHERE state = 'claimed'")
        )
        while (due := store.next_due(["mail"])) is not None:
            if due > dt.timedelta(0):
                store.wait(due)
                continue
            drain = a_drain(path, sink)
            _, errors = drain.communicate(timeout=PATIENCE)
            assert (drain.returncode, errors) == (0, b"")
        assert not store.browse(), "none is held, none is dead"
    finally:
        store.close()

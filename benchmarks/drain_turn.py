"""One turn of ours, or of a reference loop, in a process of its own; prints what it came to as one line of JSON.

    python drain_turn.py WHO FOLDER PORT NUMBER [THREADS | AHEAD]

WHO is ``outbox`` or ``loop`` (stored messages are drained), ``outbox-flow`` or ``loop-flow`` (eight threads
submit while it is drained), or ``hang`` or ``alone`` (a relay that never answers has AHEAD messages ahead of the
others, or has none).  Filling the store is not timed; memory and CPU are those of the whole process in that time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
import drain_loop
import flow_loop
from ours import CONTENT, fill, hastily, mail, open_store
from process import peak

from outbox import (
    Claim,
    Delivered,
    Exchanged,
    Message,
    Notice,
    Outbox,
    RouteTransport,
    Settled,
    Settlement,
    SMTPTransport,
    SQLiteStore,
)

_SUBMITTERS: Final = 8
_PATIENCE: Final = 600.0
_NOW: Final = dt.timedelta(0)
_TABLE: Final = "CREATE TABLE mail (number INTEGER PRIMARY KEY, sender TEXT, recipient TEXT, content BLOB)"


@attrs.define
class Turn:
    """Begins when it is made; *told* is printed."""

    number: int
    told: dict[str, Any] = attrs.Factory(dict)
    _start: float = attrs.field(factory=time.perf_counter)
    _cpu: float = attrs.field(factory=time.process_time)

    def end(self, **more: Any) -> dict[str, Any]:
        seconds, cpu = time.perf_counter() - self._start, time.process_time() - self._cpu
        return {"messages": self.number, "seconds": seconds, "cpu": cpu, "peak": peak(), **more}


class Sent:
    """A listener that counts what was delivered, and for whom it is waited."""

    def __init__(self, counts: Callable[[Message], bool] = lambda _: True) -> None:
        self.number = 0
        self._counts = counts
        self._news = threading.Condition()

    def __call__(self, notice: Notice) -> None:
        if isinstance(notice, Settled) and isinstance(notice.verdict, Delivered):
            with self._news:
                self.number += self._counts(notice.claim.message)
                self._news.notify_all()

    def wait_for(self, number: int) -> None:
        with self._news:
            if not self._news.wait_for(lambda: self.number >= number, _PATIENCE):
                raise RuntimeError(f"{self.number} of {number} messages were delivered in {_PATIENCE:.0f} s")


# --- draining what is stored ---


def outbox(folder: Path, port: int, number: int, _: int) -> dict[str, Any]:
    """With the settings that it has by itself."""
    # By another process, whose memory is not ours.
    subprocess.run(
        [sys.executable, __file__, "fill", str(folder), str(port), str(number)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with Outbox(open_store("sqlite", folder), SMTPTransport("127.0.0.1", port)) as box:
        turn = Turn(number)
        tally = box.drain()
        told = turn.end()
    if tally.delivered != number:
        raise RuntimeError(f"{tally}, and {number} were to be delivered")
    return told


def filled(folder: Path, _: int, number: int, __: int) -> dict[str, Any]:
    with hastily("sqlite", folder) as store:
        fill(store, number)
    return {}


def loop(folder: Path, port: int, number: int, threads: int) -> dict[str, Any]:
    path = folder / "loop.db"
    with closing(drain_loop.opened(path)) as sql:
        sql.execute(_TABLE)
        sql.execute("BEGIN")
        sql.executemany(flow_loop.INSERT, [(None, CONTENT)] * number)
        sql.execute("COMMIT")
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    turn = Turn(number)
    drain_loop.drain(path, port, threads)
    told = turn.end()
    _require_empty(path)
    return told


def _require_empty(path: Path) -> None:
    with closing(drain_loop.opened(path)) as sql:
        (left,) = sql.execute("SELECT count(*) FROM mail").fetchone()
    if left:
        raise RuntimeError(f"{left} messages are left in the reference loop's table")


# --- submitting and draining at once ---


def outbox_flow(folder: Path, port: int, number: int, _: int) -> dict[str, Any]:
    number -= number % _SUBMITTERS
    made = [mail() for _ in range(number)]
    submitted = [0] * _SUBMITTERS
    sent, backlog, over = Sent(), [], threading.Event()

    def submit(each: int) -> None:
        for message in made[each::_SUBMITTERS]:
            box.submit(message)
            submitted[each] += 1

    def watch() -> None:
        while not over.wait(0.02):
            backlog.append(sum(submitted) - sent.number)

    store, transport = open_store("sqlite", folder), SMTPTransport("127.0.0.1", port)
    with Outbox(store, transport, listeners=[sent]) as box, box.running():
        watcher = threading.Thread(target=watch)
        turn = Turn(number)
        watcher.start()
        with ThreadPoolExecutor(_SUBMITTERS) as pool:
            list(pool.map(submit, range(_SUBMITTERS)))
        submitting = time.perf_counter()
        sent.wait_for(number)
        told = turn.end(after=time.perf_counter() - submitting)
        over.set()
        watcher.join()
    return {**told, "backlog": _tenths(backlog)}


def loop_flow(folder: Path, port: int, number: int, _: int) -> dict[str, Any]:
    path = folder / "loop.db"
    with closing(drain_loop.opened(path)) as sql:
        sql.execute(_TABLE)
    backlog: list[int] = []
    turn = Turn(number - number % _SUBMITTERS)
    flow_loop.flow(path, port, CONTENT, number, backlog)
    told = turn.end()
    _require_empty(path)
    return {**told, "backlog": _tenths(backlog)}


def _tenths(backlog: Sequence[int]) -> list[int]:
    """It at each tenth of the time."""
    return [backlog[(len(backlog) - 1) * tenth // 10] for tenth in range(11)] if backlog else []


# --- beside a relay that never answers ---


class Counting(SQLiteStore):
    """Counts what is written of the relay that never answers: leases and verdicts, and in how many commits."""

    writes = 0
    commits = 0

    def claim(self, **said: Any) -> Sequence[Claim]:
        claims = super().claim(**said)
        self._note(claims)
        return claims

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        self._note([settlement.claim for settlement in settlements])
        return super().settle(settlements)

    def exchange(self, settlements: Sequence[Settlement], /, **said: Any) -> Exchanged:
        exchanged = super().exchange(settlements, **said)
        self._note([*(settlement.claim for settlement in settlements), *exchanged.claims])
        return exchanged

    def _note(self, claims: Sequence[Claim]) -> None:
        dead = sum(claim.recipients[0].endswith("@dead.example") for claim in claims)
        # Some threads at once: it is a benchmark, and nobody asks for the last one.
        self.writes, self.commits = self.writes + dead, self.commits + (dead > 0)


@contextlib.contextmanager
def _black_hole() -> Iterator[int]:
    """A port at which calls are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server.getsockname()[1]


def hang(folder: Path, port: int, number: int, ahead: int) -> dict[str, Any]:
    """The good relay's messages, behind *ahead* of the one that never answers."""
    sent = Sent(lambda message: message.recipients[0].endswith("@good.example"))
    with _black_hole() as hole:
        routes = {
            "dead.example": SMTPTransport("127.0.0.1", hole),
            "good.example": SMTPTransport("127.0.0.1", port),
        }
        transport = RouteTransport(domains=routes)
        with hastily("sqlite", folder) as filled:
            filled.put([_to("dead") for _ in range(ahead)])
            for start in range(0, number, 1000):
                filled.put([_to("good") for _ in range(min(1000, number - start))])
        store = Counting(folder / "outbox.db")
        runner = Outbox(store, transport, listeners=[sent]).runner()
        turn = Turn(number)
        runner.start()
        sent.wait_for(number)
        told = turn.end(writes=store.writes, commits=store.commits)
        # What hangs is left behind, and ends with this process.
        runner.stop(_NOW)
    return told


def _to(relay: str) -> Message:
    return Message(recipients=(f"ann@{relay}.example",), sender="billing@example.com", content=CONTENT)


def alone(folder: Path, port: int, number: int, _: int) -> dict[str, Any]:
    return hang(folder, port, number, 0)


WAYS: Final[dict[str, Callable[[Path, int, int, int], dict[str, Any]]]] = {
    "fill": filled,
    "outbox": outbox,
    "loop": loop,
    "outbox-flow": outbox_flow,
    "loop-flow": loop_flow,
    "hang": hang,
    "alone": alone,
}


if __name__ == "__main__":
    _, who, folder, *numbers = sys.argv
    port, number, threads = [*map(int, numbers), 0][:3]
    print(json.dumps(WAYS[who](Path(folder), port, number, threads)), flush=True)

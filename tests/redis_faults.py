"""What goes wrong around a Redis store while four runners deliver, and what has to be true in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from redis_runner import LEASE
from redis_server import Server
from started import end_all

from outbox.errors import AmbiguousPut, StoreUnavailable
from outbox.lifecycle import State, Summary
from outbox.message import Message
from outbox.stores.redis import RedisStore

__all__ = ["LONG", "Scene"]

LONG: Final = os.environ.get("OUTBOX_REDIS_FAULTS") == "long"
MESSAGES: Final = 20_000 if LONG else 2_000
_RUNNERS: Final = 4
_AT_ONCE: Final = 20
_PATIENCE: Final = 1800.0 if LONG else 300.0
_HERE: Final = Path(__file__).parent
_CLOCKS: Final = (0.0, 300.0, -300.0, 0.0)
"""Seconds by which the clock of each runner is wrong."""


class Scene:
    """A server, four runners over it, and whoever submits."""

    def __init__(self, server: Server, folder: Path, *, messages: int = MESSAGES) -> None:
        self.server = server
        self.messages = messages
        self.ambiguous = 0
        self.strikes = 0
        self._dice = random.Random(8)
        self._folder = folder
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self.runners = [self._runner(number) for number in range(_RUNNERS)]
        self._until = time.monotonic() + _PATIENCE

    def _runner(self, number: int) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, str(_HERE / "redis_runner.py"), self.server.url, "faults"),
            *(str(self._ledger), str(_CLOCKS[number])),
        ]
        with (self._folder / f"runner-{number}").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)

    def store(self) -> RedisStore:
        """Open it; the server may be away for a moment."""
        while True:
            try:
                return RedisStore(self.server.url, prefix="faults")
            except StoreUnavailable:
                self.require_patience()
                time.sleep(0.05)

    def require_patience(self) -> None:
        assert time.monotonic() < self._until, (
            f"only {self.delivered()} of {self.messages} after {_PATIENCE} s"
        )

    def delivered(self) -> int:
        """How many lines there are in the ledger."""
        return self._ledger.read_bytes().count(b"\n")

    def submit(self) -> None:
        """All of them, each until it is acknowledged."""
        with closing(self.store()) as store:
            for first in range(0, self.messages, _AT_ONCE):
                batch = [
                    Message(id=f"m{number}", recipients=("ann@example.com",), content=b"x" * 200)
                    for number in range(first, min(first + _AT_ONCE, self.messages))
                ]
                self._put(store, batch)

    def _put(self, store: RedisStore, batch: list[Message]) -> None:
        while True:
            self.require_patience()
            try:
                store.put(batch)
            except AmbiguousPut:
                self.ambiguous += 1
            except StoreUnavailable:
                time.sleep(0.02)
            else:
                return

    @contextmanager
    def submitting(self) -> Iterator[None]:
        failures: list[BaseException] = []

        def submit() -> None:
            try:
                self.submit()
            except BaseException as error:  # noqa: BLE001 - told to the test
                failures.append(error)

        thread = threading.Thread(target=submit)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if failures:
            raise failures[0]

    def strike(self, times: int, act: Callable[[int], None]) -> None:
        """Do it so often, each time when some more are delivered."""
        for number in range(times):
            share = self.messages * number // (times + 1)
            while self.delivered() < share:
                self.require_patience()
                time.sleep(0.005)
            act(number)
            self.strikes += 1

    def replace(self, number: int) -> None:
        """Kill a runner, and put another in its place."""
        place = number % _RUNNERS
        self.runners[place].kill()
        self.runners[place].wait()
        self.runners[place] = self._runner(place)

    def stop_past_its_lease(self, number: int) -> None:
        pid = self.runners[number % _RUNNERS].pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(LEASE.total_seconds() + 0.5)
        os.kill(pid, signal.SIGCONT)

    def cut_some(self, client: Any) -> None:
        """About half of the connections, and at least one."""
        there = [each["id"] for each in client.client_list(_type="normal")]
        for id in self._dice.sample(there, self._dice.randint(1, len(there))):
            client.client_kill_filter(_id=id, skipme=True)

    def client(self, act: Callable[[Any], object]) -> None:
        with closing(self.server.client()) as client:
            act(client)

    def settled(self) -> dict[str, Summary]:
        """Every message, once all have left the queue and the runners have ended."""
        with closing(self.store()) as store:
            while any(row.state in (State.QUEUED, State.CLAIMED) for row in store.count()):
                self.require_patience()
                time.sleep(0.1)
            self.end()
            found: dict[str, Summary] = {}
            while page := store.browse(after=max(found, default=""), limit=1000):
                found.update((summary.id, summary) for summary in page)
            return found

    def end(self) -> None:
        end_all(self.runners)

    def require_all_delivered_once_or_explained(self) -> None:
        """0 lost; and each further copy follows a claim that never settled, which the store has counted."""
        found, copies = self.settled(), Counter(self._ledger.read_text().split())
        assert set(found) == {f"m{number}" for number in range(self.messages)}
        lost = [id for id, seen in found.items() if seen.state is State.DELIVERED and not copies[id]]
        assert not lost
        # Held is what four claims in a row have lost: a person sees it.
        assert {seen.state for seen in found.values()} <= {State.DELIVERED, State.HELD}
        unexplained = {id: copies[id] for id, seen in found.items() if copies[id] > max(1, seen.attempts)}
        assert not unexplained
        again = sum(number - 1 for number in copies.values())
        held = sum(seen.state is State.HELD for seen in found.values())
        print(
            f"{self.messages:,} messages, {_RUNNERS} runners: {len(lost)} lost, {len(unexplained)} unexplained duplicates; "
            f"{again} went again after a claim that never settled, {held} are held; {self.strikes} strikes, "
            f"{self.ambiguous} puts were ambiguous and repeated"
        )

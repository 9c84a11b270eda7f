"""Eight runners over one store, killed, stopped past their leases and told to end at random; and the ledgers compared.

Three of them are held against each other: what the receiver took and what it
said to it, what each runner logged, and what was done to each runner when.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import attrs

from outbox.lifecycle import State
from outbox.locate import store_from_url
from outbox.message import Message
from outbox.outcome import Uncertain

__all__ = ["Chaos"]

HERE = Path(__file__).parent
RUNNERS = 8
# So long that a busy machine lets the living extend it in time: two thirds of it are theirs.
LEASE = 6.0
BACKLOG = 1_000
AT_ONCE = 100
PATIENCE = 180.0
SOON = 60.0
NO_ANSWER = "no whole answer"
UNFINISHED = [state for state in State if state is not State.DELIVERED]
CONFIG = f"""
lease = "{LEASE:.0f}s"
grace = "20s"
workers = 2
[retry]
wait_initial = "0.2s"
wait_max = "1s"
timeout = "1d"
"""


@attrs.define(eq=False)
class Runner:
    """One process, and what was done to it: *stops* are from when until when it stood still."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    killed_at: float | None = None
    told_to_end: bool = False
    stops: list[list[float]] = attrs.Factory(list)
    waker: threading.Timer | None = None
    _begun: bool = False

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def at_work(self) -> bool:
        """Whether it has begun, and nothing was done to it yet that is not over."""
        if not self._begun:
            self._begun = "msg=running" in self.log.read_text(encoding="utf-8", errors="replace")
        return self._begun and self.runs and self.waker is None and not self.told_to_end

    def kill(self) -> None:
        # Before: what it sent until then is older.
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(SOON)
        self.killed_at = time.time()
        self._end_stop()

    def stop(self, seconds: float) -> None:
        self.stops.append([time.time(), float("inf")])
        self.process.send_signal(signal.SIGSTOP)
        # A thread of its own: what it holds locked may be what the submitter waits for.
        self.waker = threading.Timer(seconds, self.go_on)
        self.waker.start()

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self._end_stop()

    def end(self) -> None:
        self.told_to_end = True
        self.process.send_signal(signal.SIGTERM)

    def _end_stop(self) -> None:
        waker, self.waker = self.waker, None
        if waker is not None:
            waker.cancel()
            self.stops[-1][1] = time.time()


@attrs.frozen
class Copy:
    """One final dot that the receiver heard and did not refuse."""

    id: str
    at: float
    runner: str
    said: str


@attrs.define
class Chaos:
    """One run over the store of *url*.

    Attributes:
        seconds, least: It lasts so long at least, and until so many strikes have fallen.
        pauses: Between two strikes, the shortest and the longest in seconds; where processes end more often than
            others can begin, nobody gets to deliver anything.
        number: So many messages are submitted; or, not *whole*, as many of them as fit into that time.
        done: How often what was done to a runner.
        causes: How many copies beyond the first had which cause.
    """

    seed: int
    number: int
    seconds: float
    least: int
    url: str
    folder: Path
    pauses: tuple[float, float] = (0.05, 0.3)
    whole: bool = True
    strikes: int = 0
    done: Counter[str] = attrs.Factory(Counter)
    causes: Counter[str] = attrs.Factory(Counter)
    everybody: dict[str, Runner] = attrs.Factory(dict)
    crew: list[Runner] = attrs.Factory(list)
    _heard: set[str] = attrs.Factory(set)
    _read: int = 0
    _rng: random.Random = attrs.Factory(lambda self: random.Random(self.seed), takes_self=True)

    def run(self) -> None:
        """Until everything is delivered, and every copy beyond the first has a cause.

        Raises:
            AssertionError: something was lost, or sent twice without one.
        """
        (self.folder / "config.toml").write_text(CONFIG, encoding="utf-8")
        with ExitStack() as stack:
            receiver = stack.enter_context(self._receiver())
            assert receiver.stdin is not None
            assert receiver.stdout is not None
            port = int(receiver.stdout.readline())
            store = stack.enter_context(closing(store_from_url(self.url)))
            stack.callback(self._end_all)
            self.crew = [self._runner(port) for _ in range(RUNNERS)]
            self._rage(store, port)
            print("calm", file=receiver.stdin, flush=True)
            self._finish(store, port)
            self._end_all()
            receiver.stdin.close()
            assert receiver.wait(SOON) == 0
            self._compare(store)

    # --- what is done to them ---

    def _rage(self, store: Any, port: int) -> None:
        submitted, start = 0, time.monotonic()
        moved = start
        while (
            (self.whole and submitted < self.number)
            or self.strikes < self.least
            or time.monotonic() < start + self.seconds
        ):
            # By what moves, and not by the whole: a busy machine may take long.
            assert time.monotonic() < max(moved, start + self.seconds) + PATIENCE, (
                f"nothing moves for {PATIENCE} s; {submitted} of {self.number} submitted: {self.words}"
            )
            while submitted < min(self.number, self._answered() + BACKLOG):
                more = range(submitted, min(submitted + AT_ONCE, self.number))
                store.put([a_mail(each) for each in more])
                submitted, moved = more.stop, time.monotonic()
            time.sleep(self._rng.uniform(*self.pauses))
            if self._strike():
                moved = time.monotonic()
            self._replace(port)
        self.number = submitted

    def _strike(self) -> bool:
        """Whether there was somebody to strike: half of them are left to work."""
        well = [each for each in self.crew if each.at_work]
        if len(well) <= RUNNERS // 2:
            return False
        self.strikes += 1
        victim, how = self._rng.choice(well), self._rng.choice(["kill", "stop", "end"])
        self.done[how] += 1
        if how == "kill":
            victim.kill()
        elif how == "stop":
            victim.stop(LEASE * self._rng.uniform(1.1, 1.6))
        else:
            victim.end()
        return True

    def _replace(self, port: int) -> None:
        """Put others in the place of those that ended."""
        for place, each in enumerate(self.crew):
            if not each.runs:
                self._saw_end(each)
                self.crew[place] = self._runner(port)

    def _saw_end(self, runner: Runner) -> None:
        wanted = -signal.SIGKILL if runner.killed_at else 0
        assert runner.killed_at or runner.told_to_end, f"{runner.name} ended by itself: {self._said(runner)}"
        assert runner.process.returncode == wanted, f"{runner.process.returncode}: {self._said(runner)}"

    def _finish(self, store: Any, port: int) -> None:
        """Nobody is disturbed any more, until nothing is left; a person lets go on what was held."""
        most, until = self._answered(), time.monotonic() + PATIENCE
        while any(True for _ in store.browse(states=UNFINISHED, limit=1)):
            if (now := self._answered()) > most:
                most, until = now, time.monotonic() + PATIENCE
            assert time.monotonic() < until, f"nothing moves for {PATIENCE} s: {store.count()}; {self.words}"
            self._replace(port)
            held = [each.id for each in store.browse(states=[State.HELD], limit=1000)]
            if held:
                self.done["held, and let go on by hand"] += len(held)
                store.requeue(held, uncertain=True)
            time.sleep(0.1)

    def _end_all(self) -> None:
        for each in self.crew:
            if each.runs:
                each.go_on()
                each.end()
        for each in self.crew:
            try:
                each.process.wait(SOON)
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait(SOON)

    def _answered(self) -> int:
        """How many messages have been taken with an answer, by the receiver's own ledger.

        The store is not asked: to count a hundred thousand of a spool takes so long that nobody would be struck.
        """
        if self._taken.exists():
            with self._taken.open("rb") as ledger:
                ledger.seek(self._read)
                new = ledger.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            said = [json.loads(line) for line in whole.splitlines()]
            self._heard.update(each["id"] for each in said if each.get("said") in ("250", "late"))
        return len(self._heard)

    # --- processes ---

    def _receiver(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "chaos_receiver.py"), str(self.seed), str(self._taken)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _runner(self, port: int) -> Runner:
        name = f"r{len(self.everybody)}"
        transport = f"smtp://127.0.0.1:{port}?local_hostname={name}.example.org&timeout=15s"
        log = self.folder / f"{name}.log"
        config = ["--config", str(self.folder / "config.toml")]
        command = [
            sys.executable,
            "-m",
            "outbox",
            "run",
            *config,
            "--store",
            self.url,
            "--transport",
            transport,
        ]
        with log.open("wb") as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.everybody[name] = Runner(name, process, log)
        return self.everybody[name]

    @property
    def _taken(self) -> Path:
        return self.folder / "taken.jsonl"

    @property
    def words(self) -> str:
        """How to see it once more, as far as processes go the same way twice."""
        return f"OUTBOX_CHAOS_SEED={self.seed}; {dict(self.done)}; the logs are in {self.folder}"

    def _said(self, runner: Runner) -> str:
        return runner.log.read_text(encoding="utf-8", errors="replace")[-1000:]

    # --- the ledgers ---

    def _compare(self, store: Any) -> None:
        copies, message_ids, violations = read(self._taken)
        logs = {name: Log.read(runner.log) for name, runner in self.everybody.items()}
        wanted = {f"m{number}" for number in range(self.number)}
        wrong: dict[str, Sequence[object]] = {
            "lost": sorted(wanted - copies.keys()),
            "strangers": sorted(copies.keys() - wanted),
            "altered": [id for id, said in message_ids.items() if said != {f"<{id}@example.org>"}],
            "bad manners": violations,
            "sent again without a cause": list(self._unexplained(copies, logs, store)),
        }
        found = {what: which[:5] for what, which in wrong.items() if which}
        assert not found, f"{found}; {self.words}"

    def _unexplained(
        self, copies: Mapping[str, Sequence[Copy]], logs: Mapping[str, Log], store: Any
    ) -> Iterator[object]:
        for id, several in copies.items():
            if len(several) == 1:
                continue
            uncertain = sum(
                isinstance(result, Uncertain)
                for attempt in store.get(id).history
                for result in attempt.results.values()
            )
            causes: list[str] = []
            following = [*(copy.at for copy in several[1:]), float("inf")]
            # What a runner noted as delivered is the last that it sent: it may have lost an earlier lease of it.
            last = {copy.runner: copy for copy in several}
            for copy, until in zip(several, following, strict=True):
                if copy is last[copy.runner] and id in logs[copy.runner].delivered:
                    continue
                cause = self._cause(copy, until, logs, uncertain - causes.count(NO_ANSWER))
                if cause:
                    causes.append(cause)
            # One of them needs none: the one that was settled.
            self.causes.update(causes[: len(several) - 1])
            if len(causes) < len(several) - 1:
                yield [*several, causes]

    def _cause(self, copy: Copy, until: float, logs: Mapping[str, Log], uncertain: int) -> str:
        """Why the store does not know what became of this copy when the next one came; nothing where it should."""
        runner, log = self.everybody[copy.runner], logs[copy.runner]
        if copy.said in ("closed", "cut") and uncertain > 0:
            return NO_ANSWER
        # Alive it would have kept the lease; the receiver may have been late to read what it had sent.
        if runner.killed_at is not None and until > runner.killed_at:
            return "killed between the dot and the settle"
        if copy.id in log.lost or runner.killed_at is not None:
            if stood_still(runner, copy.at):
                return "stopped past the lease"
            if any(locked_out(other, copy.at) for other in self.everybody.values()):
                return "the lease was lost while another stood still"
        return ""


def stood_still(runner: Runner, at: float) -> bool:
    """Whether it did for longer than a lease, so that what it sent at that time was in doubt."""
    return any(end - start > LEASE and start - 2 * LEASE <= at <= end + LEASE for start, end in runner.stops)


def locked_out(other: Runner, at: float) -> bool:
    """Whether nothing could be written meanwhile, for *other* stood still for longer than a lease and had the lock.

    What was sent before could be settled, and what is sent after is under a lease that was made since.
    """
    return any(end - start > LEASE and start - 1.0 <= at <= end + 1.0 for start, end in other.stops)


@attrs.frozen
class Log:
    """Which messages a runner noted as delivered, and which leases as lost."""

    delivered: frozenset[str]
    lost: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Log:
        text = path.read_text(encoding="utf-8", errors="replace")
        return cls(
            frozenset(re.findall(r" id=(\S+) .* state=delivered ", text)),
            frozenset(re.findall(r' id=(\S+) msg="lease lost"', text)),
        )


def read(path: Path) -> tuple[dict[str, list[Copy]], dict[str, set[str]], Sequence[str]]:
    """The copies and the Message-IDs of each message, and what the receiver complains of."""
    copies, message_ids = defaultdict(list), defaultdict(set)
    violations: Sequence[str] = ()
    for line in path.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        if "said" in said:
            if not said["said"].startswith("4"):
                copies[said["id"]].append(Copy(**said))
        elif "message_id" in said:
            message_ids[said["id"]].add(said["message_id"])
        else:
            violations = said["violations"]
    return copies, message_ids, violations


def a_mail(number: int) -> Message:
    content = f"From: a@example.org\r\nSubject: x\r\nMessage-ID: <m{number}@example.org>\r\n\r\nhello\r\n"
    return Message(
        id=f"m{number}",
        sender="a@example.org",
        recipients=[f"m{number}@example.org"],
        content=content.encode(),
    )

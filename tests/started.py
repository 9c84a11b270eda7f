"""`outbox run` as a test has it: a process whose lines can be waited for, and whose processes are known."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scan import said

from outbox.message import Message
from outbox.stores.sqlite import SQLiteStore

PATIENCE: Final = 180.0


def end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Also those that were stopped, or do not end when they are told to."""
    for each in processes:
        each.send_signal(signal.SIGCONT)
        each.terminate()
    for each in processes:
        try:
            each.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


class Started:
    """One `outbox run`, ended with all that it started when the block ends."""

    def __init__(
        self,
        *argv: str,
        interpreter: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *interpreter, "-m", "outbox", "run", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._at_end = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in (*self.children(), self.process.pid) if self.process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.wait_for_the_last()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said(line, "the standard error of outbox run")
            with self._changed:
                self.lines.append(line.decode().rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    @property
    def err(self) -> str:
        with self._changed:
            return "\n".join(self.lines)

    def wait_for(self, words: str, number: int = 1) -> str:
        """The *number*-th line that holds *words*, as soon as it is there."""

        def found() -> Sequence[str]:
            return [line for line in self.lines if words in line]

        with self._changed:
            there = self._changed.wait_for(lambda: len(found()) >= number or self._at_end, PATIENCE)
            assert there, self.lines
            assert len(found()) >= number, self.lines
            return found()[number - 1]

    def wait_for_the_last(self) -> None:
        """Until every process that can write to the log has ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._at_end, PATIENCE), "some process goes on"

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its status, once it has ended."""
        status = self.process.wait(PATIENCE)
        self.wait_for_the_last()
        return status

    def end_at_once(self) -> int:
        """Signal until it ends: what comes in the first half second counts as an echo."""
        self.signal()
        self.wait_for("stopping")
        while self.process.poll() is None:
            self.signal()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
        return self.ended()

    def children(self) -> list[int]:
        """The processes that it has started, the oldest first."""
        pid = self.process.pid
        try:
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []


class Listening:
    """What systemd hears: datagrams, each a tuple of its lines."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        while True:
            yield self.hear()

    def hear(self) -> tuple[str, ...]:
        heard = self._socket.recv(4096)
        said(heard, "what systemd is told")
        return tuple(heard.decode().split("\n"))

    def waiting(self) -> bool:
        """Is there something to hear now?"""
        return bool(select.select([self._socket], [], [], 0)[0])

    def wait_for(self, word: str) -> tuple[str, ...]:
        return next(said for said in self if word in said)

    def close(self) -> None:
        self._socket.close()


def put_mail(path: Path, count: int) -> list[str]:
    """Store so many messages, each with its number as its subject; their ids."""
    mail = [
        Message(
            recipients=["ann@example.org"],
            sender="shop@example.org",
            content=b"Subject: number %d\r\n\r\nc4narybody. Thank you.\r\n" % number,
        )
        for number in range(count)
    ]
    with contextlib.closing(SQLiteStore(path)) as store:
        store.put(mail)
    return [message.id for message in mail]


def numbers_in(contents: Sequence[bytes]) -> list[int]:
    """Which messages of :func:`put_mail` these are, in order."""
    found = [re.search(rb"Subject: number (\d+)", content) for content in contents]
    return sorted(int(match[1]) for match in found if match)

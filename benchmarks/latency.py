"""How long it takes from ``submit`` returning to the server's 250, one message at a time on an idle system.

    python latency.py same|other KIND FOLDER NUMBER    prints the seconds as JSON
    python latency.py waits KIND FOLDER SECONDS        prints the part of a core that a waiting runner uses
    python latency.py runner KIND FOLDER PORT          delivers until its standard input ends
    python latency.py clock                            the server

``same``: the runner is in the process that submits; ``other``: it is in one
of its own.  The server tells when it said 250, by the clock that all
processes of a machine share.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from ours import CONTENT, open_store

from outbox import Message, Outbox, SMTPTransport

_NUMBER: Final = re.compile(rb"Message-ID: <(\d+)@")
_PAUSES: Final = (0.02, 0.5)
_SETTLING: Final = 2.0


class Clock:
    """A server that takes one message after the other; the line of each is its number and when it was answered."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.port = int(self._line())

    def answered(self, number: int) -> int:
        """When message *number*, the only one under way, was answered: nanoseconds."""
        told, at = self._line().split()
        if int(told) != number:
            raise RuntimeError(f"message {told} came where {number} was expected")
        return int(at)

    def _line(self) -> str:
        if self._child.stdout is None:
            raise AssertionError
        return self._child.stdout.readline()


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def waits(where: str, kind: str, folder: Path, number: int) -> list[float]:
    """The seconds of each message."""
    rng = random.Random(number)
    with ExitStack() as stack:
        server = stack.enter_context(started("clock"))
        stack.callback(server.kill)
        clock = Clock(server)
        transport = SMTPTransport("127.0.0.1", clock.port) if where == "same" else None
        outbox = stack.enter_context(Outbox(open_store(kind, folder), transport))
        if where == "same":
            stack.enter_context(outbox.running())
        else:
            runner = stack.enter_context(started("runner", kind, folder, clock.port))
            stack.callback(runner.kill)
        # The first finds no connection, and no runner that is ready yet.
        return [_one(outbox, clock, each, rng) for each in range(number + 1)][1:]


def _one(outbox: Outbox, clock: Clock, number: int, rng: random.Random) -> float:
    content = CONTENT.replace(b"<invoice@", b"<%d@" % number)
    message = Message(recipients=("ann@example.org",), sender="billing@example.com", content=content)
    # Some right after the last, some after a while: a runner may wait in more than one way.
    low, high = _PAUSES
    time.sleep(low * (high / low) ** rng.random())
    outbox.submit(message)
    returned = time.monotonic_ns()
    return (clock.answered(number) - returned) / 1e9


def run(kind: str, folder: Path, port: int) -> None:
    with Outbox(open_store(kind, folder), SMTPTransport("127.0.0.1", port)) as outbox, outbox.running():
        sys.stdin.read()


def waiting(kind: str, folder: Path, seconds: float) -> float:
    """The part of a core that a runner uses while there is nothing to do."""
    with Outbox(open_store(kind, folder), SMTPTransport("127.0.0.1", 9)) as outbox, outbox.running():
        time.sleep(_SETTLING)
        start, cpu = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        return (time.process_time() - cpu) / (time.perf_counter() - start)


def serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=_served, args=(server.accept()[0],), daemon=True).start()


def _served(connected: socket.socket) -> None:
    # Whoever has what he wanted goes as he likes.
    with contextlib.suppress(ConnectionError), connected:
        _converse(connected)


def _converse(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    heard = connected.makefile("rb")
    connected.sendall(b"220 ready\r\n")
    for line in heard:
        word = line[:4].upper()
        if word == b"EHLO":
            connected.sendall(b"250-clock\r\n250 PIPELINING\r\n")
        elif word == b"DATA":
            connected.sendall(b"354 go on\r\n")
            content = b"".join(iter(heard.readline, b".\r\n"))
            connected.sendall(b"250 taken\r\n")
            _tell(content)
        else:
            connected.sendall(b"250 ok\r\n")


def _tell(content: bytes) -> None:
    at = time.monotonic_ns()
    found = _NUMBER.search(content)
    print(int(found[1]) if found else -1, at, flush=True)


def main(what: str, *rest: str) -> Any:
    if what == "clock":
        return serve()
    kind, folder, number = rest
    if what == "runner":
        return run(kind, Path(folder), int(number))
    if what == "waits":
        return waiting(kind, Path(folder), float(number))
    return waits(what, kind, Path(folder), int(number))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)

"""The reference for a drain: read a batch of 100, send it, delete it durably; nothing else is kept or known.

The next envelope goes out behind the content before it, in one write.
"""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

BATCH = "SELECT number, sender, recipient, content FROM mail WHERE number > ? ORDER BY number LIMIT 100"
DELETE = "DELETE FROM mail WHERE number BETWEEN ? AND ?"


def opened(path: Path) -> sqlite3.Connection:
    sql = sqlite3.connect(path, isolation_level=None)
    sql.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    return sql


class Wire(socket.socket):
    def __init__(self, port: int) -> None:
        super().__init__()
        self.connect(("127.0.0.1", port))
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = self.makefile("rb")
        opening.readline()
        self.sendall(b"EHLO loop\r\n")
        next(line for line in opening if line.startswith(b"250 "))

    def expect(self, *codes: bytes) -> None:
        said = b""
        while said.count(b"\n") < len(codes):
            said += self.recv(65536) or b"hung up\n" * 9
        if [line[:3] for line in said.splitlines()] != [*codes]:
            raise RuntimeError(f"{codes} were expected: {said!r}")

    def deliver(self, batch: Sequence[Any]) -> None:
        before, taken = b"", list[bytes]()
        for _, sender, recipient, content in batch:
            self.sendall(before + f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
            self.expect(*taken, b"250", b"250", b"354")
            before, taken = content.replace(b"\r\n.", b"\r\n..") + b".\r\n", [b"250"]
        self.sendall(before)
        self.expect(*taken)


def drain(path: Path, port: int, threads: int) -> None:
    reading, writing, last = threading.Lock(), threading.Lock(), [0]

    def work(_: int) -> None:
        with closing(opened(path)) as sql, Wire(port) as wire:
            while True:
                with reading:
                    batch = sql.execute(BATCH, last).fetchall()
                    last[:] = [number for number, *_ in batch[-1:]] or last
                if not batch:
                    return
                wire.deliver(batch)
                with writing:
                    sql.execute(DELETE, (batch[0][0], batch[-1][0]))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))

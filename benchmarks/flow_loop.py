"""The reference for submitting and draining at once: eight submitters and two senders around one writer.

The writer commits whatever has come while its last commit ran; a submitter goes on when his row is on the disk.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from drain_loop import BATCH, DELETE, Wire, opened

INSERT = "INSERT INTO mail VALUES (?, 's@example.com', 'r@example.org', ?)"


def flow(path: Path, port: int, content: bytes, number: int, backlog: list[int]) -> None:
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    reading, news, last, sent, numbers = threading.Lock(), threading.Event(), [0], [0], itertools.count(1)

    def write() -> None:
        with closing(opened(path)) as sql:
            for first in iter(asked.get, None):
                together = [first, *(asked.get() for _ in range(asked.qsize()))]
                sql.execute("BEGIN IMMEDIATE")
                for statement, values, _ in together:
                    # An empty table would number from 1 again, and who sends looks behind the last.
                    sql.execute(statement, values if statement == DELETE else (next(numbers), *values))
                sql.execute("COMMIT")
                news.set()
                for *_, done in together:
                    done.set_result(None)

    def commit(statement: str, values: Sequence[Any]) -> None:
        done: Future[None] = Future()
        asked.put((statement, values, done))
        done.result()

    def submit(_: int) -> None:
        for _ in range(number // 8):
            commit(INSERT, (content,))

    def send(_: int) -> None:
        with closing(opened(path)) as sql, Wire(port) as wire:
            while sent[0] < number // 8 * 8:
                with reading:
                    news.clear()
                    batch = sql.execute(BATCH, last).fetchall()
                    last[:] = [each for each, *_ in batch[-1:]] or last
                if batch:
                    wire.deliver(batch)
                    commit(DELETE, (batch[0][0], batch[-1][0]))
                    with reading:
                        sent[0] += len(batch)
                        backlog.append(last[0] - sent[0])
                else:
                    news.wait(0.01)

    threading.Thread(target=write, daemon=True).start()
    with ThreadPoolExecutor(10) as pool:
        parts = [pool.submit(part, 0) for part in (send, send, *[submit] * 8)]
        for part in parts:
            part.add_done_callback(lambda done: sent.insert(0, number) if done.exception() else None)
    for part in parts:
        part.result()
    asked.put(None)

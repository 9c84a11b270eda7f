"""One lap of a peer over PostgreSQL, in an environment of its own; prints how many messages a second it did.

    python postgres_peers.py NAME DSN COLUMN NUMBER

Each is used as its documentation says: it makes its tables, a message is a
task of 2 KB of text, and its workers do nothing.  They are four processes of
four tasks at once (procrastinate), or of ten claimed at once (pgqueuer).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

_HUNDRED: Final = 100
_TEN: Final = 10
_PROCESSES: Final = 4
_AT_ONCE: Final = 4

Lap = Callable[[str, str, int], float]


def content() -> str:
    return sys.stdin.read()


def _timed(number: int, act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return number / (time.perf_counter() - began)


def _crowd(number: int, hand: Callable[[Any], Awaitable[object]]) -> float:
    """The work of some processes, which begin together."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(_PROCESSES + 1)

    def run() -> None:
        # What it says of itself is not part of what is measured.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        asyncio.run(hand(barrier.wait))  # type: ignore[arg-type]  # a coroutine

    hands = [context.Process(target=run) for _ in range(_PROCESSES)]
    for each in hands:
        each.start()
    barrier.wait()

    def over() -> None:
        for each in hands:
            each.join()

    rate = _timed(number, over)
    if any(each.exitcode for each in hands):
        raise RuntimeError("a worker failed")
    return rate


# -- procrastinate


def procrastinate(dsn: str, column: str, number: int) -> float:
    import procrastinate as library

    text = content()
    app = library.App(connector=library.SyncPsycopgConnector(conninfo=dsn))

    @app.task(name="nothing")  # type: ignore[untyped-decorator]  # its types are where it is installed
    def nothing(content: str) -> None:
        """What its worker does."""

    with app.open():
        if not app.check_connection():
            app.schema_manager.apply_schema()
        app.connector.execute_query("TRUNCATE procrastinate_jobs CASCADE")
        nothing.defer(content=text)
        if column == "singly":
            return _timed(number, lambda: [nothing.defer(content=text) for _ in range(number)])
        batch = [{"content": text}] * _HUNDRED
        rate = _timed(number, lambda: [nothing.batch_defer(*batch) for _ in range(number // _HUNDRED)])
    return rate if column == "hundreds" else _crowd(number, lambda wait: _procrastinate(dsn, wait))


async def _procrastinate(dsn: str, wait: Callable[[], object]) -> None:
    import procrastinate as library

    app = library.App(connector=library.PsycopgConnector(conninfo=dsn))

    @app.task(name="nothing")  # type: ignore[untyped-decorator]  # its types are where it is installed
    async def nothing(content: str) -> None:
        """What its worker does."""

    async with app.open_async():
        wait()
        await app.run_worker_async(
            wait=False, concurrency=_AT_ONCE, install_signal_handlers=False, delete_jobs="successful"
        )


# -- pgqueuer


def pgqueuer(dsn: str, column: str, number: int) -> float:
    return asyncio.run(_pgqueuer(dsn, column, number, content().encode())) or _crowd(
        number, lambda wait: _pgqueuer_worker(dsn, wait)
    )


async def _pgqueuer(dsn: str, column: str, number: int, payload: bytes) -> float:
    queries = await _queries(dsn)
    if not await queries.has_table("pgqueuer"):
        await queries.install()
    await queries.clear_queue()
    await queries.enqueue("nothing", payload)
    began = time.perf_counter()
    if column == "singly":
        for _ in range(number):
            await queries.enqueue("nothing", payload)
    else:
        names, payloads, priorities = ["nothing"] * _HUNDRED, [payload] * _HUNDRED, [0] * _HUNDRED
        for _ in range(number // _HUNDRED):
            await queries.enqueue(names, payloads, priorities)
    rate = number / (time.perf_counter() - began)
    return 0.0 if column == "work" else rate


async def _queries(dsn: str) -> Any:
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    words = dict(word.split("=", 1) for word in dsn.split())
    connection = await asyncpg.connect(host=words["host"], user=words["user"], database=words["dbname"])
    return Queries(AsyncpgDriver(connection))


async def _pgqueuer_worker(dsn: str, wait: Callable[[], object]) -> None:
    from pgqueuer import PgQueuer
    from pgqueuer.types import QueueExecutionMode

    queries = await _queries(dsn)
    worker = PgQueuer(queries.driver)

    @worker.entrypoint("nothing")  # type: ignore[untyped-decorator]  # the same
    async def nothing(job: Any) -> None:
        """What its worker does."""

    wait()
    await worker.run(batch_size=_TEN, mode=QueueExecutionMode.drain)


PEERS: Final[dict[str, Lap]] = {"procrastinate": procrastinate, "pgqueuer": pgqueuer}

if __name__ == "__main__":
    _, name, dsn, column, number = sys.argv
    print(PEERS[name](dsn, column, int(number)))

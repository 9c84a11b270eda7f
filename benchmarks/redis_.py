"""The Redis store beside bare redis-py loops, rq and dramatiq, over one server; with each way to keep what it says.

    python benchmarks/redis_.py                     with a redis-server of its own, from a wheel or the path
    python benchmarks/redis_.py --rounds 5 --messages 2000

In each round each has its turn; a rate is the median of the rounds, a ratio the median of those of one round.
Of rq and dramatiq it is their fastest that is run: rq's worker that forks nothing, dramatiq without middleware.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import importlib.util
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from redis_server import Server, started

from outbox import FunctionTransport, Message, Outbox
from outbox.lifecycle import Delivered, Fate, Settlement
from outbox.stores.redis import RedisStore

__all__ = ["main"]

CONTENT: Final = b"x" * 2048
LEASE: Final = dt.timedelta(minutes=5)
AT_ONCE: Final = 100
TEN: Final = 10
SIXTEEN: Final = 16
PEERS: Final = ("rq", "dramatiq")
QUEUE: Final = "bare"
SYNCS: Final = {
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
    "everysec": ("--appendonly", "yes"),
}

Loop = Callable[[Server, int], float]
"""So many messages a second."""


def timed(number: int, act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return number / (time.perf_counter() - began)


def messages(number: int) -> list[Message]:
    return [Message(recipients=("ann@example.com",), content=CONTENT) for _ in range(number)]


def each(items: list[Any], number: int) -> Iterator[list[Any]]:
    return (items[first : first + number] for first in range(0, len(items), number))


# -- bare loops: what a program writes that keeps messages in Redis by itself


def bare_singly(server: Server, number: int) -> float:
    """A value and its place in a queue, in one transaction."""
    with closing(server.client()) as client:
        return timed(number, lambda: _bare_puts(client, ([n] for n in range(number))))


def bare_hundreds(server: Server, number: int) -> float:
    with closing(server.client()) as client:
        return timed(number, lambda: _bare_puts(client, each(list(range(number)), AT_ONCE)))


def _bare_puts(client: Any, batches: Iterable[list[int]]) -> None:
    for numbers in batches:
        with client.pipeline(transaction=True) as pipe:
            for number in numbers:
                pipe.hset(QUEUE, f"m{number}", CONTENT)
                pipe.zadd("ready", {f"m{number}": 0})
            pipe.execute()


def bare_work(server: Server, number: int) -> float:
    """By tens: taken, read, and removed; nothing is leased, so what a killed worker had is lost."""
    bare_hundreds(server, number)
    with closing(server.client()) as client:
        return timed(number, lambda: _bare_work(client))


def bare_sixteen(server: Server, number: int) -> float:
    bare_hundreds(server, number)
    with ExitStack() as stack, ThreadPoolExecutor(SIXTEEN) as threads:
        clients = [stack.enter_context(closing(server.client())) for _ in range(SIXTEEN)]
        return timed(number, lambda: list(threads.map(_bare_work, clients)))


def _bare_work(client: Any) -> None:
    while taken := client.zpopmin("ready", TEN):
        names = [name for name, _ in taken]
        client.hmget(QUEUE, names)
        client.hdel(QUEUE, *names)


# -- ours


def our_singly(server: Server, number: int) -> float:
    made = messages(number)
    with closing(RedisStore(server.url)) as store:
        return timed(number, lambda: [store.put([message]) for message in made])


def our_hundreds(server: Server, number: int) -> float:
    made = messages(number)
    with closing(RedisStore(server.url)) as store:
        return timed(number, lambda: [store.put(some) for some in each(made, AT_ONCE)])


def our_work(server: Server, number: int) -> float:
    """Claim and settle by tens, in one exchange."""
    our_hundreds(server, number)
    with closing(RedisStore(server.url)) as store:
        return timed(number, lambda: _work(store))


def _work(store: RedisStore) -> None:
    done: list[Settlement] = []
    while claims := store.exchange(done, limit=TEN, lease=LEASE, queues=["mail"]).claims:
        done = [
            Settlement(claim, Delivered(fates=dict.fromkeys(claim.recipients, Fate.ACCEPTED)))
            for claim in claims
        ]


def our_sixteen(server: Server, number: int) -> float:
    """The same by threads of one process, each with a connection."""
    our_hundreds(server, number)
    with ExitStack() as stack, ThreadPoolExecutor(SIXTEEN) as threads:
        stores = [stack.enter_context(closing(RedisStore(server.url))) for _ in range(SIXTEEN)]
        return timed(number, lambda: list(threads.map(_work, stores)))


def our_drain(server: Server, number: int) -> float:
    """The whole of outbox, a function in the place of a relay."""
    our_hundreds(server, number)
    with closing(RedisStore(server.url)) as store:
        outbox = Outbox(store, FunctionTransport(lambda _message, _recipient: None))
        return timed(number, outbox.drain)


# -- peers


def nothing(_: str) -> None:
    """What dramatiq's worker does; rq's, which takes only what it can import by name, counts letters."""


def rq_singly(server: Server, number: int) -> float:
    queue = _rq(server)
    return timed(number, lambda: [queue.enqueue(len, CONTENT) for _ in range(number)])


def rq_hundreds(server: Server, number: int) -> float:
    queue = _rq(server)
    prepared = type(queue).prepare_data

    def put() -> None:
        for some in each(list(range(number)), AT_ONCE):
            queue.enqueue_many([prepared(len, args=(CONTENT,)) for _ in some])

    return timed(number, put)


def rq_work(server: Server, number: int) -> float:
    return _rq_work(server, number, 1)


def rq_sixteen(server: Server, number: int) -> float:
    return _rq_work(server, number, SIXTEEN)


def _rq_work(server: Server, number: int, workers: int) -> float:
    """Its worker that forks nothing, which is its fastest, and wants a process of its own; all have begun before the time does."""
    rq_hundreds(server, number)
    context: Any = multiprocessing.get_context("fork")
    ready, go = context.Semaphore(0), context.Event()
    crew = [context.Process(target=_rq_worker, args=(server, ready, go), daemon=True) for _ in range(workers)]
    for worker in crew:
        worker.start()
    for _ in crew:
        ready.acquire()

    def work() -> None:
        go.set()
        for worker in crew:
            worker.join()

    return timed(number, work)


def _rq_worker(server: Server, ready: Any, go: Any) -> None:
    rq: Any = importlib.import_module("rq")

    queue = _rq(server)
    worker = rq.SimpleWorker([queue], connection=queue.connection)
    ready.release()
    go.wait()
    worker.work(burst=True, logging_level="CRITICAL")


def _rq(server: Server) -> Any:
    rq: Any = importlib.import_module("rq")

    return rq.Queue(connection=server.client())


def dramatiq_singly(server: Server, number: int) -> float:
    _, actor = _dramatiq(server)
    return timed(number, lambda: [actor.send("x" * len(CONTENT)) for _ in range(number)])


def dramatiq_work(server: Server, number: int) -> float:
    return _dramatiq_work(server, number, 4)


def dramatiq_sixteen(server: Server, number: int) -> float:
    return _dramatiq_work(server, number, SIXTEEN)


def _dramatiq_work(server: Server, number: int, threads: int) -> float:
    dramatiq: Any = importlib.import_module("dramatiq")

    broker, actor = _dramatiq(server)
    for _ in range(number):
        actor.send("x" * len(CONTENT))
    worker = dramatiq.Worker(broker, worker_threads=threads)

    def work() -> None:
        worker.start()
        broker.join("default")

    rate = timed(number, work)
    worker.stop()
    return rate


def _dramatiq(server: Server) -> tuple[Any, Any]:
    dramatiq: Any = importlib.import_module("dramatiq")
    brokers: Any = importlib.import_module("dramatiq.brokers.redis")

    broker = brokers.RedisBroker(client=server.client(), middleware=[])
    return broker, dramatiq.actor(nothing, broker=broker, actor_name="nothing")


COLUMNS: Final[Mapping[str, Mapping[str, Loop]]] = {
    "submit singly": {
        "bare": bare_singly,
        "outbox": our_singly,
        "rq": rq_singly,
        "dramatiq": dramatiq_singly,
    },
    # Dramatiq has no way to send many at once.
    "submit by hundreds": {
        "bare": bare_hundreds,
        "outbox": our_hundreds,
        "rq": rq_hundreds,
        "dramatiq": dramatiq_singly,
    },
    "claim and settle, 16 connections": {
        "bare": bare_sixteen,
        "outbox": our_sixteen,
        "rq": rq_sixteen,
        "dramatiq": dramatiq_sixteen,
    },
    "claim and settle": {
        "bare": bare_work,
        "outbox": our_work,
        "outbox, drained": our_drain,
        "rq": rq_work,
        "dramatiq": dramatiq_work,
    },
}


def there(name: str) -> bool:
    return name not in PEERS or importlib.util.find_spec(name) is not None


def measured(rounds: int, number: int, sync: str) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    with started(*SYNCS[sync]) as server, closing(server.client()) as client:
        for _, (column, loops) in itertools.product(range(rounds), COLUMNS.items()):
            for name, loop in loops.items():
                if there(name):
                    client.flushall()
                    found.setdefault((column, name), []).append(loop(server, number))
        client.flushall()
        found["memory", "a mail of 2 KB that waits"] = [weight(server, client, number)]
    return found


def weight(server: Server, client: Any, number: int) -> float:
    def used() -> int:
        told: Any = client.info("memory")
        return int(told["used_memory"])

    before = used()
    our_hundreds(server, number)
    return (used() - before) / number


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--sync", choices=sorted(SYNCS), action="append")
    options = parser.parse_args(arguments)
    for sync in options.sync or SYNCS:
        found = measured(options.rounds, options.messages, sync)
        print(f"\n### appendfsync {sync}\n")
        print(
            "| what | who | msg/s | to bare | outbox to it | wanted |\n| --- | --- | ---: | ---: | ---: | ---: |"
        )
        for line in lines(found):
            print(line, flush=True)


def lines(found: Mapping[tuple[str, str], Sequence[float]]) -> Iterator[str]:
    for (column, name), rates in found.items():
        if column == "memory":
            yield f"| memory | {name}, bytes | {rates[0]:,.0f} | | | |"
            continue
        bare, ours = found[column, "bare"], found[column, "outbox"]
        to_bare = "" if name == "bare" else ranged(ratios(rates, bare))
        to_it = ranged(ratios(ours, rates)) if name in PEERS else ""
        yield f"| {column} | {name} | {ranged(rates, 0)} | {to_bare} | {to_it} | {'> 1' if to_it else ''} |"


def ratios(rates: Sequence[float], to: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(rates, to, strict=True)]


def ranged(values: Sequence[float], digits: int = 2) -> str:
    """The median, and what it lies within."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


if __name__ == "__main__":
    main()

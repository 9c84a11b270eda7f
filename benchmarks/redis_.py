"""The Redis store beside bare redis-py loops, rq and dramatiq, over one server; with each way to keep what it says.

    python benchmarks/redis_.py                     with a redis-server of its own, from a wheel or the path
    python benchmarks/redis_.py --rounds 5 --messages 2000

Each row is the median of its rounds, which take turns; a ratio is that of medians of one run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
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

        def work() -> None:
            while taken := client.zpopmin("ready", TEN):
                names = [name for name, _ in taken]
                client.hmget(QUEUE, names)
                client.hdel(QUEUE, *names)

        return timed(number, work)


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

        def work() -> None:
            done: list[Settlement] = []
            while claims := store.exchange(done, limit=TEN, lease=LEASE, queues=["mail"]).claims:
                done = [
                    Settlement(claim, Delivered(fates=dict.fromkeys(claim.recipients, Fate.ACCEPTED)))
                    for claim in claims
                ]

        return timed(number, work)


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
    """Its worker that forks nothing, which is its fastest."""
    rq: Any = importlib.import_module("rq")

    queue = _rq(server)
    rq_hundreds(server, number)
    worker = rq.SimpleWorker([queue], connection=queue.connection)
    return timed(number, lambda: worker.work(burst=True, logging_level="CRITICAL"))


def _rq(server: Server) -> Any:
    rq: Any = importlib.import_module("rq")

    return rq.Queue(connection=server.client())


def dramatiq_singly(server: Server, number: int) -> float:
    _, actor = _dramatiq(server)
    return timed(number, lambda: [actor.send("x" * len(CONTENT)) for _ in range(number)])


def dramatiq_work(server: Server, number: int) -> float:
    dramatiq: Any = importlib.import_module("dramatiq")

    broker, actor = _dramatiq(server)
    for _ in range(number):
        actor.send("x" * len(CONTENT))
    worker = dramatiq.Worker(broker, worker_threads=4)

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
    "submit by hundreds": {"bare": bare_hundreds, "outbox": our_hundreds, "rq": rq_hundreds},
    "claim and settle": {
        "bare": bare_work,
        "outbox": our_work,
        "outbox, drained": our_drain,
        "rq": rq_work,
        "dramatiq": dramatiq_work,
    },
}


def there(name: str) -> bool:
    return name not in ("rq", "dramatiq") or importlib.util.find_spec(name) is not None


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
        found = {
            key: statistics.median(rates)
            for key, rates in measured(options.rounds, options.messages, sync).items()
        }
        print(f"\nappendfsync {sync}: messages a second, medians of {options.rounds}\n")
        print("| | what | a second | of bare |\n|---|---|---:|---:|")
        for (column, name), rate in found.items():
            bare = found.get((column, "bare"))
            print(
                f"| {column} | {name} | {rate:,.0f} | {'' if bare is None else f'{rate / bare:.2f}'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

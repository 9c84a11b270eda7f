"""A crowd: many processes of many threads claim and settle what is in one store, each message once.

Run by itself it is one of the processes: it opens the store, says ``ready``,
begins at ``go``, and tells which messages each of its threads settled.

    python crowd.py KIND FOLDER THREADS
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
from ours import LEASE, delivered, filled, open_store
from places import Places

from outbox import OutboxError, Store

__all__ = ["Crowd", "crowd"]

_BY: Final = 10
_PAUSE: Final = dt.timedelta(milliseconds=20)
_IDLE: Final = 5
"""Empty claims in a row after which a thread believes that all is settled or in other hands."""


@attrs.frozen
class Crowd:
    """What came of it; *shares* are the messages that each process settled, *threads* those of each thread."""

    messages: int
    seconds: float
    shares: Sequence[int]
    threads: Sequence[int]
    missing: int
    twice: int
    errors: Sequence[str]


def crowd(kind: str, places: Places, *, number: int, processes: int, threads: int) -> Crowd:
    folder = places.new()
    filled(kind, folder, number).close()
    command = [sys.executable, __file__, kind, str(folder), str(threads)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        start, told = _told(children)
    finally:
        # Where one did not begin, the others still wait.
        for each in children:
            each.kill()
    return _sum(told, number, max(each["end"] for each in told) - start)


def _told(children: Sequence[subprocess.Popen[str]]) -> tuple[float, list[Any]]:
    """When all were told to begin, and what each says in the end."""
    for each in children:
        if each.stdout is None or each.stdout.readline() != "ready\n":
            raise RuntimeError("a process of the crowd did not begin; its own words are above")
    start = time.monotonic()
    # All are told before any is listened to.
    for each in children:
        if each.stdin is not None:
            each.stdin.write("go\n")
            each.stdin.flush()
    return start, [json.loads(each.communicate()[0]) for each in children]


def _sum(told: Sequence[Any], number: int, seconds: float) -> Crowd:
    hands = [each["settled"] for each in told]
    counted = Counter(id for hand in hands for ids in hand for id in ids)
    return Crowd(
        messages=number,
        seconds=seconds,
        shares=[sum(map(len, hand)) for hand in hands],
        threads=[len(ids) for hand in hands for ids in hand],
        missing=number - len(counted),
        twice=sum(1 for times in counted.values() if times > 1),
        errors=sorted({error for each in told for error in each["errors"]}),
    )


def _hand(store: Store) -> tuple[list[str], list[str], float]:
    """What one thread settled, the errors that came out of the store, and when it last settled."""
    settled: list[str] = []
    errors: list[str] = []
    end = time.monotonic()
    idle = 0
    while idle < _IDLE and len(errors) < _IDLE:
        try:
            claims = store.claim(limit=_BY, lease=LEASE, queues=["mail"])
            lost = {claim.message.id for claim in store.settle(delivered(claims))} if claims else set()
        except OutboxError as error:
            errors.append(f"{type(error).__name__}: {error}")
            continue
        if claims:
            settled += [claim.message.id for claim in claims if claim.message.id not in lost]
            end = time.monotonic()
            idle = 0
        else:
            time.sleep(_PAUSE.total_seconds())
            idle += 1
    return settled, errors, end


def _worked(kind: str, folder: Path, threads: int) -> dict[str, Any]:
    with closing(open_store(kind, folder)) as store, ThreadPoolExecutor(threads) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        hands = list(pool.map(_hand, [store] * threads))
    return {
        "settled": [settled for settled, _, _ in hands],
        "errors": [error for _, errors, _ in hands for error in errors],
        "end": max(end for _, _, end in hands),
    }


if __name__ == "__main__":
    _, kind, folder, threads = sys.argv
    print(json.dumps(_worked(kind, Path(folder), int(threads))))

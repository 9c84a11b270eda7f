"""Depth: what a claim of ten costs in front of a thousand messages, and of millions.

Run by itself it is the process that is measured: it opens a store that is
there, claims, gives back, and tells its times and its memory.

    python depth.py KIND FOLDER CLAIMS [READY]
"""

from __future__ import annotations

import datetime as dt
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
from laps import Spread, ratios, spread
from ours import LEASE, hastily, mail, open_store
from places import Places
from process import child, memory

from outbox import Message, Released, Settlement, Store

__all__ = ["Depth", "depth"]

SMALL: Final = 1_000
_PRIORITIES: Final = (-50, -10, 0, 10, 50)
_BATCH: Final = 5_000
_TEN: Final = 10


@attrs.frozen
class Depth:
    """Seconds a claim of ten, seconds to open and claim first, and resident bytes; shallow and deep."""

    shallow: Spread
    deep: Spread
    ratio: Spread
    first: tuple[float, float]
    resident: tuple[float, float]


def depth(kind: str, places: Places, *, ready: int, rounds: int, claims: int) -> Depth:
    """With *ready* messages and as many scheduled ones, against a thousand of each."""
    sizes = (min(SMALL, ready), ready)
    folders = [places.new() for _ in sizes]
    if kind != "memory":
        for folder, number in zip(folders, sizes, strict=True):
            _prepare(kind, folder, number)
    # A store in memory is filled by the process that is measured.
    told: list[list[Any]] = [[], []]
    for _ in range(rounds):
        for each, folder, number in zip(told, folders, sizes, strict=True):
            each.append(child("depth.py", kind, folder, claims, *([number] if kind == "memory" else [])))
    shallow, deep = ([one["claim"] for one in each] for each in told)
    first, resident = (
        tuple(statistics.median(one[name] for one in each) for each in told) for name in ("first", "resident")
    )
    return Depth(
        spread(shallow), spread(deep), ratios(deep, shallow), (first[0], first[1]), (resident[0], resident[1])
    )


def _prepare(kind: str, folder: Path, number: int) -> None:
    with hastily(kind, folder) as store:
        _fill(store, number)


def _fill(store: Store, number: int) -> None:
    """So many of mixed priorities that are due, and as many that are not."""
    mails = _mixed(number)
    while batch := [mail for mail, _ in zip(mails, range(_BATCH), strict=False)]:
        store.put(batch)


def _mixed(number: int) -> Iterator[Message]:
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    for each in range(number):
        # No order that would lie on the disk one after the other.
        priority = _PRIORITIES[each * 7919 % 10_007 % len(_PRIORITIES)]
        yield mail(priority=priority)
        yield mail(priority=priority, not_before=tomorrow + dt.timedelta(seconds=each * 7919 % 100_003))


def _measured(kind: str, folder: Path, claims: int, ready: int) -> dict[str, float]:
    start = time.perf_counter()
    with closing(open_store(kind, folder)) as store:
        if ready:
            _fill(store, ready)
            start = time.perf_counter()
        held = list(_ten(store))
        first = time.perf_counter() - start
        waits = []
        for _ in range(claims):
            before = time.perf_counter()
            taken = _ten(store)
            waits.append(time.perf_counter() - before)
            held += taken
        resident = memory()
        now = dt.timedelta(0)
        store.settle([Settlement(claim, Released(delay=now, fates=claim.fates)) for claim in held])
    return {"first": first, "claim": statistics.median(waits), "resident": resident}


def _ten(store: Store) -> list[Any]:
    claims = list(store.claim(limit=_TEN, lease=LEASE, queues=["mail"]))
    if len(claims) != _TEN:
        raise RuntimeError(f"{store!r} gave {len(claims)} claims, and {_TEN} were asked for")
    return claims


if __name__ == "__main__":
    _, kind, folder, claims, *ready = sys.argv
    print(json.dumps(_measured(kind, Path(folder), int(claims), int(ready[0]) if ready else 0)))

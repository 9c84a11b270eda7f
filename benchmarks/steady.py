"""Steady: millions of transitions at one backlog, and what grows; and what a message takes up.

Run by itself it is the process that is measured.

    python steady.py KIND FOLDER TRANSITIONS BACKLOG
    python steady.py KIND FOLDER fill NUMBER
"""

from __future__ import annotations

import datetime as dt
import json
import random
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
from ours import LEASE, delivered, fill, mail, open_store
from places import Places, footprint
from process import child, descriptors, memory, threads

from outbox import Claim, Dead, Event, Fate, Released, Retry, Settlement, Verdict

__all__ = ["Growth", "Sample", "growth", "steady"]

_THREADS: Final = 4
_BY: Final = 10
_SAMPLES: Final = 10
_PRUNE_EVERY: Final = 100
_ZERO: Final = dt.timedelta(0)
_VERDICTS: Final = {Event.DELIVERED: 85, Event.RETRY: 6, Event.RELEASED: 5, Event.DEAD: 4}
"""How many of a hundred end so."""


@attrs.frozen(kw_only=True)
class Sample:
    """What there was after so many transitions, in bytes and numbers."""

    transitions: int
    disk: int
    resident: int
    descriptors: int
    threads: int


@attrs.frozen(kw_only=True)
class Growth:
    """Bytes on the disk and in memory: empty, filled, when all was settled, and filled again."""

    messages: int
    disk: Sequence[int]
    resident: Sequence[int]


def steady(kind: str, places: Places, *, transitions: int, backlog: int) -> list[Sample]:
    """Ten samples, the first after a tenth of it."""
    return [Sample(**each) for each in child("steady.py", kind, places.new(), transitions, backlog)]


def growth(kind: str, places: Places, *, number: int) -> Growth:
    return Growth(**child("steady.py", kind, places.new(), "fill", number))


@attrs.define
class _Wheel:
    """One worker's turns; what leaves the store is replaced, so that the backlog stays."""

    store: Any
    rng: random.Random
    transitions: int = 0
    turns: int = 0

    def turn(self) -> None:
        claims = self.store.claim(limit=_BY, lease=LEASE, queues=["mail"])
        settlements = [Settlement(claim, self._verdict(claim)) for claim in claims]
        self.store.settle(settlements)
        dead = [each.claim.message.id for each in settlements if isinstance(each.verdict, Dead)]
        gone = sum(1 for each in settlements if not isinstance(each.verdict, Retry | Released))
        if dead:
            self.store.purge(dead)
        self.store.put([mail() for _ in range(gone)])
        self.transitions += 2 * len(claims) + len(dead) + gone
        self.turns += 1
        if self.turns % _PRUNE_EVERY == 0:
            self.store.prune()

    def _verdict(self, claim: Claim) -> Verdict:
        (drawn,) = self.rng.choices(list(_VERDICTS), list(_VERDICTS.values()))
        match drawn:
            case Event.RETRY:
                return Retry(delay=_ZERO, fates=claim.fates, reason="451 greylisted")
            case Event.RELEASED:
                return Released(delay=_ZERO, fates=claim.fates)
            case Event.DEAD:
                return Dead(fates=dict.fromkeys(claim.fates, Fate.FAILED), reason="550 no such user")
        return delivered([claim])[0].verdict


def _steady(kind: str, folder: Path, transitions: int, backlog: int) -> list[dict[str, int]]:
    # No id is kept in mind: what is remembered for a week would grow for a week.
    with closing(open_store(kind, folder, remember=_ZERO)) as store, ThreadPoolExecutor(_THREADS) as pool:
        fill(store, backlog)
        wheels = [_Wheel(store, random.Random(seed)) for seed in range(_THREADS)]
        samples = []
        for part in range(1, _SAMPLES + 1):
            _run(pool, wheels, transitions * part // _SAMPLES)
            samples.append(_sample(sum(wheel.transitions for wheel in wheels), folder))
        return samples


def _run(pool: ThreadPoolExecutor, wheels: Sequence[_Wheel], until: int) -> None:
    met = threading.Barrier(len(wheels))

    def run(wheel: _Wheel) -> None:
        # So that each is on a thread of its own, in every part the same ones.
        met.wait()
        while wheel.transitions * len(wheels) < until:
            wheel.turn()

    list(pool.map(run, wheels))


def _sample(transitions: int, folder: Path) -> dict[str, int]:
    return {
        "transitions": transitions,
        "disk": footprint(folder),
        "resident": memory(),
        "descriptors": descriptors(),
        "threads": threads(),
    }


def _grown(kind: str, folder: Path, number: int) -> dict[str, Any]:
    with closing(open_store(kind, folder, remember=_ZERO)) as store:
        figures = [_taken_up(folder)]
        fill(store, number)
        figures.append(_taken_up(folder))
        _drain(store)
        figures.append(_taken_up(folder))
        fill(store, number)
        figures.append(_taken_up(folder))
    disk, resident = zip(*figures, strict=True)
    return {"messages": number, "disk": disk, "resident": resident}


def _taken_up(folder: Path) -> tuple[int, int]:
    return footprint(folder), memory()


def _drain(store: Any) -> None:
    while claims := store.claim(limit=100, lease=LEASE, queues=["mail"]):
        store.settle(delivered(claims))


if __name__ == "__main__":
    _, kind, folder, what, number = sys.argv
    if what == "fill":
        print(json.dumps(_grown(kind, Path(folder), int(number))))
    else:
        print(json.dumps(_steady(kind, Path(folder), int(what), int(number))))

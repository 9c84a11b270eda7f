"""``python -m outbox.testing.simulation --seeds 0-2000``, or ``--seed 17 --trace`` for one of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Final

from . import Tally, failure, run_seeds, traced

_BLOCK: Final = 50


def main(arguments: Sequence[str]) -> int:
    """0 where every promise was kept, 1 where one was broken."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    blocks = [seeds[at : at + _BLOCK] for at in range(0, len(seeds), _BLOCK)]
    with ProcessPoolExecutor(options.processes) as pool:
        return _report(_tallies(pool, blocks), len(seeds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m outbox.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0-2000", help="such as 0-2000")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell all that happens")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="as many as there are cores")
    return parser


def _one(seed: int, *, trace: bool) -> int:
    for line in traced(seed) if trace else ():
        print(line)
    told = failure(seed)
    print(told or f"seed {seed}: every promise was kept")
    return 1 if told else 0


def _tallies(pool: Executor, blocks: Sequence[range]) -> Iterator[Tally]:
    yield from pool.map(run_seeds, blocks)


def _report(tallies: Iterator[Tally], number: int) -> int:
    done, broken = 0, 0
    faults: Counter[str] = Counter()
    again: Counter[str] = Counter()
    copies = steps = 0
    for tally in tallies:
        done += tally.seeds
        copies, steps = copies + tally.copies, steps + tally.steps
        faults.update(tally.faults)
        again.update(tally.again)
        for seed in tally.broken:
            broken += 1
            print(failure(seed), flush=True)
        if sys.stderr.isatty():
            print(f"\r{done} of {number} seeds, {broken} broken", end="", file=sys.stderr, flush=True)
    print(f"{done} seeds, {steps} steps, {copies} copies taken, {broken} seeds with a broken promise")
    print("faults:", ", ".join(f"{name} {count}" for name, count in faults.most_common()))
    print("second copies:", ", ".join(f"{cause} {count}" for cause, count in again.most_common()))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

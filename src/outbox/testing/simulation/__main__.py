"""``python -m outbox.testing.simulation --seeds 0-1999``, or ``--seed 17 --trace`` for one of them.

With ``--results FILE`` a line of JSON is kept for each block of seeds, and
what stands there already is not run again: so a long run can be ended and
gone on with, on several machines even, and be added up.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Final, TextIO

from . import Tally, failure, run_seeds, traced
from .telling import brief

_BLOCK: Final = 50
_SEEDS: Final = range(2000)


def main(arguments: Sequence[str]) -> int:
    """0 where every promise was kept, 1 where one was broken; 2 where it cannot be told what is asked for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.trace or options.least) and options.seed is None:
        parser.error("--trace and --least are of one world: say which with --seed")
    if options.seed is not None:
        if options.seeds is not None or options.results is not None:
            parser.error("--seed is one alone: it goes without --seeds and --results")
        return _one(options.seed, trace=options.trace, least=options.least)
    return _many(options.seeds or _SEEDS, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m outbox.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_range, help="from the first to the last, both among them: 0-1999")
    parser.add_argument("--seed", type=_number, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell all that happens")
    parser.add_argument("--least", action="store_true", help="with --seed: in the least world that is broken")
    parser.add_argument("--processes", type=_some, default=os.cpu_count(), help="as many as there are cores")
    parser.add_argument("--results", type=Path, help="keep what came of each block here, and go on from it")
    parser.add_argument("--json", action="store_true", help="tell the sums as one line of JSON")
    return parser


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: a seed is a whole number from 0")
    return int(text)


def _some(text: str) -> int:
    number = _number(text)
    if not number:
        raise argparse.ArgumentTypeError("it takes one at least")
    return number


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    seeds = range(_number(first), _number(last if dash else first) + 1)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} has nothing in it: say the lower one first")
    return seeds


def _one(seed: int, *, trace: bool, least: bool) -> int:
    told = failure(seed)
    if trace:
        lines = traced(seed, least=least)
        print("\n".join(brief(lines) if least else map(str, lines)))
    print(told or f"seed {seed}: every promise was kept")
    return 1 if told else 0


def _many(seeds: range, options: argparse.Namespace) -> int:
    done = _kept(options.results, seeds)
    blocks = [block for block in _blocks(seeds) if (block.start, block.stop) not in done]
    total = sum(done.values(), Tally())
    keep = nullcontext() if options.results is None else options.results.open("a", encoding="utf-8")
    with ProcessPoolExecutor(options.processes, initializer=_collect_seldom) as pool, keep as kept:
        for block, tally in _tallies(pool, blocks):
            _keep(kept, block, tally)
            total += tally
            for seed in tally.broken:
                print(failure(seed), file=sys.stderr, flush=True)
            if sys.stderr.isatty():
                print(f"\r{total.seeds} of {len(seeds)} seeds", end="", file=sys.stderr, flush=True)
    print(total.as_json(first=seeds.start, last=seeds.stop - 1) if options.json else _sums(total))
    return 1 if total.broken else 0


def _collect_seldom() -> None:
    # A world leaves little that lives on, and an eighth of the time went into looking for it.
    gc.set_threshold(50_000, 10, 10)


def _blocks(seeds: range) -> Iterator[range]:
    for at in range(0, len(seeds), _BLOCK):
        yield seeds[at : at + _BLOCK]


def _tallies(pool: Executor, blocks: Sequence[range]) -> Iterator[tuple[range, Tally]]:
    yield from zip(blocks, pool.map(run_seeds, blocks), strict=True)


def _kept(results: Path | None, seeds: range) -> dict[tuple[int, int], Tally]:
    """What stands there of these seeds, by block; a line that was cut off is none."""
    found: dict[tuple[int, int], Tally] = {}
    lines = results.read_text(encoding="utf-8").splitlines() if results and results.exists() else []
    for line in lines:
        try:
            read = json.loads(line)
        except ValueError:
            continue
        found[read["first"], read["last"] + 1] = Tally.of_json(line)
    wanted = {(block.start, block.stop) for block in _blocks(seeds)}
    return {block: tally for block, tally in found.items() if block in wanted}


def _keep(kept: TextIO | None, block: range, tally: Tally) -> None:
    if kept is not None:
        # On a line of its own, also behind one that was cut off.
        print("\n" + tally.as_json(first=block.start, last=block.stop - 1), end="", file=kept, flush=True)


def _sums(total: Tally) -> str:
    def counts(of: dict[str, int]) -> str:
        return ", ".join(f"{name} {number}" for name, number in sorted(of.items(), key=lambda each: -each[1]))

    broken = f"{len(total.broken)} seeds with a broken promise{': ' if total.broken else ''}"
    return "\n".join(
        (
            f"{total.seeds} seeds, {total.steps} steps, {total.copies} copies taken",
            broken + ", ".join(map(str, total.broken)),
            f"faults: {counts(dict(total.faults))}",
            f"second copies: {counts(dict(total.again))}",
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the Runner can do: draining, submitting meanwhile, waiting, and standing a relay that never answers.

    nox -s bench-drain -- [options]    makes the peers' environments, unpacks Postfix, and runs this
    python benchmarks/drain.py --postfix FOLDER [options]

``drain``
    10,000 stored messages, one process, SQLite at full durability, to
    ``smtp-sink``: beside the reference loop (``drain_loop.py``) on 1, 2 and 4
    threads, of which the best counts in each round, the peers, and Postfix's
    own deferred queue, flushed.
``flow``
    Eight threads submit while it is drained, beside ``flow_loop.py`` which
    does the same; and how many wait meanwhile.
``latency``
    From ``submit`` returning to the server's 250, on an idle system, with
    the runner in the same process and in another one; and what a runner
    uses that has nothing to do.
``hang``
    1,000 messages for a relay that never answers, ahead of those for a good one.

Each turn is a process of its own, in a fresh folder of the same directory; in each round each has its turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import report
from drain_sections import QUICK, SECTIONS, Bench, Plan
from machine import Machine, machine
from places import places
from receivers import add_receiver, chosen, named, receiver

ROOT: Final = Path(__file__).parents[1]
TITLE: Final = "What the Runner can do"


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures the Runner.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny numbers, to see that it works; the figures say nothing")
    add("--only", action="append", choices=SECTIONS, help="only this section; may be given again")
    add("--rounds", type=int, help=f"instead of {Plan().rounds}")
    add_receiver(parser, use="smtp-sink, whose queue is measured too where we are root")
    add("--peers", type=Path, metavar="FOLDER", help="virtual environments, each named after its peer")
    add("--no-peers", action="store_true", help="measure no peers")
    add(
        "--directory",
        type=Path,
        default=ROOT / "build",
        help="where the stores are: on the disk that is meant",
    )
    report.add_record(parser)
    return parser.parse_args(arguments)


def _preamble(options: argparse.Namespace, here: Machine, plan: Plan) -> str:
    words = [*(["--quick"] if options.quick else []), *(f"--only {each}" for each in options.only or ())]
    command = " ".join(["nox -s bench-drain", *(["--", *words] if words else [])])
    return (
        f"# {TITLE}\n\n{here.date}. {here}. {options.note}".rstrip() + f"\n\n`{command}`\n\n"
        f"Messages of 2 KB to one recipient, on loopback to {named(chosen(options))}; SQLite in WAL mode with synchronous=FULL; medians "
        f"of {plan.rounds} rounds, with the range in brackets. In each round each has its turn, one after the other, "
        "in a process and a fresh folder of its own; a ratio is that of the same round. What is compared with what is "
        "said in [`drain.py`](drain.py); the reference loops are [`drain_loop.py`](drain_loop.py) and "
        "[`flow_loop.py`](flow_loop.py), the peers are in [`drain_peers.py`](drain_peers.py)."
    )


def main(arguments: Sequence[str]) -> None:
    options = _parsed(arguments)
    postfix = chosen(options)
    plan = QUICK if options.quick else Plan()
    plan = attrs.evolve(plan, rounds=options.rounds or plan.rounds)
    with places(options.directory) as here, receiver(postfix) as port:
        bench = Bench(plan, here, port, postfix, None if options.no_peers else options.peers)
        parts = [_preamble(options, machine(here, appends=plan.appends), plan)]
        print(parts[0], flush=True)
        for section, title in SECTIONS.items():
            if section in (options.only or SECTIONS):
                parts.append(report.section(title, *getattr(bench, section)()))
                print(f"\n{parts[-1]}", flush=True)
    report.keep(options, parts)


if __name__ == "__main__":
    main(sys.argv[1:])

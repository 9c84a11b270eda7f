"""Every store against the raw disk, against its peers, and against itself when it is deep, crowded and old.

    nox -s bench -- [options]        makes the peers' environments, and runs this
    python benchmarks/stores.py [options]

``submit``
    1, 4, 16 and 32 threads, and hundreds.  The messages are made beforehand,
    the peers' too; what is timed is ``Outbox.submit`` and ``submit_many``
    with everything that they do.  How many are in the store is counted after it.
``claim``
    Claim and settle by 1, 10 and 100 on one thread, in two calls and, where
    the store has it, in one (``exchange``).
``depth``
    A claim of ten in front of 1,000 ready and 1,000 scheduled messages, and
    of very many; each time in a new process, whose memory is measured.
``growth``
    What messages take up, on the disk and in memory, and what is left of it.
``crowd``
    Processes of threads that claim and settle one store's messages.
``steady``
    Transitions at one backlog, and what grows with them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import contests
import crowd
import depth
import ours
import peers
import plot
import report
import steady
from machine import Machine, machine
from places import Places, places

ROOT: Final = Path(__file__).parents[1]
SECTIONS: Final = ("submit", "claim", "depth", "growth", "crowd", "steady")
_PER_FILE: Final = 4
"""So many times fewer messages where each is a file: a lap takes as long, and proves as much."""


@attrs.frozen(kw_only=True)
class Plan:
    """How much of everything."""

    rounds: int = 5
    appends: int = 1_000
    submits: int = 8_000
    claims: int = 4_000
    deep: int = 1_000_000
    deep_files: int = 300_000
    deep_memory: int = 100_000
    deep_claims: int = 20
    grown: int = 20_000
    crowd: int = 100_000
    processes: int = 8
    threads: int = 4
    transitions: int = 200_000
    backlog: int = 1_000


QUICK: Final = Plan(
    rounds=2,
    appends=20,
    submits=64,
    claims=20,
    deep=300,
    deep_files=300,
    deep_memory=300,
    deep_claims=2,
    grown=100,
    crowd=200,
    processes=2,
    threads=2,
    transitions=400,
    backlog=50,
)
LONG: Final = 10_000_000


@attrs.frozen
class Bench:
    """One run: what is measured, where, and how much of it."""

    plan: Plan
    kinds: Sequence[str]
    sections: Sequence[str]
    places: Places
    machine: Machine
    peers: dict[str, list[peers.Peer]]
    results: dict[str, list[contests.Result]] = attrs.Factory(dict)

    def run(self) -> Iterator[str]:
        """The parts of the report, as they come."""
        for kind in self.kinds:
            yield from self._contests(kind)
        measured = {
            "depth": (self._depth, "Depth"),
            "growth": (self._growth, "What messages take up"),
            "crowd": (self._crowd, "A crowd"),
            "steady": (self._steady, "Steady"),
        }
        for name, (measure, title) in measured.items():
            if name in self.sections:
                yield report.section(title, measure())

    def _contests(self, kind: str) -> Iterator[str]:
        number = 1 if kind != "filesystem" else _PER_FILE
        listed: list[contests.Contest] = []
        if "submit" in self.sections:
            listed += contests.submits(kind, self.plan.submits // number)
            listed += contests.loops(self.plan.submits // number) if kind == "filesystem" else []
        if "claim" in self.sections:
            listed += contests.claims(kind, self.plan.claims // number)
        if not listed:
            return
        results = self.results[kind] = [self._result(kind, contest) for contest in listed]
        yield report.section(f"The {kind} store", contests.compared(results))
        if any(each.reference for each in results):
            yield contests.judged(results)
        if self.peers[kind] and "submit" in self.sections:
            yield contests.peer_table(kind, results, self.peers[kind])

    def _result(self, kind: str, contest: contests.Contest) -> contests.Result:
        _say(f"{kind}: {contest.title}")
        return contests.run(
            contest, self.places, self.peers[kind], rounds=self.plan.rounds, appends=self.plan.appends
        )

    def _depth(self) -> str:
        plan = self.plan
        numbers = {"sqlite": plan.deep, "filesystem": plan.deep_files, "memory": plan.deep_memory}
        measured = {}
        for kind in self.kinds:
            _say(f"{kind}: depth")
            found = depth.depth(
                kind, self.places, ready=numbers[kind], rounds=plan.rounds, claims=plan.deep_claims
            )
            measured[kind] = (numbers[kind], found)
        return report.depths(measured)

    def _growth(self) -> str:
        measured = {}
        for kind in self.kinds:
            _say(f"{kind}: growth")
            measured[kind] = steady.growth(kind, self.places, number=self.plan.grown)
        return report.grown(measured)

    def _crowd(self) -> str:
        plan = self.plan
        measured = {}
        # What is in one process's memory is nobody else's.
        for kind in (each for each in self.kinds if each != "memory"):
            _say(f"{kind}: a crowd")
            measured[kind] = crowd.crowd(
                kind, self.places, number=plan.crowd, processes=plan.processes, threads=plan.threads
            )
        return report.crowds(measured)

    def _steady(self) -> str:
        measured = {}
        for kind in self.kinds:
            _say(f"{kind}: steady")
            measured[kind] = steady.steady(
                kind, self.places, transitions=self.plan.transitions, backlog=self.plan.backlog
            )
        return report.steadies(measured)


def _say(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


def _plot(results: dict[str, list[contests.Result]], taking_part: dict[str, list[peers.Peer]]) -> str:
    durable = {peer.name: peer.durable for each in taking_part.values() for peer in each}
    panels = [
        plot.Panel(f"{kind}: {each.contest.title}", _bars(each, durable))
        for kind, listed in results.items()
        for each in listed
        if each.contest.column and kind != "memory"
    ]
    caption = "Messages a second, 2 KB each. A dashed bar: a power failure can undo what was acknowledged."
    return plot.draw("Submitted, durably", caption, panels)


def _bars(result: contests.Result, durable: dict[str, bool]) -> list[plot.Bar]:
    bars = [plot.Bar("outbox", result.ours.median, "ours")]
    if result.reference:
        bars.append(plot.Bar("the raw loop, 1 thread", result.reference.median, "reference"))
    bars += [
        plot.Bar(name, figure.median, "peer" if durable[name] else "weaker")
        for name, figure in result.peers.items()
    ]
    return bars


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures the stores.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny numbers, to see that it works; the figures say nothing"
    )
    parser.add_argument("--long", action="store_true", help=f"{LONG:,} transitions in the section 'steady'")
    parser.add_argument(
        "--store", action="append", choices=ours.KINDS, help="only this one; may be given again"
    )
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, help="only this section; may be given again"
    )
    parser.add_argument(
        "--peers", type=Path, metavar="FOLDER", help="virtual environments, each named after its peer"
    )
    parser.add_argument("--no-peers", action="store_true", help="measure no peers")
    parser.add_argument(
        "--directory",
        type=Path,
        default=ROOT / "build",
        help="where the stores are: on the disk that is meant",
    )
    report.add_record(parser, also=", and the plot in ROOT/docs/img/submit.svg")
    return parser.parse_args(arguments)


def _command(options: argparse.Namespace) -> str:
    """What to type to do it again: no paths, for they are this machine's."""
    words = [f"--{name}" for name in ("quick", "long") if getattr(options, name)]
    words += [f"--store {kind}" for kind in options.store or ()]
    words += [f"--only {section}" for section in options.only or ()]
    words += ["--no-peers"] if options.no_peers else []
    return " ".join(["nox -s bench", *(["--", *words] if words else [])])


def _kinds(wanted: Sequence[str] | None) -> list[str]:
    kinds = []
    for kind in wanted or ours.KINDS:
        if ours.importable(kind):
            kinds.append(kind)
        else:
            _say(f"{kind}: this release has no such store, left out")
    return kinds


def main(arguments: Sequence[str]) -> None:
    options = _parsed(arguments)
    plan = QUICK if options.quick else Plan()
    if options.long:
        plan = attrs.evolve(plan, transitions=LONG)
    kinds = _kinds(options.store)
    taking_part = {kind: [] if options.no_peers else peers.peers(kind, options.peers) for kind in kinds}
    with places(options.directory) as here:
        bench = Bench(
            plan, kinds, options.only or SECTIONS, here, machine(here, appends=plan.appends), taking_part
        )
        parts = [report.preamble(bench.machine, _command(options), plan.rounds, options.note)]
        print(parts[0], flush=True)
        for part in bench.run():
            parts.append(part)
            print(f"\n{part}", flush=True)
    if options.record:
        _record(options.record, "\n\n".join(parts), _plot(bench.results, taking_part))


def _record(root: Path, text: str, drawing: str) -> None:
    results, image = root / "benchmarks" / "RESULTS.md", root / "docs" / "img" / "submit.svg"
    report.record(results, text)
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_text(drawing, encoding="utf-8")
    for path in (results, image):
        _say(f"{path} written")


if __name__ == "__main__":
    main(sys.argv[1:])

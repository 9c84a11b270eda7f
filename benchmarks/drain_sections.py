"""The sections of the Runner's benchmark: who has a turn in which, and the tables that come of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import raw
import report
from laps import Spread, percentile, ratios, spread
from ours import CONTENT
from places import Places
from process import child

__all__ = ["QUICK", "SECTIONS", "Bench", "Plan"]

SECTIONS: Final = {
    "drain": "Draining",
    "flow": "Submitting meanwhile",
    "latency": "Waiting",
    "hang": "A hung relay",
}
"""The name and the title of each."""
PEERS: Final = ("django-post_office", "django-post_office batches", "huey")
POSTFIX: Final = "Postfix, its deferred queue flushed"
_BEFORE: Final = {1: 11_500, 2: 21_900, 4: 26_800}
"""What the reference loop reached before on so many threads, on a disk that did 8,100 appends with fsync a second."""
_MIB: Final = 2**20
_PATIENCE: Final = 900

Told: TypeAlias = dict[str, Any]


@attrs.frozen(kw_only=True)
class Plan:
    rounds: int = 5
    drained: int = 10_000
    flowing: int = 20_000
    timed: int = 100
    waiting: int = 20
    beside: int = 10_000
    ahead: int = 1_000
    appends: int = 1_000


QUICK: Final = Plan(rounds=1, drained=300, flowing=240, timed=3, waiting=1, beside=60, ahead=40, appends=20)


@attrs.frozen
class Entrant:
    """*run* has a turn in a fresh folder, and tells what it came to."""

    name: str
    run: Callable[[Path], Told]


@attrs.define
class Bench:
    plan: Plan
    places: Places
    port: int
    postfix: Path | None
    environments: Path | None

    # --- draining ---

    def drain(self) -> Iterator[str]:
        loops = [
            self._turn(f"the loop, {_threads(threads)}", "loop", self.plan.drained, threads)
            for threads in _BEFORE
        ]
        absent = dict(self._absent())
        others = [each for each in self._others() if each.name not in absent]
        turns = self._race(
            [self._turn("outbox", "outbox", self.plan.drained), *loops, *others, self._appends()]
        )
        appends = _rates(turns.pop("appends"))
        best = [max(each) for each in zip(*(_rates(turns[loop.name]) for loop in loops), strict=True)]
        turns["the loop, the best of them"] = []
        heads = ("who", "msg/s", "outbox to it", "wanted", "CPU, s per 1,000", "peak, MiB")
        rows = [self._drained(name, turns, best) for name in turns]
        rows += [(name, f"not measured: {why}", "", "", "", "") for name, why in absent.items()]
        yield report.table(heads, rows)
        yield report.table(
            ("reference loop", "before", "ratio, each to its appends + fsync", "wanted"),
            (
                _worth(threads, turns[loop.name], appends)
                for threads, loop in zip(_BEFORE, loops, strict=True)
            ),
        )

    def _drained(self, name: str, turns: dict[str, list[Told]], best: Sequence[float]) -> Sequence[str]:
        mine = _rates(turns["outbox"])
        if name == "outbox":
            cpu, peak = report.factor(_cpu(turns[name])), _mib(turns[name])
            return (
                "**outbox**",
                report.rate(spread(mine)),
                "",
                "≥ 15,000 msg/s",
                f"{cpu}; ≤ 0.09",
                f"{peak}; ≤ 45",
            )
        theirs = _rates(turns[name]) or best
        wanted = "≥ 0.55" if not turns[name] else "" if name.startswith("the loop") else "≥ 5"
        cpu = report.factor(_cpu(turns[name])) if turns[name] and turns[name][0]["cpu"] else ""
        peak = _mib(turns[name]) if turns[name] and turns[name][0]["peak"] else ""
        version = turns[name][0].get("version", "") if turns[name] else ""
        title = f"{name} {version}".strip()
        return (title, report.rate(spread(theirs)), report.factor(ratios(mine, theirs)), wanted, cpu, peak)

    def _others(self) -> Iterator[Entrant]:
        for name in PEERS:
            yield Entrant(name, partial(self._peer, name))
        yield Entrant(POSTFIX, self._postfix)

    def _absent(self) -> Iterator[tuple[str, str]]:
        for name in PEERS:
            if self.environments is None or not self._python(name).exists():
                yield name, "could not be installed here"
        why = _no_postfix(self.postfix)
        if why:
            yield POSTFIX, why

    def _peer(self, name: str, folder: Path) -> Told:
        script = Path(__file__).with_name("drain_peers.py")
        words = [self._python(name), script, name, folder, self.port, self.plan.drained]
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr[-500:]}")
        told: Told = json.loads(done.stdout.splitlines()[-1])
        return told

    def _python(self, name: str) -> Path:
        return (self.environments or Path("none")) / name.partition(" ")[0] / "bin" / "python"

    def _postfix(self, folder: Path) -> Told:
        # Only here: it stands on what the session `interop` stands on.
        import postfix_queue  # noqa: PLC0415

        if self.postfix is None:
            raise AssertionError
        seconds = postfix_queue.drained(self.postfix, folder, self.port, self.plan.drained)
        return {"messages": self.plan.drained, "seconds": seconds, "cpu": 0.0, "peak": 0}

    # --- submitting meanwhile ---

    def flow(self) -> Iterator[str]:
        number = self.plan.flowing
        ours, loop = (
            self._turn(name, who, number)
            for name, who in (("outbox", "outbox-flow"), ("the loop", "loop-flow"))
        )
        turns = self._race([ours, loop])
        ratio = ratios(_rates(turns["outbox"]), _rates(turns["the loop"]))
        rows = [
            (
                name,
                report.rate(spread(_rates(each))),
                report.factor(ratio) if name == "outbox" else "",
                "≥ 0.5" if name == "outbox" else "",
                report.factor(spread([told["after"] / told["seconds"] for told in each]))
                if name == "outbox"
                else "",
                " ".join(f"{waiting:,}" for waiting in _middle(each)["backlog"]),
            )
            for name, each in turns.items()
        ]
        heads = (
            "who",
            "msg/s, submitted and sent",
            "ratio",
            "wanted",
            "part of the time after the last submit",
        )
        yield report.table((*heads, "waiting, at each tenth of the time"), rows)

    # --- waiting ---

    def latency(self) -> Iterator[str]:
        wanted = {"same": "≤ 2 / 5", "other": "≤ 10 / 50"}
        rows = []
        for kind in ("sqlite", "filesystem"):
            for where, limits in wanted.items():
                told = [
                    _said(
                        f"{kind}, {where}",
                        child,
                        "latency.py",
                        where,
                        kind,
                        self.places.new(),
                        self.plan.timed,
                    )
                    for _ in range(self.plan.rounds)
                ]
                halves, last = ([percentile(each, part) * 1000 for each in told] for part in (0.5, 0.99))
                every = [wait for each in told for wait in each]
                rows.append(
                    (
                        f"{kind}, the runner in {'the same' if where == 'same' else 'another'} process",
                        report.factor(spread(halves)),
                        f"{percentile(every, 0.99) * 1000:.2f} ({min(last):.2f} to {max(last):.2f})",
                        limits,
                    )
                )
        yield report.table(("submit to 250", "median, ms", "p99 of all, ms", "wanted"), rows)
        used = [(kind, *self._waiting(kind)) for kind in ("sqlite", "filesystem")]
        yield report.table(("a runner with nothing to do", "per mille of a core", "wanted"), used)

    def _waiting(self, kind: str) -> Sequence[str]:
        seconds, rounds = self.plan.waiting, self.plan.rounds
        words = ("latency.py", "waits", kind)
        told = [
            1000 * _said(f"{kind}, waiting", child, *words, self.places.new(), seconds) for _ in range(rounds)
        ]
        return report.factor(spread(told)), "< 1"

    # --- standing a relay that never answers ---

    def hang(self) -> Iterator[str]:
        alone, beside = "alone", f"{self.plan.ahead:,} for a relay that never answers ahead of them"
        number = self.plan.beside
        turns = self._race(
            [self._turn(alone, "alone", number), self._turn(beside, "hang", number, self.plan.ahead)]
        )
        rates = {name: _rates(each) for name, each in turns.items()}
        rows = [
            (alone, report.rate(spread(rates[alone])), "", "", "", ""),
            (
                beside,
                report.rate(spread(rates[beside])),
                report.factor(ratios(rates[beside], rates[alone])),
                "> 0.9",
                _figure(spread([told["writes"] for told in turns[beside]])),
                _figure(spread([told["commits"] for told in turns[beside]])),
            ),
        ]
        heads = ("the good relay's messages", "msg/s", "ratio", "wanted")
        yield report.table((*heads, "leases and verdicts of the other's", "in so many commits"), rows)

    # --- turns ---

    def _turn(self, name: str, who: str, number: int, threads: int = 0) -> Entrant:
        return Entrant(name, lambda folder: child("drain_turn.py", who, folder, self.port, number, threads))

    def _appends(self) -> Entrant:
        def run(folder: Path) -> Told:
            done = raw.appended(folder, CONTENT, self.plan.appends)
            return {"messages": done.messages, "seconds": done.seconds}

        return Entrant("appends", run)

    def _race(self, entrants: Sequence[Entrant]) -> dict[str, list[Told]]:
        turns: dict[str, list[Told]] = {entrant.name: [] for entrant in entrants}
        for each in range(self.plan.rounds):
            for entrant in entrants:
                said = f"round {each + 1} of {self.plan.rounds}: {entrant.name}"
                turns[entrant.name].append(_said(said, entrant.run, self.places.new()))
        return turns


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"


def _no_postfix(postfix: Path | None) -> str:
    try:
        import postfix_queue  # noqa: PLC0415 - it stands on what the session `interop` stands on
    except ImportError as error:
        return f"{error.name} is not installed"
    return postfix_queue.missing(postfix)


def _rates(turns: Sequence[Told]) -> list[float]:
    return [told["messages"] / told["seconds"] for told in turns]


def _cpu(turns: Sequence[Told]) -> Spread:
    return spread([1000 * told["cpu"] / told["messages"] for told in turns])


def _mib(turns: Sequence[Told]) -> str:
    return f"{max(told['peak'] for told in turns) / _MIB:.1f}"


def _figure(figure: Spread) -> str:
    return f"{figure.median:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"


def _middle(turns: Sequence[Told]) -> Told:
    """That of the median round."""
    return sorted(turns, key=lambda told: float(told["seconds"]))[len(turns) // 2]


def _worth(threads: int, turns: Sequence[Told], appends: Sequence[float]) -> Sequence[str]:
    """The loop of today beside that of before, each to what its disk allowed."""
    pace = ratios(_rates(turns), appends)
    before = _BEFORE[threads]
    worth = Spread(*(each * raw.BEFORE["append"] / before for each in pace))
    return (_threads(threads), f"{before:,}", report.factor(worth), "≥ 0.8")


def _said(what: str, call: Callable[..., Any], *arguments: Any) -> Any:
    print(f"… {what}", file=sys.stderr, flush=True)
    return call(*arguments)

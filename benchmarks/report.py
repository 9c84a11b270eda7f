"""What is printed, and kept: Markdown tables of figures with their ranges."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from crowd import Crowd
from depth import Depth
from laps import Spread
from machine import Machine
from steady import Growth, Sample

__all__ = [
    "add_record",
    "crowds",
    "depths",
    "factor",
    "grown",
    "keep",
    "preamble",
    "rate",
    "record",
    "section",
    "steadies",
    "table",
]

ROOT: Final = Path(__file__).parents[1]
_MIB: Final = 2**20
_FILLED: Final = ("empty", "filled", "all settled", "filled again")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are figures."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def section(title: str, *parts: str) -> str:
    return "\n\n".join((f"## {title}", *(part for part in parts if part)))


def record(path: Path, text: str) -> None:
    """Keep *text*, which begins with its heading, in place of what was there under the same one."""
    title = text.partition("\n")[0]
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    chapters = [each for each in re.split(r"^(?=# )", kept, flags=re.MULTILINE) if each]
    titles = [each.partition("\n")[0] for each in chapters]
    if title in titles:
        chapters[titles.index(title)] = f"{text}\n\n"
    else:
        chapters.append(f"{text}\n\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(each.rstrip("\n") + "\n" for each in chapters), encoding="utf-8")


def add_record(parser: argparse.ArgumentParser, *, also: str = "") -> None:
    """The options of who keeps a report; *also* is what else is kept."""
    parser.add_argument("--note", default="", help="a sentence for the report, such as what else was running")
    parser.add_argument(
        "--record",
        type=Path,
        nargs="?",
        const=ROOT,
        metavar="ROOT",
        help=f"keep the report in ROOT/benchmarks/RESULTS.md, under its own heading{also}",
    )


def keep(options: argparse.Namespace, parts: Sequence[str]) -> None:
    """Keep the report where that was asked for."""
    if options.record:
        path = options.record / "benchmarks" / "RESULTS.md"
        record(path, "\n\n".join(parts))
        print(f"… {path} written", file=sys.stderr)


def rate(figure: Spread) -> str:
    """Messages a second: median, and the range of the rounds."""
    return f"{figure.median:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"


def factor(figure: Spread) -> str:
    return f"{figure.median:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def preamble(machine: Machine, command: str, rounds: int, note: str = "") -> str:
    return (
        "# What the stores can do\n\n" + f"{machine.date}. {machine}. {note}".rstrip() + "\n\n"
        f"`{command}`\n\n"
        f"Messages of 2 KB; medians of {rounds} rounds, with the range in brackets. In each round everything in a "
        "line has its turn, one after the other, in fresh files of the same directory; a ratio is that of the same "
        "round. Compare ratios: figures of another machine, or of another day, mean little. What is compared "
        "with what is said in [`stores.py`](stores.py); the reference loops are in [`raw.py`](raw.py), the peers' in "
        "[`peer_loops.py`](peer_loops.py)."
    )


def _ms(figure: Spread) -> str:
    return f"{figure.median * 1000:.2f} ({figure.low * 1000:.2f} to {figure.high * 1000:.2f})"


def depths(measured: dict[str, tuple[int, Depth]]) -> str:
    heads = (
        "claim 10",
        "ready and scheduled, each",
        "ms with 1,000 of each",
        "ms with so many",
        "ratio",
        "wanted",
        "open + first claim, ms",
        "resident, MiB",
    )
    return table(heads, (_depth(kind, number, each) for kind, (number, each) in measured.items()))


def _depth(kind: str, number: int, each: Depth) -> Sequence[str]:
    return (
        kind,
        f"{number:,}",
        _ms(each.shallow),
        _ms(each.deep),
        factor(each.ratio),
        "" if kind == "memory" else "≤ 1.5",
        " → ".join(f"{seconds * 1000:.1f}" for seconds in each.first),
        " → ".join(f"{size / _MIB:.1f}" for size in each.resident),
    )


def grown(measured: dict[str, Growth]) -> str:
    heads = (
        "store",
        "messages",
        *(f"disk, {each}, MiB" for each in _FILLED),
        *(f"resident, {each}" for each in _FILLED),
    )
    rows = (
        (
            kind,
            f"{each.messages:,}",
            *(f"{size / _MIB:.1f}" for size in each.disk),
            *(f"{size / _MIB:.1f}" for size in each.resident),
        )
        for kind, each in measured.items()
    )
    return table(heads, rows)


def crowds(measured: dict[str, Crowd]) -> str:
    heads = (
        "store",
        "messages",
        "msg/s",
        "a process had, %",
        "a thread had",
        "missing",
        "twice",
        "errors",
    )
    return table(heads, (_crowd(kind, each) for kind, each in measured.items()))


def _crowd(kind: str, each: Crowd) -> Sequence[str]:
    return (
        f"{kind}, {len(each.shares)} processes, {len(each.threads)} threads",
        f"{each.messages:,}",
        f"{each.messages / each.seconds:,.0f}",
        " ".join(f"{100 * share / each.messages:.1f}" for share in sorted(each.shares)),
        f"{min(each.threads):,} to {max(each.threads):,}",
        str(each.missing),
        str(each.twice),
        "; ".join(each.errors) or "none",
    )


def steadies(measured: Mapping[str, Sequence[Sample]]) -> str:
    heads = ("store", "transitions", "disk, MiB", "resident, MiB", "descriptors", "threads")
    return table(
        heads,
        (
            (
                kind,
                f"{sample.transitions:,}",
                f"{sample.disk / _MIB:.2f}",
                f"{sample.resident / _MIB:.2f}",
                str(sample.descriptors),
                str(sample.threads),
            )
            for kind, samples in measured.items()
            for sample in samples
        ),
    )

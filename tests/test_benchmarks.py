"""The benchmarks work, and measure what they say; how fast anything is, no test asks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import attrs
import pytest
from crashing import workplace
from tracing import Say, missing, trace

BENCHMARKS: Final = Path(__file__).parents[1] / "benchmarks"
SVG: Final = "{http://www.w3.org/2000/svg}"
TABLES: Final = ("submit, 1 thread", "submit, 32 threads", "submit_many by 100", "claim + settle by 100")
KINDS: Final = [
    "sqlite",
    pytest.param("filesystem", marks=pytest.mark.skipif(os.name != "posix", reason="it needs POSIX")),
    "memory",
]


@attrs.frozen
class Run:
    """What a run of the benchmarks printed, and the folders that it worked in and kept its report in."""

    printed: str
    work: Path
    kept: Path

    def rows(self, first: str) -> list[list[str]]:
        """The cells of those lines of its tables that begin with *first*."""
        found = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", self.printed, re.MULTILINE)
        return [[cell.strip() for cell in line.split("|")] for line in found]


def bench(folder: Path, *options: str) -> Run:
    run = Run("", folder / "work", folder / "kept")
    places = ["--directory", str(run.work), "--record", str(run.kept)]
    command = [sys.executable, str(BENCHMARKS / "stores.py"), "--quick", *options, *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return attrs.evolve(run, printed=done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quick_run_fills_every_table(kind: str, tmp_path: Path) -> None:
    run = bench(tmp_path, "--no-peers", "--store", kind)
    for title in TABLES:
        ((rate, *_),) = run.rows(title)
        assert re.fullmatch(r"[\d,]+ \([\d,]+ to [\d,]+\)", rate)
    ((messages, *_),) = [row for row in run.rows(kind) if len(row) == 9]
    assert messages == "100"
    assert len([row for row in run.rows(kind) if len(row) == 5]) == 10


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_crowd_settles_each_message_once(kind: str, tmp_path: Path) -> None:
    run = bench(tmp_path, "--no-peers", "--store", kind, "--only", "crowd")
    ((messages, _, shares, _, lost, twice, errors),) = run.rows(f"{kind}, 2 processes, 4 threads")
    assert (messages, lost, twice, errors) == ("200", "0", "0", "none")
    assert sum(map(float, shares.split())) == pytest.approx(100, abs=0.1)


def test_what_was_printed_is_what_is_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    run = bench(tmp_path, "--no-peers", "--store", "sqlite", "--only", "submit")
    assert (run.kept / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8") == run.printed
    assert list(run.work.iterdir()) == []
    # A report is published, and a path would tell whose machine it was.
    assert str(tmp_path) not in run.printed


def test_the_plot_is_well_formed_and_has_a_bar_for_each_figure(tmp_path: Path) -> None:
    run = bench(tmp_path, "--no-peers", "--store", "sqlite", "--only", "submit")
    drawing = ET.parse(run.kept / "docs" / "img" / "submit.svg").getroot()
    assert drawing.tag == f"{SVG}svg"
    bars = [bar.get("class") for bar in drawing.iter(f"{SVG}rect")]
    assert bars == ["ours", "reference"] * 5
    assert "prefers-color-scheme: dark" in "".join(drawing.itertext())


def test_a_peer_that_is_not_installed_is_named_as_missing(tmp_path: Path) -> None:
    run = bench(
        tmp_path,
        "--peers",
        str(tmp_path / "nowhere"),
        "--store",
        "memory",
        "--store",
        "sqlite",
        "--only",
        "submit",
    )
    for name in ("huey", "litequeue", "persist-queue", "django-mailer", "django-post_office"):
        ((*figures, _, reason),) = run.rows(name)
        assert figures == ["", "", ""]
        assert reason == "missing: could not be installed here"


# -- the reference loops: fast is only what does the same work


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if reason := missing():
        pytest.skip(reason)
    monkeypatch.syspath_prepend(BENCHMARKS)
    with workplace(tmp_path) as place:
        yield place


def syncs(folder: Path, loop: str, *arguments: int) -> int:
    """How often one of the reference loops makes the disk sync."""

    def program(say: Say) -> None:
        import raw  # noqa: PLC0415 - it is found once the benchmarks' folder is on the path

        getattr(raw, loop)(folder, b"x" * 2048, *arguments)
        say("over")

    folder.mkdir()
    done = trace(program, folder)
    assert done.said == ["over"]
    return sum(1 for call in done.calls if call.name == "sync")


@pytest.mark.parametrize(
    ("loop", "by", "each"),
    [
        pytest.param("rows", 1, 1, id="a commit of one row"),
        pytest.param("rows", 10, 1, id="a commit of ten rows"),
        pytest.param("taken", 1, 1, id="a claim that is not synced and an ack that is"),
        pytest.param("taken", 10, 1, id="ten claims that are not synced and ten acks that are"),
        pytest.param("exchanged", 1, 1, id="an ack and a claim in one commit"),
        pytest.param("files", 1, 2, id="a file and its directory"),
        pytest.param("appended", 1, 1, id="an append"),
    ],
)
def test_a_reference_loop_syncs_as_often_as_it_says(loop: str, by: int, each: int, folder: Path) -> None:
    # What is made beforehand is synced too, as often for many as for few.
    settings = [] if loop == "appended" else [by]
    few, many = (syncs(folder / str(turns), loop, turns * by, *settings) for turns in (3, 8))
    assert many - few == 5 * each

"""What a relay is asked to take when it is back after a day, as the docs show it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from started import PATIENCE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    (folder / "docs" / "img").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def printed(kept: Path) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "ramp.py"), "--record", str(kept)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


def table(printed: str) -> list[list[float]]:
    rows = [line.strip("| ").split("|") for line in printed.splitlines() if line.startswith("| ")][1:]
    return [[float(cell.replace(",", "")) for cell in row] for row in rows]


def test_the_curve_in_the_docs_is_the_one_that_is_simulated(kept: Path, printed: str) -> None:
    shown = (DOCS / "relays.md").read_text("utf-8")
    drawn = (kept / "docs" / "img" / "ramp.svg").read_text("utf-8")

    assert printed.partition("\n")[2].strip() in shown
    assert drawn == (DOCS / "img" / "ramp.svg").read_text("utf-8")
    assert ET.fromstring(drawn).tag.endswith("svg")


def test_connections_and_messages_at_most_double_in_each_of_the_first_seconds(printed: str) -> None:
    first = [row for row in table(printed) if row[0] <= 6]

    assert [row[0] for row in first] == list(range(7))
    assert all(row[1] <= 2 ** (row[0] + 1) and row[2] <= 2 ** (row[0] + 1) for row in first)
    assert first[-1][2] == 100, "nor do they grow more slowly"


def test_a_hundred_thousand_are_delivered_within_minutes(printed: str) -> None:
    assert table(printed)[-1][-1] == 100_000
    assert table(printed)[-1][0] < 300

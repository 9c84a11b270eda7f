"""The SMTP benchmark works, and keeps its report beside the others; how fast anything is, no test asks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

BENCHMARKS: Final = Path(__file__).parents[1] / "benchmarks"


def cells(report: str, first: str) -> list[str]:
    (line,) = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", report, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.skipif(os.name != "posix", reason="it asks the system what its children used")
def test_a_quick_run_fills_both_tables_and_leaves_the_other_chapters_as_they_were(tmp_path: Path) -> None:
    results = tmp_path / "benchmarks" / "RESULTS.md"
    results.parent.mkdir()
    others = "# What the stores can do\n\nmuch\n", "# Other runs of the same day\n\n## Depth\n\ndeep\n"
    results.write_text(
        f"{others[0]}\n# What the SMTP transport can do\n\nold\n\n{others[1]}", encoding="utf-8"
    )
    script = str(BENCHMARKS / "smtp.py")
    command = [sys.executable, script, "--quick", "--receiver", "ours", "--record", str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    for sender in ("smtplib, kept open, 1 connection", "deliver, 1 connection", "deliver, 4 connections"):
        assert re.fullmatch(r"[\d,]+ \([\d,]+ to [\d,]+\)", cells(done.stdout, sender)[0])
    assert float(cells(done.stdout, "deliver")[1].split()[0]) > 0.5
    kept = results.read_text(encoding="utf-8")
    assert kept.startswith(others[0])
    assert kept.endswith(others[1])
    assert "old" not in kept
    assert done.stdout.strip() in kept

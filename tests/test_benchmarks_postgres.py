"""The benchmark of the PostgreSQL store works; how fast anything is, no test asks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from postgres_places import Places

BENCHMARKS: Final = Path(__file__).parents[1] / "benchmarks"
RATE: Final = r"[\d,]+ \([\d,]+ to [\d,]+\)"
COLUMNS: Final = ("submit singly", "submit by hundreds", "claim and settle by tens")


def test_a_quick_run_fills_every_table_and_keeps_what_it_printed(postgres: Places, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "postgres.py"), "--no-peers", "--dsn", postgres.dsn]
    few = ["--rounds", "1", "--messages", "60", "--deep", "100", "--record", str(tmp_path)]

    done = subprocess.run([*command, *few], capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    for column in COLUMNS:
        for who in ("bare", "**outbox**"):
            (row,) = re.findall(
                rf"^\| {re.escape(f'{column}: {who}')} \| (.*?) \|", done.stdout, re.MULTILINE
            )
            assert re.fullmatch(RATE, row)
    assert re.search(r"^\| postgres \| 100 \|", done.stdout, re.MULTILINE)
    assert (tmp_path / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8") == done.stdout.rstrip(
        "\n"
    ) + "\n"
    # A report is published, and a path would tell whose machine it was.
    assert str(tmp_path) not in done.stdout
    assert "host=" not in done.stdout


def test_the_bare_statements_are_few() -> None:
    lines = (BENCHMARKS / "postgres_bare.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60

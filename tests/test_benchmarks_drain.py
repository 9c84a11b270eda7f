"""The Runner's benchmark works, and its reference loops do what they are compared for; how fast anything is, no test asks."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from outbox.testing.smtp_sink import SMTPSink

BENCHMARKS: Final = Path(__file__).parents[1] / "benchmarks"
RATE: Final = r"[\d,]+ \([\d,]+ to [\d,]+\)"
CONTENT: Final = b"Subject: x\r\n\r\n.dot\r\n"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="it measures processes as POSIX tells of them")


def rows(report: str, first: str) -> list[list[str]]:
    found = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", report, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in found]


def test_a_quick_run_fills_every_table_and_names_who_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "drain.py"), "--quick", "--receiver", "ours", "--no-peers"]
    places = ["--directory", str(tmp_path / "work"), "--record", str(tmp_path)]

    done = subprocess.run([*command, *places], capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    ((drained, *_), (flowing, *_)) = [*rows(done.stdout, "**outbox**"), *rows(done.stdout, "outbox")]
    assert re.fullmatch(RATE, drained)
    assert re.fullmatch(RATE, flowing)
    for missing in ("huey", "django-post_office", "Postfix, its deferred queue flushed"):
        ((why, *_),) = rows(done.stdout, missing)
        assert why.startswith("not measured: ")
    for kind in ("sqlite", "filesystem"):
        for where in ("the same", "another"):
            ((median, *_),) = rows(done.stdout, f"{kind}, the runner in {where} process")
            # Below zero where the relay has it before the commit has been told to who submitted.
            assert abs(float(median.split()[0])) < 60_000
    ((*_, writes, commits),) = rows(done.stdout, "40 for a relay that never answers ahead of them")
    assert int(writes.split()[0].replace(",", "")) >= int(commits.split()[0].replace(",", "")) > 0
    assert (tmp_path / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8") == done.stdout
    assert list((tmp_path / "work").iterdir()) == []
    # A report is published, and a path would tell whose machine it was.
    assert str(tmp_path) not in done.stdout


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import drain_loop  # noqa: PLC0415 - it is found once the benchmarks' folder is on the path

    return drain_loop


def table(loops: Any, path: Path, number: int) -> None:
    with closing(loops.opened(path)) as sql:
        sql.execute(
            "CREATE TABLE mail (number INTEGER PRIMARY KEY, sender TEXT, recipient TEXT, content BLOB)"
        )
        sql.executemany(
            "INSERT INTO mail VALUES (NULL, 's@example.com', ?, ?)",
            [(f"r{each}@example.org", CONTENT) for each in range(number)],
        )


def left(path: Path) -> int:
    with closing(sqlite3.connect(path)) as sql:
        (number,) = sql.execute("SELECT count(*) FROM mail").fetchone()
    return int(number)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_reference_loop_sends_each_message_once_and_leaves_none(
    threads: int, loops: Any, tmp_path: Path
) -> None:
    table(loops, tmp_path / "loop.db", 250)
    with SMTPSink(manners="strict") as sink:
        loops.drain(tmp_path / "loop.db", sink.port, threads)
        taken = sorted(recipient for message in sink.messages for recipient in message.recipients)
        contents = {message.content for message in sink.messages}
    assert taken == sorted(f"r{each}@example.org" for each in range(250))
    assert contents == {CONTENT}
    assert left(tmp_path / "loop.db") == 0


def test_the_reference_loop_that_submits_meanwhile_sends_all_that_it_submitted(
    loops: Any, tmp_path: Path
) -> None:
    import flow_loop  # noqa: PLC0415 - it is found once the benchmarks' folder is on the path

    table(loops, tmp_path / "loop.db", 0)
    with SMTPSink(manners="strict") as sink:
        flow_loop.flow(tmp_path / "loop.db", sink.port, CONTENT, 80, [])
        assert len(sink.messages) == 80
    assert left(tmp_path / "loop.db") == 0


@pytest.mark.parametrize("name", ["drain_loop.py", "flow_loop.py"])
def test_a_reference_loop_is_under_sixty_lines(name: str) -> None:
    """As the benchmark says it: lines that say something."""
    text = (BENCHMARKS / name).read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) < 60

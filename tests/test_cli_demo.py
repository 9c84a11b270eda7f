"""`outbox demo`: what a newcomer sees first."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from command_line import CommandLine

ROWS = [
    ("Welcome", "ann@example.org", "1", "250", "accepted"),
    ("Password reset", "grey@example.org", "1", "450", ""),
    ("", "", "2", "250", "accepted"),
    ("Invoice 1042", "gone@example.org", "1", "550", "failed"),
    ("Team lunch", "bob@example.org", "1", "250", "accepted"),
    ("", "full@example.org", "1", "452", ""),
    ("", "", "2", "250", "accepted"),
    ("", "gone@example.org", "1", "550", "failed"),
    ("Newsletter", "bob@example.org", "1", "250", "accepted"),
    ("Reminder", "ann@example.org", "", "(not", "waiting"),
]


@pytest.fixture
def outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch, capsys)


def test_it_shows_each_fate_twice_in_a_row(outbox: CommandLine, tmp_path: Path) -> None:
    for _ in range(2):
        rows = outbox("demo", "--json", "--keep", str(tmp_path / "demo")).data
        assert [
            (row["mail"], row["to"], row["try"], row["said"].split(" ")[0], row["fate"]) for row in rows
        ] == ROWS


def test_it_fits_a_terminal_and_its_advice_works(outbox: CommandLine, tmp_path: Path) -> None:
    ran = outbox("demo", "--keep", str(tmp_path / "my demo"), terminal=True)
    assert ran.status == 0
    shown = [line for line in ran.out.splitlines() if str(tmp_path) not in line]
    assert [line for line in shown if len(line) > 80] == []
    assert "\u2026" not in ran.out, "nothing in the table is cut"
    (export,) = re.findall(r"export OUTBOX_STORE=(\S+)", ran.out)
    outbox.environ(OUTBOX_STORE=export)
    advice = [
        words.split() for words in re.findall(r"^  (?:\S+ -m )?outbox (\w[^=\n]*)$", ran.out, re.MULTILINE)
    ]
    assert [words[0] for words in advice] == ["status", "list", "show", "requeue"]
    assert [outbox(*words).status for words in advice] == [0, 0, 0, 0]


def test_it_works_without_a_home_and_says_so_in_ascii(tmp_path: Path) -> None:
    environ = {
        name: value for name, value in os.environ.items() if name not in {"HOME", "XDG_CONFIG_HOME"}
    } | {
        "HOME": "/nonexistent",
        "TMPDIR": str(tmp_path),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    process = CommandLine.start("demo", env=environ)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.isascii()
    assert f"{Path(sys.executable).name} -m outbox show".encode() in out
    (directory,) = tmp_path.iterdir()
    assert str(directory).encode() in out
    assert sys.platform == "win32" or (directory / "outbox.db").stat().st_mode & 0o777 == 0o600

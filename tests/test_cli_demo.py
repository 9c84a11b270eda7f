"""`outbox demo`: what a newcomer sees first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine
from started import PATIENCE

ROWS = [
    ("Welcome", "ann@example.org", "1", "250", "accepted"),
    ("Password reset", "grey@example.org", "1", "450", ""),
    ("Password reset", "grey@example.org", "2", "250", "accepted"),
    ("Invoice 1042", "gone@example.org", "1", "550", "failed"),
    ("Team lunch", "bob@example.org", "1", "250", "accepted"),
    ("Team lunch", "full@example.org", "1", "452", ""),
    ("Team lunch", "full@example.org", "2", "250", "accepted"),
    ("Team lunch", "gone@example.org", "1", "550", "failed"),
    ("Newsletter", "bob@example.org", "1", "250", "accepted"),
    ("Reminder", "ann@example.org", "", "(not", "waiting"),
]


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
    assert len(re.findall("^Team lunch ", ran.out, re.MULTILINE)) == 1, "what would repeat is left empty"
    assert "\u2026" not in ran.out, "nothing in the table is cut"
    (export,) = re.findall(r"export OUTBOX_STORE=(\S+)", ran.out)
    outbox.environ(OUTBOX_STORE=export)
    advice = [
        words.split() for words in re.findall(r"^  (?:\S+ -m )?outbox (\w[^=\n]*)$", ran.out, re.MULTILINE)
    ]
    assert [words[0] for words in advice] == ["status", "list", "show", "requeue"]
    assert [outbox(*words).status for words in advice] == [0, 0, 0, 0]


@pytest.mark.skipif(os.name != "posix", reason="a script of the environment, as POSIX has it")
@pytest.mark.parametrize("way", ["bin/outbox", "bin/python -m outbox", "outbox"])
def test_its_advice_names_the_program_as_it_was_called(tmp_path: Path, way: str) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "outbox"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom outbox.cli import main\nsys.exit(main())\n", "utf-8"
    )
    script.chmod(0o755)
    (tmp_path / "bin" / "python").write_text(
        f'#!/bin/bash\nexec -a bin/python {sys.executable} "$@"\n', "utf-8"
    )
    (tmp_path / "bin" / "python").chmod(0o755)
    path = os.environ["PATH"] if "/" in way else f"{tmp_path}/bin:{os.environ['PATH']}"
    words = [*way.split(), "demo", "--keep", str(tmp_path / "demo")]
    environ = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(words, capture_output=True, cwd=tmp_path, env=environ, check=True, timeout=PATIENCE)
    assert f"  {way} show " in ran.stdout.decode()


def test_a_directory_whose_name_no_url_can_say_is_refused(outbox: CommandLine, tmp_path: Path) -> None:
    ran = outbox("demo", "--keep", f"{tmp_path}/k\udcff")
    assert (ran.status, "UTF-8" in ran.complaint) == (64, True)


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
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.isascii()
    assert f"{Path(sys.executable).name} -m outbox show".encode() in out
    (directory,) = tmp_path.iterdir()
    assert str(directory).encode() in out
    assert sys.platform == "win32" or (directory / "outbox.db").stat().st_mode & 0o777 == 0o600

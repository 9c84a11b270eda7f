"""How every command looks: on a terminal of 80 columns and of 200, with colours and without, in a pipe."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from bad_night import MANY, fill
from command_line import CommandLine

from outbox.cli.columns import width_of
from outbox.clock import SystemClock
from outbox.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.shows("a control", because="a terminal is told its colours by control sequences")

ESCAPES = re.compile(r"\x1b\[([0-9;]*)m")
CHANGING = ("--state", "queued", "--queue", "bulk", "--yes")
COMMANDS: Sequence[Sequence[str]] = (
    ("status",),
    ("status", "--exact"),
    ("status", "--ages"),
    ("list", "--limit", "500"),
    ("list", "--state", "dead,held"),
    *(("show", f"night-{number:04}") for number in range(7)),
    *(("explain", f"night-{number:04}") for number in range(7)),
    ("check",),
    ("top", "--once"),
    ("requeue", "--dry-run", "--state", "queued"),
    ("cancel", *CHANGING),
    ("wait", "--timeout", "0.1s"),
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("night") / "outbox.db"
    with contextlib.closing(SQLiteStore(path)) as store:
        fill(store)
    return path


@pytest.fixture
def night(outbox: CommandLine, filled: Path) -> CommandLine:
    shutil.copy(filled, outbox.path)
    outbox.environ(OUTBOX_TRANSPORT="")
    return outbox


@pytest.fixture(params=["rich", "plain"])
def terminal(
    request: pytest.FixtureRequest, night: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """With rich, and where it is not installed."""
    if request.param == "plain":
        forget_rich(monkeypatch)
    night.environ(TERM="xterm-256color", NO_COLOR="")
    return night


@pytest.fixture
def coloured(night: CommandLine) -> CommandLine:
    night.environ(TERM="xterm-256color", NO_COLOR="")
    return night


def forget_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """As though it were not installed."""
    monkeypatch.delattr("outbox.cli.rich", raising=False)
    monkeypatch.setitem(sys.modules, "outbox.cli.rich", None)


def plain(text: str) -> str:
    return ESCAPES.sub("", text)


def is_one_line(line: str) -> bool:
    """A command is to be copied, and a complaint to be found: the terminal knows that each is one line."""
    return line.lstrip().startswith("-> outbox ") or line.startswith("outbox: ")


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_no_line_is_longer_than_the_terminal(
    terminal: CommandLine, argv: Sequence[str], columns: int
) -> None:
    terminal.environ(COLUMNS=str(columns))
    ran = terminal(*argv, terminal=True)
    lines = [line for text in (ran.out, ran.err) for line in re.split(r"[\r\n]+", plain(text))]
    assert any(lines)
    assert [line for line in lines if width_of(line) > columns and not is_one_line(line)] == []


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_nothing_is_coloured_in_a_pipe(coloured: CommandLine, argv: Sequence[str]) -> None:
    ran = coloured(*argv)
    assert "\x1b" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("variables", "option"),
    [({"NO_COLOR": "1"}, ()), ({"TERM": "dumb"}, ()), ({"TERM": ""}, ()), ({}, ("--plain",))],
    ids=["NO_COLOR", "dumb", "no TERM", "--plain"],
)
@pytest.mark.parametrize("argv", [("status",), ("top", "--once"), ("cancel", *CHANGING)], ids=" ".join)
def test_whoever_wants_no_colours_gets_none(
    coloured: CommandLine, argv: Sequence[str], variables: dict[str, str], option: Sequence[str]
) -> None:
    coloured.environ(**variables)
    ran = coloured(*option, *argv, terminal=True)
    assert "\x1b" not in ran.out + ran.err


@pytest.mark.parametrize(
    "argv", [each for each in COMMANDS if each[0] not in ("cancel", "wait")], ids=" ".join
)
def test_only_what_a_theme_adapts_is_used_and_never_changes_what_is_said(
    coloured: CommandLine, argv: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, room = dt.datetime.now(dt.UTC), shutil.disk_usage(coloured.home)
    monkeypatch.setattr(SystemClock, "now", lambda _: now)
    # Others write to the same disk meanwhile.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    dressed = coloured(*argv, terminal=True).out
    bare = coloured("--plain", *argv, terminal=True).out
    assert set(ESCAPES.findall(dressed)) <= {"1", "1;31", "35", "0"}
    assert plain(dressed) == bare


def test_what_is_dead_or_misconfigured_is_red_and_what_is_stopped_magenta(coloured: CommandLine) -> None:
    out = coloured("status", terminal=True).out
    assert re.search(r"\x1b\[1;31mdead *\x1b\[0m", out)
    assert re.search(r"\x1b\[1;31m[^\n]*MISCONFIGURED", out)
    assert "\x1b[35mSTOPPED: queue bulk is paused" in out


def test_what_a_stranger_said_is_not_coloured(coloured: CommandLine) -> None:
    out = coloured("show", "night-0000", terminal=True).out
    assert "\x1b[1;31mdead\x1b[0m: gone@example.org: 550 5.1.1" in out


def test_a_change_of_many_has_a_bar_on_a_terminal_that_can_show_one(coloured: CommandLine) -> None:
    ran = coloured("cancel", *CHANGING, terminal=True)
    assert ran.out == f"{MANY // 2} cancelled\n"
    assert re.search(rf"{MANY // 2} of {MANY // 2} cancelled .*━.* 100 %", plain(ran.err))
    assert set(ESCAPES.findall(ran.err)) <= {"1", "2", "0"}


def test_without_rich_the_same_is_a_line_of_words(
    coloured: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_rich(monkeypatch)
    ran = coloured("cancel", *CHANGING, terminal=True)
    assert f"{MANY // 2} of {MANY // 2} cancelled" in ran.err
    assert "━" not in ran.err


@pytest.mark.parametrize("argv", [("status",), ("list",), ("explain", "night-0001"), ("submit", "--help")])
def test_rich_is_loaded_by_who_writes_to_a_terminal_alone(night: CommandLine, argv: Sequence[str]) -> None:
    program = (
        "import sys; from outbox.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit('rich' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr

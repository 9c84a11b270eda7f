"""The command as a whole: help, options, how it ends whatever happens."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine
from started import PATIENCE

from outbox.cli import main
from outbox.cli.columns import columns, cut
from outbox.cli.exits import Exit, exit_of
from outbox.cli.parser import COMMANDS
from outbox.errors import CorruptRecord, FormatError, RelayUnavailable, StoreFull, StoreUnavailable
from outbox.formats import logfmt


def test_without_a_command_it_explains_itself(outbox: CommandLine) -> None:
    ran = outbox()
    assert (ran.status, ran.err) == (0, "")
    assert all(f"  {name}" in ran.out for name in COMMANDS)
    assert "outbox demo" in ran.out
    assert outbox("--help").out == ran.out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_fits_eighty_columns_in_ascii(outbox: CommandLine, command: str) -> None:
    ran = outbox(*command.split(), "--help")
    assert ran.status == 0
    assert ran.out.isascii()
    assert [line for line in ran.out.splitlines() if len(line) > 80] == []


def test_the_version_is_the_distributions(outbox: CommandLine) -> None:
    assert outbox("--version").out.startswith("outbox 0.")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["drian"], "did you mean 'drain'?"),
        (["\x1b[31m"], r"x1b[31m"),
        (["--stroe", "x", "list"], "--stroe"),
        (["--store"], "--store"),
        (["list", "surplus"], "surplus"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_64(outbox: CommandLine, argv: list[str], says: str) -> None:
    ran = outbox(*argv)
    assert (ran.status, ran.out) == (64, "")
    assert says in ran.complaint


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CorruptRecord("x"), Exit.IO_ERROR),
        (FormatError("x"), Exit.CONFIGURATION),
        (StoreFull("x"), Exit.TEMPORARY),
        (StoreUnavailable("x"), Exit.TEMPORARY),
        (RelayUnavailable("mx", "x"), Exit.TEMPORARY),
    ],
)
def test_an_error_ends_with_the_status_that_says_who_mends_it(error: Exception, status: Exit) -> None:
    assert exit_of(error) is status  # type: ignore[arg-type]  # all of them are OutboxErrors


def test_what_may_not_be_opened_is_for_a_person_to_mend() -> None:
    error = StoreUnavailable("x")
    error.__cause__ = PermissionError()
    assert exit_of(error) is Exit.CONFIGURATION
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect("/no/such/directory/x.db")
    error.__cause__ = caught.value
    assert exit_of(error) is Exit.CONFIGURATION


def test_a_bug_is_one_line_and_70_and_its_traceback_is_to_be_had(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr("outbox.cli.list_.browsable", broken)
    outbox.submit("ann@example.org")
    ran = outbox("list")
    assert ran.status == 70
    assert r"ZeroDivisionError: by\nnought" in ran.complaint
    assert "Traceback" in outbox("list", "-vv").err
    outbox.environ(OUTBOX_DEBUG="1")
    assert "Traceback" in outbox("list").err


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError(), BlockingIOError(11, "Try again")]
)
def test_a_machine_that_is_at_its_limits_is_no_bug(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object) -> None:
        raise error

    outbox.submit("ann@example.org")
    monkeypatch.setattr("threading.Thread.start", broken)
    ran = outbox("drain", "--transport", "smtp://localhost:1")
    assert (ran.status, "bug" in ran.complaint) == (75, False)


def test_a_reader_who_leaves_is_no_error(outbox: CommandLine) -> None:
    outbox.submit("ann@example.org")
    read, write = os.pipe()
    os.close(read)
    process = outbox.start("list", stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (141, b"")


def test_a_terminal_that_knows_only_ascii_gets_escapes(outbox: CommandLine, tmp_path: Path) -> None:
    outbox.submit("ann@example.org", attribute="name=J\u00fcrgen", id="order-1042")
    process = outbox.start("show", "order-1042", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")
    assert rb"name=J\xfcrgen" in out


def test_the_log_of_the_library_is_left_as_it_was() -> None:
    log = logging.getLogger("outbox")
    before = (list(log.handlers), log.level, log.propagate)
    main(["list", "--store", "sqlite:////no/such.db"])
    assert (list(log.handlers), log.level, log.propagate) == before


def test_a_small_command_loads_neither_the_transport_nor_the_tests_tools(tmp_path: Path) -> None:
    code = (
        "import sys; from outbox.cli import main; main(['status', '--store', 'sqlite:////no/such.db'])\n"
        "heavy = {'smtplib', 'ssl', 'email', 'hypothesis', 'pytest', 'outbox.transports.smtp', 'outbox.testing'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


# -- the pieces of the output


def test_columns_align_also_where_letters_are_wide() -> None:
    lines = columns(("TO", "N"), [("\u6771\u4eac", "1"), ("ann", "22")], right=("N",))
    assert lines == ["TO     N", "\u6771\u4eac   1", "ann   22"]


def test_a_cut_text_is_never_wider_than_asked() -> None:
    for width in range(1, 12):
        assert len(cut("a rather long text", width)) <= width
    assert cut("\u6771\u4eac\u6771\u4eac", 5) == "\u6771\u4eac\u2026"
    assert cut("short", 5) == "short"


def test_a_log_line_can_not_be_forged() -> None:
    line = logfmt({"to": "ann@x", "reply": 'a "b"\nid=forged c=d', "empty": ""})
    assert line == r'to=ann@x reply="a \"b\"\\nid=forged c=d" empty=""'

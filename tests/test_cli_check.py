"""`outbox check` for a monitor: a line, a status, numbers; and each thing that it looks at."""

from __future__ import annotations

import datetime as dt
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from outbox.cli import installed, originating
from outbox.cli.verdict import Due, headline
from outbox.clock import SystemClock
from outbox.locate import Config
from outbox.message import Message
from outbox.protocols import Finding, Suspension
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import ManualClock, SMTPSink

LONG_AGO = dt.timedelta(minutes=25)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, outbox: CommandLine) -> None:
    """Nothing of the machine itself is found wrong."""
    monkeypatch.setattr(originating, "SYSTEM_ALIASES", outbox.home / "none")
    monkeypatch.setattr(installed, "_others", lambda _home: set())


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(outbox.path)) as store:
        yield store


def put(outbox: CommandLine, *, ago: dt.timedelta, number: int = 1) -> None:
    with closing(SQLiteStore(outbox.path, clock=ManualClock(SystemClock().now() - ago))) as store:
        store.put([Message(recipients=("ann@example.org",), content=b"x") for _ in range(number)])


def found(outbox: CommandLine, text: str) -> list[str]:
    """The levels of what is found with *text* in it."""
    return [each["level"] for each in outbox("check", "--json").data["findings"] if text in each["text"]]


def config(outbox: CommandLine, text: str) -> None:
    (outbox.home / "empty.toml").write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("argv", "level", "status"),
    [
        ((), "WARNING", 1),
        (("--due-warning", "30m"), "OK", 0),
        (("--due-error", "20m"), "ERROR", 2),
    ],
)
def test_the_age_of_what_is_due_comes_first_and_says_the_status(
    outbox: CommandLine, argv: tuple[str, ...], level: str, status: int
) -> None:
    put(outbox, ago=LONG_AGO, number=3)
    ran = outbox("check", *argv)
    assert ran.status == status
    first = ran.out.splitlines()[0]
    assert first.startswith(f"OUTBOX {level} - the oldest due has been so for 25 min, in queue mail (3 due)")
    assert re.search(
        r" \| oldest_due=15\d\d;\d+;\d+;0 due=3;;;0 errors=\d;;;0 warnings=\d;;;0$".replace(
            "15\\d\\d", "15\\d\\ds"
        ),
        first,
    )


def test_a_thousand_that_are_on_their_way_are_well(outbox: CommandLine) -> None:
    put(outbox, ago=dt.timedelta(seconds=2), number=1000)
    ran = outbox("check", "--quick")
    assert (ran.status, "(1,000 due)" in ran.out.splitlines()[0]) == (0, True)


def test_the_file_says_which_ages_are_too_old(outbox: CommandLine) -> None:
    put(outbox, ago=LONG_AGO)
    config(outbox, 'due_warning = "1h"\ndue_error = "2h"\n')
    assert outbox("check").status == 0


def test_quiet_says_nothing_where_all_is_well_and_else_what_is_wrong_alone(outbox: CommandLine) -> None:
    put(outbox, ago=dt.timedelta(0))
    assert outbox("check", "-q").out == ""
    put(outbox, ago=LONG_AGO)
    ran = outbox("check", "-q")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["OUTBOX", "warning", "->"]


def test_quick_leaves_out_what_reads_the_whole_store(outbox: CommandLine, store: SQLiteStore) -> None:
    assert "integrity_check" in outbox("check").out
    assert "integrity_check" not in outbox("check", "--quick").out


def test_a_bar_in_a_text_does_not_end_the_words() -> None:
    line = headline([Finding("error", "a|b")], Due(), Config())
    assert line.count("|") == 1


def test_a_pause_without_an_end_is_warned_of_and_one_with_an_end_is_not(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    later = SystemClock().now() + dt.timedelta(hours=1)
    store.suspend(Suspension(kind="queue", value="mail", until=None, reason="moving"))
    store.suspend(Suspension(kind="queue", value="bulk", until=later, reason=""))
    assert found(outbox, "queue mail is paused") == ["warning"]
    assert found(outbox, "queue bulk is paused") == ["ok"]


def test_what_was_written_from_now_is_a_clock_that_is_wrong(outbox: CommandLine) -> None:
    assert found(outbox, "the clock is wrong, or was") == []
    put(outbox, ago=dt.timedelta(hours=-3))
    assert found(outbox, "the clock is wrong, or was") == ["error"]


def test_a_runner_that_spoke_from_now_lives_by_another_clock(outbox: CommandLine, store: SQLiteStore) -> None:
    store.announce("runner-1", "{}", for_=dt.timedelta(seconds=90))
    assert found(outbox, "a runner spoke") == []
    store.announce("runner-1", "{}", for_=dt.timedelta(hours=3))
    assert found(outbox, "a runner spoke 2 h 58 min from now") == ["error"]


def test_a_clock_before_outbox_was_installed_is_wrong(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(outbox, "before outbox was installed") == []
    monkeypatch.setattr(installed, "_installed_at", lambda: SystemClock().now() + dt.timedelta(days=3))
    assert found(outbox, "before outbox was installed") == ["error"]


def test_a_package_of_our_name_elsewhere_on_the_path_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "__init__.py").touch()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    warned = [each.text for each in installed.versions() if each.level == "warning"]
    assert any(str(tmp_path) in text for text in warned)


@pytest.mark.parametrize(
    ("text", "says", "level"),
    [
        ('aliases = "none"', "none", "error"),
        ('aliases = "aliases"', "/aliases: 1 aliases", "ok"),
        ('suppress = "none.txt"', "cannot read the suppression list", "error"),
        ('suppress = "aliases"', "aliases:1", "error"),
        ('hook = "no.such:thing"', "hook: no.such:thing cannot be loaded", "error"),
        ('listeners = ["json:dumps"]', "listeners: json:dumps is there", "ok"),
        ('domain = "a.example"\nbounce = true', "from MAILER-DAEMON@a.example", "ok"),
        ('domain = "a.example"\n[bounce]\nqueue = "slow"', "bounces go to queue slow", "warning"),
        ('domain = "a.example"\n[bounce]\ndelayed = true', "warn_after is not set", "warning"),
        ('log_config = "none.toml"', "cannot read the logging configuration", "error"),
        ('pid_file = "no/pid"', "cannot be written", "warning"),
        ('password_file = "none"', "cannot read the password file", "error"),
        ("soft_bounce = true", "soft_bounce is on", "ok"),
        ("worker = 1", "did you mean 'workers'?", "error"),
    ],
)
def test_what_the_file_names_is_tried(
    outbox: CommandLine, store: SQLiteStore, text: str, says: str, level: str
) -> None:
    (outbox.home / "aliases").write_text("root: ann@example.org\n", "utf-8")
    config(outbox, text)
    assert found(outbox, says) == [level]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_who_else_may_read_or_write_the_files_is_found(outbox: CommandLine, store: SQLiteStore) -> None:
    (outbox.home / "pw").write_text("s3cret\n", "utf-8")
    config(outbox, 'transport = "smtp://a:s3cret@h"\npassword_file = "pw"\n')
    for name in ("pw", "empty.toml"):
        (outbox.home / name).chmod(0o644)
    assert found(outbox, "others may read the password file") == ["warning"]
    assert found(outbox, "holds a password and others may read it") == ["warning"]
    (outbox.home / "empty.toml").chmod(0o602)
    assert found(outbox, "everybody may write") == ["error"]
    assert "s3cret" not in outbox("check").out


def test_every_error_of_the_file_is_a_finding_and_the_rest_is_looked_at(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    config(outbox, "worker = 3\nlease = 0\n")
    data: Any = outbox("check", "--json").data
    assert [each["level"] for each in data["findings"] if "empty.toml:" in each["text"]] == ["error", "error"]
    assert any("integrity_check" in each["text"] for each in data["findings"])


def test_a_check_tells_no_sender_of_anything(outbox: CommandLine) -> None:
    outbox.submit("ann@example.org")
    with SMTPSink() as sink:
        sink.on("rcpt", reply="550 5.1.1 no such user")
        outbox("drain", "--transport", sink.url)
    config(outbox, 'domain = "a.example"\nbounce = true\ntransport = "smtp://localhost"\n')
    outbox("check")
    assert [row["state"] for row in outbox("list", "--json").rows] == ["dead"]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ('due_warning = "2h"\nworkers = 3\ndue_error = "1m"\n', 3),
        ('due_error = "5m"\n', 1),
        ('\ndue_warning = "2h"\n', 2),
    ],
)
def test_a_limit_for_warnings_above_that_for_errors_is_refused_with_both_and_their_line(
    outbox: CommandLine, said: str, line: int
) -> None:
    config(outbox, said)
    for command in ("config", "check"):
        ran = outbox(command)
        assert ran.status != 0
        text = " ".join(ran.out.split())
        assert f"empty.toml:{line}: due_warning (" in text
        assert ") is above due_error (" in text
    assert outbox("status").status == 78


def test_so_is_one_that_an_option_sets_above_the_other(outbox: CommandLine) -> None:
    for command in ("config", "check"):
        ran = outbox(command, "--due-warning", "2h")
        assert ran.status == 78
        assert "due_warning (2 h) is above due_error (1 h)" in " ".join((ran.out + ran.err).split())


def test_damage_that_sqlite_tells_in_several_lines_is_a_finding_each_and_the_first_line_stays_one(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, ago=LONG_AGO, number=300)
    with closing(sqlite3.connect(outbox.path)) as database:
        ((page,),) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'outbox_message'")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with outbox.path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 12)
        file.write(b"\x0f\xff" * 3)
    ran = outbox("check")
    first, *others = ran.out.splitlines()
    assert first.startswith("OUTBOX ERROR - ")
    assert " | oldest_due=" in first or "is not known" in first
    assert len([line for line in others if line.startswith("error ")]) >= 2
    assert all(line.startswith(("ok ", "warning ", "error ", "         -> ")) for line in others)


def test_a_finding_of_a_store_is_one_line_whatever_it_holds(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteStore, "check", lambda _self: [Finding("error", "page 3:\nrow 1 | gone\x1b")])
    first, *others = outbox("check").out.splitlines()
    assert "1 error: page 3:\\nrow 1 / gone\\x1b |" in first
    assert "error    page 3:\\nrow 1 | gone\\x1b" in others

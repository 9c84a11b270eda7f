"""`outbox top`: what it shows, on a real terminal, and how it gives that back."""

from __future__ import annotations

import codecs
import contextlib
import datetime as dt
import fcntl
import json
import os
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest
from bad_night import LONG, fill
from command_line import CommandLine

from outbox import Message, Outbox, PermFailed, RetryPolicy
from outbox.cli.columns import width_of
from outbox.cli.failing import failures
from outbox.cli.picture import Section, Trend, fitted
from outbox.lifecycle import State
from outbox.protocols import QueueCount, SupportsBrowse
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.recording import RecordingTransport

PATIENCE = 180.0
OTHER_SCREEN, BACK = "\x1b[?1049h", "\x1b[?25h\x1b[?1049l"
HOME = "\x1b[H"


CONTROLLED = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "outbox", *sys.argv[1:]])
"""


class Painted:
    """A command on a terminal of its own, whose screens can be waited for."""

    def __init__(self, *argv: str, columns: int = 80, rows: int = 24, shell: bool = False) -> None:
        self._ours, theirs = pty.openpty()
        self.size(columns, rows)
        self.before = termios.tcgetattr(self._ours)
        # A terminal sends signals to who it is the controlling one of; who is to be stopped needs a shell beside.
        program = ["-m", "outbox"] if shell else ["-c", CONTROLLED]
        self.process = subprocess.Popen(
            [sys.executable, *program, *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"} | {"COLUMNS": "", "LINES": ""},
            process_group=0 if shell else None,
        )
        os.close(theirs)
        self.said = ""
        # What is read may end within a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._ours)

    def size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    @property
    def mode(self) -> object:
        return termios.tcgetattr(self._ours)

    def wait_for(self, words: str, after: int = 0) -> int:
        """Until it has painted *words*, beyond so many characters; where they end."""
        while words not in self.said[after:]:
            assert self._more(), self.said[after:]
        return self.said.index(words, after) + len(words)

    def ended(self) -> int:
        while self._more():
            pass
        return self.process.wait(PATIENCE)

    def screen(self, after: int = 0) -> list[str]:
        """The lines of the last one that is whole."""
        whole = self.said[after:].partition(BACK)[0].rpartition("\x1b[J")[0].rpartition(HOME)[2]
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in whole.split("\r\n")]

    def _more(self) -> bool:
        assert select.select([self._ours], [], [], PATIENCE)[0], f"nothing more after {self.said!r}"
        try:
            found = os.read(self._ours, 65536)
        except OSError:  # what Linux calls the end of a terminal
            return False
        self.said += self._decoder.decode(found)
        return bool(found)


@pytest.fixture
def night(outbox: CommandLine) -> CommandLine:
    with contextlib.closing(SQLiteStore(outbox.path)) as store:
        fill(store)
    return outbox


@pytest.fixture
def top(night: CommandLine) -> Iterator[Painted]:
    with Painted("top", "--interval", "1h") as painted:
        painted.wait_for("\x1b[J")
        yield painted


# -- the terminal


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03", b"\x04"], ids=["q", "Q", "Ctrl-C", "Ctrl-D"])
def test_a_key_ends_it_and_the_terminal_is_as_it_was(top: Painted, key: bytes) -> None:
    assert top.mode != top.before
    top.press(key)
    assert top.ended() == 0
    assert top.said.endswith(BACK)
    assert top.said.count(OTHER_SCREEN) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(top: Painted, number: int) -> None:
    top.process.send_signal(number)
    assert top.ended() == 128 + number
    assert top.said.endswith(BACK)


def test_its_mode_is_given_back_with_the_screen(night: CommandLine) -> None:
    """Seen from the shell that started it: the terminal is still there then."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "outbox", "top", "-n", "2", "--interval", "0.1s"],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm"},
        )
        assert process.wait(PATIENCE) == 0, process.stderr
        assert process.stderr is not None
        process.stderr.close()
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(theirs)
        os.close(ours)


def test_the_space_bar_looks_at_once(night: CommandLine, top: Painted) -> None:
    with contextlib.closing(SQLiteStore(night.path)) as store:
        store.put([Message(recipients=["new@example.org"], sender="", content=b"", queue="brandnew")])
    seen = len(top.said)
    top.press(b" ")
    top.wait_for("brandnew", seen)


def test_another_size_is_painted_at_once_and_nothing_wraps(top: Painted) -> None:
    for columns, rows in ((100, 40), (60, 12), (200, 60), (20, 3)):
        seen = len(top.said)
        top.size(columns, rows)
        top.wait_for("\x1b[J", seen)
        lines = top.screen(seen)
        assert len(lines) <= rows
        assert max(map(width_of, lines)) <= columns


def test_it_rests_and_comes_back(night: CommandLine) -> None:
    with Painted("top", "--interval", "1h", shell=True) as top:
        top.wait_for("\x1b[J")
        # Ctrl-Z is the same to it.
        top.process.send_signal(signal.SIGTSTP)
        seen = top.wait_for(BACK)
        pid, status = os.waitpid(top.process.pid, os.WUNTRACED)
        assert (pid, os.WIFSTOPPED(status)) == (top.process.pid, True)
        top.process.send_signal(signal.SIGCONT)
        top.wait_for("\x1b[J", top.wait_for(OTHER_SCREEN, seen))
        top.press(b"q")
        assert top.ended() == 0


# -- a store that is not well


def test_a_store_that_is_gone_is_named_and_the_last_picture_stays(night: CommandLine, top: Painted) -> None:
    night.path.rename(night.home / "elsewhere.db")
    top.press(b" ")
    top.wait_for("QUEUE", top.wait_for("CANNOT LOOK"))
    seen = top.wait_for("\x1b[J", len(top.said) - 3)
    (night.home / "elsewhere.db").rename(night.path)
    top.press(b" ")
    top.wait_for("\x1b[J", seen)
    assert "CANNOT LOOK" not in top.said[seen:]


def test_a_store_that_is_locked_is_named_and_keys_are_heard(night: CommandLine, top: Painted) -> None:
    with contextlib.closing(sqlite3.connect(night.path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        top.press(b" ")
        top.wait_for("CANNOT LOOK")
        top.press(b"q")
        assert top.ended() == 0


def test_a_store_that_was_never_there_is_an_error_as_anywhere(outbox: CommandLine) -> None:
    ran = outbox("top", "--once")
    assert ran.status != 0
    assert "there is no" in ran.complaint


# -- where there is no terminal


def test_into_a_pipe_pictures_stand_one_below_the_other_whole(night: CommandLine) -> None:
    ran = night("top", "-n", "2", "--interval", "0.1s")
    assert ran.status == 0
    assert ran.out.count("outbox top   sqlite:") == 2
    assert ran.out.count(f"\n{LONG} ") == 2
    assert "\x1b" not in ran.out
    assert "…" not in ran.out


def test_a_dumb_terminal_is_written_to_as_a_pipe_is(night: CommandLine) -> None:
    night.environ(TERM="dumb")
    ran = night("top", "-n", "2", "--interval", "0.1s", terminal=True)
    assert ran.out.count("outbox top   sqlite:") == 2
    assert "\x1b" not in ran.out


def test_json_is_a_line_each_time(night: CommandLine) -> None:
    ran = night("top", "--json", "-n", "2", "--interval", "0.1s")
    first, second = map(json.loads, ran.out.splitlines())
    assert set(first) == set(second) == set(night("status", "--json").data) | {"at"}


def test_an_interval_that_is_none_is_refused(outbox: CommandLine) -> None:
    assert "too short" in outbox("top", "--interval", "0.01s").complaint


def test_a_store_that_is_not_there_is_named_as_it_was_written(outbox: CommandLine, tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path}/none.db"
    ran = outbox("top", "--once", "--store", missing)
    assert ran.status == outbox("status", "--store", missing).status
    assert ran.complaint == outbox("status", "--store", missing).complaint
    assert "busy_timeout" not in ran.err


def resting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """In the place of a rest between two pictures *act* happens."""
    event = SimpleNamespace(wait=lambda _seconds: act())
    monkeypatch.setattr("outbox.cli.top.threading", SimpleNamespace(Event=lambda: event))


def test_trouble_names_the_store_as_it_was_written(
    night: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    resting(monkeypatch, lambda: night.path.rename(night.path.with_suffix(".away")))
    ran = night("top", "-n", "2")
    assert "cannot look: " in ran.err
    assert "busy_timeout" not in ran.err


@pytest.mark.parametrize(("terminal", "status"), [(True, 0), (False, 130)])
def test_ctrl_c_ends_it_well_at_any_terminal(
    night: CommandLine, monkeypatch: pytest.MonkeyPatch, terminal: bool, status: int
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    night.environ(TERM="dumb")
    resting(monkeypatch, interrupted)
    assert night("top", terminal=terminal).status == status


# -- the picture


def test_everything_that_needs_a_person_is_on_it(night: CommandLine) -> None:
    out = night("top", "--once").out
    for words in (
        "STOPPED: queue bulk is paused",
        "NOBODY SERVES nobody.serves here: 1 waiting",
        "2 are alive, together: 24.7/s delivered",
        "SILENT for",
        "MISCONFIGURED",
        "smtp.well.example:25 is well, 14 connections",
        "  2  at example.net: 450 4.7.1",
        "by a person: wrong attachment",
        "gone@example.org: 550 5.1.1 no such user",
    ):
        assert words in out, words


def test_the_queue_whose_mail_is_due_for_longest_comes_first(outbox: CommandLine) -> None:
    with contextlib.closing(SQLiteStore(outbox.path)) as store:
        old = Message(id="old", recipients=["a@example.org"], sender="", content=b"", queue="zz")
        store.put([old])
        store.put(
            [Message(recipients=["a@example.org"], sender="", content=b"", queue="aa") for _ in range(9)]
        )
    assert re.search(r"^zz .*^aa ", outbox("top", "--once").out, re.MULTILINE | re.DOTALL)


def count(number: int, *, more: bool = False) -> list[QueueCount]:
    return [QueueCount(queue="mail", state=State.QUEUED, number=number, more=more)]


def test_a_change_is_that_of_the_last_minute() -> None:
    trend = Trend()
    trend.add(0.0, count(100))
    assert trend.of("mail") == ""
    trend.add(30.0, count(160))
    assert trend.of("mail") == "+2.0/s"
    trend.add(90.0, count(150))
    assert trend.of("mail") == "-10.0/min"


def test_a_change_of_what_was_not_counted_is_not_told() -> None:
    trend = Trend()
    trend.add(0.0, count(2_500, more=True))
    trend.add(30.0, count(2_500, more=True))
    trend.add(40.0, count(100))
    assert trend.of("mail") == ""


def test_a_queue_that_is_empty_again_went_down() -> None:
    trend = Trend()
    trend.add(0.0, count(60))
    trend.add(60.0, [QueueCount(queue="mail", state=State.DEAD, number=1)])
    assert trend.of("mail") == "-1.0/s"


def section(title: str, number: int) -> Section:
    return Section(title, [(f"{title} {n}",) for n in range(number)])


def shown(lines: Sequence[Sequence[str]]) -> list[str]:
    return ["".join(line) for line in lines]


def test_the_longest_sections_give_way_first() -> None:
    lines = shown(fitted([section("A", 20), section("B", 3)], 80, 12))
    assert len(lines) == 12
    assert lines[-3:] == ["B 0", "B 1", "B 2"]
    assert "  … and 16 more" in lines


def test_blank_lines_go_where_there_is_little_room() -> None:
    every = [section("A", 9), section("B", 9)]
    assert "" in shown(fitted(every, 80, 12))
    assert shown(fitted(every, 80, 7)) == ["A", "A 0", "A 1", "  … and 7 more", "B", "B 0", "  … and 8 more"]


def test_what_has_room_is_whole() -> None:
    assert shown(fitted([section("A", 3)], 80, 50)) == shown(fitted([section("A", 3)], None, None))


# -- what failed last


class Asked:
    """A store that notes what it was asked."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self.limits: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def browse(self, **asked: object) -> object:
        self.limits.append(asked["limit"])  # type: ignore[arg-type]  # as the store is asked
        return self._store.browse(**asked)  # type: ignore[arg-type]  # the same


def died(path: Path, number: int) -> tuple[SQLiteStore, list[str]]:
    store = SQLiteStore(path)
    mail = [Message(recipients=["gone@example.org"], sender="", content=b"") for _ in range(number)]
    store.put(mail)
    answers = {"gone@example.org": PermFailed("550 no")}
    Outbox(store, RecordingTransport(answers), retry=RetryPolicy(attempts=1)).drain()
    return store, [each.id for each in mail]


def test_of_few_failures_the_last_are_shown_whenever_they_were_submitted(tmp_path: Path) -> None:
    store, _ = died(tmp_path / "a.db", 12)
    with contextlib.closing(store):
        latest = sorted((each.settled_at, each.id) for each in store.browse(states=[State.DEAD]))[-5:]
        found = failures(store, store.count(), dt.datetime.now(dt.UTC))
        assert {each.id for each in found} == {id for _, id in latest}


def test_of_many_failures_some_hundred_are_looked_at(tmp_path: Path) -> None:
    store, ids = died(tmp_path / "a.db", 130)
    with contextlib.closing(store):
        asked = Asked(store)
        assert isinstance(asked, SupportsBrowse)
        found = failures(asked, store.count(), dt.datetime.now(dt.UTC))
        assert len(found) == 5
        assert {each.id for each in found} <= set(ids)
        assert sum(asked.limits) <= 500

"""What a person reads on a screen and copies from it: times in one notation, commands that do what they say."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from command_line import CommandLine

from outbox import Message
from outbox.cli import show
from outbox.cli.columns import Toned
from outbox.stores.sqlite import SQLiteStore


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


@pytest.fixture
def in_nepal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "<+0545>-5:45")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def message(id: str, **attributes: str) -> Message:
    return Message(id=id, recipients=("ann@example.org",), content=b"hi\r\n", attributes=attributes)


@pytest.mark.usefixtures("in_nepal")
def test_every_time_on_a_screen_is_this_machine_s_with_its_offset(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("waits"), message("held")])
    store.hold(["held"])
    assert outbox("suspend", "--queue", "mail", "--for", "2h").status == 0
    for argv in (("show", "waits"), ("show", "held"), ("explain", "waits"), ("status",), ("check",)):
        out = outbox(*argv).out
        assert "UTC" not in out, argv
        assert not re.search(r"\d\d:\d\dZ|\d\d:\d\d:\d\dZ", out), argv
        assert re.search(r" \d\d:\d\d(:\d\d)? \+0545", out), argv


def test_the_hour_of_a_fact_is_not_torn_by_its_weight() -> None:
    text = "queue mail is paused until 2026-11-22 05:10 +0100 (2 h): the relay is moved"
    ((_, weighed, rest),) = show._fact("but", Toned(text, "stopped"), None)
    assert (weighed, rest) == (
        "queue mail is paused until 2026-11-22 05:10 +0100 (2 h)",
        ": the relay is moved",
    )


@pytest.mark.parametrize("value", ["x", "it's", "\x1b[1mx", "a\nb\\'7", "\u202ex", "ü\x85"])
def test_the_command_that_takes_a_suspension_back_takes_it_back(
    outbox: CommandLine, store: SQLiteStore, value: str
) -> None:
    assert outbox("suspend", "--attribute", f"cam={value}").status == 0
    command = outbox("status").out.partition("-> outbox ")[2].splitlines()[0]
    script = "import sys, json; print(json.dumps(sys.argv[1:]))"
    said = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c {shlex.quote(script)} {command}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    assert outbox(*json.loads(said.stdout)).status == 0
    assert not store.suspensions()

"""What is staged waits for a publish or an unstage, and no command that looks takes it for mail that nobody delivers."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import attrs
import pytest
from command_line import CommandLine

from outbox import Message, Outbox
from outbox.cli import installed, originating
from outbox.protocols import Glance
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import ManualClock

MINUTES = dt.timedelta(minutes=5)
DAYS = dt.timedelta(days=2)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, outbox: CommandLine) -> None:
    """Nothing of the machine itself is found wrong."""
    monkeypatch.setattr(originating, "SYSTEM_ALIASES", outbox.home / "none")
    monkeypatch.setattr(installed, "_others", lambda _home: set())


def stage(outbox: CommandLine, *names: str, ago: dt.timedelta = MINUTES) -> None:
    clock = ManualClock(dt.datetime.now(dt.UTC) - ago)
    with closing(Outbox(SQLiteStore(outbox.path, clock=clock))) as staging:
        for name in names:
            staging.stage(Message(id=name, recipients=("ann@example.org",), content=b"x"))


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(outbox.path)) as store:
        yield store


def findings(outbox: CommandLine) -> list[dict[str, Any]]:
    return [each for each in outbox("check", "--json").data["findings"] if "staged" in each["text"]]


@pytest.mark.usefixtures("store")
def test_check_tells_how_many_are_staged_and_since_when_and_warns_of_none(outbox: CommandLine) -> None:
    assert findings(outbox) == []
    stage(outbox, "a", ago=MINUTES * 2)
    stage(outbox, "b")

    (finding,) = findings(outbox)
    assert (finding["level"], finding["advice"]) == ("ok", "")
    assert re.match(r"2 messages are staged, the oldest for 1\d min", finding["text"])


def test_check_warns_of_what_was_staged_so_long_ago_that_its_program_may_have_died(
    outbox: CommandLine,
) -> None:
    stage(outbox, "a", ago=DAYS)

    (finding,) = findings(outbox)
    assert (finding["level"], "died between stage and publish" in finding["advice"]) == ("warning", True)
    assert finding["text"].startswith("1 message is staged, the oldest for 2 d")


def test_of_many_check_says_that_they_were_not_counted_to_the_end(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, store: SQLiteStore
) -> None:
    stage(outbox, "a", "b", ago=DAYS)
    seen = Glance(counts=[attrs.evolve(each, number=1, oldest_at=None, more=True) for each in store.count()])
    monkeypatch.setattr(SQLiteStore, "glance", lambda _self: seen)

    (finding,) = findings(outbox)
    assert finding["level"] == "warning"
    assert finding["text"].startswith("1+ messages are staged, the oldest for 2 d or more")


@pytest.mark.parametrize(("ago", "old"), [(MINUTES, False), (DAYS, True)])
def test_status_tells_it_and_calls_nobody(outbox: CommandLine, ago: dt.timedelta, old: bool) -> None:
    stage(outbox, "a", ago=ago)

    shown = outbox("status").out
    assert "1 message is staged" in shown
    assert ("died between" in " ".join(shown.split())) is old
    assert "NOBODY" not in shown
    assert "NOBODY" not in outbox("top", "--once").out
    data = outbox("status", "--json").data
    assert data["unserved"] == {}
    assert (data["staged"]["number"], data["staged"]["more"]) == (1, False)


@pytest.mark.usefixtures("store")
def test_status_has_nothing_to_say_where_nothing_is_staged(outbox: CommandLine) -> None:
    assert outbox("status", "--json").data["staged"] is None


def test_explain_says_what_ends_it(outbox: CommandLine) -> None:
    stage(outbox, "order-47")
    ran = outbox("explain", "staged-order-47", "--json")

    assert [each["rule"] for each in ran.data["reasons"]] == ["staged"]
    assert ran.data["next"] is None
    shown = outbox("explain", "staged-order-47").out
    assert "the program that staged it publishes it" in " ".join(shown.split())
    assert "outbox run" not in shown


def test_no_list_shows_the_day_on_which_it_would_be_due(outbox: CommandLine) -> None:
    stage(outbox, "order-47")

    for command in (("list",), ("show", "staged-order-47"), ("explain", "staged-order-47")):
        shown = outbox(*command).out
        assert "due" not in shown
        assert "staged" in shown


def test_a_wait_leaves_it_out_and_says_so(outbox: CommandLine, store: SQLiteStore) -> None:
    stage(outbox, "a")

    ran = outbox("wait", "--timeout", "0.05s")
    assert (ran.status, "what is staged was not waited for" in ran.err) == (0, True)
    store.put([Message(recipients=("ann@example.org",), content=b"x")])
    ran = outbox("wait", "--timeout", "0.05s")
    assert (ran.status, "1 are left" in ran.err) == (75, True)


def test_a_wait_that_names_its_queue_waits_for_it(outbox: CommandLine) -> None:
    stage(outbox, "a")

    assert outbox("wait", "--queue", "outbox.staged", "--timeout", "0.05s").status == 75

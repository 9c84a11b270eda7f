"""The command on a Redis server where nothing is yet: each says what a newcomer needs, and one makes the store."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from canaries import BODY
from command_line import CommandLine
from redis_server import shared_url

from outbox.cli import installed
from outbox.testing import SMTPSink

MAIL = f"From: a@example.org\r\nTo: ann@example.org\r\nSubject: x\r\n\r\n{BODY}\r\n".encode()


@pytest.fixture
def url(outbox: CommandLine, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own, where nothing is."""
    monkeypatch.setattr(installed, "_others", lambda _home: set())
    shared = shared_url()
    url = f"{shared}{'&' if '?' in shared else '?'}prefix={uuid.uuid4().hex}"
    outbox.environ(OUTBOX_STORE=url)
    return url


def test_what_looks_before_there_is_anything_says_what_makes_it(outbox: CommandLine, url: str) -> None:
    looked = outbox("check")
    assert looked.status == 2
    assert "there is no store" in looked.out
    for command in ("status", "list"):
        ran = outbox(command)
        assert ran.status == 78
        assert "`outbox migrate` makes one" in ran.complaint
        assert ran.complaint.count("store redis:") + ran.complaint.count("store unix:") == 1


def test_migrate_makes_the_store_and_the_second_time_does_nothing(outbox: CommandLine, url: str) -> None:
    ran = outbox("migrate")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("made the store in ")
    assert outbox("migrate").out.startswith("there was nothing to do")
    assert outbox("migrate", "--json").data == {"done": []}
    assert outbox("status").status == 0
    assert outbox("check").status != 2


REFUSED = (
    "there is a user and no password before the @: write redis://user:password@host, or "
    "redis://:password@host where a server has a password and no users"
)


@pytest.mark.parametrize(
    "name", sorted({"outbox", "store", "pass", "User", "us%65r", *re.findall("[a-z]+", REFUSED)})
)
def test_what_to_write_can_be_read_whatever_the_user_is_called(outbox: CommandLine, name: str) -> None:
    """Though the name may be a password, and is not shown in its place."""
    outbox.environ(OUTBOX_STORE=f"redis://{name}@host/0")

    assert outbox("list").complaint == f"store redis://***@host/0: {REFUSED}"
    assert f"store redis://***@host/0: {REFUSED}" in outbox("check").out


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_a_word_that_may_be_a_password_is_shown_nowhere(outbox: CommandLine, scheme: str) -> None:
    outbox.environ(OUTBOX_STORE=f"{scheme}://c4nary@host/0")

    for ran in (outbox("list"), outbox("check")):
        assert "c4nary" not in ran.out + ran.err


def test_in_sql_there_is_nothing_to_be_done(outbox: CommandLine, url: str) -> None:
    ran = outbox("migrate", "--sql")
    assert ran.status == 69
    assert "has no tables" in ran.complaint
    assert outbox("status").status == 78, "it has made none"


def test_who_makes_the_store_by_the_way_says_so_once(
    outbox: CommandLine, url: str, sink: SMTPSink, tmp_path: Path
) -> None:
    first = outbox("submit", "ann@example.org", stdin=MAIL)
    assert first.status == 0
    assert "there was no store in" in first.err
    assert "a new one is made" in first.err

    second = outbox("drain")
    assert second.status == 0
    assert "there was no store" not in second.err
    assert [message.recipients for message in sink.messages] == [("ann@example.org",)]

"""Real shapes of mail: what is delivered comes out byte for byte, what is refused names its line and rule."""

from __future__ import annotations

import re

import pytest
from corpus_table import HERE, Entry, entries, folder_of_cpython, wire

from outbox.errors import InvalidMessage
from outbox.mail import from_email
from outbox.message import Message
from outbox.testing.clock import ManualClock

ALL = entries()
DELIVERED = [entry for entry in ALL if entry.fate == "delivered"]
REFUSED = [entry for entry in ALL if entry.fate == "refused"]

MESSAGE_ID = re.compile(rb"Message-ID: <[0-9a-f-]{36}@example\.org>")

by_name = pytest.mark.parametrize("entry", DELIVERED, ids=lambda entry: entry.name)


def taken(source: bytes) -> Message:
    return from_email(source, sender="from@example.org", recipients=["to@example.org"], clock=ManualClock())


@by_name
def test_a_delivered_mail_is_kept_byte_for_byte(entry: Entry) -> None:
    source = entry.read()
    content = taken(source).content

    drawn = MESSAGE_ID.match(content)
    added = [drawn[0] if drawn else b"Message-ID: was there", b"Date: Thu, 01 Jan 2026 00:00:00 +0000"]
    assert content == wire(source, added)


@by_name
def test_what_was_taken_once_is_taken_again_without_any_change(entry: Entry) -> None:
    content = taken(entry.read()).content

    assert taken(content).content == content


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry.name)
def test_a_refusal_names_the_line_and_the_rule(entry: Entry) -> None:
    with pytest.raises(InvalidMessage) as refusal:
        taken(entry.read())

    text = str(refusal.value)
    assert text.startswith(f"line {entry.line}: ")
    assert entry.rule in text


def test_every_mail_beside_the_table_is_judged_in_it() -> None:
    assert {entry.path.name for entry in ALL if entry.path.parent == HERE} == {
        path.name for path in HERE.glob("*.eml")
    }


def test_at_least_forty_of_cpython_s_mails_are_delivered() -> None:
    """And those the table does not know, if a later Python brings some, are nobody's promise yet."""
    cpython = [entry for entry in ALL if entry.path.parent == folder_of_cpython()]

    assert len(cpython) == 48
    assert sum(entry.fate == "delivered" for entry in cpython) >= 40


def test_every_judgement_has_its_reason() -> None:
    assert all(
        entry.why and (entry.line > 0) == bool(entry.rule) == (entry.fate == "refused") for entry in ALL
    )


def test_git_leaves_the_line_ends_of_the_corpus_alone() -> None:
    assert b"\r\n" in (HERE / "dkim-signed.eml").read_bytes()
    assert b"\r\n" not in (HERE / "latin1-8bit.eml").read_bytes()
    assert b"\r.\r" in (HERE / "bare-cr.eml").read_bytes()
    assert "*.eml -text" in (HERE / ".gitattributes").read_text()

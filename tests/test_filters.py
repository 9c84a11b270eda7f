"""What a filter takes for the words of a reason."""

from __future__ import annotations

import datetime as dt

import pytest

from outbox.filters import Filter
from outbox.lifecycle import State, Summary


def says(reason: str, text: str) -> bool:
    summary = Summary(
        id="a",
        queue="mail",
        priority=0,
        sender="",
        recipients=(),
        size=0,
        state=State.DEAD,
        fates={},
        submitted_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        reason=reason,
    )
    return Filter(reasons=[text]).fits(summary)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("550 account 15350 is closed, 535", "535"),
        ("535-5.7.8 Username and password not accepted", "535 5.7.8 PASSWORD"),
        ("smtp.example.org:587: cannot connect: timed out", "connect smtp.example.org"),
        ("suspended: domain example.net until 2026-11-22: their move", "suspended: domain example.net"),
        ("suspended: relay *", "suspended: relay *"),
        ("das Postfach von Zoë ist voll", "zoë VOLL"),
        ("quota_exceeded (mailbox)", "quota mailbox"),
        ("anything", ""),
    ],
)
def test_a_reason_is_found_by_its_words_in_any_order_and_case_punctuation_apart(
    reason: str, text: str
) -> None:
    assert says(reason, text)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("550 account 15350 is closed", "535"),
        ("550 5.7.13 no", "5.7.1"),
        ("550 15.7.1 no", "5.7.1"),
        ("552 mailbox full", "mail"),
        ("552 voicemail full", "mail"),
        ("Zoës Postfach", "zoë"),
        ("552 mailbox full", "mailbox fuller"),
    ],
)
def test_a_reason_is_not_found_by_a_piece_of_its_words(reason: str, text: str) -> None:
    assert not says(reason, text)

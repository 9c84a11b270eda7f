"""A message is what the caller said: checked once, and never changed."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Any

import attrs
import pytest

from outbox.errors import InvalidMessage
from outbox.message import Message, new_id
from outbox.testing.clock import ManualClock

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def message(**fields: Any) -> Message:
    fields.setdefault("recipients", ["a@example.org"])
    fields.setdefault("content", b"hello")
    return Message(**fields)


def test_the_defaults_are_a_plain_mail() -> None:
    plain = message()

    assert (plain.queue, plain.priority, plain.sender, plain.at_most_once) == ("mail", 0, "", False)
    assert (plain.not_before, plain.expires_at, dict(plain.attributes)) == (None, None, {})
    assert uuid.UUID(plain.id).version == 7


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"recipients": []}, "at least one recipient"),
        ({"recipients": "a@example.org"}, "one string 'a@example.org'"),
        ({"recipients": b"a@example.org"}, "pass a sequence"),
        ({"recipients": ["a@x", "b@x", "a@x"]}, "'a@x' is named twice"),
        ({"recipients": ["a@x", ""]}, "empty string"),
        ({"recipients": [7]}, "recipient must be a string, not int"),
        ({"recipients": ["a@x\r\nRCPT TO:<b@x>"]}, "line break"),
        ({"recipients": ["a\x00@x"]}, "control character"),
        ({"recipients": ["a\u2028@x"]}, "control character"),
        ({"recipients": ["a\ud800@x"]}, "control character"),
        ({"sender": "a@x\nfoo"}, r"sender 'a@x.+nfoo' holds a line break"),
        ({"sender": None}, "sender must be a string, not NoneType"),
        ({"content": "text"}, "content must be bytes, not str"),
        ({"id": ""}, "id '' is not 1 to 64"),
        ({"id": "A"}, "id 'A' is not"),
        ({"id": "a" * 65}, "is not 1 to 64"),
        ({"id": "a\n"}, "is not 1 to 64"),
        ({"id": 5}, "id '5' is not"),
        ({"queue": "Mail"}, "queue 'Mail' is not"),
        ({"queue": "a/b"}, "queue 'a/b' is not"),
        ({"priority": 101}, "priority 101 is not a whole number from -100 to 100"),
        ({"priority": -101}, "priority -101"),
        ({"priority": 0.5}, "priority 0.5"),
        ({"priority": True}, "priority True"),
        ({"attributes": {"k": 1}}, "attribute 'k': names and values are strings"),
        ({"attributes": {1: "v"}}, "attribute '1'"),
        ({"attributes": {"k": "\ud800"}}, "attribute 'k' holds a lone surrogate"),
        ({"not_before": dt.datetime(2026, 1, 1)}, "not_before .* without a time zone"),  # noqa: DTZ001 - it is what is refused
        (
            {"not_before": dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-5)))},
            "not_before is 9999-12-31T23:59:59.999999-05:00, which UTC has no year for",
        ),
        ({"expires_at": dt.date(2026, 1, 1)}, "expires_at must be an aware datetime, not date"),
        ({"expires_at": dt.datetime(2026, 1, 1)}, "expires_at .* without a time zone"),  # noqa: DTZ001 - it is what is refused
    ],
)
def test_what_breaks_a_rule_is_refused_and_named(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidMessage, match=words):
        message(**bad)


@pytest.mark.parametrize(
    "good",
    [
        {"recipients": ["bücher@example.org", "https://example.org/hook?a=1"]},
        {"recipients": (f"r{n}@example.org" for n in range(1000))},
        {"content": bytearray(b"\x00\xff")},
        {"content": memoryview(b"abc")},
        {"content": b""},
        {"id": "0-_z" * 16},
        {"queue": "mail.bulk_2-x"},
        {"priority": 100},
        {"priority": -100},
        {"attributes": {"": "", "line": "a\nb"}},
    ],
)
def test_what_keeps_the_rules_is_taken_as_it_is(good: dict[str, Any]) -> None:
    message(**good)


def test_the_caller_s_own_objects_may_change_and_the_message_does_not() -> None:
    recipients, content, attributes = ["a@x"], bytearray(b"abc"), {"k": "v"}
    mine = message(recipients=recipients, content=content, attributes=attributes)
    recipients.append("b@x")
    content[0] = 0
    attributes["k"] = "w"

    assert (mine.recipients, mine.content, mine.attributes["k"]) == (("a@x",), b"abc", "v")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        mine.sender = "b@x"  # type: ignore[misc]  # that it is read-only is the point
    with pytest.raises(TypeError):
        mine.attributes["k"] = "w"  # type: ignore[index]  # that it is read-only is the point


def test_instants_are_kept_in_utc() -> None:
    there = dt.timezone(dt.timedelta(hours=5, minutes=30))
    mine = message(not_before=NOON.astimezone(there), expires_at=NOON.astimezone(there))

    assert mine.not_before == mine.expires_at == NOON
    assert mine.not_before is not None
    assert mine.not_before.tzinfo is dt.UTC


def test_its_repr_shows_how_much_content_there_is_and_none_of_it() -> None:
    shown = repr(message(content=b"c4narybody"))

    assert "c4narybody" not in shown
    assert "<10 bytes>" in shown


def test_equal_messages_are_equal_and_hash_alike() -> None:
    one, two = (message(id="a", attributes={"k": "v"}) for _ in range(2))

    assert one == two
    assert hash(one) == hash(two)
    assert one != message(id="b", attributes={"k": "v"})


def test_the_digest_is_of_the_envelope_and_nothing_else() -> None:
    base = message(id="a").envelope_digest

    assert len(base) == 32
    for same in ({"content": b"other"}, {"priority": 5}, {"id": "b"}, {"attributes": {"k": "v"}}):
        assert message(**same).envelope_digest == base
    for other in (
        {"sender": "b@x"},
        {"queue": "other"},
        {"recipients": ["a@example.org", "b@x"]},
        {"recipients": ["a@example.or", "g"]},
    ):
        assert message(**other).envelope_digest != base


def test_no_two_envelopes_run_together_in_the_digest() -> None:
    assert (
        message(sender="ab", recipients=["c"]).envelope_digest
        != message(sender="a", recipients=["bc"]).envelope_digest
    )
    assert message(recipients=["a", "b"]).envelope_digest != message(recipients=["b", "a"]).envelope_digest


# -- ids


def test_ids_sort_by_the_microsecond_they_were_made_in() -> None:
    clock = ManualClock()
    made = []
    for _ in range(3000):
        made.append(new_id(clock))
        clock.advance(dt.timedelta(microseconds=1))

    assert made == sorted(made)


def test_ids_made_at_the_same_instant_differ() -> None:
    clock = ManualClock()

    assert len({new_id(clock) for _ in range(1000)}) == 1000


def test_an_id_is_a_uuid_of_version_7_with_its_time_in_front() -> None:
    moment = dt.datetime(2026, 11, 21, 10, 30, 15, 123_456, tzinfo=dt.UTC)
    text = new_id(ManualClock(moment))
    parsed = uuid.UUID(text)

    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text)
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == int(moment.timestamp() * 1000)
    assert message(id=text).id == text

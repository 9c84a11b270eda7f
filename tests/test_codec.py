"""What is written is read back whole, or not at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from outbox.codec import decode, decode_results, encode, encode_envelope, encode_results, join
from outbox.errors import CorruptRecord, FormatError
from outbox.message import Message
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried

unhurried = settings(deadline=None)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
INSTANTS = st.none() | st.datetimes(
    min_value=dt.datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-9, minutes=-30))]),
    max_value=dt.datetime(2900, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
)
MESSAGES = st.builds(
    Message,
    recipients=st.lists(NAMES, min_size=1, max_size=5, unique=True),
    content=st.binary(max_size=200),
    sender=st.just("") | NAMES,
    queue=st.from_regex(r"\A[a-z0-9._-]{1,64}\Z"),
    priority=st.integers(-100, 100),
    id=st.from_regex(r"\A[a-z0-9_-]{1,64}\Z"),
    attributes=st.dictionaries(
        NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3
    ),
    not_before=INSTANTS,
    expires_at=INSTANTS,
    at_most_once=st.booleans(),
)
PLAIN = Message(recipients=["a@x"], content=b"one\ntwo\n", id="plain")


@unhurried
@given(MESSAGES)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert decode(encode(message)) == message
    assert join(encode_envelope(message), message.content) == message


@unhurried
@given(MESSAGES)
def test_the_envelope_is_one_line_of_json_that_a_person_can_read(message: Message) -> None:
    line = encode_envelope(message)

    assert b"\n" not in line
    fields = json.loads(line)
    assert fields["outbox"] == 2
    assert fields["recipients"] == list(message.recipients)
    assert next(iter(fields)) == "outbox"


def test_what_has_its_default_is_not_written() -> None:
    fields = json.loads(encode_envelope(PLAIN))

    assert set(fields) == {"outbox", "id", "queue", "sender", "recipients", "length", "sha256"}


def test_a_message_without_content_is_a_message() -> None:
    empty = Message(recipients=["a@x"], content=b"")

    assert decode(encode(empty)) == empty


def changed(**fields: Any) -> bytes:
    """The envelope with other fields, and a digest that fits them, unless that is what is changed."""
    envelope = json.loads(encode_envelope(PLAIN))
    del envelope["sha256"]
    digest = fields.pop("sha256", None)
    envelope.update(fields)
    head = json.dumps({name: value for name, value in envelope.items() if value is not ...})[:-1].encode()
    fitting = hashlib.sha256(head + b"\n" + PLAIN.content).hexdigest()
    return head + f',"sha256":"{digest or fitting}"}}'.encode()


def first_format(**fields: Any) -> bytes:
    """An envelope as the first release wrote it."""
    envelope = {
        "outbox": 1,
        "id": "plain",
        "queue": "mail",
        "sender": "",
        "recipients": ["a@x"],
        "length": len(PLAIN.content),
        "sha256": hashlib.sha256(PLAIN.content).hexdigest(),
    }
    return json.dumps(envelope | fields).encode()


def test_what_the_first_release_wrote_is_read() -> None:
    assert join(first_format(), PLAIN.content) == PLAIN
    with pytest.raises(CorruptRecord, match="digest"):
        join(first_format(sha256="0" * 64), PLAIN.content)
    with pytest.raises(CorruptRecord, match="cannot be read"):
        join(first_format(id="UPPER"), PLAIN.content)


@unhurried
@given(MESSAGES, st.data())
def test_a_changed_byte_of_the_envelope_is_noticed(message: Message, data: st.DataObject) -> None:
    envelope = bytearray(encode_envelope(message))
    at = data.draw(st.integers(0, len(envelope) - 1))
    envelope[at] ^= data.draw(st.integers(1, 255))

    try:
        found = join(bytes(envelope), message.content)
    except (CorruptRecord, FormatError):
        return
    assert found == message


@pytest.mark.parametrize(
    ("envelope", "words"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"null", "cannot be read"),
        (b"[1]", "cannot be read"),
        (b'"text"', "cannot be read"),
        (b"{}", "cannot be read"),
        (changed(length=9), "8 bytes, 9 were stored"),
        (changed(sha256="0" * 64), "digest is not the one"),
        (changed(length=...), "cannot be read"),
        (changed(recipients=...), "cannot be read"),
        (changed(recipients=7), "cannot be read"),
        (changed(not_before="yesterday"), "cannot be read"),
        (first_format(not_before="2026-01-01T00:00:00"), "without a time zone"),
        (changed(surprise=1), "cannot be read"),
        (first_format(not_before="9999-12-31T23:59:59-23:00"), "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_what_is_not_an_envelope_is_a_corrupt_record(envelope: bytes, words: str) -> None:
    with pytest.raises(CorruptRecord, match=words):
        join(envelope, PLAIN.content)


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_another_version_is_not_guessed_at(version: object) -> None:
    with pytest.raises(FormatError, match="upgrade"):
        join(changed(outbox=version), PLAIN.content)


@unhurried
@given(MESSAGES.filter(lambda message: message.content), st.data())
def test_a_changed_byte_of_the_content_is_noticed(message: Message, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(message.content) - 1))
    flip = data.draw(st.integers(1, 255))
    content = bytearray(message.content)
    content[at] ^= flip

    with pytest.raises(CorruptRecord):
        join(encode_envelope(message), bytes(content))


@unhurried
@given(MESSAGES, st.data())
def test_a_record_cut_short_is_noticed(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    # An envelope whole but for its line feed is whole, where there is no content.
    if not message.content and cut == len(whole) - 1:
        return

    with pytest.raises(CorruptRecord):
        decode(whole[:cut])


# -- results


REPLIES = st.text(st.characters(categories=["L", "N", "P"]), max_size=30)
RESULTS: st.SearchStrategy[Result] = st.one_of(
    st.builds(Accepted, REPLIES),
    st.builds(PermFailed, REPLIES),
    st.builds(Uncertain, REPLIES),
    *(
        st.builds(kind, REPLIES, st.none() | st.timedeltas(dt.timedelta(0), dt.timedelta(days=400)))
        for kind in (Untried, TempFailed)
    ),
)


@unhurried
@given(st.dictionaries(NAMES, RESULTS, max_size=5))
def test_every_result_comes_back_as_it_was(results: dict[str, Result]) -> None:
    text = encode_results(results)

    assert decode_results(text) == results
    assert list(decode_results(text)) == list(results)


def test_who_refused_is_no_part_of_the_record() -> None:
    ours = {"a": PermFailed("not sent: too big", by_us=True)}

    assert encode_results(ours) == '{"a":["perm","not sent: too big"]}'
    assert decode_results(encode_results(ours)) == ours


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"a": []}',
        '{"a": ["great"]}',
        '{"a": 5}',
        '{"a": ["temp", "x", "y"]}',
        '{"a": ["perm", 5]}',
        '{"a": ["temp", "x", 1e300]}',
        "[" * 100_000,
    ],
)
def test_what_is_not_a_list_of_results_is_a_corrupt_record(text: str) -> None:
    with pytest.raises(CorruptRecord):
        decode_results(text)

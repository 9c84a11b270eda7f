"""What is submitted reaches even a lenient receiver as exactly that message, or is not sent at all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from typing import Any

import pytest
from examples import examples
from hypothesis import given, settings, strategies as st
from mime_trees import leaves_of
from smuggling_corpus import ADDRESSES, ENDS, HEAD, SECOND, VALUES, WIDTHS, contents, sound
from test_smtp_aiosmtpd import Server

from outbox.address import parse_mailbox
from outbox.errors import InvalidMessage
from outbox.mail import from_email
from outbox.message import Message
from outbox.outcome import Accepted, PermFailed
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport

A, S = "a@example.org", "s@example.org"
AFTER = b"Subject: after\r\n\r\nafter\r\n"
PIECES = [b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", SECOND]
HOSTILE = {"a\r\nRCPT TO:<victim@example.org>": "b\r\n.\r\n" + SECOND.decode()}

Arrived = list[tuple[str, tuple[str, ...], bytes]]
"""Sender, recipients and content of each message, as a receiver has them."""


class Lenient:
    """A receiver that takes a bare CR or LF for a line end, and a dot between them for the end of a message."""

    def __init__(self) -> None:
        self.sink = SMTPSink(manners="lenient")
        self.port = self.sink.port

    def arrived(self) -> Arrived:
        assert self.sink.violations == ()
        assert self.sink.connections == 1
        return [(each.sender, each.recipients, each.content) for each in self.sink.messages]

    def close(self) -> None:
        self.sink.close()


class Foreign:
    """A receiver by another author: aiosmtpd."""

    def __init__(self) -> None:
        self.server = Server(enable_SMTPUTF8=True)
        self.port = self.server.port

    def arrived(self) -> Arrived:
        assert self.server.mailbox.sessions == 1
        return [
            (each.mail_from or "", tuple(each.rcpt_tos), each.original_content or b"")
            for each in self.server.mailbox.taken
        ]

    def close(self) -> None:
        self.server.close()


@pytest.fixture(params=[Lenient, Foreign], ids=["lenient", "aiosmtpd"])
def receiver(request: Any) -> Iterator[Lenient | Foreign]:
    with contextlib.closing(request.param()) as running:
        yield running


def ended(content: bytes) -> bytes:
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def overlong(content: bytes) -> bool:
    return max(map(len, content.split(b"\r\n"))) > 998


def delivered(receiver: Lenient | Foreign, messages: Sequence[Message]) -> list[type]:
    """What became of the first recipient of each, over one connection for all of them."""
    with contextlib.closing(SMTPTransport("127.0.0.1", receiver.port)) as transport:
        return [type(transport.deliver(m, m.recipients).results[m.recipients[0]]) for m in messages]


# --- contents ------------------------------------------------------------------------------------


def test_a_corpus_of_contents_over_one_connection_arrives_as_what_was_submitted(
    receiver: Lenient | Foreign,
) -> None:
    corpus = [content for _, content in contents()]
    numbered = [
        Message(
            recipients=[f"r{n}@example.org"], sender=f"s{n}@example.org", content=content, attributes=HOSTILE
        )
        for n, content in enumerate(corpus)
    ]
    results = delivered(receiver, numbered)
    arrived = receiver.arrived()

    assert set(results) == {Accepted, PermFailed}
    taken = [message for message, result in zip(numbered, results, strict=True) if result is Accepted]
    assert [(sender, recipients) for sender, recipients, _ in arrived] == [
        (message.sender, message.recipients) for message in taken
    ]
    for message, (_, _, content) in zip(taken, arrived, strict=True):
        assert sound(message.content)
        assert not overlong(content)
        if overlong(message.content):
            assert leaves_of(content) == leaves_of(ended(message.content))
        else:
            assert content == ended(message.content)


@pytest.mark.parametrize(("name", "content"), [pytest.param(*each, id=each[0]) for each in contents()])
def test_only_what_no_server_could_be_given_is_refused(name: str, content: bytes) -> None:
    message = Message(recipients=[A], sender=S, content=content)
    with (
        SMTPSink(manners="strict") as sink,
        contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport,
    ):
        result = transport.deliver(message, [A]).results[A]

    in_header = overlong(content.partition(b"\r\n\r\n")[0])
    assert isinstance(result, PermFailed if in_header or not sound(content) else Accepted)
    assert isinstance(result, Accepted) or re.search("malformed|998 octets", result.reply)
    assert len(sink.messages) == isinstance(result, Accepted)
    assert sink.violations == ()


def test_what_is_said_in_seven_bits_brings_nothing_else_in_either() -> None:
    corpus = [content for _, content in contents() if sound(content)]
    with SMTPSink(manners="lenient", offers=()) as sink:
        with contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport:
            messages = [Message(recipients=[A], sender=S, content=content) for content in corpus]
            results = [transport.deliver(each, [A]).results[A] for each in messages]

        taken = [
            m.content for m, result in zip(messages, results, strict=True) if isinstance(result, Accepted)
        ]
        assert len(taken) > len(corpus) - len(WIDTHS)
        assert sink.violations == ()
        assert [leaves_of(each.content) for each in sink.messages] == [
            leaves_of(ended(each)) for each in taken
        ]


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_what_is_submitted_is_sound_or_refused_by_its_line(end: bytes) -> None:
    content = HEAD + b"hello" + end + SECOND
    if sound(content):
        message = from_email(content, sender=S, recipients=[A])
        assert message.content.endswith(content)
        return
    with pytest.raises(InvalidMessage, match=r"^line \d+: "):
        from_email(content, sender=S, recipients=[A])


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), min_size=1, max_size=4))
@settings(max_examples=examples(60), deadline=None)
def test_whatever_contents_are_made_of_they_arrive_whole_or_not_at_all(found: list[bytes]) -> None:
    with contextlib.closing(Lenient()) as receiver:
        messages = [Message(recipients=[A], sender=S, content=content) for content in [*found, AFTER]]
        results = delivered(receiver, messages)

        assert [result is Accepted for result in results] == [sound(each.content) for each in messages]
        assert receiver.arrived() == [(S, (A,), ended(m.content)) for m in messages if sound(m.content)]


# --- addresses -----------------------------------------------------------------------------------


def made_by_hand() -> Iterator[Message]:
    """Of every hostile address a message to it and one from it, where there can be one; a good one behind each."""
    for address in ADDRESSES:
        for recipients, sender in (([address], S), ([A], address)):
            with contextlib.suppress(InvalidMessage):
                yield Message(recipients=recipients, sender=sender, content=AFTER)
                yield Message(recipients=[A], sender=S, content=AFTER)


def test_no_address_says_more_than_itself(receiver: Lenient | Foreign) -> None:
    messages = [*made_by_hand()]
    results = delivered(receiver, messages)

    assert set(results) == {Accepted, PermFailed}
    assert set(results[1::2]) == {Accepted}
    assert receiver.arrived() == [
        (message.sender, message.recipients, AFTER)
        for message, result in zip(messages, results, strict=True)
        if result is Accepted
    ]


def refusal(address: str) -> str:
    """Why it cannot be submitted as a recipient, or ``""``."""
    try:
        from_email(AFTER, sender=S, recipients=[address])
    except InvalidMessage as error:
        return str(error)
    return ""


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: repr(address[:60]))
def test_what_is_submitted_names_one_address_or_is_refused_by_name(address: str) -> None:
    if said := refusal(address):
        assert said.startswith("address '")
        assert said.isprintable()
        assert len(said) < 400
        return
    messages = [
        from_email(AFTER, sender=S, recipients=[address]),
        from_email(AFTER, sender=address, recipients=[A]),
    ]
    with contextlib.closing(Lenient()) as receiver:
        assert delivered(receiver, messages) == [Accepted, Accepted]
        arrived = [each[:2] for each in receiver.arrived()]
    # A domain in another script goes by its A-labels, and nothing else is written otherwise.
    known = parse_mailbox(address)
    assert known == address or "@xn--" in known or ".xn--" in known
    assert arrived == [(S, (known,)), (known, (A,))]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_no_value_becomes_two_fields(value: str) -> None:
    with pytest.raises(ValueError, match=r"line|control|return"):
        submitted(value)
    if "\r\n" not in value:
        with pytest.raises(InvalidMessage):
            from_email(f"From: {S}\r\nTo: {A}\r\nSubject: {value}\r\n\r\na\r\n".encode())


def submitted(subject: str) -> Message:
    email = EmailMessage()
    email["From"], email["To"], email["Subject"] = S, A, subject
    return from_email(email)

"""What is submitted reaches even a lenient receiver as exactly that message, or is not sent at all."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings, strategies as st

from outbox.message import Message
from outbox.outcome import Accepted, PermFailed
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport

A, S = "a@example.org", "s@example.org"
SECOND = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nevil\r\n.\r\n"
ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r\n\0.\r\n",
]
PIECES = [b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", SECOND]


def sound(content: bytes) -> bool:
    """Has it neither a bare CR, a bare LF nor a NUL?"""
    return not re.search(rb"[\r\n\0]", content.replace(b"\r\n", b""))


def arrive(*contents: bytes) -> list[bytes]:
    """What a lenient receiver has of these, in order."""
    with SMTPSink(manners="lenient") as sink:
        with contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport:
            for content in contents:
                message = Message(recipients=[A], sender=S, content=content)
                result = transport.deliver(message, [A]).results[A]
                assert isinstance(result, Accepted if sound(content) else PermFailed)
        assert {(each.sender, each.recipients) for each in sink.messages} == {(S, (A,))}
        assert sink.violations == ()
        return [each.content for each in sink.messages]


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_no_end_of_a_content_lets_a_second_message_in(end: bytes) -> None:
    smuggler = b"Subject: a\r\n\r\nhello" + end + SECOND

    assert arrive(smuggler, b"after\r\n") == [*([smuggler] if sound(smuggler) else []), b"after\r\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
@settings(max_examples=60, deadline=None)
def test_whatever_a_content_is_made_of_it_arrives_whole_or_not_at_all(content: bytes) -> None:
    whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"

    assert arrive(content, b"after\r\n") == [*([whole] if sound(content) else []), b"after\r\n"]


@pytest.mark.parametrize(
    "address",
    [
        "a@example.org>\r\nRCPT TO:<victim@example.org",
        "a@example.org\r\nDATA",
        "a@example.org> NOTIFY=NEVER",
        "a@example.org\n",
        "a\0@example.org",
        '"a\r\n"@example.org',
        "a b@example.org",
        "<a@example.org>",
        "x" * 400 + "@example.org",
    ],
    ids=repr,
)
def test_no_address_says_more_than_itself(address: str) -> None:
    with SMTPSink(manners="lenient") as sink:
        with contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport:
            for recipients, sender in (([address], S), ([A], address)):
                try:
                    message = Message(recipients=recipients, sender=sender, content=b"a\r\n")
                except ValueError:
                    continue
                outcome = transport.deliver(message, recipients)
                assert {type(result) for result in outcome.results.values()} == {PermFailed}

        assert sink.messages == ()
        assert sink.violations == ()

"""A server may repeat what it was told in confidence: at whichever step, that is shown nowhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from certificates import Authority
from command_line import CommandLine

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.testing import SMTPSink
from outbox.transports.smtp import SMTPTransport
from outbox.transports.smtp.auth import Password
from outbox.transports.smtp.reply import BadReply, ReplyReader

AUTHORITY: Final = Authority()
PASSWORD: Final = "hunter2-s3cret"
MAIL: Final = Message(
    recipients=("ann@example.org", "bob@example.org"),
    content=b"Subject: x\r\n\r\nhi\r\n",
    sender="s@example.org",
)
REPLIES: Final = [
    *(("mail", f"550 5.7.1 user app with {PASSWORD} may not"), ("mail", f"530 5.7.0 not with {PASSWORD}")),
    *(("rcpt", f"451 4.7.1 not to you, {PASSWORD}"), ("data", f"421 4.3.2 later, {PASSWORD}")),
    *(("dot", f"250 2.0.0 taken from {PASSWORD}"), ("dot", f"550 5.7.1 not from {PASSWORD}")),
    *(("mail", f"hello {PASSWORD}"), ("dot", f"hello {PASSWORD}"), ("data", f"250 hello {PASSWORD}")),
]


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink(starttls=AUTHORITY.server(), users={"app": PASSWORD}) as server:
        yield server


def everything_told(sink: SMTPSink, **settings: Any) -> str:
    """Of a message and the next, over a connection of its own each: results, faults, dialogues."""
    told = ""
    transport = SMTPTransport(
        *(sink.host, sink.port),
        security="starttls",
        ssl_context=AUTHORITY.client(),
        max_messages=1,
        **settings,
    )
    for _ in range(2):
        try:
            outcome = transport.deliver(MAIL, MAIL.recipients)
            told += f"{outcome.results} {outcome.fault} {outcome.dialogue}"
        except RelayFault as fault:
            told += str(fault)
    transport.close()
    return told


@pytest.mark.parametrize(("step", "reply"), REPLIES, ids=lambda text: text[:8])
def test_a_password_that_a_server_repeats_after_the_login_is_told_nowhere(
    sink: SMTPSink, step: Any, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "outbox.transports.smtp")
    sink.on(step, reply="".join(f"{line}\r\n" for line in reply.splitlines()).encode())
    told = everything_told(sink, username="app", password=PASSWORD)

    assert "***" in told
    assert PASSWORD not in told + caplog.text


@pytest.mark.parametrize("step", ["connect", "ehlo"])
def test_nor_is_one_that_the_next_connection_s_greeting_repeats(sink: SMTPSink, step: Any) -> None:
    sink.on(step, reply=f"554 5.7.1 we do not like {PASSWORD}", connection=2)
    told = everything_told(sink, username="app", password=PASSWORD)

    assert "we do not like ***" in told
    assert PASSWORD not in told


def test_nor_is_a_token_of_another_connection() -> None:
    tokens = iter(["first-t0ken", "second-t0ken"])
    with SMTPSink(starttls=AUTHORITY.server(), users={"app": "first-t0ken"}, mechanisms=["XOAUTH2"]) as sink:
        sink.on("connect", reply="554 5.7.1 we do not like first-t0ken", connection=2)
        told = everything_told(sink, username="app", token=lambda: next(tokens))

    assert "we do not like ***" in told


def test_what_the_reply_says_to_a_program_is_not_touched() -> None:
    """Its code, and how many there is room for, are read from what the server said, whatever the password is."""
    reader = ReplyReader(Password("app", "452-4.5.3").scrub)
    reader.feed(b"452 4.5.3 too many, 452-4.5.3\r\n")
    reply = reader.take()

    assert reply is not None
    assert str(reply) == "452 4.5.3 too many, ***"
    assert (reply.code, reply.enhanced) == (452, (5, 3))


def test_a_line_that_is_no_reply_is_told_without_it() -> None:
    reader = ReplyReader(Password("app", PASSWORD).scrub)
    reader.feed(f"you said {PASSWORD}\r\n".encode())
    with pytest.raises(BadReply) as caught:
        reader.take()

    assert caught.value.said == "you said ***"


def test_a_very_short_password_is_not_spelled_by_the_stars() -> None:
    scrub = Password("app", "ok").scrub

    assert scrub("ok, a token") == "***, a token"


def test_no_command_shows_it_and_no_store_holds_it(
    sink: SMTPSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    AUTHORITY.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    sink.on("mail", reply=f"550 5.7.1 not with {PASSWORD}")
    sink.on("ehlo", reply=f"250-mx\n250-STARTTLS\n250-AUTH PLAIN\n250 HELLO {PASSWORD}")
    outbox.environ(
        OUTBOX_TRANSPORT=f"smtp://app@127.0.0.1:{sink.port}?security=starttls&ca_file={tmp_path}/ca.pem",
        OUTBOX_SMTP_PASSWORD=PASSWORD,
    )
    number = outbox.submit("ann@example.org")
    test = ("send-test", "--to", "ann@example.org")
    commands = [
        ["drain"],
        ["show", number],
        ["show", number, "--json"],
        ["list"],
        ["list", "--json"],
        [*test],
    ]
    for command in [*commands, [*test, "--json"], ["-q", *test]]:
        ran = outbox(*command)
        assert "***" in ran.out + ran.err, command
        assert PASSWORD not in ran.out + ran.err, command

    stored = b"".join(path.read_bytes() for path in tmp_path.glob("outbox.db*"))
    assert PASSWORD.encode() not in stored

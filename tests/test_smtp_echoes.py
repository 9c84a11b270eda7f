"""A server may repeat what it was told in confidence: at whichever step, that is shown nowhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote_plus

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
PASSWORD: Final = "hunter2-c4narypassword"
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


@pytest.mark.parametrize(
    "password",
    [PASSWORD, "correct horse battery staple", 'a$b!c&d"e<f>g%h', "pÄsswörtchen", "İstanbul-c4narypassword"],
)
@pytest.mark.parametrize(
    "echo",
    [
        lambda password: password[:-3],
        lambda password: password[1:10],
        str.upper,
        str.lower,
        quote,
        quote_plus,
        lambda password: "".join(f"%{octet:02x}" for octet in password.encode()),
        " ".join,
        lambda password: f"<{password}>",
        lambda password: f"{password[:7]} 5.7.1 {password[7:]}",
    ],
    ids=["cut", "middle", "upper", "lower", "quoted", "plus", "all quoted", "spaced", "bracketed", "lines"],
)
def test_eight_characters_of_it_are_hidden_however_they_are_written(
    password: str, echo: Callable[[str], str]
) -> None:
    said = Password("app", password).scrub(f"5.7.1 what is {echo(password)}, tell me")
    secret = password.lower().replace(" ", "")

    assert said.startswith("5.7.1 what is ")
    assert said.endswith(", tell me")
    assert "***" in said
    shown = unquote_plus(said).lower().replace("5.7.1", "").replace(" ", "")
    assert not any(secret[n : n + 8] in shown for n in range(len(secret) - 7))


def test_what_is_no_piece_of_it_is_shown() -> None:
    scrub = Password("app", PASSWORD).scrub

    assert (
        scrub("100% of hunters keep 2 s3crets, say hunter2") == "100% of hunters keep 2 s3crets, say hunter2"
    )
    assert Password("app", "p4ssw").scrub("P4SSW was p4ss") == "*** was p4ss"


def test_one_that_two_lines_of_a_reply_share_is_shown_in_neither(sink: SMTPSink) -> None:
    reply = f"550-5.7.1 not with {PASSWORD[:7]}\r\n550-5.7.1 {PASSWORD[7:]}\r\n550 5.7.1 sorry\r\n"
    sink.on("rcpt", reply=reply.encode())
    told = everything_told(sink, username="app", password=PASSWORD)

    assert PASSWORD[:7] not in told
    assert PASSWORD[7:] not in told
    assert "550 5.7.1 sorry" in told
    assert "550-***" in told


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

"""SMTPSink, seen by a client of other hands: the standard library's."""

from __future__ import annotations

import datetime as dt
import smtplib
import socket
import threading
from collections.abc import Iterator

import pytest
from certificates import Authority

from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import Answer, Heard, SMTPSink

S, A, B = "s@example.org", "a@example.org", "b@example.org"
CONTENT = b"Subject: a\r\n\r\n.b\r\n"


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink() as server:
        yield server


def client(sink: SMTPSink) -> smtplib.SMTP:
    return smtplib.SMTP(sink.host, sink.port, local_hostname="client.example", timeout=60)


class Line:
    """A client that keeps to no rules."""

    def __init__(self, sink: SMTPSink) -> None:
        self._socket = socket.create_connection((sink.host, sink.port), timeout=60)
        self._file = self._socket.makefile("rb")
        self.greeting = self.hear()

    def say(self, data: bytes) -> bytes:
        self._socket.sendall(data)
        return self.hear()

    def hear(self) -> bytes:
        while (line := self._file.readline())[3:4] == b"-":
            pass
        return line.rstrip(b"\r\n")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def line(sink: SMTPSink) -> Iterator[Line]:
    made = Line(sink)
    yield made
    made.close()


def test_what_was_sent_is_kept_with_its_envelope() -> None:
    clock = ManualClock()
    with SMTPSink(clock=clock) as sink, client(sink) as smtp:
        smtp.sendmail(S, [A, B], CONTENT, mail_options=["BODY=8BITMIME"])

        [received] = sink.messages
        assert (received.sender, received.recipients, received.content) == (S, (A, B), CONTENT)
        assert received.email()["Subject"] == "a"
        assert (received.greeting, received.connection, received.tls, received.user) == (
            "client.example",
            1,
            None,
            None,
        )
        assert received.at == clock.now()
        assert received.options == (f"size={len(CONTENT)}", "BODY=8BITMIME")
        assert sink.violations == ()
        assert sink.commands[0] == "ehlo client.example"


@pytest.mark.parametrize(
    "content", [b"", b".", b"..", b".\r\n.", b"a\r\n.\r\n..\r\n...\r\nb\r\n", b"\r\n\r\n"]
)
def test_dots_are_taken_away_again(sink: SMTPSink, content: bytes) -> None:
    with client(sink) as smtp:
        smtp.sendmail(S, [A], content)

    assert sink.messages[0].content == (content if content.endswith(b"\r\n") else content + b"\r\n")


@pytest.mark.parametrize(
    ("path", "sender"), [("<s@example.org>", S), ('<"a>b"@example.org>', '"a>b"@example.org'), ("<>", "")]
)
def test_a_path_ends_where_its_bracket_closes_whatever_follows(
    line: Line, sink: SMTPSink, path: str, sender: str
) -> None:
    line.say(b"EHLO client.example\r\n")
    line.say(f"MAIL FROM:{path} SIZE=140 AUTH=<>\r\n".encode())
    line.say(b"RCPT TO:<a@example.org>\r\n")
    line.say(b"DATA\r\n")
    line.say(b".\r\n")

    assert [(received.sender, received.options) for received in sink.messages] == [
        (sender, ("SIZE=140", "AUTH=<>"))
    ]
    assert sink.violations == ()


def test_a_rule_answers_for_one_recipient(sink: SMTPSink) -> None:
    sink.on("rcpt", A, reply="550 5.1.1 no such user")
    with client(sink) as smtp:
        refused = smtp.sendmail(S, [A, B], CONTENT)

    assert refused == {A: (550, b"5.1.1 no such user")}
    assert sink.messages[0].recipients == (B,)


def test_a_rule_that_is_used_up_gives_way_to_the_next(line: Line, sink: SMTPSink) -> None:
    sink.on("noop", reply="450 first", times=1)
    sink.on("noop", reply="450 second", times=1)

    assert [line.say(b"NOOP\r\n") for _ in range(3)] == [b"450 first", b"450 second", b"250 2.0.0 done"]


def test_a_hook_is_asked_where_no_rule_answers() -> None:
    heard: list[Heard] = []

    def hook(said: Heard) -> Answer | str | None:
        heard.append(said)
        return "550 5.7.1 never" if said.step == "rcpt" and said.address == A else None

    with SMTPSink(hook=hook) as sink, client(sink) as smtp:
        assert smtp.sendmail(S, [A, B], CONTENT) == {A: (550, b"5.7.1 never")}

    assert [said.step for said in heard] == [
        "connect",
        "ehlo",
        "mail",
        "rcpt",
        "rcpt",
        "data",
        "content",
        "dot",
        "quit",
    ]
    assert heard[4].recipients == ()
    assert heard[5].recipients == (B,)
    assert heard[7].address == S


@pytest.mark.parametrize("step", ["connect", "ehlo", "mail", "rcpt", "data", "content", "dot"])
def test_it_hangs_up_at_any_step(sink: SMTPSink, step: str) -> None:
    sink.on(step, close=True)  # type: ignore[arg-type]  # one of its steps
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)), client(sink) as smtp:
        smtp.sendmail(S, [A], CONTENT)

    # What was neither refused nor answered counts as taken.
    assert len(sink.messages) == (step == "dot")


def test_what_is_refused_is_not_kept(sink: SMTPSink) -> None:
    sink.on("dot", reply="554 5.7.1 spam")
    with client(sink) as smtp, pytest.raises(smtplib.SMTPDataError):
        smtp.sendmail(S, [A], CONTENT)

    assert sink.messages == ()


def test_it_may_be_silent_and_still_stops_at_once(sink: SMTPSink) -> None:
    sink.on("noop")
    line = Line(sink)
    line._socket.sendall(b"NOOP\r\n")
    line._socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        line.hear()
    sink.close()
    line.close()


def test_it_may_cut_and_drip_its_replies(line: Line, sink: SMTPSink) -> None:
    sink.on("noop", reply="250 drop by drop", drip=dt.timedelta(milliseconds=1), times=1)
    sink.on("noop", reply=b"250 hal", close=True, after=dt.timedelta(milliseconds=1))

    assert line.say(b"NOOP\r\n") == b"250 drop by drop"
    assert line.say(b"NOOP\r\n") == b"250 hal"
    assert line.hear() == b""


def test_it_takes_no_more_recipients_than_it_was_told() -> None:
    with SMTPSink(max_recipients=1) as sink, client(sink) as smtp:
        assert smtp.sendmail(S, [A, B], CONTENT) == {B: (452, b"4.5.3 too many recipients")}


def test_it_takes_nothing_that_is_too_large() -> None:
    with SMTPSink(max_size=10) as sink, client(sink) as smtp:
        with pytest.raises(smtplib.SMTPSenderRefused, match="too big"):
            smtp.sendmail(S, [A], CONTENT)
        smtp.mail(S)
        smtp.rcpt(A)
        assert smtp.data(CONTENT) == (552, b"5.3.4 too big")
        assert sink.messages == ()


def test_it_takes_no_more_connections_than_it_was_told() -> None:
    with SMTPSink(max_connections=1) as sink, client(sink):
        with pytest.raises(smtplib.SMTPConnectError, match="too many"):
            client(sink)
        assert sink.connections == 2


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_it_speaks_tls(security: str) -> None:
    authority = Authority()
    context = authority.server()
    with SMTPSink(**{security: context}) as sink:  # type: ignore[arg-type]  # a context by its name
        if security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                sink.host, sink.port, context=authority.client(), timeout=10
            )
        else:
            smtp = client(sink)
            smtp.starttls(context=authority.client())
        with smtp:
            smtp.sendmail(S, [A], CONTENT)

        assert sink.messages[0].tls
        assert sink.url == f"{'smtps' if security == 'tls' else 'smtp'}://127.0.0.1:{sink.port}"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_it_knows_its_users_and_keeps_no_secret(mechanism: str) -> None:
    with SMTPSink(users={"user": "right"}) as sink, client(sink) as smtp:
        smtp.ehlo()
        with pytest.raises(smtplib.SMTPSenderRefused, match="authentication required"):
            smtp.sendmail(S, [A], CONTENT)
        smtp.user, smtp.password = "user", "wr0ng"
        method = getattr(smtp, f"auth_{mechanism.lower()}")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            smtp.auth(mechanism, method)
        smtp.password = "right"
        smtp.auth(mechanism, method)
        smtp.sendmail(S, [A], CONTENT)

        assert sink.messages[0].user == "user"
        assert [command for command in sink.commands if "AUTH" in command] == [f"AUTH {mechanism}"] * 2


def test_it_waits_for_messages_that_are_under_way(sink: SMTPSink) -> None:
    sending = threading.Thread(target=send_three, args=(sink,))
    sending.start()
    messages = sink.wait_for(3)
    sending.join()

    assert len(messages) == 3


def send_three(sink: SMTPSink) -> None:
    with client(sink) as smtp:
        for _ in range(3):
            smtp.sendmail(S, [A], CONTENT)


def test_it_says_how_many_came_where_too_few_did(sink: SMTPSink) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 messages"):
        sink.wait_for(1, timeout=dt.timedelta(0))


@pytest.mark.parametrize(
    ("said", "violation"),
    [
        (b"NOOP\n", "bare LF"),
        (b"FOO\r\n", "no command"),
        (b"MAIL FROM:<a>\r\n", "out of turn"),
        (b"RCPT TO:<a>\r\n", "out of turn"),
        (b"MAIL FROM: <a>\r\n", "no such command"),
        (b"MAIL TO:<a>\r\n", "no such command"),
        (b"DATA\r\nNOOP\r\n", "without waiting"),
    ],
)
def test_it_writes_down_what_a_client_does_wrong(
    line: Line, sink: SMTPSink, said: bytes, violation: str
) -> None:
    line.say(said)

    assert violation in sink.violations[0]


@pytest.mark.parametrize(
    ("content", "violation"),
    [
        (b"a\nb", "bare CR or LF"),
        (b"a\rb", "bare CR or LF"),
        (b"a\0b", "NUL"),
        (b"x" * 999, "998"),
        ("é".encode(), "8BITMIME"),
        ("é\r\n\r\n".encode(), "SMTPUTF8"),
    ],
)
def test_it_writes_down_what_is_wrong_with_a_content(
    line: Line, sink: SMTPSink, content: bytes, violation: str
) -> None:
    for command in (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a>\r\n", b"DATA\r\n"):
        line.say(command)
    line.say(content + b"\r\n.\r\n")

    assert any(violation in found for found in sink.violations)


def test_commands_may_come_together_where_that_is_offered(line: Line, sink: SMTPSink) -> None:
    line.say(b"EHLO x\r\n")
    assert line.say(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n").startswith(b"250")
    assert [line.hear()[:3], line.hear()[:3]] == [b"250", b"354"]
    assert line.say(b".\r\n") == b"250 2.0.0 taken"
    assert sink.violations == ()


def test_where_it_is_not_offered_it_is_a_violation() -> None:
    with SMTPSink(offers=()) as sink:
        line = Line(sink)
        line.say(b"EHLO x\r\n")
        line.say(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\n")
        line.close()

        assert "without waiting" in sink.violations[0]


def test_it_stops_while_clients_are_connected_and_twice_is_harmless() -> None:
    sink = SMTPSink()
    line = Line(sink)
    sink.close()
    sink.close()

    assert line.hear() == b""
    line.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((sink.host, sink.port))


def test_it_listens_where_it_was_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with SMTPSink(port=port) as sink:
        assert sink.port == port
        assert repr(sink) == f"<SMTPSink smtp://127.0.0.1:{port}, 0 messages>"

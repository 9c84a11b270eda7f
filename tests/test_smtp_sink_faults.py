"""SMTPSink as a stage: how it fails on demand, whom it waits for, what it refuses, and what it keeps at most."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import itertools
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

from outbox.errors import ConfigurationError, UnsupportedError
from outbox.testing.smtp_content import ContentReader
from outbox.testing.smtp_sink import Answer, Heard, SMTPSink

A, B, C = "a@example.org", "b@example.org", "c@example.org"
unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


class Caller:
    """A client that says what it likes, and hears whole replies or what there is instead."""

    def __init__(self, sink: SMTPSink) -> None:
        if sink.path:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(sink.path)
        else:
            self.socket = socket.create_connection((sink.host, sink.port))
        self.socket.settimeout(60)
        self.file = self.socket.makefile("rb")

    def hear(self) -> str:
        """The last line of the next reply, without its end."""
        while (line := self.file.readline())[3:4] == b"-":
            pass
        return line.decode().rstrip("\r\n")

    def say(self, *lines: str | bytes) -> str:
        """Say each and hear its reply; the last of them."""
        heard = ""
        for line in lines:
            self.socket.sendall(line if isinstance(line, bytes) else line.encode() + b"\r\n")
            heard = self.hear()
        return heard

    def begin(self, *recipients: str, options: str = "", hello: str = "EHLO") -> str:
        """Everything up to DATA."""
        rcpts = [f"RCPT TO:<{each}>" for each in recipients or (A,)]
        return self.say(f"{hello} client.example", f"MAIL FROM:<s@example.org>{options}", *rcpts, "DATA")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def call() -> Iterator[Callable[[SMTPSink], Caller]]:
    """Connect, and hear the greeting."""
    with contextlib.ExitStack() as stack:

        def call(sink: SMTPSink) -> Caller:
            caller = stack.enter_context(contextlib.closing(Caller(sink)))
            caller.hear()
            return caller

        yield call


Call = Callable[[SMTPSink], Caller]


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink() as server:
        yield server


# --- how it answers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "heard"), [(0, b""), (5, b"250 a"), (-1, b"250 abc\r"), (None, b"250 abc\r\n")]
)
def test_a_reply_is_cut_at_any_byte(sink: SMTPSink, call: Call, cut: int | None, heard: bytes) -> None:
    sink.on("noop", reply="250 abc", cut=cut, close=True)
    caller = call(sink)
    caller.socket.sendall(b"NOOP\r\n")

    assert caller.file.read() == heard


def test_a_reply_may_have_several_lines(sink: SMTPSink, call: Call) -> None:
    sink.on("noop", reply="250-one\n250 two", close=True)
    caller = call(sink)
    caller.socket.sendall(b"NOOP\r\n")

    assert caller.file.read() == b"250-one\r\n250 two\r\n"


def test_a_reply_may_have_no_end(sink: SMTPSink, call: Call) -> None:
    sink.on("noop", reply=itertools.repeat(b"250-more\r\n"))
    caller = call(sink)
    caller.socket.sendall(b"NOOP\r\n")

    assert caller.file.read(10 * 50_000) == b"250-more\r\n" * 50_000


def test_an_end_by_half_still_listens(sink: SMTPSink, call: Call) -> None:
    sink.on("data", reply="354 go on", close="half")
    caller = call(sink)
    caller.begin()
    assert caller.file.read() == b""
    for content in (b"a", b"b"):
        caller.socket.sendall(content + b"\r\n.\r\n")
        caller.socket.sendall(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n")

    assert [received.content for received in sink.wait_for(2)] == [b"a\r\n", b"b\r\n"]


def test_a_reset_is_met_as_one(sink: SMTPSink, call: Call) -> None:
    sink.on("noop", close="reset")
    caller = call(sink)

    with pytest.raises(ConnectionResetError):
        caller.say("NOOP")


def test_it_hangs_up_after_so_many_bytes_of_a_content(sink: SMTPSink, call: Call) -> None:
    sink.on("content", at=8, reply="451 4.3.0 enough", close=True)
    caller = call(sink)
    caller.begin()
    caller.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        caller.say(b"1234567")
    caller.socket.settimeout(60)

    # Its file is of no more use after a timeout.
    caller.socket.sendall(b"8")
    assert caller.socket.recv(100) == b"451 4.3.0 enough\r\n"
    assert sink.messages == ()


def test_of_a_content_that_is_shorter_it_hangs_up_at_the_end(sink: SMTPSink, call: Call) -> None:
    sink.on("content", at=1000, reply="451 4.3.0 enough", close=True)
    caller = call(sink)
    caller.begin()

    assert caller.say(b"a\r\n.\r\n") == "451 4.3.0 enough"
    assert caller.hear() == ""
    assert sink.messages == ()


def test_at_a_gate_before_the_content_it_reads_no_more(sink: SMTPSink, call: Call) -> None:
    caller = call(sink)
    with sink.hold("content") as gate:
        caller.begin()
        caller.socket.sendall(b"a\r\n")
        gate.wait_for(1)
        assert sink.messages == ()

    assert caller.say(b".\r\n") == "250 2.0.0 taken"


def test_what_is_silent_is_let_go_at_the_end(call: Call) -> None:
    came = threading.Event()

    def silent(heard: Heard) -> Answer | None:
        if heard.step != "noop":
            return None
        came.set()
        return Answer(None)

    with SMTPSink(hook=silent) as sink:
        caller = call(sink)
        caller.socket.sendall(b"NOOP\r\n")
        # Hung up on before it was read, the system would answer it by a reset.
        assert came.wait(60)

    assert caller.file.read() == b""


def test_a_rule_passes_some_over(sink: SMTPSink, call: Call) -> None:
    sink.on("noop", reply="450 third", skip=2, times=1)
    caller = call(sink)

    assert [caller.say("NOOP")[:3] for _ in range(4)] == ["250", "250", "450", "250"]


def test_a_rule_is_for_one_connection(sink: SMTPSink, call: Call) -> None:
    sink.on("noop", reply="450 no", connection=2)

    assert [call(sink).say("NOOP")[:3] for _ in range(3)] == ["250", "450", "250"]


def test_a_rule_is_for_those_a_function_names(sink: SMTPSink, call: Call) -> None:
    sink.on("rcpt", lambda address: address.startswith("b"), reply="550 no")
    caller = call(sink)
    caller.begin(A, B, C)
    caller.say(b".\r\n")

    assert sink.messages[0].recipients == (A, C)


def test_it_behaves_again_when_told_to(sink: SMTPSink, call: Call) -> None:
    sink.on("noop", reply="450 no")
    caller = call(sink)
    assert caller.say("NOOP") == "450 no"
    sink.behave()

    assert caller.say("NOOP") == "250 2.0.0 done"


def test_it_forgets_what_came_when_told_to(sink: SMTPSink, call: Call) -> None:
    caller = call(sink)
    caller.begin()
    caller.say(b".\r\n", "FOO")
    sink.clear()

    assert (sink.messages, sink.commands, sink.violations) == ((), (), ())
    caller.say("NOOP")
    assert sink.commands == ("NOOP",)


def test_an_unknown_way_to_close_is_refused(sink: SMTPSink) -> None:
    with pytest.raises(ValueError, match="'gently'"):
        sink.on("noop", close="gently")  # type: ignore[arg-type]  # what a caller without types may say


# --- whom it waits for -------------------------------------------------------------------------


def test_at_a_gate_it_waits_until_that_is_opened(sink: SMTPSink, call: Call) -> None:
    caller = call(sink)
    with sink.hold("dot") as gate:
        caller.begin()
        caller.socket.sendall(b"a\r\n.\r\n")
        gate.wait_for(1)
        # Taken, and not answered: the moment in which a sender cannot know.
        assert len(sink.messages) == 1
        caller.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            caller.socket.recv(1)
    caller.socket.settimeout(60)

    assert caller.socket.recv(100) == b"250 2.0.0 taken\r\n"


def test_a_gate_that_nobody_comes_to_says_so(sink: SMTPSink) -> None:
    gate = sink.hold("dot")
    with pytest.raises(TimeoutError, match="0 of 1 connections"):
        gate.wait_for(1, timeout=dt.timedelta(0))


@pytest.mark.parametrize("let", ["behave", "close"])
def test_nobody_is_left_at_a_gate(call: Call, let: str) -> None:
    with SMTPSink() as sink:
        gate = sink.hold("noop", times=1)
        caller = call(sink)
        caller.socket.sendall(b"NOOP\r\n")
        gate.wait_for(1)
        getattr(sink, let)()
        assert gate.came == 1

    assert caller.file.read() in (b"250 2.0.0 done\r\n", b"")
    sink.hold("noop").pass_through()


def test_it_is_stopped_while_a_hook_and_many_clients_keep_it_busy(call: Call) -> None:
    before = threading.active_count()
    with SMTPSink() as sink:
        sink.on("noop", reply=itertools.repeat(b"x" * 1000))
        callers = [call(sink) for _ in range(20)]
        for caller in callers:
            caller.socket.sendall(b"NOOP\r\n")
        assert sink.connections == 20

    assert threading.active_count() == before


# --- manners -----------------------------------------------------------------------------------

LONG = "x" * 600
RUDE: list[tuple[str, str | bytes, str]] = [
    ("bare LF", b"NOOP\n", "500"),
    ("too long", f"NOOP {LONG}", "500"),
    ("without waiting", b"NOOP\r\nNOOP\r\n", "503"),
    ("without a name", "EHLO", "501"),
    ("256 bytes", f"MAIL FROM:<{'a' * 300}@example.org>", "501"),
    ("which was not offered", "MAIL FROM:<> TRANSID=1", "555"),
    ("which was not offered", "MAIL FROM:<> RET=HDRS", "555"),
    ("not ASCII", "MAIL FROM:<é@example.org>", "553"),
]


@pytest.mark.parametrize(("violation", "said", "code"), RUDE)
def test_a_strict_one_refuses_what_the_usual_one_notes(
    call: Call, violation: str, said: str | bytes, code: str
) -> None:
    for manners in ("strict", "noted"):
        with SMTPSink(manners=manners, offers=("8BITMIME", "SMTPUTF8")) as sink:
            caller = call(sink)
            caller.say("EHLO client.example")
            heard = caller.say(said)
            assert heard[:3] == (code if manners == "strict" else "250")
            assert violation in sink.violations[0]


@pytest.mark.parametrize(
    "content", [b"a\nb", b"a\rb", b"a\0b", b"x" * 999, "é".encode()], ids=["LF", "CR", "NUL", "long", "8-bit"]
)
@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_a_strict_one_takes_no_content_that_breaks_a_rule(call: Call, content: bytes, protocol: Any) -> None:
    with SMTPSink(manners="strict", protocol=protocol) as sink:
        caller = call(sink)
        caller.begin(A, B, hello="LHLO" if protocol == "lmtp" else "EHLO")
        assert caller.say(content + b"\r\n.\r\n").startswith("554 5.6.0 ")
        if protocol == "lmtp":
            assert caller.hear().startswith("554 5.6.0 ")

        assert sink.messages == ()
        assert caller.say("NOOP")[:3] == "250"


def test_a_strict_one_takes_what_breaks_none(call: Call) -> None:
    with SMTPSink(manners="strict") as sink:
        caller = call(sink)
        caller.begin(options=" SIZE=5 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=x")

        assert caller.say("é\r\n.".encode() + b"\r\n")[:3] == "250"
        assert sink.violations == ()


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r.\r"])
def test_a_lenient_one_is_one_that_messages_are_smuggled_into(call: Call, end: bytes) -> None:
    """Which shows that a client does not let them through."""
    smuggled = b"hello" + end + b"NOOP\r\n.\r\n"
    taken = {}
    for manners in ("noted", "lenient"):
        with SMTPSink(manners=manners) as sink:
            caller = call(sink)
            caller.begin()
            caller.say(smuggled)
            taken[manners] = sink.messages[0].content

    assert taken["noted"].endswith(b"NOOP\r\n")
    assert taken["lenient"].rstrip() == b"hello"


def test_a_lenient_one_takes_dots_away_behind_any_line_end(call: Call) -> None:
    with SMTPSink(manners="lenient") as sink:
        caller = call(sink)
        caller.begin()
        caller.say(b"a\n.b\r.c\r\n.d\r\n.\r\n")

        assert sink.messages[0].content == b"a\nb\rc\r\nd\r\n"


@pytest.mark.parametrize("manners", ["noted", "lenient"])
def test_an_end_is_found_however_the_bytes_were_cut(manners: Any) -> None:
    for wire, content in (
        (b".\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
    ):
        buffer = bytearray()
        reader = ContentReader(limit=100, manners=manners, buffer=buffer)
        found = None
        for byte in wire + b"QUIT\r\n":
            buffer.append(byte)
            found = reader.take() if found is None else found

        assert found == content
        assert buffer == b"QUIT\r\n"


def test_a_dot_that_was_not_doubled_is_taken_away_as_servers_do(sink: SMTPSink, call: Call) -> None:
    """RFC 5321 section 4.5.2: a client that forgets it loses its dots."""
    caller = call(sink)
    caller.begin()
    caller.say(b".a\r\n..b\r\n.\r\n")

    assert sink.messages[0].content == b"a\r\n.b\r\n"


def test_what_follows_the_go_ahead_to_tls_in_clear_is_not_obeyed(call: Call) -> None:
    authority = Authority()
    with SMTPSink(starttls=authority.server()) as sink:
        caller = call(sink)
        caller.say("EHLO client.example", b"STARTTLS\r\nNOOP injected\r\n")
        with authority.client().wrap_socket(caller.socket, server_hostname="127.0.0.1") as secured:
            secured.sendall(b"NOOP\r\n")
            assert secured.recv(100) == b"250 2.0.0 done\r\n"

        assert "NOOP injected" not in sink.commands


# --- what it offers ----------------------------------------------------------------------------


def test_it_offers_what_it_was_told_to_and_nothing_else(call: Call) -> None:
    with SMTPSink(offers=("SIZE", "LIMITS RCPTMAX=5", "DSN"), max_size=1234) as sink:
        caller = call(sink)
        caller.socket.sendall(b"EHLO x\r\n")
        lines = [caller.file.readline() for _ in range(4)]

        assert lines[1:] == [b"250-SIZE 1234\r\n", b"250-LIMITS RCPTMAX=5\r\n", b"250 DSN\r\n"]
        assert caller.say("BDAT 5 LAST")[:3] == "500"


def test_what_a_rule_offers_is_what_is_offered(call: Call) -> None:
    with SMTPSink(offers=()) as sink:
        sink.on("ehlo", reply="250-hello\n250 PIPELINING")
        caller = call(sink)
        caller.say("EHLO x", b"MAIL FROM:<>\r\nRCPT TO:<a>\r\n")

        assert sink.violations == ()


def test_the_parameters_of_each_recipient_are_kept(sink: SMTPSink, call: Call) -> None:
    caller = call(sink)
    caller.say("EHLO x", "MAIL FROM:<> RET=HDRS ENVID=q")
    caller.say(f"RCPT TO:<{A}> NOTIFY=NEVER ORCPT=rfc822;a", f"RCPT TO:<{B}>", "DATA", b".\r\n")

    [received] = sink.messages
    assert received.options == ("RET=HDRS", "ENVID=q")
    assert received.recipient_options == {A: ("NOTIFY=NEVER", "ORCPT=rfc822;a")}


def test_the_facts_of_tls_are_kept() -> None:
    authority = Authority()
    with SMTPSink(tls=authority.server()) as sink:
        with smtplib.SMTP_SSL(sink.host, sink.port, context=authority.client(), timeout=60) as smtp:
            smtp.sendmail("s@example.org", [A], b"")

        facts = sink.messages[0].tls
        assert facts is not None
        assert facts.version.startswith("TLSv1.")
        assert facts.cipher
        assert facts.certificate is None


def said(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("mechanism", "initial"),
    [
        ("PLAIN", "\0user\0{}"),
        ("OAUTHBEARER", "n,a=user,\x01host=x\x01auth=Bearer {}\x01\x01"),
        ("XOAUTH2", "user=user\x01auth=Bearer {}\x01\x01"),
    ],
)
def test_every_login_is_noted_without_its_secret(call: Call, mechanism: str, initial: str) -> None:
    with SMTPSink(users={"user": "c4narypassword"}, mechanisms=[mechanism]) as sink:
        caller = call(sink)
        assert caller.say("EHLO x").endswith(f"AUTH {mechanism}")
        heard = caller.say(f"AUTH {mechanism} {said(initial.format('wr0ng'))}")
        if mechanism != "PLAIN":
            assert base64.b64decode(heard[4:]) == b'{"status":"invalid_token"}'
            heard = caller.say("")
        assert heard == "535 5.7.8 wrong"
        assert caller.say(f"AUTH {mechanism}", said(initial.format("c4narypassword"))) == "235 2.7.0 welcome"

        assert [(login.mechanism, login.user, login.accepted) for login in sink.logins] == [
            (mechanism, "user", False),
            (mechanism, "user", True),
        ]
        assert "c4narypassword" not in f"{sink.logins}{sink.commands}{sink!r}"


def test_a_login_can_be_given_up(call: Call) -> None:
    with SMTPSink(users={"user": "c4narypassword"}) as sink:
        caller = call(sink)
        caller.say("EHLO x")

        assert caller.say("AUTH LOGIN", "*")[:3] == "501"
        assert sink.logins == ()
        assert caller.say("AUTH CRAM-MD5")[:3] == "504"


# --- LMTP and Unix sockets ---------------------------------------------------------------------


def test_lmtp_answers_for_each_recipient(call: Call) -> None:
    with SMTPSink(protocol="lmtp") as sink:
        sink.on("dot", B, reply="452 4.2.2 full")
        sink.on("rcpt", C, reply="550 no")
        caller = call(sink)
        caller.begin(A, B, C, "d@example.org", hello="LHLO")
        first = caller.say(b"a\r\n.\r\n")

        assert [first, caller.hear(), caller.hear()] == [
            "250 2.0.0 taken",
            "452 4.2.2 full",
            "250 2.0.0 taken",
        ]
        assert [received.recipients for received in sink.messages] == [(A, "d@example.org")]
        assert sink.url == f"lmtp://127.0.0.1:{sink.port}"


def test_lmtp_takes_nothing_where_it_refuses_everybody(call: Call) -> None:
    with SMTPSink(protocol="lmtp") as sink:
        sink.on("dot", reply="550 no")
        caller = call(sink)
        caller.begin(hello="LHLO")
        caller.say(b".\r\n")

        assert sink.messages == ()


@pytest.mark.parametrize(("protocol", "hello"), [("smtp", "LHLO"), ("lmtp", "EHLO"), ("lmtp", "HELO")])
def test_each_protocol_has_its_own_greeting(call: Call, protocol: Any, hello: str) -> None:
    with SMTPSink(protocol=protocol) as sink:
        assert call(sink).say(f"{hello} x")[:3] == "500"


@unix
def test_it_listens_on_a_unix_socket_and_removes_it(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "sink"
    with SMTPSink(path=path, protocol="lmtp") as sink:
        sink.on("quit", close="reset")
        caller = call(sink)
        caller.begin(hello="LHLO")
        assert caller.say(b"a\r\n.\r\n") == "250 2.0.0 taken"
        assert caller.say("QUIT") == ""
        assert sink.messages[0].content == b"a\r\n"
        assert repr(sink) == f"<SMTPSink {path}, 1 messages>"
        assert sink.url == f"lmtp+unix://{path}"

    assert not path.exists()


def test_without_unix_sockets_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    with pytest.raises(UnsupportedError, match="no Unix sockets"):
        SMTPSink(path=tmp_path / "sink")


# --- bounds ------------------------------------------------------------------------------------


def test_no_more_is_kept_than_there_is_room_for(call: Call) -> None:
    with SMTPSink(room=10) as sink:
        caller = call(sink)
        for code in ("250", "250", "452"):
            caller.begin()
            assert caller.say(b"ab\r\n.\r\n")[:3] == code
        assert len(sink.messages) == 2
        sink.clear()
        caller.begin()
        assert caller.say(b"ab\r\n.\r\n")[:3] == "250"


def test_of_a_content_that_is_too_large_only_the_end_is_looked_for(call: Call) -> None:
    with SMTPSink(max_size=1000) as sink:
        largest = 0

        def watch() -> None:
            nonlocal largest
            sessions = list(sink._sessions)
            largest = max([largest, *(len(session._line.buffer) for session in sessions)])

        caller = call(sink)
        caller.begin()
        for _ in range(200):
            caller.socket.sendall(b"x" * 20_000 + b"\r\n")
            watch()

        assert caller.say(b".\r\n") == "552 5.3.4 too big"
        assert 0 < largest < 300_000
        assert caller.say("NOOP")[:3] == "250"


def test_of_commands_only_the_last_are_kept(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.testing.smtp_ledger._COMMANDS", 3)
    with SMTPSink() as sink:
        caller = call(sink)
        caller.say(*(f"NOOP {n}" for n in range(5)))

        assert sink.commands == ("NOOP 2", "NOOP 3", "NOOP 4")


def test_a_command_without_an_end_ends_the_conversation(sink: SMTPSink, call: Call) -> None:
    caller = call(sink)
    with contextlib.suppress(ConnectionError):
        caller.socket.sendall(b"x" * 20_000)
        caller.file.read()

    assert "without an end" in sink.violations[0]


@pytest.mark.parametrize(
    "settings", [{"protocol": "uucp"}, {"manners": "rude"}, {"mechanisms": ["CRAM-MD5"]}], ids=str
)
def test_what_it_does_not_know_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="none of"):
        SMTPSink(**settings)


def test_a_hundred_clients_at_once_are_all_served(sink: SMTPSink, call: Call) -> None:
    callers = [call(sink) for _ in range(100)]
    for number, caller in enumerate(callers):
        caller.begin(f"r{number}@example.org")
    for caller in callers:
        assert caller.say(b"a\r\n.\r\n") == "250 2.0.0 taken"

    assert {received.recipients[0] for received in sink.messages} == {f"r{n}@example.org" for n in range(100)}

"""`outbox send-test`: one message, its dialogue as it goes, the facts of TLS, and what to do about what is wrong."""

from __future__ import annotations

import datetime as dt
import json
import re
import ssl
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from certificates import LONG_AGO, Authority
from command_line import CommandLine, Ran
from started import PATIENCE

from outbox import Accepted, ChainTransport, Outcome, PermFailed, SMTPTransport
from outbox.cli.advice import _WORDS, Trouble, advice, of_fault, of_result
from outbox.cli.send_test import _certificate, _read
from outbox.errors import ConfigurationError, RelayMisconfigured, RelayUnavailable
from outbox.outcome import Result, TempFailed, Uncertain, Untried
from outbox.testing import SMTPSink
from outbox.transports.smtp.reply import Reply
from outbox.transports.smtp.secured import Secured
from outbox.transports.smtp.steps import Lost, Step
from outbox.transports.smtp.tls import tls_words
from outbox.transports.smtp.transcript import Heard

USUAL: Final = r"\S+ until [-\d]+"
VALID: Final = {
    "expired": r"2001-01-01 until 2001-01-02 \(over\)",
    "early": r"2199-01-01 until 2199-01-02 \(not yet\)",
}
PASSWORD: Final = "c4narypassword-w0rd"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def url(sink: SMTPSink, user: str = "", **options: str) -> str:
    said = "&".join(f"{name}={value}" for name, value in options.items())
    return f"smtp://{user + '@' if user else ''}{sink.host}:{sink.port}{'?' + said if said else ''}"


def ca_file(authority: Authority, folder: Path) -> str:
    path = folder / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(path))
    return str(path)


def words(text: str) -> str:
    """The text without the line ends that the terminal's width makes."""
    return " ".join(text.split())


@pytest.mark.parametrize("wrong", ["smtp://[::1", "smtps://u:p[w@host", "smtp://u:pw℀@host"])
def test_a_url_that_cannot_be_read_is_a_setting_to_be_mended(outbox: CommandLine, wrong: str) -> None:
    ran = outbox("send-test", "--to", "ann@example.org", "--transport", wrong)

    assert (ran.status, ran.out) == (78, "")
    assert "not a URL" in ran.err
    assert "w@" not in ran.err


def test_it_delivers_one_message_that_says_what_it_is(outbox: CommandLine) -> None:
    with SMTPSink(manners="strict") as sink:
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink))
        (received,) = sink.messages
        assert sink.violations == ()

    email = received.email()
    assert (ran.status, ran.err) == (0, "")
    assert received.recipients == ("ann@example.org",)
    assert email["Message-ID"] in ran.out
    assert email["Auto-Submitted"] == "auto-generated"
    assert "This is a test message." in email.get_content()
    assert re.search(r"^accepted +ann@example.org: 250 2.0.0 taken$", ran.out, re.MULTILINE)


def test_it_stores_nothing_and_needs_no_store(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink))

    assert "It is not stored." in ran.out
    assert not outbox.path.exists()


def test_it_shows_the_dialogue_the_tls_and_what_is_offered(
    outbox: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    outbox.environ(OUTBOX_SMTP_PASSWORD=PASSWORD)
    with SMTPSink(starttls=authority.server(), users={"app": PASSWORD}) as sink:
        relay = url(sink, "app", security="starttls", ca_file=ca_file(authority, tmp_path))
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)
    lines = [line[7:] for line in ran.out.splitlines()]

    assert ran.status == 0
    assert lines.index("C: STARTTLS") < lines.index("C: AUTH PLAIN (secret)") < lines.index("C: DATA")
    assert PASSWORD not in ran.out
    assert re.search(r"^TLS +TLS 1\.\d, \w+$", ran.out, re.MULTILINE)
    assert re.search(
        r"^certificate +of .*127\.0\.0\.1.*, from trustme.* until .*; verified$", ran.out, re.MULTILINE
    )
    assert re.search(r"^offers +.*SIZE 67108864.*, AUTH PLAIN LOGIN$", ran.out, re.MULTILINE)


def test_the_dialogue_is_shown_as_it_goes(outbox: CommandLine) -> None:
    with SMTPSink() as sink, sink.hold("dot") as gate:
        running = outbox.start("send-test", "--to", "ann@example.org", "--transport", url(sink))
        gate.wait_for(1)
        assert running.stdout
        seen = b"".join(running.stdout.readline() for _ in range(20))
        gate.open()
        _, err = running.communicate(timeout=PATIENCE)

    assert b"C: DATA" in seen
    assert (running.returncode, err) == (0, b"")


def test_for_a_program_it_is_one_line_of_json(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no such user")
        both = ["--to", "ann@example.org", "--to", "gone@example.org"]
        ran = outbox("send-test", "--json", *both, "--transport", url(sink))
        relay = f"{sink.host}:{sink.port}"

    data = ran.data
    assert ran.status == 1
    assert (data["delivered"], data["relay"], data["tls"]) == (False, relay, None)
    assert data["results"]["ann@example.org"]["result"] == "accepted"
    assert data["results"]["gone@example.org"] == {"result": "refused", "reply": "550 5.1.1 no such user"}
    assert data["offers"]["SIZE"] == "67108864"
    assert data["dialogue"][-1].endswith("250 2.0.0 taken")
    (wrong,) = data["wrong"]
    assert "no such mailbox" in wrong["advice"]


def test_quiet_says_only_what_is_wrong(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        assert outbox("send-test", "-q", "--to", "ann@example.org", "--transport", url(sink)).out == ""
        sink.on("rcpt", reply="550 5.1.1 no such user")
        out = outbox("send-test", "-q", "--to", "ann@example.org", "--transport", url(sink)).out

    assert [line.split()[0] for line in out.splitlines() if line] == ["refused", "->"]


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_what_is_said_afterwards_fits_the_terminal(outbox: CommandLine, width: str) -> None:
    outbox.environ(COLUMNS=width)
    with SMTPSink() as sink:
        sink.on("rcpt", reply="450 4.7.1 " + "see you later, " * 20)
        out = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink), terminal=True).out
    after = out[out.index("\nTLS") :]

    assert max(map(len, after.splitlines())) <= int(width)
    assert "greylisting" in words(after)


# -- from whom


@pytest.mark.parametrize(
    ("options", "sender"),
    [
        (["--from", "shop@example.org"], "shop@example.org"),
        ([], "ann@example.org"),
    ],
)
def test_the_sender_is_whom_one_names_or_the_recipient(
    outbox: CommandLine, options: list[str], sender: str
) -> None:
    with SMTPSink() as sink:
        outbox("send-test", "--to", "ann@example.org", *options, "--transport", url(sink))
        assert sink.messages[0].sender == sender


def test_the_sender_is_postmaster_of_the_domain_that_is_configured(
    outbox: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "empty.toml").write_text('domain = "example.org"\n')
    with SMTPSink() as sink:
        outbox("send-test", "--to", "ann", "--transport", url(sink))
        (received,) = sink.messages

    assert (received.sender, received.recipients) == ("postmaster@example.org", ("ann@example.org",))


def test_the_sender_is_the_login_where_that_is_an_address(
    outbox: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    outbox.environ(OUTBOX_SMTP_PASSWORD=PASSWORD)
    with SMTPSink(tls=authority.server(), users={"app@example.org": PASSWORD}) as sink:
        relay = url(sink, "app%40example.org", security="tls", ca_file=ca_file(authority, tmp_path))
        assert outbox("send-test", "--to", "ann@example.org", "--transport", relay).status == 0
        assert sink.messages[0].sender == "app@example.org"


# -- what is wrong


@pytest.mark.parametrize(
    ("step", "reply", "status", "what"),
    [
        ("connect", "554 5.7.1 dynamic address", 78, "it takes no mail from this machine's address"),
        ("connect", "421 4.3.2 busy", 75, "it cannot take it now"),
        ("mail", "553 5.7.1 sender not owned by you", 1, "say --from"),
        ("mail", "530 5.7.0 authentication required", 78, "it wants a login"),
        ("mail", "530 5.7.0 Must issue a STARTTLS command first", 78, "add security=starttls"),
        ("rcpt", "530 5.7.0 Must issue a STARTTLS command first", 75, "add security=starttls"),
        ("rcpt", "552 5.2.2 mailbox full", 1, "a queue gives up at once"),
        ("connect", "HTTP/1.1 400 Bad Request", 75, "what answers there is no mail server"),
        ("mail", "552 5.3.4 too big", 1, "no message of this size"),
        ("rcpt", "554 5.7.1 Relay access denied", 75, "it does not pass mail on to that domain"),
        ("rcpt", "550 5.1.1 no such user", 1, "it knows no such mailbox"),
        ("rcpt", "450 4.2.0 Greylisted", 75, "it puts off whom it does not know"),
        ("rcpt", "452 4.2.2 over quota", 75, "is full"),
        ("rcpt", "451 4.3.0 broken", 75, "it cannot take it now"),
        ("dot", "554 5.7.1 rejected as spam", 1, "its filter does not trust"),
        ("dot", "550 5.7.26 unauthenticated mail from example.org (DMARC)", 1, "whose domain lists"),
        ("dot", "554 5.6.0 because", 1, "what it said is all there is to know"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(
    outbox: CommandLine, step: Any, reply: str, status: int, what: str
) -> None:
    with SMTPSink() as sink:
        # As bytes: not all of them are replies.
        sink.on(step, reply=reply.encode() + b"\r\n")
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink))

    assert ran.status == status
    assert reply in words(ran.out)
    assert what in words(ran.out[ran.out.index("  -> ") :])


def test_what_was_never_asked_of_it_is_told_so(outbox: CommandLine) -> None:
    with SMTPSink(offers=("8BITMIME",)) as sink:
        ran = outbox(
            "send-test", "--from", "s@example.org", "--to", "jörg@example.org", "--transport", url(sink)
        )

    assert ran.status == 1
    assert "not sent: its header, or that of a part, is not ASCII" in words(ran.out)
    assert "send it through another relay" in words(ran.out)


def test_an_answer_that_never_came_may_be_a_delivery(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        sink.on("dot", close=True)
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink))

    assert ran.status == 75
    assert re.search(r"^uncertain +ann@example.org: connection lost at the final dot", ran.out, re.MULTILINE)
    assert "look whether it has arrived" in ran.out


def test_a_server_that_hangs_up_before_is_told(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        sink.on("data", close=True)
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink))

    assert ran.status == 75
    assert "ended the connection" in ran.out


def test_where_nothing_listens_it_asks_for_the_port(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        relay = url(sink)
    ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)

    assert ran.status == 75
    assert "nothing listens there" in ran.out
    assert "TLS  " not in ran.out, "nothing is said of what did not come to be"
    assert ran.out.endswith("Not delivered: nothing of the message was sent.\n")


def test_a_name_without_an_address_is_told(outbox: CommandLine) -> None:
    ran = outbox("send-test", "--to", "ann@example.org", "--transport", "smtp://nowhere.invalid")

    assert ran.status == 75
    assert "can this machine look names up" in ran.out


def test_a_server_that_waits_for_tls_is_recognised(outbox: CommandLine, authority: Authority) -> None:
    with SMTPSink(tls=authority.server()) as sink:
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink, timeout="0.2s"))

    assert ran.status == 75
    assert "write smtps://" in ran.out


def test_a_wrong_password_is_one_try_and_is_not_shown(
    outbox: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    outbox.environ(OUTBOX_SMTP_PASSWORD="wr0ng-c4narypassword")
    with SMTPSink(starttls=authority.server(), users={"app": PASSWORD}) as sink:
        relay = url(sink, "app", security="starttls", ca_file=ca_file(authority, tmp_path))
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)
        assert len(sink.logins) == 1

    assert ran.status == 78
    assert "was refused by PLAIN: 535 5.7.8 wrong" in ran.out
    assert "app password" in ran.out
    assert "wr0ng-c4narypassword" not in ran.out + ran.err


def test_no_starttls_is_told_and_nothing_is_sent(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink, security="starttls"))
        assert not [line for line in sink.commands if line.startswith("MAIL")]

    assert ran.status == 78
    assert "write smtps:// (port 465)" in ran.out
    assert "in clear" not in ran.out[: ran.out.index("wrong")]


@pytest.mark.parametrize(
    ("name", "fault", "what"),
    [
        ("127.0.0.1", "expired", "its certificate has expired"),
        ("127.0.0.1", "early", "its certificate is not valid yet"),
        ("mx.example.org", "", "its certificate is not for 127.0.0.1"),
        ("127.0.0.1", "unknown", "its certificate is not signed by an authority known here"),
    ],
)
def test_a_bad_certificate_is_told_and_nothing_is_sent(
    outbox: CommandLine, tmp_path: Path, name: str, fault: str, what: str
) -> None:
    authority = Authority()
    options = {} if fault == "unknown" else {"ca_file": ca_file(authority, tmp_path)}
    with SMTPSink(
        starttls=authority.server(name, expired=fault == "expired", early=fault == "early")
    ) as sink:
        relay = url(sink, security="starttls", **options)
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)
        # It is only looked at: no mail, and no password, whatever was believed of it.
        assert not [line for line in sink.commands if line.startswith(("MAIL", "AUTH"))]

    assert ran.status == 78
    assert what in words(ran.out)
    assert "nothing was sent in clear" in ran.out
    assert f"presented a certificate for {name} subject " in words(ran.out)
    assert re.search(r"^  issuer +trustme", ran.out, re.MULTILINE)
    assert re.search(rf"^  valid +from {VALID.get(fault, USUAL)}$", ran.out, re.MULTILINE)
    assert re.search(r"^  SHA-256 +[0-9a-f]{64}$", ran.out, re.MULTILINE)


def test_what_was_presented_is_told_to_a_program_too(
    outbox: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    outbox.environ(OUTBOX_SMTP_PASSWORD=PASSWORD)
    options = {"security": "tls", "ca_file": ca_file(authority, tmp_path)}
    with SMTPSink(tls=authority.server("mx.example.org"), users={"app": PASSWORD}) as sink:
        ran = outbox(
            "--json", "send-test", "--to", "ann@example.org", "--transport", url(sink, "app", **options)
        )
        assert not [line for line in sink.commands if line.startswith(("MAIL", "AUTH"))]
    found = json.loads(ran.out)

    assert found["tls"] is None
    assert found["presented"]["names"] == ["mx.example.org"]
    assert found["presented"]["verified"] is False
    assert "der" not in found["presented"]


def test_a_certificate_that_cannot_be_read_has_a_digest() -> None:
    secured = Secured(version="TLSv1.3", cipher="X", fingerprint="abc")

    assert [*_read(secured, LONG_AGO)] == [("presented", "a certificate that cannot be read, SHA-256 abc")]


def test_where_it_does_not_speak_tls_nothing_was_presented(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink, security="tls"))

    assert "presented" not in ran.out


def test_a_certificate_that_nobody_verified_is_told_so(outbox: CommandLine, authority: Authority) -> None:
    with SMTPSink(starttls=authority.server()) as sink:
        ran = outbox(
            "send-test", "--to", "ann@example.org", "--transport", url(sink, security="opportunistic")
        )

    assert ran.status == 0
    assert "NOT VERIFIED" in ran.out


def test_a_certificate_that_ends_soon_is_told() -> None:
    secured = Secured(version="TLSv1.3", cipher="X", verified=True, names=("a",), issuer="b", until=LONG_AGO)

    assert "renew it soon" in _certificate(secured, LONG_AGO - dt.timedelta(days=9))
    assert "renew it soon" not in _certificate(secured, LONG_AGO - dt.timedelta(days=90))


# -- other transports


class _Pigeon:
    """A transport that is not SMTP."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def deliver(self, message: Any, recipients: Any, /) -> Outcome:
        result: Result = PermFailed("\x1bno") if self.answer == "no" else Accepted("cooed")
        return Outcome(results=dict.fromkeys(recipients, result), relay="loft")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("answer", "status"), [("yes", 0), ("no", 1)])
def test_another_transport_is_told_of_plainly(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setitem(sys.modules, "pigeon", types.ModuleType("pigeon"))
    monkeypatch.setattr(sys.modules["pigeon"], "loft", _Pigeon, raising=False)
    ran = outbox("send-test", "--to", "ann@example.org", "--transport", f"python:pigeon:loft?answer={answer}")

    assert ran.status == status
    assert ("accepted     ann@example.org: cooed" in ran.out) == (status == 0)
    assert "TLS" not in ran.out
    assert "\x1b" not in ran.out


def configured(outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, made: Any) -> Callable[..., Ran]:
    """`send-test` through a transport that a program makes."""
    monkeypatch.setitem(sys.modules, "pigeon", types.ModuleType("pigeon"))
    monkeypatch.setattr(sys.modules["pigeon"], "loft", lambda: made, raising=False)
    outbox.environ(OUTBOX_TRANSPORT="python:pigeon:loft")
    return lambda *options: outbox("send-test", "--to", "ann@example.org", *options)


@pytest.mark.parametrize(
    ("answer", "status", "what"),
    [
        (Outcome(results={}), 75, "uncertain ann@example.org: the transport reported nothing"),
        (None, 75, "uncertain ann@example.org: _Odd.deliver returned None"),
        (
            Outcome(results={"ann@example.org": "yes"}, relay="a"),  # type: ignore[dict-item]  # what a stranger may do
            75,
            "uncertain ann@example.org: _Odd.deliver reported a value of type str",
        ),
        (ValueError("kaputt"), 75, "deferred ann@example.org: ValueError: kaputt"),
        (ConfigurationError("no key"), 78, "wrong _Odd: no key"),
    ],
    ids=["nothing", "none", "odd", "exception", "setting"],
)
def test_what_a_transport_should_not_answer_is_taken_as_a_worker_takes_it(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, answer: Any, status: int, what: str
) -> None:
    class _Odd:
        def deliver(self, message: Any, recipients: Any, /) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        def close(self) -> None:
            pass

    ran = configured(outbox, monkeypatch, _Odd())()

    assert ran.status == status
    assert what in words(ran.out)
    assert "bug in outbox" not in ran.err


# -- several relays


def test_what_is_known_of_one_relay_is_said_of_no_other(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, authority: Authority, tmp_path: Path
) -> None:
    with SMTPSink(tls=authority.server()) as first, SMTPSink() as second:
        first.on("rcpt", reply="450 4.7.1 greylisted")
        secure = SMTPTransport(first.host, first.port, security="tls", ca_file=ca_file(authority, tmp_path))
        send = configured(
            outbox, monkeypatch, ChainTransport(secure, SMTPTransport(second.host, second.port))
        )
        ran, told = send(), send("--json").data
        names = [f"{sink.host}:{sink.port}" for sink in (first, second)]
    lines = [line.split(maxsplit=1) for line in ran.out.splitlines()]
    facts = [line for line in lines if line and line[0] in ("relay", "TLS")]

    assert ran.status == 0
    assert facts[0] == ["relay", names[0]]
    assert facts[1][1].startswith("TLS 1.")
    assert facts[2:] == [["relay", names[1]], ["TLS", "none: all of this went in clear"]]
    assert [each["relay"] for each in told["relays"]] == names
    assert [each["tls"] is None for each in told["relays"]] == [False, True]
    assert told["tls"] is None


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        ("550 5.1.1 no such user", "no such mailbox"),
        ("450 4.2.2 over quota", "mailbox, or the server's disk"),
    ],
)
def test_a_refusal_by_one_of_several_relays_is_told_with_what_to_do(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, reply: str, what: str
) -> None:
    with SMTPSink() as first, SMTPSink() as second:
        first.on("rcpt", reply="450 4.7.1 greylisted")
        second.on("rcpt", reply=reply)
        both = [SMTPTransport(sink.host, sink.port) for sink in (first, second)]
        ran = configured(outbox, monkeypatch, ChainTransport(*both))()

    assert f"{second.host}:{second.port}: {reply}; before that" in words(ran.out)
    assert what in words(ran.out)


def test_mail_that_only_a_relay_that_is_down_could_take_is_told_so(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SMTPSink() as gone:
        pass
    with SMTPSink(max_size=10) as small:
        both = [SMTPTransport(sink.host, sink.port) for sink in (small, gone)]
        ran = configured(outbox, monkeypatch, ChainTransport(*both))()

    assert ran.status == 75
    assert "untried ann@example.org: " in words(ran.out)
    assert "the only relay that could take it" in words(ran.out)


def test_it_says_how_long_it_waits_for_who_says_nothing(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink, timeout="7s"))

    assert "(it has 7 s to say who it is)" in ran.out


# -- usage


@pytest.mark.parametrize(
    ("argv", "status", "what"),
    [
        ([], 64, "--to"),
        (["--to", "ann@example.org"], 78, "no transport is named"),
        (["--to", "nonsense", "--transport", "smtp://localhost"], 65, "nonsense"),
        (["--to", "ann@example.org", "--from", "a b", "--transport", "smtp://localhost"], 65, "a b"),
    ],
)
def test_what_cannot_be_understood_is_refused(
    outbox: CommandLine, argv: list[str], status: int, what: str
) -> None:
    ran = outbox("send-test", *argv)

    assert ran.status == status
    assert what in ran.complaint


# -- the advice by itself


def caused(kind: type[RelayUnavailable | RelayMisconfigured], reason: str, *causes: BaseException) -> Trouble:
    fault: BaseException = kind("mx.example.org:25", reason)
    error = fault
    for cause in causes:
        error.__cause__ = cause
        error = cause
    assert isinstance(fault, kind)
    return of_fault(fault)


def test_silence_on_port_25_is_a_provider_that_blocks_it() -> None:
    trouble = caused(RelayUnavailable, "cannot connect: no answer in time", TimeoutError())

    assert "port 25 is most likely blocked" in advice(trouble)


def test_no_way_there_is_a_matter_of_the_network() -> None:
    unreachable = OSError(101, "Network is unreachable")

    assert "no way there" in advice(caused(RelayUnavailable, "cannot connect", unreachable))


@pytest.mark.parametrize("step", [Step.STARTTLS, Step.TLS])
def test_what_nobody_asked_for_before_tls_may_be_injected(step: Step) -> None:
    lost = Lost(step, "the server spoke out of turn", reply=Reply(250, ("evil",)), astray=True)

    assert "may be injecting" in advice(caused(RelayUnavailable, str(lost), lost))


def test_what_is_no_tls_behind_starttls_may_be_injected() -> None:
    error = ssl.SSLError()
    error.reason = "WRONG_VERSION_NUMBER"
    reason = tls_words(error, "mx", Step.STARTTLS)

    assert "may be injecting" in advice(caused(RelayMisconfigured, reason, error))


def test_silence_within_the_handshake_is_no_port_that_waits_for_tls() -> None:
    lost = Lost(Step.TLS, "no answer in time")

    assert "nothing came of the handshake" in advice(
        caused(RelayUnavailable, str(lost), lost, TimeoutError())
    )


def test_a_socket_that_is_missing_is_a_server_that_does_not_run(outbox: CommandLine, tmp_path: Path) -> None:
    ran = outbox("send-test", "--to", "ann@example.org", "--transport", f"smtp+unix:{tmp_path}/none")

    assert "no server listens at that path" in words(ran.out)


def test_a_path_that_is_no_socket_is_told(outbox: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", f"lmtp+unix:{path}")
        assert "a socket (no file, no folder)?" in words(ran.out), path


def test_a_socket_needs_no_tls() -> None:
    trouble = RelayMisconfigured(
        "/run/lmtp", "it does not offer STARTTLS, and nothing was sent in clear: does it …?"
    )

    assert "leave security= out" in advice(of_fault(trouble))


def test_an_address_that_this_machine_has_not_is_none_to_connect_from(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        relay = url(sink, source_address="192.0.2.1")
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)

    assert "name an address of this machine in source_address=" in words(ran.out)


@pytest.mark.parametrize(
    ("name", "fault", "what"),
    [
        ("127.0.0.1", "expired", "have it renewed"),
        ("mx.example.org", "", "as the certificate names it"),
        ("127.0.0.1", "unknown", "add ca_file= to the URL"),
        ("", "", "write smtp://"),
    ],
)
def test_what_is_wrong_with_tls_is_told_with_what_to_do(
    outbox: CommandLine, tmp_path: Path, name: str, fault: str, what: str
) -> None:
    authority = Authority()
    options = {} if fault == "unknown" else {"ca_file": ca_file(authority, tmp_path)}
    server = authority.server(name, expired=fault == "expired") if name else None
    with SMTPSink(tls=server) as sink:
        relay = url(sink, **options).replace("smtp:", "smtps:")
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)

    assert ran.status == 78
    assert what in words(ran.out)


@pytest.mark.parametrize(("token", "what"), [("other", "get a new one"), ("Bearer t0ken", "the token alone")])
def test_a_token_that_is_refused_or_none_is_no_password(
    outbox: CommandLine, authority: Authority, tmp_path: Path, token: str, what: str
) -> None:
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    outbox.environ(OUTBOX_SMTP_TOKEN_FILE=str(tmp_path / "token"))
    with SMTPSink(tls=authority.server(), users={"app": "t0ken"}, mechanisms=["XOAUTH2"]) as sink:
        relay = url(sink, "app", security="tls", ca_file=ca_file(authority, tmp_path))
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)

    assert what in words(ran.out)
    assert "app password" not in words(ran.out)


def test_where_a_transport_of_one_s_own_goes_is_no_secret(outbox: CommandLine) -> None:
    ran = outbox("status", "--transport", "python:a.b:C?host=localhost&port=25")
    other = outbox("status", "--transport", "python:a.b:C?key=x")

    assert "warning" not in ran.err
    assert "OUTBOX_TRANSPORT" in other.err
    assert "PASSWORD_FILE" not in other.err


@pytest.mark.parametrize(
    ("reply", "what"),
    [("550 5.7.1 who are you?", "add local_hostname="), ("500 5.5.2 no such command", "write lmtp://")],
)
def test_a_greeting_that_is_refused_is_told_with_what_it_may_expect(
    outbox: CommandLine, reply: str, what: str
) -> None:
    with SMTPSink() as sink:
        for step in ("ehlo", "helo"):
            sink.on(step, reply=reply)
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", url(sink))

    assert ran.status == 78
    assert what in words(ran.out)


def test_an_ordinary_server_that_is_asked_for_lmtp_is_told(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", f"lmtp://{sink.host}:{sink.port}")

    assert "write smtp://" in words(ran.out)


@pytest.mark.parametrize(
    ("mechanisms", "what"),
    [(["XOAUTH2"], "OUTBOX_SMTP_TOKEN_FILE"), ([], "is it the port for programs with a login")],
)
def test_a_login_that_is_not_offered_is_no_wrong_password(
    outbox: CommandLine, authority: Authority, tmp_path: Path, mechanisms: Any, what: str
) -> None:
    outbox.environ(OUTBOX_SMTP_PASSWORD=PASSWORD)
    users = {"app": PASSWORD} if mechanisms else None
    with SMTPSink(tls=authority.server(), users=users, mechanisms=mechanisms) as sink:
        relay = url(sink, "app", security="tls", ca_file=ca_file(authority, tmp_path))
        ran = outbox("send-test", "--to", "ann@example.org", "--transport", relay)

    assert ran.status == 78
    assert what in words(ran.out)
    assert "app password" not in words(ran.out)


def test_a_number_in_what_is_no_reply_is_no_code() -> None:
    trouble = caused(RelayMisconfigured, "its certificate is not for 10.0.0.250: name the host")

    assert trouble.code is None


def test_a_connection_that_was_lost_at_the_login_may_be_a_wrong_password_and_elsewhere_is_not() -> None:
    at_auth, at_ehlo = (Lost(step, "the server closed it") for step in (Step.AUTH, Step.EHLO))

    assert "where the password is wrong" in advice(caused(RelayUnavailable, str(at_auth), at_auth))
    assert "ended the connection" in advice(caused(RelayUnavailable, str(at_ehlo), at_ehlo))


@pytest.mark.parametrize("words", _WORDS.values())
def test_every_advice_is_a_sentence_without_its_first_letter(words: str) -> None:
    assert words[0].islower() or words[:3].isupper()
    assert words[-1] != "."
    assert len(words) < 300


@pytest.mark.parametrize("result", [Accepted("250 ok"), Untried()])
def test_who_was_accepted_has_no_trouble(result: Any) -> None:
    assert of_result(result, "a", "", []) is None


def test_the_step_of_a_refusal_is_that_of_the_reply() -> None:
    heard = [Heard(Step.MAIL, Reply(250, ("ok",))), Heard(Step.RCPT, Reply(450, ("4.7.1", "no")))]
    found = of_result(TempFailed("450 4.7.1 no"), "ann@example.org", "mx:25", heard)

    assert found is not None
    assert (found.step, found.code, found.enhanced) == (Step.RCPT, 450, "4.7.1")
    assert of_result(Uncertain("cut"), "a", "", heard) is not None

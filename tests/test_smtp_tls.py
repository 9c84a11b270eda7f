"""TLS that does not hold: nothing secret goes out, no message is lost, and a person is told why."""

from __future__ import annotations

import base64
import datetime as dt
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from certificates import Authority, self_signed
from command_line import CommandLine
from tap import Tap

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted
from outbox.stores.memory import MemoryStore
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport, Timeouts

A: Final = "ann@example.org"
CONTENT: Final = b"Subject: plans\r\n\r\nthe content that nobody else may read\r\n"
USER, PASSWORD = "app", "c4narypassword horse battery staple"
SECRETS: Final = (
    PASSWORD.encode(),
    *(base64.b64encode(text.encode()) for text in (PASSWORD, f"\0{USER}\0{PASSWORD}", USER)),
    b"nobody else",
    b"MAIL FROM",
    A.encode(),
)
LOGIN: Final[dict[str, Any]] = {"username": USER, "password": PASSWORD}

AUTHORITY: Final = Authority()
BAD: Final[dict[str, tuple[Callable[[], ssl.SSLContext], str]]] = {
    "expired": (lambda: AUTHORITY.server(expired=True), "has expired"),
    "not yet valid": (lambda: AUTHORITY.server(early=True), "is not valid yet"),
    "of another host": (lambda: AUTHORITY.server("mx.example.org"), "is not for 127.0.0.1"),
    "self-signed": (self_signed, "not signed by an authority known here"),
    "of an unknown authority": (Authority().server, "not signed by an authority known here"),
}


def message() -> Message:
    return Message(recipients=(A,), content=CONTENT, sender="shop@example.org")


def deliver(transport: SMTPTransport) -> Any:
    sent = message()
    try:
        return transport.deliver(sent, sent.recipients).results[A]
    finally:
        transport.close()


def a_transport(port: int, security: Any, **settings: Any) -> SMTPTransport:
    if "ca_file" not in settings:
        settings["ssl_context"] = AUTHORITY.client()
    return SMTPTransport("127.0.0.1", port, security=security, **settings)


def nothing_was_told(tap: Tap) -> bool:
    return not any(secret in tap.heard for secret in SECRETS)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    AUTHORITY.ca.cert_pem.write_to_path(str(file))
    return file


# --- certificates that do not hold -------------------------------------------------------------


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("what", BAD)
def test_to_a_certificate_that_does_not_hold_nothing_is_told(security: Any, what: str) -> None:
    made, word = BAD[what]
    settings: dict[str, Any] = {security: made(), "users": {USER: PASSWORD}}
    with SMTPSink(**settings) as sink, Tap(sink.port) as tap:
        with pytest.raises(RelayMisconfigured, match=word):
            deliver(a_transport(tap.port, security, **LOGIN))

        assert nothing_was_told(tap)
        assert (sink.messages, sink.logins) == ((), ())
        assert sink.commands == (() if security == "tls" else ("EHLO [127.0.0.1]", "STARTTLS"))


@pytest.mark.parametrize("what", BAD)
def test_the_message_is_kept_and_status_says_why(outbox: CommandLine, ca_file: Path, what: str) -> None:
    made, word = BAD[what]
    outbox.submit(A)
    with SMTPSink(starttls=made(), users={USER: PASSWORD}) as sink, Tap(sink.port) as tap:
        outbox.environ(OUTBOX_TRANSPORT=f"smtp://{USER}@127.0.0.1:{tap.port}?ca_file={ca_file}")
        outbox.environ(OUTBOX_SMTP_PASSWORD=PASSWORD)
        ran = outbox("drain")

        assert (ran.status, sink.messages) == (78, ())
        assert nothing_was_told(tap)
    data = outbox("status", "--json").data
    assert [(count["state"], count["number"]) for count in data["counts"]] == [("queued", 1)]
    assert word in data["waits"][0]["reason"]
    assert word in outbox("status").out
    assert PASSWORD not in ran.err + str(data)


def test_when_the_certificate_is_mended_the_same_message_goes() -> None:
    store = MemoryStore()
    Outbox(store).submit(message())
    for context, taken in ((AUTHORITY.server(expired=True), 0), (AUTHORITY.server(), 1)):
        with SMTPSink(starttls=context, users={USER: PASSWORD}) as sink:
            transport = a_transport(sink.port, "starttls", **LOGIN)
            tally = Outbox(store, transport).drain()
            transport.close()

            assert [received.recipients for received in sink.messages] == [(A,)] * taken
            assert (tally.delivered, tally.released) == (taken, 1 - taken)


# --- somebody in between -----------------------------------------------------------------------


def stripped(data: bytes) -> Iterable[bytes]:
    return [data.replace(b"250-STARTTLS\r\n", b"").replace(b"STARTTLS", b"XXXXXXXX")]


def test_where_starttls_is_stripped_nothing_is_told() -> None:
    with (
        SMTPSink(starttls=AUTHORITY.server(), users={USER: PASSWORD}) as sink,
        Tap(sink.port, answers=stripped) as tap,
    ):
        with pytest.raises(
            RelayMisconfigured, match="does not offer STARTTLS, and nothing was sent in clear"
        ):
            deliver(a_transport(tap.port, "starttls", **LOGIN))

        assert bytes(tap.heard) == b"EHLO [127.0.0.1]\r\n"


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "502 5.5.1 no such command", "503 5.5.1 no"])
def test_where_starttls_is_refused_nothing_is_told(reply: str) -> None:
    with SMTPSink(starttls=AUTHORITY.server(), users={USER: PASSWORD}) as sink, Tap(sink.port) as tap:
        sink.on("starttls", reply=reply)
        with pytest.raises(RelayUnavailable if reply[0] == "4" else RelayMisconfigured, match=reply[:3]):
            deliver(a_transport(tap.port, "starttls", **LOGIN))

        assert bytes(tap.heard) == b"EHLO [127.0.0.1]\r\nSTARTTLS\r\n"


INJECTED: Final = b"250-evil\r\n250 AUTH PLAIN LOGIN\r\n"


def in_the_same_segment(data: bytes) -> Iterable[bytes]:
    return [data + INJECTED if data.startswith(b"220 2.0.0") else data]


def in_the_next_segment(data: bytes) -> Iterable[bytes]:
    return [data, INJECTED] if data.startswith(b"220 2.0.0") else [data]


def behind_our_hello(data: bytes) -> bytes:
    """A handshake record (22) that greets."""
    return INJECTED if data[:1] == b"\x16" else b""


@pytest.mark.parametrize(
    "tapped",
    [{"answers": in_the_same_segment}, {"answers": in_the_next_segment}, {"interject": behind_our_hello}],
    ids=["in the same segment", "in the next segment", "behind our hello"],
)
def test_what_is_injected_behind_starttls_ends_it(tapped: dict[str, Any]) -> None:
    """Taken over, it would be believed as though it had come under TLS (CVE-2011-0411, on the client's side)."""
    with (
        SMTPSink(starttls=AUTHORITY.server(), users={USER: PASSWORD}) as sink,
        Tap(sink.port, **tapped) as tap,
    ):
        with pytest.raises(RelayFault, match=r"out of turn|came behind its answer to STARTTLS is no TLS"):
            deliver(a_transport(tap.port, "starttls", **LOGIN))

        assert nothing_was_told(tap)
        assert (sink.messages, sink.logins) == ((), ())
        assert sink.commands == ("EHLO [127.0.0.1]", "STARTTLS")


def test_to_one_who_speaks_behind_his_answer_we_do_not_even_begin_tls() -> None:
    with (
        SMTPSink(starttls=AUTHORITY.server()) as sink,
        Tap(sink.port, answers=in_the_same_segment) as tap,
    ):
        with pytest.raises(RelayUnavailable, match="out of turn"):
            deliver(a_transport(tap.port, "starttls"))

        assert bytes(tap.heard) == b"EHLO [127.0.0.1]\r\nSTARTTLS\r\n"


def test_what_was_injected_before_tls_is_forgotten_under_it() -> None:
    """Only what the server offers under TLS counts."""

    def generous(data: bytes) -> Iterable[bytes]:
        return [data.replace(b"250-8BITMIME\r\n", b"250-AUTH LOGIN\r\n250-8BITMIME\r\n")]

    with SMTPSink(starttls=AUTHORITY.server(), users={USER: PASSWORD}, mechanisms=["PLAIN"]) as sink:
        with Tap(sink.port, answers=generous) as tap:
            assert isinstance(deliver(a_transport(tap.port, "starttls", **LOGIN)), Accepted)

        assert [login.mechanism for login in sink.logins] == ["PLAIN"]


def test_a_wrong_password_costs_one_auth_command_at_each_try() -> None:
    with SMTPSink(tls=AUTHORITY.server(), users={USER: "another"}) as sink, Tap(sink.port) as tap:
        transport = a_transport(tap.port, "tls", **LOGIN)
        for tries in (1, 2, 3):
            with pytest.raises(RelayMisconfigured, match="535"):
                deliver(transport)
            assert (len(sink.logins), sink.connections) == (tries, tries)
            assert sum(command.startswith("AUTH") for command in sink.commands) == tries
        assert nothing_was_told(tap)


# --- handshakes that come to no end ------------------------------------------------------------


class Dripping:
    """A handshake record that says it has 16 KiB, of which a byte comes now and then."""

    def __init__(self) -> None:
        self.dripped = 0

    def __call__(self, data: bytes) -> Iterator[bytes]:
        if data[:1] == b"\x16":
            yield b"\x16\x03\x03\x3f\xff"
            while True:
                self.dripped += 1
                yield b"\x02"
                threading.Event().wait(0.2)
        yield data


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_handshake_that_drips_does_not_outlive_its_time(security: Any) -> None:
    settings: dict[str, Any] = {security: AUTHORITY.server(), "users": {USER: PASSWORD}}
    dripping = Dripping()
    with SMTPSink(**settings) as sink, Tap(sink.port, answers=dripping) as tap:
        timeouts = Timeouts(greeting=dt.timedelta(seconds=2))
        with pytest.raises(RelayUnavailable, match="the TLS handshake: no answer in time"):
            deliver(a_transport(tap.port, security, timeouts=timeouts, **LOGIN))

        assert nothing_was_told(tap)
    # Ten of them have time; on a busy machine there are fewer.
    assert 1 <= dripping.dripped < 100


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_server_that_hangs_up_within_the_handshake_may_recover(security: Any) -> None:
    def cut(data: bytes) -> Iterable[bytes]:
        if data[:1] == b"\x16":
            raise OSError("cut")
        return [data]

    settings: dict[str, Any] = {security: AUTHORITY.server()}
    with (
        SMTPSink(**settings) as sink,
        Tap(sink.port, answers=cut) as tap,
        pytest.raises(RelayUnavailable, match="the TLS handshake: the server closed it"),
    ):
        deliver(a_transport(tap.port, security))


ALERTS: Final = {
    40: (RelayMisconfigured, "handshake failure"),
    49: (RelayMisconfigured, "see client cert"),
    70: (RelayMisconfigured, "protocol version"),
    71: (RelayMisconfigured, "insufficient security"),
    112: (RelayMisconfigured, "unrecognized name"),
    0: (RelayUnavailable, "the server closed it"),
    20: (RelayUnavailable, "bad record mac"),
    80: (RelayUnavailable, "internal error"),
    90: (RelayUnavailable, "user cancelled"),
}


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("alert", ALERTS)
def test_only_an_alert_that_a_person_has_to_mend_is_one_for_a_person(alert: int, security: Any) -> None:
    def alarmed(data: bytes) -> Iterable[bytes]:
        # Level "fatal", but for close_notify, which is always a warning (RFC 5246 section 7.2).
        return [bytes([0x15, 3, 3, 0, 2, 2 if alert else 1, alert])] if data[:1] == b"\x16" else [data]

    settings: dict[str, Any] = {security: AUTHORITY.server()}
    with SMTPSink(**settings) as sink, Tap(sink.port, answers=alarmed) as tap:
        with pytest.raises(RelayFault) as raised:
            deliver(a_transport(tap.port, security))
        kind, words = ALERTS[alert]

    assert type(raised.value) is kind
    assert words in str(raised.value).lower().replace("_", " ")


# --- files of certificates ---------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A certificate of ours with its key, together and apart, and a stranger's key."""
    ours, other = AUTHORITY.ca.issue_cert("client.example.org"), AUTHORITY.ca.issue_cert("other.example.org")
    ours.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    other.private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    AUTHORITY.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "nonsense.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty.pem").touch()
    (tmp_path / "locked.pem").write_bytes(locked(ours.private_key_pem.bytes()))
    return tmp_path


def locked(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as pem  # noqa: PLC0415 - for this alone

    return pem.load_pem_private_key(key, None).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.TraditionalOpenSSL, pem.BestAvailableEncryption(b"c4narypassword")
    )


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("named", [{"client_cert": "both"}, {"client_cert": "cert", "client_key": "key"}])
def test_a_certificate_of_ours_is_shown_to_who_asks(
    files: Path, security: Any, named: dict[str, str]
) -> None:
    settings: dict[str, Any] = {security: AUTHORITY.demanding()}
    with SMTPSink(**settings) as sink:
        ours = {name: files / f"{file}.pem" for name, file in named.items()}
        result = deliver(a_transport(sink.port, security, ca_file=files / "ca.pem", **ours))

        assert isinstance(result, Accepted)
        shown = sink.messages[0].tls
        assert shown is not None
        assert shown.certificate == ssl.PEM_cert_to_DER_cert((files / "cert.pem").read_text())


def test_who_names_a_certificate_is_not_sent_in_clear_to_this_machine_either(files: Path) -> None:
    with SMTPSink() as sink, pytest.raises(RelayMisconfigured, match="does not offer STARTTLS"):
        deliver(SMTPTransport(sink.host, sink.port, client_cert=files / "both.pem"))


def test_without_one_a_server_that_asks_is_told_of(files: Path) -> None:
    with SMTPSink(tls=AUTHORITY.demanding()) as sink:
        with pytest.raises(RelayMisconfigured, match="see client_cert"):
            deliver(a_transport(sink.port, "tls", ca_file=files / "ca.pem"))
        assert sink.messages == ()


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"client_cert": "none"}, r"client_cert '.*none.pem' cannot be read: No such file"),
        ({"client_cert": "."}, r"client_cert '.*' cannot be read: Is a directory"),
        ({"client_cert": "empty"}, r"client_cert '.*empty.pem' holds no certificate"),
        ({"client_cert": "cert"}, r"client_cert '.*cert.pem' holds no private key.*client_key"),
        ({"client_cert": "cert", "client_key": "none"}, r"client_key '.*none.pem' cannot be read"),
        ({"client_cert": "cert", "client_key": "cert"}, r"client_key '.*cert.pem' holds no private key"),
        ({"client_cert": "cert", "client_key": "other"}, r"'.*cert.pem' and client_key '.*other.pem' do not"),
        ({"client_cert": "cert", "client_key": "locked"}, r"'.*locked.pem' has a passphrase.*ssl_context"),
        (
            {"client_cert": "nonsense", "client_key": "key"},
            r"'.*nonsense.pem' and .* cannot be used together",
        ),
        ({"client_key": "key"}, "a client_key and no client_cert"),
        ({"ca_file": "none"}, r"ca_file '.*none.pem': No such file"),
        ({"ca_file": "key"}, r"ca_file '.*key.pem': holds no certificate"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_used_is_named_when_the_transport_is_made(
    files: Path, named: dict[str, str], says: str
) -> None:
    ours = {name: files / (f"{file}.pem" if file != "." else ".") for name, file in named.items()}
    with pytest.raises(ConfigurationError, match=says) as caught:
        SMTPTransport(**ours)  # type: ignore[arg-type]  # each by its own name

    assert "PRIVATE" not in str(caught.value)


def test_a_passphrase_is_not_asked_for_on_the_terminal(files: Path) -> None:
    """OpenSSL would, and a service would stand still."""
    program = (
        "import sys; from outbox.transports.smtp import SMTPTransport\n"
        "try: SMTPTransport(client_cert=sys.argv[1], client_key=sys.argv[2])\n"
        "except ValueError: print('refused')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(files / "cert.pem"), str(files / "locked.pem")],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=30,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("refused\n", "")


@pytest.mark.parametrize("name", ["ca_file", "client_cert", "client_key"])
@pytest.mark.parametrize("context", [True, False])
def test_a_context_of_ones_own_and_files_contradict_each_other(name: str, context: bool) -> None:
    settings: dict[str, Any] = {name: "x.pem", "ssl_context": AUTHORITY.client()} if context else {name: ""}
    with pytest.raises(ConfigurationError, match=name):
        SMTPTransport(**settings)


def test_a_certificate_that_would_never_be_shown_is_refused(files: Path) -> None:
    with pytest.raises(ConfigurationError, match="never shows the client_cert"):
        SMTPTransport(client_cert=files / "both.pem", security="none")


def test_the_command_line_shows_a_certificate_too(outbox: CommandLine, files: Path) -> None:
    outbox.submit(A)
    with SMTPSink(tls=AUTHORITY.demanding()) as sink:
        url = f"smtps://127.0.0.1:{sink.port}?ca_file={files}/ca.pem&client_cert={files}/cert.pem"
        outbox.environ(OUTBOX_TRANSPORT=f"{url}&client_key={files}/other.pem")
        ran = outbox("drain")
        assert ran.status == 78
        assert re.search("do not belong together", ran.err)
        outbox.environ(OUTBOX_TRANSPORT=f"{url}&client_key={files}/key.pem")
        assert outbox("drain").status == 0
        assert len(sink.messages) == 1

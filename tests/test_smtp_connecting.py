"""Ways to a server: several addresses within one time, Unix sockets, proxies, and what we call ourselves there."""

from __future__ import annotations

import datetime as dt
import os
import socket
import ssl
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from certificates import Authority
from command_line import CommandLine

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport, Timeouts, connecting, dial as dialling
from outbox.transports.smtp.dial import Deadline, dial

A: Final = "ann@example.org"
unix: Final = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


def deliver(transport: SMTPTransport) -> Any:
    sent = Message(recipients=(A,), content=b"Subject: a\r\n\r\n", sender="s@example.org")
    try:
        return transport.deliver(sent, sent.recipients).results[A]
    finally:
        transport.close()


# --- several addresses -------------------------------------------------------------------------


@attrs.define(eq=False)
class Sockets:
    """Stands in for the system: what each address does, and how long each was waited for."""

    clock: ManualClock
    answers: dict[str, Any]
    waited: list[tuple[str, float]] = attrs.field(factory=list)
    open: int = 0

    def getaddrinfo(self, host: str, port: int, **_: object) -> list[Any]:
        families = {":": socket.AF_INET6, ".": socket.AF_INET}
        return [
            (families[":" if ":" in address else "."], socket.SOCK_STREAM, 0, "", (address, port))
            for address in self.answers
        ]

    def socket(self, family: int, kind: int, protocol: int) -> Any:
        self.open += 1
        return _Socket(self, family)


@attrs.define(eq=False)
class _Socket:
    system: Sockets
    family: int
    patience: float = 0.0

    def setsockopt(self, *_: int) -> None: ...

    def settimeout(self, seconds: float) -> None:
        self.patience = seconds

    def bind(self, address: tuple[str, int]) -> None:
        if (":" in address[0]) != (self.family == socket.AF_INET6):
            raise OSError(22, "Invalid argument")

    def connect(self, address: tuple[str, int]) -> None:
        self.system.waited.append((address[0], self.patience))
        answer = self.system.answers[address[0]]
        if answer == "black hole":
            self.system.clock.advance(dt.timedelta(seconds=self.patience))
            raise TimeoutError
        if isinstance(answer, OSError):
            raise answer

    def close(self) -> None:
        self.system.open -= 1


REFUSED: Final = ConnectionRefusedError(111, "Connection refused")
V4_A, V4_B, V4_C, V6 = "192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"


def dial_to(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], source: str | None = None
) -> tuple[Sockets, BaseException | None]:
    """Dial a host with such addresses within 30 s; the second is what was raised."""
    clock = ManualClock()
    system = Sockets(clock, answers)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", system.getaddrinfo)
        patch.setattr(socket, "socket", system.socket)
        try:
            dial("mx.example.org", 25, source, Deadline(clock, 30))
        except Exception as error:  # noqa: BLE001 - it is looked at
            return system, error
    return system, None


@pytest.mark.parametrize(
    ("answers", "waited"),
    [
        ({V4_A: "ok", V4_B: "ok"}, [(V4_A, 15)]),
        ({V6: "black hole", V4_A: "ok"}, [(V6, 15), (V4_A, 15)]),
        ({V6: REFUSED, V4_A: "ok"}, [(V6, 15), (V4_A, 30)]),
        ({V6: "black hole", V4_A: "black hole", V4_B: "ok"}, [(V6, 10), (V4_A, 10), (V4_B, 10)]),
        ({V6: "black hole", V4_A: REFUSED, V4_B: "ok"}, [(V6, 10), (V4_A, 10), (V4_B, 20)]),
    ],
)
def test_each_address_has_its_share_of_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], waited: list[tuple[str, float]]
) -> None:
    """A black hole among them keeps nobody from reaching the next."""
    system, error = dial_to(monkeypatch, answers)

    assert error is None
    assert system.waited == waited
    assert system.open == 1


def test_where_none_answers_all_of_them_take_one_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    system, error = dial_to(monkeypatch, dict.fromkeys([V6, V4_A, V4_B, V4_C], "black hole"))

    assert isinstance(error, TimeoutError)
    assert sum(seconds for _, seconds in system.waited) == 30
    assert system.open == 0


def test_an_address_that_cannot_be_left_from_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    system, error = dial_to(monkeypatch, {V6: "ok", V4_A: "ok"}, source="192.0.2.99")

    assert error is None
    assert system.waited == [(V4_A, 30)]
    assert system.open == 1


def test_a_black_hole_before_this_machine_is_got_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """On real sockets: nobody accepts at the first, and its queue is full."""
    real = socket.getaddrinfo
    with SMTPSink() as sink, socket.create_server(("127.0.0.1", 0), backlog=0) as hole:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())

        def both(host: str, port: int, **settings: Any) -> list[Any]:
            return real(*hole.getsockname(), **settings) + real(sink.host, sink.port, **settings)

        monkeypatch.setattr(socket, "getaddrinfo", both)
        timeouts = Timeouts(connect=dt.timedelta(milliseconds=500))
        assert isinstance(
            deliver(SMTPTransport("mx.example.org", security="none", timeouts=timeouts)), Accepted
        )
        for filler in fillers:
            filler.close()


# --- from an address of ours -------------------------------------------------------------------


def test_the_address_to_connect_from_is_the_one_we_are_seen_by() -> None:
    with SMTPSink() as sink:
        assert isinstance(deliver(SMTPTransport(sink.host, sink.port, source_address="127.0.0.2")), Accepted)
        assert sink.messages[0].greeting == "[127.0.0.2]"


# --- Unix sockets ------------------------------------------------------------------------------


@unix
@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_a_unix_socket_is_spoken_to_in_clear(tmp_path: Path, protocol: Any) -> None:
    with SMTPSink(path=tmp_path / "s", protocol=protocol) as sink:
        transport = SMTPTransport(path=tmp_path / "s", protocol=protocol)
        assert isinstance(deliver(transport), Accepted)
        assert sink.commands[0] == ("LHLO" if protocol == "lmtp" else "EHLO") + " localhost"
        assert repr(transport).startswith(f"SMTPTransport(path='{tmp_path}/s'")
        assert not sink.violations


@unix
def test_over_a_unix_socket_too_we_have_the_name_we_were_given(tmp_path: Path) -> None:
    with SMTPSink(path=tmp_path / "s") as sink:
        deliver(SMTPTransport(path=tmp_path / "s", local_hostname="mx.example.org"))
        assert sink.messages[0].greeting == "mx.example.org"


@unix
@pytest.mark.parametrize("made", [False, True], ids=["none", "nobody listens"])
def test_a_unix_socket_where_nobody_listens_is_unavailable(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "s"
    if made:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    with pytest.raises(RelayUnavailable, match=f"^{path}: cannot connect: (No such file|Connection refused)"):
        deliver(SMTPTransport(path=path))


@unix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do everything")
def test_a_unix_socket_that_is_forbidden_is_one_for_a_person(tmp_path: Path) -> None:
    with SMTPSink(path=tmp_path / "s"):
        (tmp_path / "s").chmod(0)
        with pytest.raises(RelayMisconfigured, match="may this user connect"):
            deliver(SMTPTransport(path=tmp_path / "s"))


@unix
def test_what_the_system_forbids_is_one_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("outbox.transports.smtp.connecting.dial_path", forbidden)
    with pytest.raises(RelayMisconfigured, match=r"Permission denied .may this user connect"):
        deliver(SMTPTransport(path="/run/s"))


@unix
def test_a_command_delivers_to_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    outbox.submit(A)
    with SMTPSink(path=tmp_path / "lmtp", protocol="lmtp") as sink:
        ran = outbox("drain", "--transport", sink.url)
        assert (ran.status, len(sink.messages)) == (0, 1)
        assert f"relay={tmp_path}/lmtp" in ran.err


# --- LMTP --------------------------------------------------------------------------------------


def test_lmtp_is_greeted_by_lhlo_and_by_nothing_else() -> None:
    with SMTPSink(protocol="lmtp") as sink:
        assert isinstance(deliver(SMTPTransport(sink.host, sink.port, protocol="lmtp")), Accepted)
        assert sink.commands[0] == "LHLO [127.0.0.1]"
        sink.clear()
        sink.on("lhlo", reply="500 5.5.1 what?")
        with pytest.raises(RelayMisconfigured, match="refused LHLO: 500"):
            deliver(SMTPTransport(sink.host, sink.port, protocol="lmtp"))
        assert sink.commands == ("LHLO [127.0.0.1]",)


def test_a_server_of_the_other_protocol_takes_nothing() -> None:
    for ours, theirs in (("smtp", "lmtp"), ("lmtp", "smtp")):
        protocols: Any = ours, theirs
        with SMTPSink(protocol=protocols[1]) as sink:
            with pytest.raises(RelayMisconfigured, match=r"refused (HELO|LHLO): 500"):
                deliver(SMTPTransport(sink.host, sink.port, protocol=protocols[0]))
            assert sink.messages == ()


def test_lmtp_goes_under_tls_where_it_leads_elsewhere() -> None:
    authority = Authority()
    with SMTPSink(protocol="lmtp", starttls=authority.server(), users={"u": "p"}) as sink:
        transport = SMTPTransport(
            sink.host, sink.port, protocol="lmtp", username="u", password="p", ssl_context=authority.client()
        )
        assert isinstance(deliver(transport), Accepted)
        assert [command.split()[0] for command in sink.commands[:4]] == ["LHLO", "STARTTLS", "LHLO", "AUTH"]


# --- a way of one's own ------------------------------------------------------------------------


def through(sink: SMTPSink, asked: list[Any]) -> Any:
    """A proxy on this machine: whatever is asked for, it leads to the sink."""

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append((address, timeout))
        return socket.create_connection((sink.host, sink.port), timeout)

    return connect


def test_a_socket_of_one_s_own_making_is_used() -> None:
    asked = list[Any]()
    with SMTPSink() as sink:
        transport = SMTPTransport(
            "mail.example.org",
            2525,
            connect=through(sink, asked),
            security="none",
            timeouts=Timeouts(connect=dt.timedelta(seconds=7)),
        )
        assert isinstance(deliver(transport), Accepted)
    [(address, seconds)] = asked
    assert address == ("mail.example.org", 2525)
    assert 6 < seconds <= 7


def test_the_standard_library_s_own_way_is_one() -> None:
    with SMTPSink() as sink:
        transport = SMTPTransport(sink.host, sink.port, connect=socket.create_connection, security="none")
        assert isinstance(deliver(transport), Accepted)


def test_that_a_proxy_is_on_this_machine_says_nothing_of_the_server() -> None:
    """Else a tunnel's end here would be taken for the server, and mail would go in clear behind it."""
    with SMTPSink() as sink:
        transport = SMTPTransport("mail.example.org", 25, connect=through(sink, []))
        with pytest.raises(
            RelayMisconfigured, match="does not offer STARTTLS, and nothing was sent in clear"
        ):
            deliver(transport)
        assert sink.commands == ("EHLO [127.0.0.1]",)


def test_behind_a_proxy_the_certificate_has_to_be_the_server_s() -> None:
    authority = Authority()
    for name, good in (("mail.example.org", True), ("127.0.0.1", False)):
        with SMTPSink(starttls=authority.server(name)) as sink:
            transport = SMTPTransport(
                "mail.example.org", 25, connect=through(sink, []), ssl_context=authority.client()
            )
            if good:
                assert isinstance(deliver(transport), Accepted)
                continue
            with pytest.raises(RelayMisconfigured, match=r"is not for mail\.example\.org"):
                deliver(transport)


class ProxyError(Exception):
    """As some libraries have it: no OSError."""


@pytest.mark.parametrize(
    ("raised", "fault", "says"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            RelayUnavailable,
            "cannot connect: Connection refused",
        ),
        (TimeoutError(), RelayUnavailable, "cannot connect: no answer in time"),
        (OSError("407 from http://me:pr0xy@proxy"), RelayUnavailable, "connect: connect raised OSError$"),
        (OSError(113, "http://me:pr0xy@proxy"), RelayUnavailable, "cannot connect: No route to host$"),
        (PermissionError(13, "http://me:pr0xy@proxy"), RelayMisconfigured, "connect: Permission denied$"),
        (ssl.SSLError(1, "pr0xy"), RelayUnavailable, "connect: connect raised SSLError$"),
        (ProxyError("http://me:pr0xy@proxy"), RelayUnavailable, "connect: connect raised ProxyError$"),
        (socket.gaierror(-2, "pr0xy"), RelayUnavailable, "raised gaierror: a host name cannot be looked up$"),
        (ConfigurationError("no such proxy"), RelayMisconfigured, "cannot connect: no such proxy$"),
        (
            RelayMisconfigured("proxy:1080", "wrong password"),
            RelayMisconfigured,
            "^proxy:1080: wrong password",
        ),
    ],
    ids=repr,
)
def test_what_a_way_of_one_s_own_raises_is_a_fault_of_the_relay(
    raised: Exception, fault: type[RelayFault], says: str
) -> None:
    def connect(address: object, timeout: float) -> socket.socket:
        raise raised

    with pytest.raises(fault, match=says) as caught:
        deliver(SMTPTransport("mail.example.org", 25, connect=connect))
    assert "pr0xy" not in "".join(traceback.format_exception(caught.value))


def test_a_way_that_wants_to_end_its_thread_ends_no_message() -> None:
    """In the main thread it is the program's own end, and goes through."""
    faults = list[BaseException]()

    def connect(address: object, timeout: float) -> socket.socket:
        raise SystemExit("no proxy for pr0xy")

    def work() -> None:
        try:
            deliver(SMTPTransport("mail.example.org", 25, connect=connect))
        except BaseException as error:  # noqa: BLE001 - whatever comes out of it
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with pytest.raises(SystemExit):
        deliver(SMTPTransport("mail.example.org", 25, connect=connect))

    assert list(map(type, faults)) == [RelayUnavailable]
    assert str(faults[0]).endswith("connect raised SystemExit")


@pytest.mark.parametrize("returned", [None, "socket"])
def test_what_is_no_socket_is_said(returned: Any) -> None:
    with pytest.raises(RelayMisconfigured, match=f"connect returned {type(returned).__name__} and no socket"):
        deliver(SMTPTransport("mail.example.org", 25, connect=lambda *_: returned))


def test_a_socket_that_leads_nowhere_is_closed() -> None:
    made = socket.socket()
    with pytest.raises(RelayUnavailable, match="connection lost"):
        deliver(SMTPTransport("mail.example.org", 25, connect=lambda *_: made, security="none"))
    assert made.fileno() == -1


def test_a_socket_is_closed_whatever_is_raised_before_it_is_spoken_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place, name in [(connecting, "_peer"), (connecting, "Connection"), (dialling, "_hasten")]:
        with monkeypatch.context() as patched:
            made, far = socket.socketpair()
            patched.setattr(place, name, interrupted)
            with far, pytest.raises(KeyboardInterrupt):
                deliver(
                    SMTPTransport("mail.example.org", 25, connect=lambda *_, it=made: it, security="none")
                )
            assert made.fileno() == -1, name


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_pair_of_sockets_in_this_process_will_do() -> None:
    near, far = socket.socketpair()
    heard = list[bytes]()

    def converse() -> None:
        with far, far.makefile("rwb", buffering=0) as line:
            line.write(b"220 hi\r\n")
            heard.append(line.readline())
            line.write(b"554 no\r\n")
            heard.append(line.readline())
            line.write(b"554 no\r\n")

    thread = threading.Thread(target=converse)
    thread.start()
    with pytest.raises(RelayMisconfigured, match="554"):
        deliver(SMTPTransport("mail.example.org", 25, connect=lambda *_: near, security="none"))
    thread.join()
    name = b"[127.0.0.1]" if sys.platform == "win32" else b"localhost"
    assert heard == [b"EHLO " + name + b"\r\n", b"HELO " + name + b"\r\n"]


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"protocol": "lmtp", "port": 25}, r"port 25.*RFC 2033 section 5"),
        ({"host": "mail.example.org:587"}, "the port is a setting of its own"),
        ({"host": "smtp://mail.example.org"}, "neither a host name nor an address"),
        ({"protocol": "esmtp"}, "protocol 'esmtp' is none of smtp, lmtp"),
        ({"path": "/run/s", "host": "h"}, "name one of them, not both"),
        ({"path": "/run/s", "port": 25}, "name one of them, not both"),
        ({"path": "/run/s", "security": "starttls"}, "there is no TLS"),
        ({"path": "/run/s", "username": "u", "password": "c4narypassword"}, "no credentials"),
        ({"path": ""}, "is no path of a Unix socket"),
        ({"path": "a\0b"}, "is no path of a Unix socket"),
        ({"path": "/" + "x" * 107}, "1 to 107 bytes"),
        ({"path": "/run/s", "source_address": "::1"}, "path and source_address exclude each other"),
        ({"connect": print, "source_address": "::1"}, "source_address and connect exclude each other"),
        ({"connect": print, "path": "/run/s"}, "path and connect exclude each other"),
        ({"connect": "socks5://proxy"}, "connect is a function"),
        ({"local_hostname": "192.0.2.1"}, r"is an address: write \[192.0.2.1\]"),
        ({"local_hostname": "2001:db8::1"}, r"is an address: write \[IPv6:2001:db8::1\]"),
        ({"local_hostname": "my_host"}, "letters, digits and hyphens"),
        ({"local_hostname": "bücher.example"}, "is not a host name"),
        ({"local_hostname": "-a.example"}, "is not a host name"),
        ({"local_hostname": "a..example"}, "is not a host name"),
        ({"local_hostname": "x" * 64}, "is not a host name"),
        ({"local_hostname": "[192.0.2.1"}, "is not a host name"),
        ({"local_hostname": "[IPv6:192.0.2.1]"}, "is not a host name"),
        ({"local_hostname": "[2001:db8::1]"}, "is not a host name"),
        ({"local_hostname": "a\r\nMAIL FROM:<>"}, "is not a host name"),
        ({"local_hostname": ""}, "is not a host name"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        SMTPTransport(**settings)
    assert "c4narypassword" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["localhost", "mx.example.org", "xn--bcher-kva.example", "a-1.b", "[192.0.2.1]", "[IPv6:2001:db8::1]"],
)
def test_a_name_that_ehlo_takes_is_taken(name: str) -> None:
    with SMTPSink() as sink:
        deliver(SMTPTransport(sink.host, sink.port, local_hostname=name))
        assert sink.messages[0].greeting == name


@pytest.mark.parametrize(
    ("settings", "relay"),
    [
        ({"protocol": "lmtp", "host": "mail"}, "mail:24"),
        ({"protocol": "lmtp", "host": "mail", "security": "tls"}, "mail:24"),
        ({"host": "2001:db8::1", "port": 2525}, "[2001:db8::1]:2525"),
        ({"path": "/run/dovecot/lmtp"}, "/run/dovecot/lmtp"),
        ({"path": b"/run/\xff\n"}, r"/run/\udcff\n"),
    ],
)
def test_a_relay_is_known_by_where_it_is(settings: dict[str, Any], relay: str) -> None:
    assert SMTPTransport(**settings)._server.relay == relay


@pytest.mark.parametrize("host", ["fe80::1%eth0", "fe80::1"])
def test_the_zone_of_an_address_is_no_part_of_a_certificate(host: str) -> None:
    assert SMTPTransport(host)._server.tls_name == "fe80::1"


def test_the_name_of_a_host_is_that_of_its_certificate_without_the_final_dot() -> None:
    assert SMTPTransport("mail.example.org.")._server.tls_name == "mail.example.org"

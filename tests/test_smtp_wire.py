"""The bytes of a connection: every wait is bounded by what a whole reply may take, and every failure is a loss."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import socket
import ssl
import threading
import tracemalloc
import types
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import trustme

from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError
from outbox.testing.clock import ManualClock
from outbox.transports.smtp.content import Content
from outbox.transports.smtp.dial import Deadline, dial
from outbox.transports.smtp.reply import Reply
from outbox.transports.smtp.steps import Lost, Step, Timeouts
from outbox.transports.smtp.waiting import ready
from outbox.transports.smtp.wire import Wire


class TickingClock(SystemClock):
    """A second passes whenever it is looked at."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def monotonic(self) -> float:
        return float(next(self._seconds))


class Pair:
    """Our wire, and the server's end of it."""

    def __init__(self) -> None:
        self.ours, self.server = socket.socketpair()
        self.wire = self.wire_by(SystemClock())

    def wire_by(self, clock: Clock, **timeouts: dt.timedelta) -> Wire:
        return Wire(self.ours, Timeouts(**timeouts), clock)

    def close(self) -> None:
        self.ours.close()
        self.server.close()

    def greet(self) -> None:
        self.server.sendall(b"220 mx\r\n")
        self.wire.read(Step.GREETING)


@pytest.fixture
def pair() -> Iterator[Pair]:
    both = Pair()
    yield both
    both.close()


def pieces(blocks: Iterable[bytes]) -> Any:
    """A content that goes out so."""
    return types.SimpleNamespace(blocks=lambda: iter(blocks))


def test_a_command_is_one_write_and_its_reply_one_answer(pair: Pair) -> None:
    pair.greet()
    pair.wire.write(Step.MAIL, b"MAIL FROM:<>\r\n")
    assert pair.server.recv(100) == b"MAIL FROM:<>\r\n"
    pair.server.sendall(b"250 ok\r\n")

    assert pair.wire.read(Step.MAIL) == Reply(250, ("ok",))


def test_a_server_that_drips_runs_out_of_time(pair: Pair) -> None:
    """Every byte comes in time; the reply does not."""
    wire = pair.wire_by(TickingClock(), greeting=dt.timedelta(seconds=20))
    dripping = threading.Thread(target=drip, args=(pair.server, b"220-" + b"x" * 200))
    dripping.start()
    try:
        with pytest.raises(Lost, match="no whole reply within 20 s") as caught:
            wire.read(Step.GREETING)
    finally:
        pair.close()
        dripping.join()

    assert caught.value.step is Step.GREETING


def drip(server: socket.socket, data: bytes) -> None:
    pause = threading.Event()
    try:
        for byte in data:
            server.sendall(bytes([byte]))
            pause.wait(0.001)
    except OSError:
        pass


def test_a_silent_server_runs_out_of_time(pair: Pair) -> None:
    with pytest.raises(Lost, match=r"no whole reply within 0\.01 s"):
        pair.wire_by(SystemClock(), greeting=dt.timedelta(milliseconds=10)).read(Step.GREETING)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "the server closed it$"),
        (b"220 almost", "within a reply"),
        (b"220 almost\r", "within a reply"),
        (b"220-one\r\n", "within a reply"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request"),
        (b"354 go on\r\n", "no answer to it"),
    ],
)
def test_a_cut_or_senseless_reply_is_a_loss_and_no_code(pair: Pair, said: bytes, reason: str) -> None:
    pair.server.sendall(said)
    pair.server.close()

    with pytest.raises(Lost, match=reason) as caught:
        pair.wire.read(Step.GREETING)
    assert caught.value.reply is None


def test_bytes_that_nobody_asked_for_stop_the_next_command(pair: Pair) -> None:
    pair.greet()
    pair.server.sendall(b"250 ok\r\n")

    with pytest.raises(Lost, match="out of turn; it had said: 250 ok") as caught:
        pair.wire.write(Step.MAIL, b"MAIL FROM:<>\r\n")
    assert caught.value.sent == 0


def test_bytes_that_came_with_the_last_reply_stop_the_next_command_too(pair: Pair) -> None:
    pair.server.sendall(b"220 mx\r\n2")
    pair.wire.read(Step.GREETING)
    pair.server.close()

    with pytest.raises(Lost, match="out of turn"):
        pair.wire.write(Step.MAIL, b"MAIL FROM:<>\r\n")


@pytest.mark.parametrize("said", ["250 early", "552 5.3.4 too big"])
def test_an_answer_to_a_content_that_has_not_ended_stops_it(pair: Pair, said: str) -> None:
    """Were the dot still sent, this would be taken for the answer to it."""
    pair.greet()

    def blocks() -> Iterator[bytes]:
        yield b"the content"
        yield b", more of it"
        pair.server.sendall(f"{said}\r\n".encode())
        yield b"\r\n.\r\n"

    with pytest.raises(Lost, match=f"out of turn; it had said: {said}") as caught:
        pair.wire.pour(pieces(blocks()))
    assert caught.value.sent == len(b"the content")
    assert pair.server.recv(100) == b"the content"


def test_a_server_out_of_step_is_told_from_one_that_is_gone(pair: Pair) -> None:
    for said, astray in [(b"354 go on\r\n", True), (b"what?\r\n", True), (b"220 almost", False)]:
        both = Pair()
        both.server.sendall(said)
        both.server.shutdown(socket.SHUT_WR)
        with pytest.raises(Lost) as caught:
            both.wire.read(Step.GREETING)
        both.close()
        assert caught.value.astray is astray
    pair.greet()
    pair.server.sendall(b"250 ok\r\n")
    with pytest.raises(Lost) as caught:
        pair.wire.write(Step.MAIL, b"MAIL FROM:<>\r\n")
    assert caught.value.astray


def test_bytes_behind_the_reply_to_starttls_stop_the_handshake(pair: Pair) -> None:
    """They came in clear, and would be taken for the first reply under TLS."""
    pair.server.sendall(b"220 mx\r\n250 injected\r\n")
    pair.wire.read(Step.GREETING)

    with pytest.raises(Lost, match="out of turn"):
        pair.wire.secure(ssl.create_default_context(), "mx.example")


def test_a_closed_connection_is_seen_before_the_next_command(pair: Pair) -> None:
    pair.greet()
    pair.server.close()

    with pytest.raises(Lost, match="had closed it") as caught:
        pair.wire.write(Step.MAIL, b"MAIL FROM:<>\r\n")
    assert caught.value.sent == 0


def test_replies_still_due_are_no_surprise(pair: Pair) -> None:
    pair.greet()
    pair.wire.write(Step.MAIL, b"MAIL FROM:<>\r\nRCPT TO:<a>\r\n", replies=2)
    pair.server.sendall(b"250 one\r\n")
    pair.wire.read(Step.MAIL)
    pair.server.sendall(b"250 two\r\n")
    pair.wire.write(Step.DATA, b"DATA\r\n")

    assert pair.wire.read(Step.RCPT) == Reply(250, ("two",))


def test_what_the_server_said_before_it_stopped_listening_is_read(pair: Pair) -> None:
    pair.greet()
    answering = threading.Thread(target=refuse, args=(pair.server,))
    answering.start()
    with pytest.raises(Lost) as caught:
        pair.wire.pour(pieces(itertools.repeat(b"x" * 65536, 1000)))
    answering.join()

    assert caught.value.reply == Reply(552, ("5.3.4 too big",))
    assert 0 < caught.value.sent < 1000 * 65536


def refuse(server: socket.socket) -> None:
    server.recv(1000)
    server.sendall(b"552 5.3.4 too big\r\n")
    server.close()


def test_a_server_that_takes_nothing_runs_out_of_time(pair: Pair) -> None:
    pair.greet()
    wire = pair.wire_by(SystemClock(), block=dt.timedelta(milliseconds=10))
    with pytest.raises(Lost, match="took nothing more") as caught:
        wire.pour(pieces(itertools.repeat(b"x" * 65536, 1000)))

    assert caught.value.sent < 1000 * 65536


def test_every_block_has_a_time_of_its_own(pair: Pair) -> None:
    """A large content may take longer in all than any block may."""
    pair.greet()
    pair.ours = EveryOther(fileno=pair.ours.detach())
    clock = TickingClock()
    pair.wire_by(clock, block=dt.timedelta(seconds=20)).pour(pieces([b"x"] * 30))

    assert clock.monotonic() >= 40


class EveryOther(socket.socket):
    """Takes nothing the first time that it is asked to, and the next time all."""

    reluctant = False

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.reluctant = not self.reluctant
        if self.reluctant:
            raise BlockingIOError
        return super().send(data, flags)


def take(server: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(server.recv(65536))


def test_a_deadline_that_has_passed_is_said() -> None:
    with pytest.raises(TimeoutError):
        Deadline(TickingClock(), 0.5).left()


def test_the_next_address_is_tried_where_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()
        closed.close()
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", dead),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname()),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

        with dial("mx.example", 25, None, Deadline(SystemClock(), 10)) as connected:
            assert connected.getpeername() == server.getsockname()


def test_each_address_gets_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never answers must not use up what the others need."""
    tried: list[float] = []

    class Deaf(socket.socket):
        def connect(self, address: object) -> None:
            timeout = self.gettimeout()
            assert timeout is not None
            tried.append(timeout)
            clock.advance(dt.timedelta(seconds=timeout))
            raise TimeoutError

    clock = ManualClock()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 25))] * 3
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "socket", Deaf)

    with pytest.raises(TimeoutError):
        dial("mx.example", 25, None, Deadline(clock, 30))
    assert tried == [10, 10, 10]


def test_the_last_address_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(OSError, match="no address"):
        dial("mx.example", 25, None, Deadline(SystemClock(), 10))


# --- content, and what follows it ------------------------------------------------------------------


class Reluctant:
    """A socket that takes so many bytes at a time, then fails; what is said to it stands there already."""

    def __init__(self, takes: list[int | OSError], says: bytes = b"") -> None:
        self.taken = b""
        self._takes = takes
        self._says = [says] if says else []

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def send(self, data: memoryview) -> int:
        step = self._takes.pop(0) if self._takes else len(data)
        if isinstance(step, OSError):
            raise step
        self.taken += bytes(data[:step])
        return min(step, len(data))

    def recv(self, size: int) -> bytes:
        if not self.taken:
            raise BlockingIOError
        return self._says.pop(0) if self._says else b""


def reluctant(monkeypatch: pytest.MonkeyPatch, ours: Reluctant) -> Wire:
    monkeypatch.setattr("outbox.transports.smtp.wire.ready", lambda *_, **__: True)
    connected: Any = ours
    wire = Wire(connected, Timeouts(), SystemClock())
    wire._due = 0
    return wire


MAIL = Content.of(b"Subject: a\r\n\r\nb\r\n")
WHOLE = MAIL.dot + len(b".\r\n")
BEHIND = b"MAIL FROM:<>\r\nDATA\r\n"


def test_content_and_what_follows_it_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Reluctant([], b"250 taken\r\n250 ok\r\n354 go on\r\n")
    wire = reluctant(monkeypatch, ours)
    sends = 0
    genuine = ours.send

    def counted(data: memoryview) -> int:
        nonlocal sends
        sends += 1
        return genuine(data)

    monkeypatch.setattr(ours, "send", counted)
    wire.pour(MAIL, BEHIND, replies=3)

    assert sends == 1
    assert ours.taken == b"Subject: a\r\n\r\nb\r\n.\r\n" + BEHIND
    assert [wire.read(step).code for step in (Step.DOT, Step.MAIL, Step.DATA)] == [250, 250, 354]


@pytest.mark.parametrize("more", [0, 1, len(BEHIND) - 1])
def test_where_what_follows_cannot_be_sent_the_answer_to_the_content_is_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    """Whoever took it would be doubted, and sent a second copy."""
    wire = reluctant(monkeypatch, Reluctant([WHOLE + more, BrokenPipeError()], b"250 taken\r\n"))
    wire.pour(MAIL, BEHIND, replies=3)

    assert wire.read(Step.DOT) == Reply(250, ("taken",))
    with pytest.raises(Lost, match="the server closed it"):
        wire.read(Step.MAIL)


@pytest.mark.parametrize("short", [1, 2, 3, 10])
def test_content_that_could_not_be_sent_whole_is_a_loss_that_says_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    wire = reluctant(monkeypatch, Reluctant([WHOLE - short, BrokenPipeError()], b"552 5.3.4 too big\r\n"))
    with pytest.raises(Lost) as caught:
        wire.pour(MAIL, BEHIND, replies=3)

    assert caught.value.sent == WHOLE - short
    assert caught.value.reply == Reply(552, ("5.3.4 too big",))


def test_an_answer_that_comes_while_what_follows_waits_to_be_sent_is_that_of_the_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = reluctant(monkeypatch, Reluctant([WHOLE + 5, BlockingIOError(), 5], b"250 taken\r\n"))
    wire.pour(MAIL, BEHIND, replies=3)

    assert wire.read(Step.DOT) == Reply(250, ("taken",))


def test_a_refusal_is_heard_while_the_server_takes_nothing_more(pair: Pair) -> None:
    """It stays, and reads no further: waiting for it to do so would be waiting for nothing."""
    pair.greet()
    refusing = threading.Thread(target=refuse_and_stay, args=(pair.server,))
    refusing.start()
    wire = pair.wire_by(SystemClock(), block=dt.timedelta(minutes=5))
    wire._due = 0
    with pytest.raises(Lost, match="out of turn") as caught:
        wire.pour(Content.of(b"x" * (64 << 20)))
    refusing.join()

    assert caught.value.reply == Reply(552, ("5.3.4 too big",))
    assert caught.value.sent < 64 << 20


def refuse_and_stay(server: socket.socket) -> None:
    server.recv(1000)
    threading.Event().wait(0.05)
    server.sendall(b"552 5.3.4 too big\r\n")


def test_content_is_not_copied_on_its_way(pair: Pair) -> None:
    pair.greet()
    size = 32 << 20
    content = Content.of(b"x" * size)
    taking = threading.Thread(target=take, args=(pair.server, size + 5))
    taking.start()
    tracemalloc.start()
    try:
        pair.wire.pour(content, BEHIND)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    taking.join()

    assert most < 2 << 20


# --- a socket that takes little at a time -----------------------------------------------------------


def test_a_command_is_answered_while_what_follows_it_waits_to_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = reluctant(monkeypatch, Reluctant([14, BlockingIOError(), 3], b"250 sender ok\r\n354 go on\r\n"))
    wire.write(Step.MAIL, BEHIND, replies=2)

    assert [wire.read(step).code for step in (Step.MAIL, Step.DATA)] == [250, 354]


@pytest.fixture
def secured(pair: Pair) -> Iterator[tuple[Pair, Any]]:
    """Under TLS, over sockets that hold next to nothing."""
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("mx.example").configure_cert(theirs)
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair.greet()
    server: list[ssl.SSLSocket] = []
    shaking = threading.Thread(
        target=lambda: server.append(theirs.wrap_socket(pair.server, server_side=True))
    )
    shaking.start()
    pair.wire.secure(ours, "mx.example")
    shaking.join()
    yield pair, server[0]
    server[0].close()
    pair.wire.close()


def test_a_socket_that_is_secured_already_is_written_to_a_record_at_a_time(
    monkeypatch: pytest.MonkeyPatch, secured: tuple[Pair, ssl.SSLSocket]
) -> None:
    """Of several records, not taken whole, none would count as sent, and the dot may be in the first of them."""
    pair, server = secured
    ours = pair.wire._socket
    assert isinstance(ours, ssl.SSLSocket)
    wire = Wire(ours, Timeouts(), SystemClock())
    server.sendall(b"220 mx\r\n")
    wire.read(Step.GREETING)
    sizes: list[int] = []

    def send(_: object, data: bytes) -> int:
        sizes.append(len(data))
        return len(data)

    monkeypatch.setattr(type(ours), "send", send)
    wire.pour(Content.of(b"x" * 40_000))

    assert max(sizes) == 16 << 10


@pytest.mark.parametrize("rest", [0, 1, 2, 3, 100])
def test_under_tls_a_dot_that_was_read_and_answered_was_sent(
    secured: tuple[Pair, ssl.SSLSocket], rest: int
) -> None:
    """The records up to the dot went, and what follows it waits: the answer is the content's, and no surprise."""
    pair, server = secured
    whole = 2 * (16 << 10) + rest
    content = Content.of(b"x" * (whole - 5))

    def take_and_answer() -> None:
        took = b""
        while b"\r\n.\r\n" not in took:
            took += server.recv(16 << 10)
        server.sendall(b"250 taken\r\n")
        # What follows is still on its way, and is taken.
        with contextlib.suppress(OSError):
            while server.recv(16 << 10):
                pass

    taking = threading.Thread(target=take_and_answer)
    taking.start()
    try:
        pair.wire.pour(content, b"RCPT TO:<a@example.org>\r\n" * 4000, replies=2)
        assert pair.wire.read(Step.DOT) == Reply(250, ("taken",))
    finally:
        pair.wire.close()
        taking.join()


def test_a_timeout_that_no_system_call_can_be_told_is_refused_before_anything_is_sent() -> None:
    """Found out behind the dot it would be a copy for each attempt."""
    for name in ("connect", "dot"):
        with pytest.raises(ConfigurationError, match=f"'{name}' must be 24 days at most"):
            Timeouts(**{name: dt.timedelta(days=25)})
    with socket.socket() as idle:
        idle.settimeout(Timeouts(dot=dt.timedelta(days=24)).seconds(Step.DOT))
        server, ours = socket.socketpair()
        server.sendall(b"250 taken\r\n")
        assert ready(ours, dt.timedelta(days=24).total_seconds(), read=True)
        server.close()
        ours.close()

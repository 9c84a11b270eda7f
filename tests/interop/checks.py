"""What is asked of the transport in front of each server, from the outside; what arrives is compared."""

from __future__ import annotations

import datetime as dt
import smtplib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Self

import attrs
import servers

from outbox.errors import RelayMisconfigured
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result
from outbox.protocols import Delivery, SupportsBatch
from outbox.testing.smtp_sink import Received, SMTPSink
from outbox.transports.smtp import SMTPTransport

__all__ = ["CHECKS", "SINK_CHECKS", "NoTLS", "Scene", "SinkScene", "offers", "tls_fault"]

SENDER: Final = "sender@example.net"
PATIENCE: Final = 180.0
MANY: Final = 10_000
LARGE: Final = 50_000_000
BODY: Final = b".\r\n..\r\n.leading dots\r\n" + b"x" * 998 + b"\r\nand trailing space \r\n\t\r\n\r\nend\r\n"


class Wrong(AssertionError):
    """It was not as it has to be."""


class NoTLS(Exception):
    """The server offers TLS and cannot do it, whoever asks."""


def must(holds: object, otherwise: object) -> None:
    if not holds:
        raise Wrong(str(otherwise))


def kinds(outcome: Outcome) -> Counter[str]:
    return Counter(type(result).__name__ for result in outcome.results.values())


def all_accepted(outcome: Outcome) -> None:
    others = [result for result in outcome.results.values() if not isinstance(result, Accepted)]
    must(not others and not outcome.fault, f"{kinds(outcome)}: {others[:1]} {outcome.fault or ''}")


def a_mail(name: str, *recipients: str, body: bytes = BODY, header: bytes = b"") -> Message:
    """*name* is in its header, and says at the other end which one it was."""
    head = (
        b"From: sender@example.net\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\n"
        b"Message-ID: <%s@example.net>\r\n%sX-Check: %s\r\n\r\n" % (name.encode(), header, name.encode())
    )
    return Message(id=name, sender=SENDER, recipients=recipients or ("to@example.org",), content=head + body)


@attrs.frozen
class Scene:
    """One server, and the receiver behind it.

    *offers* is what it says to EHLO in clear; *no_tls* is what the standard
    library's own client meets that does not even ask for its certificate.
    """

    server: servers.Server
    sink: SMTPSink
    trust: ssl.SSLContext
    offers: Mapping[str, str]
    no_tls: str

    def needs_tls(self) -> None:
        if self.no_tls:
            raise NoTLS(f"this server's TLS works with no client: {self.no_tls}")

    @contextmanager
    def transport(self, port: int, security: str, **settings: object) -> Iterator[SMTPTransport]:
        if security != "none":
            self.needs_tls()
        options: dict[str, object] = {
            "ssl_context": self.trust,
            "timeout": dt.timedelta(seconds=60),
            **settings,
        }
        with closing(SMTPTransport("127.0.0.1", port, security=security, **options)) as smtp:  # type: ignore[arg-type]  # checked when it is called
            yield smtp

    def deliver(self, message: Message, port: int, security: str, **settings: object) -> Outcome:
        with self.transport(port, security, **settings) as smtp:
            return smtp.deliver(message, message.recipients)

    def arrived(self, message: Message, recipients: Sequence[str]) -> list[Received]:
        """Every copy of *message*, once all *recipients* have it; nobody has it twice, altered, or unasked.

        A server may add fields in front, and nothing else.
        """
        mark, until = f"X-Check: {message.id}\r\n".encode(), time.monotonic() + PATIENCE
        while True:
            found = [each for each in self.sink.messages if mark in each.content[:4000]]
            got = Counter(recipient for each in found for recipient in each.recipients)
            if got.total() >= len(recipients) or time.monotonic() > until:
                break
            time.sleep(0.1)
        must(got == Counter(recipients), f"{got.total()} of {len(recipients)} recipients have it")
        altered = [each for each in found if not each.content.endswith(message.content)]
        must(not altered, f"{len(altered)} of {len(found)} copies were altered")
        return found


def starttls(scene: Scene) -> str:
    message = a_mail("starttls")
    all_accepted(scene.deliver(message, scene.server.open, "starttls"))
    scene.arrived(message, message.recipients)
    return "taken, and arrived as it was"


def implicit(scene: Scene) -> str:
    message = a_mail("implicit")
    all_accepted(scene.deliver(message, scene.server.implicit, "tls"))
    scene.arrived(message, message.recipients)
    return "taken, and arrived as it was"


def strange_authority(scene: Scene) -> str:
    said = ""
    for port, security in ((scene.server.open, "starttls"), (scene.server.implicit, "tls")):
        try:
            outcome = scene.deliver(a_mail("strange"), port, security, ssl_context=None)
        except RelayMisconfigured as fault:
            said = str(fault)
        else:
            raise Wrong(f"not refused: {outcome}")
    return said


def login(scene: Scene) -> str:
    message = a_mail("login")
    who = {"username": servers.USER, "password": servers.PASSWORD}
    all_accepted(scene.deliver(message, scene.server.login, "starttls", **who))
    scene.arrived(message, message.recipients)
    return "taken, and arrived as it was"


def wrong_password(scene: Scene) -> str:
    try:
        outcome = scene.deliver(
            a_mail("wrong"), scene.server.login, "starttls", username=servers.USER, password="wrong"
        )
    except RelayMisconfigured as fault:
        must("wrong" not in str(fault).lower().replace("something wrong", ""), f"the password is in {fault}")
        return str(fault)
    raise Wrong(f"not refused: {outcome}")


def no_login(scene: Scene) -> str:
    try:
        outcome = scene.deliver(a_mail("nobody"), scene.server.login, "starttls")
    except RelayMisconfigured as fault:
        return f"RelayMisconfigured: {fault}"
    must(not kinds(outcome)["Accepted"], outcome)
    ((_, result),) = outcome.results.items()
    return f"{type(result).__name__}: {getattr(result, 'reply', '')}"


def one_refused(scene: Scene) -> str:
    first, last = "first@example.org", "last@example.org"
    message = a_mail("refused", first, servers.REFUSED, last)
    outcome = scene.deliver(message, scene.server.open, "none")
    wanted: list[type[Result]] = [Accepted, PermFailed, Accepted]
    found = [type(outcome.results[each]) for each in message.recipients]
    must(found == wanted, outcome)
    scene.arrived(message, [first, last])
    refused = outcome.results[servers.REFUSED]
    return f"the other two have it; refused: {getattr(refused, 'reply', '')}"


def all_refused(scene: Scene) -> str:
    with scene.transport(scene.server.open, "none") as smtp:
        message = a_mail("nobody-left", servers.REFUSED)
        outcome = smtp.deliver(message, message.recipients)
        must(isinstance(outcome.results[servers.REFUSED], PermFailed), outcome)
        after = a_mail("after-it")
        all_accepted(smtp.deliver(after, after.recipients))
    scene.arrived(after, after.recipients)
    return "refused; the next message over that connection was taken"


def many_recipients(scene: Scene) -> str:
    message = a_mail("many", *(f"r{number}@example.org" for number in range(MANY)))
    start = time.perf_counter()
    outcome = scene.deliver(message, scene.server.open, "none")
    seconds = time.perf_counter() - start
    all_accepted(outcome)
    copies = scene.arrived(message, message.recipients)
    return f"{MANY:,} accepted in {seconds:.1f} s, each received it once, in {len(copies)} copies"


def large(scene: Scene) -> str:
    line = b"%08d" + b"x" * 68 + b"\r\n"
    message = a_mail("large", body=b"".join(line % number for number in range(LARGE // 78)))
    start = time.perf_counter()
    security, how = ("none", "in clear") if scene.no_tls else ("starttls", "under TLS")
    all_accepted(scene.deliver(message, scene.server.open, security))
    seconds = time.perf_counter() - start
    scene.arrived(message, message.recipients)
    return f"{len(message.content):,} bytes {how} in {seconds:.1f} s, arrived as they were"


def too_large(scene: Scene) -> str:
    message = a_mail("too-large", body=(b"x" * 76 + b"\r\n") * (servers.SIZE // 78 + 100_000))
    outcome = scene.deliver(message, scene.server.open, "none")
    (result,) = outcome.results.values()
    must(isinstance(result, PermFailed), outcome)
    return f"refused: {getattr(result, 'reply', '')}"


def utf8(scene: Scene) -> str:
    message = a_mail("utf8", "grün@example.org", header="Subject: grüße\r\n".encode())
    outcome = scene.deliver(message, scene.server.open, "none")
    if "smtputf8" in scene.offers:
        all_accepted(outcome)
        scene.arrived(message, message.recipients)
        return "offered; taken, and arrived as it was"
    (result,) = outcome.results.values()
    must(isinstance(result, PermFailed), outcome)
    return f"not offered; {getattr(result, 'reply', '')}"


def eightbit(scene: Scene) -> str:
    message = a_mail("eightbit", body="grüße\r\n".encode(), header=b"Content-Transfer-Encoding: 8bit\r\n")
    outcome = scene.deliver(message, scene.server.open, "none")
    must("8bitmime" in scene.offers, "8BITMIME is not offered")
    all_accepted(outcome)
    scene.arrived(message, message.recipients)
    return "taken, and arrived as it was"


def turns(scene: Scene) -> str:
    """How often the direction changes for one message of fifty recipients: what pipelining saves."""
    message = a_mail("turns", *(f"t{number}@example.org" for number in range(50)))
    with Tap(scene.server.open) as tap:
        all_accepted(scene.deliver(message, tap.port, "none"))
    scene.arrived(message, message.recipients)
    offered = "offered" if "pipelining" in scene.offers else "not offered"
    return f"{offered}; 50 recipients took {tap.turns} turns of the connection"


def crowd(scene: Scene) -> str:
    """A thousand messages by four threads, in batches where the transport takes them."""
    messages = [a_mail(f"crowd-{number}-", f"c{number}@example.org") for number in range(1000)]
    shares = [messages[number::4] for number in range(4)]
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    with scene.transport(scene.server.open, "none") as smtp:

        def send(share: Sequence[Message]) -> None:
            deliveries = [Delivery(message, message.recipients) for message in share]
            if isinstance(smtp, SupportsBatch):
                outcomes.extend(smtp.deliver_many(deliveries))
            else:
                outcomes.extend(smtp.deliver(each.message, each.recipients) for each in deliveries)

        threads = [threading.Thread(target=send, args=[share]) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seconds = time.perf_counter() - start
    must(len(outcomes) == len(messages), f"{len(outcomes)} outcomes")
    for outcome in outcomes:
        all_accepted(outcome)
    wanted, until = {each.recipients[0] for each in messages}, time.monotonic() + PATIENCE
    while True:
        got = Counter(r for each in scene.sink.messages for r in each.recipients if r in wanted)
        if len(got) == len(wanted) or time.monotonic() > until:
            break
        time.sleep(0.1)
    must(got == Counter(wanted), f"{len(got)} of {len(wanted)} arrived, {got.total()} copies")
    how = "deliver_many" if issubclass(SMTPTransport, SupportsBatch) else "deliver"
    return f"{len(messages) / seconds:,.0f} messages a second ({how}), each arrived once"


class Tap:
    """A port that leads to another, and counts how often the other side begins to speak."""

    def __init__(self, port: int) -> None:
        self.turns = 0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._speaker = ""
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._to))
        back = threading.Thread(target=self._pass, args=[server, client, "server"], daemon=True)
        back.start()
        self._pass(client, server, "client")
        back.join(10)
        client.close()
        server.close()

    def _pass(self, source: socket.socket, target: socket.socket, name: str) -> None:
        try:
            while data := source.recv(65536):
                with self._lock:
                    self.turns += name != self._speaker
                    self._speaker = name
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


CHECKS: Final[Mapping[str, Callable[[Scene], str]]] = {
    "STARTTLS": starttls,
    "TLS from the first byte": implicit,
    "an authority that we do not trust": strange_authority,
    "AUTH": login,
    "AUTH, wrong password": wrong_password,
    "no credentials where they are wanted": no_login,
    "pipelining": turns,
    "one refused among accepted": one_refused,
    "all refused": all_refused,
    "8BITMIME": eightbit,
    "SMTPUTF8": utf8,
    "1,000 messages, 4 connections": crowd,
    "10,000 recipients": many_recipients,
    "50 MB": large,
    "over SIZE": too_large,
}


def tls_fault(port: int) -> str:
    """Why nobody can speak TLS to this port; ``""`` where one can."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as plain, context.wrap_socket(plain):
            return ""
    except OSError as error:
        return str(error)


def offers(port: int) -> Mapping[str, str]:
    """What a server says to EHLO in clear."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        return dict(client.esmtp_features)


@attrs.frozen
class SinkScene:
    """``smtp-sink``, and the folder where it leaves what it took."""

    port: int
    dumps: Path

    def deliver(self, message: Message) -> Outcome:
        with closing(SMTPTransport("127.0.0.1", self.port, security="none")) as smtp:
            return smtp.deliver(message, message.recipients)

    def taken(self, message: Message) -> list[str]:
        """The recipients of all its copies; each copy is as it was."""
        mark = f"X-Check: {message.id}\n".encode()
        found: list[str] = []
        for path in self.dumps.iterdir():
            dump = path.read_bytes()
            head, _, _ = dump.partition(b"From: ")
            if mark in dump[: len(head) + 2000]:
                # It writes its own line ends, and fields of its own in front.
                must(
                    dump.rstrip(b"\n").endswith(message.content.replace(b"\r\n", b"\n").rstrip(b"\n")),
                    "altered",
                )
                found += [
                    line.partition(b"<")[2].partition(b">")[0].decode()
                    for line in head.splitlines()
                    if line.startswith(b"X-Rcpt-Args:")
                ]
        return found


def sink_many(scene: SinkScene) -> str:
    message = a_mail("many", *(f"r{number}@example.org" for number in range(MANY)))
    all_accepted(scene.deliver(message))
    must(Counter(scene.taken(message)) == Counter(message.recipients), "not everybody once")
    return f"{MANY:,} accepted, each received it once"


def sink_large(scene: SinkScene) -> str:
    message = a_mail("large", body=(b"x" * 76 + b"\r\n") * (LARGE // 78))
    all_accepted(scene.deliver(message))
    must(scene.taken(message) == list(message.recipients), "not taken once")
    return f"{len(message.content):,} bytes arrived as they were"


def sink_dots(scene: SinkScene) -> str:
    message = a_mail("dots")
    all_accepted(scene.deliver(message))
    must(scene.taken(message) == list(message.recipients), "not taken once")
    return "taken, and arrived as it was"


SINK_CHECKS: Final[Mapping[str, Callable[[SinkScene], str]]] = {
    "leading dots, long lines": sink_dots,
    "10,000 recipients": sink_many,
    "50 MB": sink_large,
}

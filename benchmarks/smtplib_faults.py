"""What plain smtplib reports, what truly happened, and what outbox reports: a table, one line a fault.

Each fault is played by an SMTPSink to ``smtplib``, used as its documentation
shows it, and to :class:`outbox.SMTPTransport`.  What each reported stands
beside what the receiver has.

    python benchmarks/smtplib_faults.py

The table in docs/decisions/001-why-not-plain-smtplib.md is its output, and a
test compares them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import itertools
import logging
import smtplib
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs
import trustme

from outbox import Accepted, Message, Outcome, RelayFault, SMTPTransport, Untried
from outbox.testing import SMTPSink

SENDER: Final = "shop@example.org"
ANN: Final = "ann@example.org"
BOB: Final = "bob@example.org"
EVE: Final = "eve@example.org"
HELLO: Final = b"Subject: Hello\r\n\r\nHello.\r\n"
PASSWORD: Final = "s3cret"
SHORT: Final = 0.3
MOMENT: Final = dt.timedelta(seconds=SHORT)
LONG_AGO: Final = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
SMUGGLED: Final = (
    b"Subject: Hello\r\n\r\nHello.\r.\r\nMAIL FROM:<ceo@example.org>\r\nRCPT TO:<eve@example.org>\r\n"
    b"DATA\r\nSubject: Pay\r\n\r\nPay at once.\r\n"
)


@attrs.frozen
class Authority:
    """An authority that our clients trust; what it signs for a server may be out of date."""

    ca: trustme.CA = attrs.field(factory=trustme.CA)

    def server(self, *, expired: bool = False) -> ssl.SSLContext:
        until: dict[str, Any] = {}
        if expired:
            until = {"not_before": LONG_AGO, "not_after": LONG_AGO + dt.timedelta(days=1)}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("127.0.0.1", **until).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


AUTHORITY: Final = Authority()


@attrs.frozen
class Row:
    """One fault, as each of both met it."""

    fault: str
    smtplib: str
    there: str
    outbox: str
    there_too: str

    def __str__(self) -> str:
        return f"| {self.fault} | {self.smtplib} | {self.there} | {self.outbox} | {self.there_too} |"


HEAD: Final = str(Row("what happens", "smtplib reports", "the receiver", "outbox reports", "the receiver"))

Deed = Callable[[SMTPSink], str]


@attrs.frozen(kw_only=True)
class Fault:
    """What happens, and how each of both is asked to send a mail meanwhile.

    Attributes:
        stage: Tells the sink how to behave.
        there: What of the receiver is worth saying, besides what it took.
    """

    name: str
    stage: Callable[[SMTPSink], object] = lambda _: None
    sink: dict[str, Any] = attrs.field(factory=dict)
    plain: Deed
    ours: Deed
    there: Deed = lambda _: ""

    def row(self) -> Row:
        return Row(self.name, *self._played(self.plain), *self._played(self.ours))

    def _played(self, deed: Deed) -> tuple[str, str]:
        with SMTPSink(**self.sink) as sink:
            self.stage(sink)
            said = deed(sink)
            more = self.there(sink)
            taken = "; ".join(f"took it for {names(each.recipients)}" for each in sink.messages)
        return said, ", ".join(filter(None, [taken or "took nothing", more]))


def names(addresses: Sequence[str]) -> str:
    return " and ".join(address.partition("@")[0] for address in addresses)


# -- smtplib, as its documentation shows it


def plainly(send: Callable[[smtplib.SMTP], Any], **settings: Any) -> Deed:
    """Connect, do that, leave; and say what came of it."""

    def deed(sink: SMTPSink) -> str:
        try:
            with smtplib.SMTP(sink.host, sink.port, **{"timeout": 10, **settings}) as smtp:
                return told_by_smtplib(send(smtp))
        except Exception as error:  # noqa: BLE001 - whatever it raises is what it reports
            return raised(error)

    return deed


def staying(content: bytes = HELLO) -> Deed:
    """The same without a QUIT, as where the connection is kept open for the next mail."""

    def deed(sink: SMTPSink) -> str:
        smtp = smtplib.SMTP(sink.host, sink.port, timeout=10)
        try:
            said = told_by_smtplib(mail(content=content)(smtp))
            with contextlib.suppress(TimeoutError):
                # What the server makes of the rest may take it a moment.
                sink.wait_for(2, timeout=MOMENT)
            return said
        finally:
            smtp.close()

    return deed


def told_by_smtplib(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    refused = [f"{names([r])} {code}" for r, (code, _) in (answer or {}).items()]
    return "success" + (f", returning {', '.join(refused)}" if refused else "")


def raised(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"SMTPRecipientsRefused: {', '.join(f'{names([r])} {c}' for r, (c, _) in error.recipients.items())}"
    code = f" {error.smtp_code}" if isinstance(error, smtplib.SMTPResponseException) else ""
    return type(error).__name__ + code


def mail(*recipients: str, content: bytes = HELLO) -> Callable[[smtplib.SMTP], Any]:
    return lambda smtp: smtp.sendmail(SENDER, list(recipients or [ANN]), content)


def twice(first: Callable[[smtplib.SMTP], Any]) -> Callable[[smtplib.SMTP], Any]:
    """That, whatever comes of it, and then a mail to bob over the same connection."""

    def both(smtp: smtplib.SMTP) -> Any:
        with contextlib.suppress(UnicodeError):
            first(smtp)
        return mail(BOB)(smtp)

    return both


def login(smtp: smtplib.SMTP) -> Any:
    smtp.login("app", PASSWORD)
    return mail()(smtp)


def starttls(smtp: smtplib.SMTP) -> Any:
    smtp.starttls()
    return mail()(smtp)


def starttls_and(password: str, authority: Authority) -> Callable[[smtplib.SMTP], Any]:
    def both(smtp: smtplib.SMTP) -> Any:
        smtp.starttls(context=authority.client())
        smtp.login("app", password)
        return mail()(smtp)

    return both


def debugged(sink: SMTPSink) -> str:
    """What set_debuglevel prints."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        with smtplib.SMTP(sink.host, sink.port, timeout=10) as smtp:
            smtp.set_debuglevel(1)
            starttls_and(PASSWORD, AUTHORITY)(smtp)
        return "success, prints the password" if "AGFwcABzM2NyZXQ=" in printed.getvalue() else "success"


def greeted(sink: SMTPSink) -> str:
    asked: list[str] = []
    original = socket.getfqdn

    def getfqdn(name: str = "") -> str:
        asked.append(name)
        return original(name)

    socket.getfqdn = getfqdn
    try:
        said = plainly(mail())(sink)
    finally:
        socket.getfqdn = original
    return said + (", having asked DNS for our name first" if asked else "")


def waiting(sink: SMTPSink) -> str:
    with smtplib.SMTP(sink.host, sink.port) as smtp:
        limit = smtp.sock.gettimeout() if smtp.sock else 0
        return "waits without end" if limit is None else f"waits {limit} s"


# -- outbox


def ours(*recipients: str, content: bytes = HELLO, first: Sequence[str] = (), **settings: Any) -> Deed:
    """Deliver a mail; before it over the same transport one to each of *first*."""

    def deed(sink: SMTPSink) -> str:
        with contextlib.closing(SMTPTransport(sink.host, sink.port, **settings)) as transport:
            for each in first:
                with contextlib.suppress(RelayFault):
                    transport.deliver(message([each]), [each])
            asked = list(recipients or [ANN])
            try:
                return told(transport.deliver(message(asked, content), asked))
            except RelayFault as fault:
                return type(fault).__name__

    return deed


def message(recipients: Sequence[str], content: bytes = HELLO) -> Message:
    return Message(sender=SENDER, recipients=recipients, content=content)


def told(outcome: Outcome) -> str:
    """Each result, and its reply where it is no acceptance."""
    found: dict[str, list[str]] = {}
    for recipient, result in outcome.results.items():
        code = "" if isinstance(result, Accepted | Untried) else result.reply[:3]
        words = f"{type(result).__name__}{' ' + code if code.isdigit() else ''}"
        found.setdefault(words, []).append(recipient)
    return ", ".join(f"{names(recipients)} {words}" for words, recipients in found.items())


def secure(authority: Authority, **settings: Any) -> dict[str, Any]:
    return {"security": "starttls", "ssl_context": authority.client(), **settings}


def logged(sink: SMTPSink) -> str:
    """What our log says of the same at its most talkative."""
    log, lines = logging.getLogger("outbox.transports.smtp"), io.StringIO()
    handler, level, propagate = logging.StreamHandler(lines), log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        said = ours(username="app", password=PASSWORD, **secure(AUTHORITY))(sink)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
    return f"{said}, logs AUTH PLAIN (secret)" if "AUTH PLAIN (secret)" in lines.getvalue() else said


def patience(_: SMTPSink) -> str:
    limit = SMTPTransport()._server.timeouts.command  # noqa: SLF001 - it is what is asked about
    return f"waits {limit.total_seconds() / 60:.0f} min for a reply"


# -- what of the receiver is worth saying


def auths(sink: SMTPSink) -> str:
    return f"heard {len(sink.logins)} AUTH{'' if all(each.tls for each in sink.logins) else ' in clear'}"


def violations(sink: SMTPSink) -> str:
    return "; ".join(dict.fromkeys(each.partition(": ")[2] or each for each in sink.violations))


def declared(sink: SMTPSink) -> str:
    said = [option for each in sink.messages for option in each.options if "BODY" in option]
    return ", ".join(filter(None, [*said, violations(sink)]))


def senders(sink: SMTPSink) -> str:
    return "".join(f"the last one from {names([each.sender])}" for each in sink.messages[1:])


def in_tls(sink: SMTPSink) -> str:
    return "under TLS" if sink.messages and sink.messages[0].tls else ""


def on(step: Any, address: Any = None, **rule: Any) -> Callable[[SMTPSink], object]:
    return lambda sink: sink.on(step, address, **rule)


def all_of(*stages: Callable[[SMTPSink], object]) -> Callable[[SMTPSink], object]:
    return lambda sink: [stage(sink) for stage in stages]


def slowly(sink: SMTPSink) -> None:
    sink.on("mail", reply="250 " + "o" * 40, drip=dt.timedelta(milliseconds=25))


def at_length(sink: SMTPSink) -> None:
    sink.on("mail", reply=itertools.chain(itertools.repeat(b"250-more\r\n", 20_000), [b"250 ok\r\n"]))


FAULTS: Final[Sequence[Fault]] = (
    Fault(name="hangs up before the dot", stage=on("data", close=True), plain=plainly(mail()), ours=ours()),
    Fault(name="hangs up after the dot", stage=on("dot", close=True), plain=plainly(mail()), ours=ours()),
    Fault(
        name="cuts its reply to the dot: `250 2`",
        stage=on("dot", reply="250 2.0.0 taken", cut=5, close=True),
        plain=plainly(mail()),
        ours=ours(),
    ),
    Fault(
        name="answers the dot by `252`",
        stage=on("dot", reply="252 2.0.0 taken"),
        plain=plainly(mail()),
        ours=ours(),
    ),
    Fault(
        name="answers the dot by `354`",
        stage=on("dot", reply="354 go on"),
        plain=plainly(mail()),
        ours=ours(),
    ),
    Fault(name="answers MAIL by `253`", stage=on("mail", reply="253 ok"), plain=plainly(mail()), ours=ours()),
    Fault(
        name="answers the dot ahead of the content, then refuses it",
        stage=all_of(on("data", reply=b"354 go on\r\n250 taken\r\n"), on("dot", reply="554 5.6.0 no")),
        plain=staying(),
        ours=ours(),
    ),
    Fault(
        name="takes it, and refuses QUIT by `451`",
        stage=on("quit", reply="451 4.3.0 not now"),
        plain=plainly(mail()),
        ours=ours(),
    ),
    Fault(
        name="puts one of two recipients off",
        stage=on("rcpt", BOB, reply="450 4.7.1 later"),
        plain=plainly(mail(ANN, BOB)),
        ours=ours(ANN, BOB),
    ),
    Fault(
        name="accepts one recipient and says `421` to the second",
        stage=on("rcpt", BOB, reply="421 4.3.2 closing", close=True),
        plain=plainly(mail(ANN, BOB)),
        ours=ours(ANN, BOB),
    ),
    Fault(
        name="takes two recipients at a time",
        sink={"max_recipients": 2},
        plain=plainly(mail(ANN, BOB, EVE)),
        ours=ours(ANN, BOB, EVE),
    ),
    Fault(
        name="drips its reply for 1.1 s; the timeout is 0.3 s",
        stage=slowly,
        plain=plainly(mail(), timeout=SHORT),
        ours=ours(timeout=MOMENT),
    ),
    Fault(
        name="answers MAIL by 20,000 lines",
        stage=at_length,
        plain=plainly(mail()),
        ours=ours(),
    ),
    Fault(name="says nothing, and no timeout was set", plain=waiting, ours=patience),
    Fault(
        name="closed the connection between two mails",
        stage=on("dot", reply="250 2.0.0 taken", close=True, connection=1),
        plain=plainly(twice(mail())),
        ours=ours(BOB, first=[ANN]),
    ),
    Fault(
        name="has a certificate that has expired",
        sink={"starttls": AUTHORITY.server(expired=True)},
        plain=plainly(starttls),
        ours=ours(**secure(AUTHORITY)),
        there=in_tls,
    ),
    Fault(
        name="has a certificate that anybody could have signed",
        sink={"starttls": Authority().server()},
        plain=plainly(starttls),
        ours=ours(**secure(AUTHORITY)),
        there=in_tls,
    ),
    Fault(
        name="has bytes of somebody else behind its `220` to STARTTLS",
        sink={"starttls": AUTHORITY.server()},
        stage=on("starttls", reply=b"220 go ahead\r\n250 injected\r\n"),
        plain=plainly(starttls),
        ours=ours(**secure(AUTHORITY)),
        there=in_tls,
    ),
    Fault(
        name="offers AUTH in clear",
        sink={"users": {"app": PASSWORD}},
        plain=plainly(login),
        ours=ours(username="app", password=PASSWORD, security="starttls"),
        there=auths,
    ),
    Fault(
        name="is told a wrong password",
        sink={"starttls": AUTHORITY.server(), "users": {"app": "another"}},
        plain=plainly(starttls_and(PASSWORD, AUTHORITY)),
        ours=ours(username="app", password=PASSWORD, **secure(AUTHORITY)),
        there=auths,
    ),
    Fault(
        name="is told a password that is not ASCII",
        sink={"starttls": AUTHORITY.server(), "users": {"app": "pässword"}},
        plain=plainly(starttls_and("pässword", AUTHORITY)),
        ours=ours(username="app", password="pässword", **secure(AUTHORITY)),
        there=auths,
    ),
    Fault(
        name="is asked in the log what was said",
        sink={"starttls": AUTHORITY.server(), "users": {"app": PASSWORD}},
        plain=debugged,
        ours=logged,
    ),
    Fault(
        name="content with a bare CR around a dot, to a lenient server",
        sink={"manners": "lenient"},
        there=senders,
        plain=staying(SMUGGLED),
        ours=ours(content=SMUGGLED),
    ),
    Fault(
        name="content (bytes) with bare line feeds",
        plain=plainly(mail(content=HELLO.replace(b"\r", b""))),
        ours=ours(content=HELLO.replace(b"\r", b"")),
        there=violations,
    ),
    Fault(
        name="content (bytes) with 8-bit letters",
        plain=plainly(mail(content="Subject: Hello\r\n\r\nGrüße\r\n".encode())),
        ours=ours(content="Subject: Hello\r\n\r\nGrüße\r\n".encode()),
        there=declared,
    ),
    Fault(
        name="a recipient with letters that are not ASCII",
        plain=plainly(mail(ANN, "jürgen@example.org")),
        ours=ours(ANN, "jürgen@example.org"),
    ),
    Fault(
        name="the mail after that one, over the same connection",
        plain=plainly(twice(mail(ANN, "jürgen@example.org"))),
        ours=ours(BOB, first=["jürgen@example.org"]),
    ),
    Fault(
        name="two addresses in one string, separated by a comma",
        plain=plainly(mail(f"{ANN}, {BOB}")),
        ours=ours(f"{ANN}, {BOB}"),
    ),
    Fault(name="nobody said what we are called", plain=greeted, ours=ours()),
)


def rows() -> Iterator[Row]:
    """Every fault, played to both."""
    for fault in FAULTS:
        yield fault.row()


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(f"Python {sys.version.split()[0]}\n\n{HEAD}\n|---|---|---|---|---|")
    for row in rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()

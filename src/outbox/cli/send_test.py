"""Send one message, and watch: the dialogue, the TLS, and what is wrong.

It goes through the configured transport at once.  It is not stored, and not
tried again: whatever becomes of it, no queue knows of it.  Its text says what
it is.  What is shown holds no password.

  outbox send-test --to you@example.org
  outbox send-test --to you@example.org --transport smtps://app@smtp.example.org
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import logging
import re
import ssl
import textwrap
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import attrs

from outbox.address import parse_mailbox
from outbox.clock import SystemClock
from outbox.errors import RelayFault
from outbox.handover import hand_over
from outbox.locate import Config, masked, spell
from outbox.mail import from_email
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Uncertain, Untried
from outbox.protocols import Transport
from outbox.transports.smtp import SMTPTransport
from outbox.transports.smtp.extensions import Extensions
from outbox.transports.smtp.secured import Secured
from outbox.transports.smtp.steps import Step
from outbox.transports.smtp.transcript import LOG, Heard, Reached, Reaching
from outbox.values import printable

from .advice import Trouble, advice, of_fault, of_result
from .exits import Exit, exit_of
from .hearing import heard_by
from .opening import transport_of
from .output import Console
from .records import RESULTS, reply_of
from .settings import config_of

__all__ = ["arguments", "run"]

EPILOG: Final = """\
exit status: 0 every recipient was accepted; 1 one was refused for good;
75 not now: the relay cannot be reached, put it off, or did not say whether it
took it; 78 a password, a certificate or a setting has to be mended
"""

_ID: Final = re.compile(rb"^Message-ID: *(\S+)", re.IGNORECASE | re.MULTILINE)
_SILENT: Final = Uncertain("the transport reported nothing for this recipient")
_SOON: Final = dt.timedelta(days=21)
_TEXT: Final = """\
This is a test message. The command `outbox send-test` sent it on
{now:%Y-%m-%d at %H:%M:%S} UTC, through {relay}.

If you can read this, mail gets through. There is nothing to be done, and
you may delete it.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--to", metavar="ADDRESS", action="append", required=True, help="to whom (may be repeated)")
    add(
        "--from",
        dest="sender",
        metavar="ADDRESS",
        help="from whom (default: the login where it is an address, postmaster at the configured domain, or the recipient)",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    relay = masked(config.transport or "")
    watch = _Watch(console)
    # Made first: of a URL that cannot be read it is said here why.
    with contextlib.closing(transport_of(config)) as transport, heard_by(watch, LOG):
        message = _message(options, config, relay)
        watch.tell(f"One test message from {message.sender} to {', '.join(message.recipients)},")
        watch.tell(f"through {relay}. It is not stored.")
        report = _whole(hand_over(transport, message, message.recipients), message)
        shown = _shown(transport, report)
    found = _Finding.of(message, report, watch, shown)
    if console.as_json:
        console.data(found.data())
    else:
        for line in found.lines(console.width, quiet=console.verbosity < 0):
            console.line(line)
    return found.status


def _whole(report: Outcome | RelayFault, message: Message) -> Outcome | RelayFault:
    """With a result for everybody: whom the transport says nothing of may have it."""
    if isinstance(report, RelayFault):
        return report
    return attrs.evolve(report, results={r: report.results.get(r, _SILENT) for r in message.recipients})


def _message(options: argparse.Namespace, config: Config, relay: str) -> Message:
    recipients = [parse_mailbox(text, origin=config.domain) for text in options.to]
    sender = _sender(options, config, recipients[0])
    email = EmailMessage()
    email["From"], email["To"] = sender, ", ".join(recipients)
    email["Subject"] = "A test message of outbox"
    email["Auto-Submitted"] = "auto-generated"
    email.set_content(_TEXT.format(now=SystemClock().now(), relay=relay))
    return from_email(email, sender=sender, recipients=recipients)


def _sender(options: argparse.Namespace, config: Config, recipient: str) -> str:
    if options.sender:
        return parse_mailbox(options.sender, origin=config.domain)
    user = unquote(urlsplit(config.transport or "").username or "")
    if "@" in user:
        return parse_mailbox(user)
    return f"postmaster@{config.domain}" if config.domain else recipient


def _shown(transport: Transport, report: Outcome | RelayFault) -> Secured | None:
    """What the server showed, where that is what was wrong with it."""
    doubtful = isinstance(report, RelayFault) and isinstance(report.__cause__, ssl.SSLCertVerificationError)
    return transport.presented() if doubtful and isinstance(transport, SMTPTransport) else None


@attrs.define
class _Met:
    """What was found out of one relay, over the last connection to it."""

    relay: str = ""
    secured: Secured | None = None
    heard: list[Heard] = attrs.Factory(list)

    @property
    def offers(self) -> Extensions | None:
        """What the server offered last, which is what holds."""
        told = [heard.reply for heard in self.heard if heard.step in (Step.EHLO, Step.LHLO)]
        return Extensions.parse(told[-1]) if told and told[-1].code == 250 else None  # noqa: PLR2004 - done

    def data(self) -> dict[str, Any]:
        return {
            "relay": printable(self.relay),
            "tls": _facts_of(self.secured),
            "offers": None if self.offers is None else dict(self.offers.offers),
        }


class _Watch(logging.Handler):
    """Hears the dialogue as it goes, shows it, and keeps what there is to say of it afterwards."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []
        self.met: dict[str, _Met] = {}
        self._now = _Met()
        self._console = console
        self._shown = not console.as_json and console.verbosity >= 0

    def tell(self, text: str) -> None:
        if self._shown:
            self._console.line(printable(text, 1000))

    def emit(self, record: logging.LogRecord) -> None:
        about = getattr(record, "about", None)
        self._note(about)
        text = record.getMessage()
        if not self.said:
            self.tell("")
            self.tell("    ms C: by us, S: by the server")
        self.said.append(text)
        self.tell(text)
        if isinstance(about, Reached):
            self.tell(f"       (it has {about.seconds:.0f} s to say who it is)")

    def _note(self, about: object) -> None:
        match about:
            case Reaching(relay=relay):
                self._now = self.met[relay] = _Met(relay)
            case Heard():
                self._now.heard.append(about)
            case Secured():
                self._now.secured = about


@attrs.frozen(kw_only=True)
class _Finding:
    """What there is to say when it is over."""

    message: Message
    report: Outcome | RelayFault
    said: Sequence[str]
    met: Sequence[_Met]
    presented: Secured | None
    troubles: Sequence[Trouble]

    @classmethod
    def of(
        cls, message: Message, report: Outcome | RelayFault, watch: _Watch, presented: Secured | None
    ) -> _Finding:
        return cls(
            message=message,
            report=report,
            said=watch.said,
            met=list(watch.met.values()),
            presented=presented,
            troubles=_troubles(report, [heard for met in watch.met.values() for heard in met.heard]),
        )

    @property
    def status(self) -> Exit:
        fault = self.report if isinstance(self.report, RelayFault) else self.report.fault
        if fault is not None:
            return exit_of(fault)
        results = self.report.results.values() if isinstance(self.report, Outcome) else ()
        if any(isinstance(result, PermFailed) for result in results):
            return Exit.NOT_ALL
        return Exit.OK if all(isinstance(result, Accepted) for result in results) else Exit.TEMPORARY

    @property
    def message_id(self) -> str:
        found = _ID.search(self.message.content)
        return printable(found[1].decode("ascii", "replace")) if found else ""

    @property
    def relay(self) -> str:
        return printable(self.report.relay)

    @property
    def _only(self) -> _Met:
        """What there is to say of the relay, where it was one."""
        return self.met[0] if len(self.met) == 1 else _Met()

    def data(self) -> dict[str, Any]:
        results = self.report.results if isinstance(self.report, Outcome) else {}
        return {
            "delivered": self.status is Exit.OK,
            "message_id": self.message_id,
            "sender": self.message.sender,
            "relay": self.relay,
            "results": {r: {"result": RESULTS[type(x)], "reply": reply_of(x)} for r, x in results.items()},
            **{name: value for name, value in self._only.data().items() if name != "relay"},
            "presented": _facts_of(self.presented),
            "relays": [met.data() for met in self.met],
            "wrong": [{"what": each.text, "advice": advice(each)} for each in self.troubles],
            "dialogue": list(self.said),
        }

    def lines(self, width: int | None, *, quiet: bool) -> Iterator[str]:
        if not quiet:
            yield ""
            for name, value in (*self._facts(), *self._accepted()):
                yield from _wrapped(f"{name:<12} ", value, width)
        for trouble in self.troubles:
            yield ""
            word = RESULTS[type(trouble.result)] if trouble.result else "wrong"
            yield from _wrapped(f"{word:<12} ", trouble.text, width)
            yield from _wrapped("          -> ", advice(trouble), width)
        if isinstance(self.report, RelayFault) and not quiet:
            yield ""
            yield "Not delivered: nothing of the message was sent."

    def _facts(self) -> Iterator[tuple[str, str]]:
        for met in self.met:
            if len(self.met) > 1:
                yield "relay", printable(met.relay)
            yield from self._facts_of(met)
        yield "Message-ID", self.message_id

    def _facts_of(self, met: _Met) -> Iterator[tuple[str, str]]:
        if met.secured is not None:
            yield "TLS", f"{met.secured.version.replace('TLSv', 'TLS ')}, {met.secured.cipher}"
            yield "certificate", _certificate(met.secured, SystemClock().now())
        elif self.presented is not None:
            yield from _read(self.presented, SystemClock().now())
        elif met.offers is not None and isinstance(self.report, Outcome):
            yield "TLS", "none: all of this went in clear"
        if met.offers is not None:
            offers = [f"{name} {more}".strip() for name, more in met.offers.offers.items()]
            yield "offers", printable(", ".join(offers)) or "nothing besides plain SMTP"

    def _accepted(self) -> Iterator[tuple[str, str]]:
        results = self.report.results if isinstance(self.report, Outcome) else {}
        for recipient, result in results.items():
            if isinstance(result, Accepted):
                yield "accepted", f"{printable(recipient)}: {result.reply}".removesuffix(": ")
            elif isinstance(result, Untried) and not result.reply:
                yield "untried", printable(recipient)


def _troubles(report: Outcome | RelayFault, heard: Sequence[Heard]) -> list[Trouble]:
    if isinstance(report, RelayFault):
        return [of_fault(report)]
    found = [of_result(result, r, report.relay, heard) for r, result in report.results.items()]
    faults = [of_fault(report.fault)] if report.fault else []
    return [each for each in found if each is not None] + faults


def _certificate(secured: Secured, now: dt.datetime) -> str:
    text = secured.certificate.removeprefix("certificate ")
    if secured.until is not None:
        left = secured.until - now
        text += f" (in {spell(left, units=1)}{': renew it soon' if left < _SOON else ''})"
    return f"{text}; verified" if secured.verified else f"{text}; NOT VERIFIED: it could be anybody's"


def _read(presented: Secured, now: dt.datetime) -> Iterator[tuple[str, str]]:
    """What a certificate says that did not hold."""
    if presented.until is not None and presented.since is not None:
        over = " (over)" if presented.until < now else " (not yet)" if presented.since > now else ""
        yield "presented", f"a certificate for {printable(', '.join(presented.names), 300) or 'nobody named'}"
        yield "  subject", printable(presented.subject, 200)
        yield "  issuer", printable(presented.issuer, 200)
        yield "  valid", f"from {presented.since:%Y-%m-%d} until {presented.until:%Y-%m-%d}{over}"
        yield "  SHA-256", presented.fingerprint
    else:
        yield "presented", f"a certificate that cannot be read, SHA-256 {presented.fingerprint}"


def _facts_of(secured: Secured | None) -> dict[str, Any] | None:
    return None if secured is None else attrs.asdict(secured, filter=lambda each, _: each.name != "der")


def _wrapped(start: str, text: str, width: int | None) -> Iterator[str]:
    """*text* within the terminal, its further lines under its first."""
    if width is None:
        yield start + text
        return
    room = max(20, min(width, 120) - len(start))
    first, *rest = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    yield start + first
    for line in rest:
        yield " " * len(start) + line

"""A delivery status notification as bytes: multipart/report (RFC 6522) around message/delivery-status (RFC 3464).

Pure.  It is written by hand, not by the ``email`` package: what is returned of the original are its own bytes.
"""

from __future__ import annotations

import binascii
import datetime as dt
import hashlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from email.utils import format_datetime
from typing import Final, Literal

import attrs

from outbox.outcome import PermFailed, Result
from outbox.values import printable

__all__ = ["Original", "Report", "Told", "written"]

_STATUS: Final = re.compile(r"(?:\d{3}[ -])?([245]\.\d{1,3}\.\d{1,3})\b", re.ASCII)
_CODE: Final = re.compile(r"[245]\d\d\b", re.ASCII)
_HOST: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?", re.ASCII)
_WIDTH: Final = 72
_LONGEST: Final = 800

Action = Literal["failed", "delayed"]


@attrs.frozen(kw_only=True)
class Told:
    """What is said of one recipient; *result* is the relay's, where there was one, and *why* the words otherwise."""

    recipient: str
    result: Result | None = None
    why: str = ""
    relay: str = ""
    at: dt.datetime | None = None

    @property
    def words(self) -> str:
        """What was said, by the relay or by us; who was refused without a word was not given up by us."""
        if isinstance(self.result, PermFailed):
            return self.result.reply
        return (self.result.reply if self.result is not None else "") or self.why

    @property
    def status(self) -> str:
        """The enhanced status code (RFC 3463): the relay's own; else of a refusal 5.0.0, of a long wait 4.4.7."""
        if found := _STATUS.match(self.words):
            return found[1]
        return "5.0.0" if isinstance(self.result, PermFailed) else "4.4.7"


@attrs.frozen(kw_only=True)
class Original:
    """What is returned of the mail that failed: all of it, its header, or nothing where *header* is empty."""

    header: bytes = b""
    body: bytes | None = None

    @classmethod
    def of(cls, content: bytes, *, whole_up_to: int) -> Original:
        """As much as may be returned; a header that is not ASCII comes alone, for a part's header must be."""
        header, end, _ = content.partition(b"\r\n\r\n")
        whole = len(content) <= whole_up_to and header.isascii()
        return cls(header=header + b"\r\n", body=content[len(header + end) :] if whole else None)

    @property
    def lines(self) -> Iterator[bytes]:
        """The part of the report that it is."""
        kind = b"message/rfc822" if self.body is not None else b"text/rfc822-headers; charset=utf-8"
        content = self.header if self.body is None else self.header + b"\r\n" + self.body
        yield b"Content-Type: " + kind
        yield b"Content-Description: " + (b"The mail itself" if self.body is not None else b"Its header")
        yield b"Content-Transfer-Encoding: " + (b"7bit" if content.isascii() else b"8bit")
        yield b""
        yield content.removesuffix(b"\r\n")


@attrs.frozen(kw_only=True)
class Report:
    """All that is said at one time of one mail, to who sent it."""

    id: str
    action: Action
    to: str
    author: str
    reporting: str
    date: dt.datetime
    arrived: dt.datetime | None
    envelope_id: str = ""
    about: str = ""
    told: Sequence[Told]


def written(report: Report, original: Original) -> bytes:
    """The whole mail, with CRLF line ends."""
    boundary = "=_" + hashlib.sha256(f"{report.id} of {report.reporting}".encode()).hexdigest()[:40]
    parts = [_explanation(report), _status_part(report)]
    if original.header:
        parts.append(original.lines)
    delimiter = f"--{boundary}".encode()
    lines = [*(line.encode() for line in _header(report, boundary)), b""]
    if not original.header.isascii() or not (original.body or b"").isascii():
        lines.insert(-1, b"Content-Transfer-Encoding: 8bit")
    for part in parts:
        lines += [delimiter, *part, b""]
    return b"\r\n".join([*lines, delimiter + b"--", b""])


def _header(report: Report, boundary: str) -> Iterator[str]:
    yield f"From: {report.author}"
    yield f"To: <{report.to}>"
    yield f"Subject: {_SUBJECTS[report.action]}"
    yield f"Date: {_date(report.date)}"
    yield f"Message-ID: <{report.id}@{report.reporting}>"
    if report.about:
        yield f"References: {report.about}"
    yield "Auto-Submitted: auto-replied"  # RFC 3834 section 5
    yield "MIME-Version: 1.0"
    yield f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"'


_SUBJECTS: Final = {
    "failed": "Your mail could not be delivered",
    "delayed": "Your mail is late (you need not send it again)",
}
_OPENINGS: Final = {
    "failed": "Your mail could not be delivered to these recipients, and is not tried again for them:",
    "delayed": "Your mail could not be delivered yet to these recipients. You need not send it again: it is "
    "tried further, and you are told if it fails.",
}


def _explanation(report: Report) -> Iterator[bytes]:
    lines = [*textwrap.wrap(f"This is the mail system at {report.reporting}."), ""]
    lines += textwrap.wrap(_OPENINGS[report.action])
    for told in report.told:
        said = printable(told.words, _LONGEST) or "no reason is known"
        lines += ["", f"<{told.recipient}>"]
        lines += textwrap.wrap(said, initial_indent="    ", subsequent_indent="    ")
    text = "\n".join([*lines, ""])
    encoding = "7bit" if text.isascii() else "quoted-printable"
    body = text.encode() if text.isascii() else binascii.b2a_qp(text.encode(), istext=True)
    yield b"Content-Type: text/plain; charset=utf-8"
    yield b"Content-Description: What happened"
    yield f"Content-Transfer-Encoding: {encoding}".encode()
    yield b""
    yield from body.split(b"\n")


def _status_part(report: Report) -> Iterator[bytes]:
    yield b"Content-Type: message/delivery-status"
    yield b"Content-Description: The same, for programs"
    for block in [_of_message(report), *(_of_recipient(told, report) for told in report.told)]:
        yield b""
        for line in block:
            yield line.encode("ascii", "backslashreplace")


def _of_message(report: Report) -> Iterator[str]:
    if report.envelope_id:
        yield _field("Original-Envelope-Id", report.envelope_id)
    yield f"Reporting-MTA: dns; {report.reporting}"
    if report.arrived is not None:
        yield f"Arrival-Date: {_date(report.arrived)}"


def _of_recipient(told: Told, report: Report) -> Iterator[str]:
    yield f"Final-Recipient: {_address(told.recipient)}"
    yield f"Action: {report.action}"
    yield f"Status: {told.status}"
    if found := _HOST.fullmatch(told.relay):
        yield f"Remote-MTA: dns; {found[1]}"
    if told.words:
        kind = "smtp" if _CODE.match(told.words) else "x-outbox"
        yield _field("Diagnostic-Code", f"{kind}; {told.words}")
    if told.at is not None:
        yield f"Last-Attempt-Date: {_date(told.at)}"


def _address(recipient: str) -> str:
    """RFC 6533 section 3: what is not ASCII is written as ``\\x{…}``."""
    if recipient.isascii():
        return f"rfc822; {recipient}"
    return "utf-8; " + "".join(c if c.isascii() and c != "\\" else f"\\x{{{ord(c):X}}}" for c in recipient)


def _field(name: str, value: str) -> str:
    """Folded where it is long: a line ends at 998 octets, and 78 are what is advised."""
    plain = printable(value, _LONGEST).encode("ascii", "backslashreplace").decode()
    return "\r\n ".join(
        textwrap.wrap(f"{name}: {plain}", _WIDTH, break_on_hyphens=False, break_long_words=True)
    )


def _date(moment: dt.datetime) -> str:
    return format_datetime(moment.astimezone(dt.UTC))

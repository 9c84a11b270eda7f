"""A mail as programs hand it to sendmail: its header as lines, what is missing added, bare names completed.

Programs write mail for the most patient of readers: without a header, with
line ends of both kinds, with text lines of any length.  What has one meaning
is understood here, before :func:`outbox.mail.from_email` is strict.
"""

from __future__ import annotations

import binascii
import email
import email.policy
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from outbox.address import parse_address_list, qualified
from outbox.errors import InvalidMessage
from outbox.mail import from_email
from outbox.message import Message
from outbox.values import quoted

__all__ = ["Letter", "holds_addresses"]

_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_POSTMARK: Final = re.compile(rb">*From (?![ \t]*:)")
_MAILBOXES: Final = frozenset({"from", "sender", "reply-to", "to", "cc", "bcc"})
_LINE: Final = re.compile(r"\Aline (\d+):")
_IDENTITY: Final = frozenset({"7bit", "8bit", "binary"})
_OVERLONG: Final = re.compile(rb"[^\n]{999}")
_REFUSED: Final = re.compile(rb"[\r\0]")


@attrs.define
class Letter:
    """*fields* are the header's, each with all of its lines, which end in LF as those of the *body* do."""

    fields: list[bytes]
    body: bytes
    before: int = 0
    """How many lines stood before the body where it came from."""

    @classmethod
    def read(cls, content: bytes) -> Letter:
        """CRLF and LF end a line alike; the header ends at the first line that is none of it, be it empty or not.

        "From " lines of a mailbox file before it are passed over.
        """
        content = content.replace(b"\r\n", b"\n")
        fields: list[bytes] = []
        at = 0
        for end in _line_ends(content):
            line = content[at:end]
            if not fields and _POSTMARK.match(line):
                at = end
            elif fields and line[:1] in (b" ", b"\t") and line.strip():
                fields[-1] += line
                at = end
            elif _FIELD.match(line):
                fields.append(_tight(line))
                at = end
            else:
                break
        body = content[at:]
        gap = len(body) - len(body.removeprefix(b"\n"))
        return cls(fields, body[gap:], content.count(b"\n", 0, at + gap))

    @classmethod
    def of_text(cls, content: bytes) -> Letter:
        """One without a header; what holds a NUL is no text, and stays as it is."""
        return cls([], content if b"\0" in content else content.replace(b"\r\n", b"\n"))

    def said(self, name: str) -> list[str]:
        """The values of the fields of this name that are not empty."""
        values = [_text(_value(field)) for field in self.fields if _name(field) == name]
        return [value for value in values if value.strip()]

    def author(self, origin: str) -> str | None:
        """The one mailbox that Sender names, or else From; None where there is no such one, or no telling."""
        for name in ("sender", "from"):
            try:
                found = [
                    each for value in self.said(name) for each in parse_address_list(value, origin=origin)
                ]
            except InvalidMessage:
                continue
            if len(found) == 1:
                return found[0]
        return None

    def add(self, name: str, value: str) -> None:
        """A field on top.

        Raises:
            InvalidMessage: *value* holds a line end, and would be more than the field.
        """
        if "\r" in value or "\n" in value:
            raise InvalidMessage(f"{name}: {quoted(value)} holds a line end")
        self.fields.insert(0, f"{name}: {value}\n".encode())

    def qualify(self, origin: str) -> None:
        """Put the domain behind bare names in the header: ``To: root``.  What cannot be read stays as it is."""
        for number, field in enumerate(self.fields):
            if holds_addresses(_name(field)):
                self.fields[number] = _qualified(field, origin)

    @property
    def content(self) -> bytes:
        """All of it, with LF."""
        return b"".join([*self.fields, b"\n", self.body])

    def message(self, **settings: Any) -> Message:
        """As :func:`outbox.mail.from_email`, but that text is encoded which has to be, and lines are those that came.

        That is text with lines of over 998 octets, or with a CR that ends no line.

        Raises:
            InvalidMessage: as there.
        """
        self.declare()
        content = self.content
        # A parser ends lines at a lone CR, and fields with them: what is refused for one never comes before it.
        if self._overlong and not _REFUSED.search(content):
            return from_email(email.message_from_bytes(content, policy=email.policy.compat32), **settings)
        try:
            return from_email(content, **settings)
        except InvalidMessage as error:
            raise InvalidMessage(_LINE.sub(self._as_it_came, str(error))) from None

    def _as_it_came(self, found: re.Match[str]) -> str:
        """The line of the mail that is meant, counted as in what was read: fields are added on top."""
        return f"line {max(1, int(found[1]) - self._head + self.before)}:"

    @property
    def _head(self) -> int:
        return sum(field.count(b"\n") for field in self.fields) + 1

    @property
    def of_mime(self) -> bool:
        """Whether a field says what the body is."""
        return any(map(_of_mime, self.fields))

    def declare(self) -> None:
        """Encode text that has to be, and say what text is that says nothing of itself and is more than ASCII."""
        if b"\r" in self.body and self._encodable:
            self._encode_text()
        if (self._overlong or not self.body.isascii()) and not self.of_mime:
            self._declare_text("8bit")

    def complete(self) -> None:
        """Add what the fields leave out that say what the body is: MIME-Version, and the charset of text beyond ASCII."""
        if not self.said("mime-version"):
            self.add("MIME-Version", "1.0")
        if self.body.isascii():
            return
        if not self.said("content-transfer-encoding"):
            self.add("Content-Transfer-Encoding", "8bit")
        kind, *others = self.said("content-type") or ["text/plain"]
        if kind.strip().lower().startswith("text/") and "charset" not in kind.lower() and not others:
            self.drop("content-type")
            self.add("Content-Type", f"{' '.join(kind.split()).rstrip(';')}; charset={_charset(self.body)}")

    def drop(self, name: str) -> None:
        """Take out the fields of this name, in lower case."""
        self.fields = [field for field in self.fields if _name(field) != name]

    def join(self, name: str) -> None:
        """Make one field of those of this name, in lower case, which hold address lists."""
        found = [field for field in self.fields if _name(field) == name]
        if len(found) > 1:
            values = [value for field in found if (value := _value(field).strip(b" \t\n,"))]
            self.drop(name)
            self.fields.insert(0, found[0].partition(b":")[0] + b": " + b",\n ".join(values) + b"\n")

    def apart(self) -> tuple[Sequence[bytes], bytes]:
        """The fields that say nothing of the body, and those that do with the body, as content of its own."""
        others = [field for field in self.fields if not _of_mime(field)]
        return others, Letter([field for field in self.fields if _of_mime(field)], self.body).content

    @property
    def _overlong(self) -> bool:
        return _OVERLONG.search(self.body) is not None

    @property
    def _encodable(self) -> bool:
        """Whether the body is text as it stands, and nothing was signed."""
        if b"\0" in self.body or self.said("dkim-signature"):
            return False
        kinds = self.said("content-type") or ["text/plain"]
        encodings = self.said("content-transfer-encoding") or ["7bit"]
        return (
            len(kinds) == len(encodings) == 1
            and kinds[0].strip().lower().startswith("text/")
            and encodings[0].strip().lower() in _IDENTITY
        )

    def _encode_text(self) -> None:
        """As quoted-printable, which carries every octet."""
        if self.of_mime:
            self.drop("content-transfer-encoding")
            self.add("Content-Transfer-Encoding", "quoted-printable")
        else:
            self._declare_text("quoted-printable")
        self.body = b"\n".join(binascii.b2a_qp(line, istext=False) for line in self.body.split(b"\n"))

    def _declare_text(self, encoding: str) -> None:
        """Say what the text is, which says nothing of itself and is more than lines of ASCII."""
        self.add("Content-Transfer-Encoding", encoding)
        self.add("Content-Type", f"text/plain; charset={_charset(self.body)}")
        self.add("MIME-Version", "1.0")


def holds_addresses(name: str) -> bool:
    """Whether the value of a field of this name is a list of mailboxes."""
    return name.lower().removeprefix("resent-") in _MAILBOXES


def _charset(body: bytes) -> str:
    if body.isascii():
        return "us-ascii"
    try:
        body.decode()
    except UnicodeDecodeError:
        return "unknown-8bit"  # RFC 1428 section 3
    return "utf-8"


def _of_mime(field: bytes) -> bool:
    return _name(field) == "mime-version" or _name(field).startswith("content-")


def _line_ends(content: bytes) -> Iterator[int]:
    at = 0
    while at < len(content):
        found = content.find(b"\n", at)
        at = len(content) if found < 0 else found + 1
        yield at


def _tight(line: bytes) -> bytes:
    """Without white space before the colon (RFC 5322 section 4.5.8), and with its line end."""
    name, _, rest = line.partition(b":")
    return name.rstrip(b" \t") + b":" + rest.removesuffix(b"\n") + b"\n"


def _name(field: bytes) -> str:
    return field.partition(b":")[0].decode("ascii").lower()


def _value(field: bytes) -> bytes:
    return field.partition(b":")[2].removesuffix(b"\n")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _qualified(field: bytes, origin: str) -> bytes:
    value = _text(_value(field))
    try:
        found = qualified(value, origin)
    except InvalidMessage:
        return field
    if found == value:
        return field
    return field.partition(b":")[0] + b":" + found.encode("utf-8", "surrogateescape") + b"\n"

"""from_email: a mail as a program or a file has it becomes the Message that is stored and sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message as Email
from email.utils import format_datetime
from typing import Final

from outbox.address import domain
from outbox.clock import Clock, SystemClock
from outbox.errors import InvalidMessage
from outbox.message import Message, new_id

from . import wire
from .envelope import envelope
from .hidden import check_header
from .writing import written

__all__ = ["from_email", "is_8bit", "needs_smtputf8"]

_BLIND: Final = frozenset({"bcc", "resent-bcc"})


def from_email(
    source: Email | bytes | bytearray | memoryview,
    *,
    sender: str | None = None,
    recipients: Iterable[str] | None = None,
    queue: str = "mail",
    id: str | None = None,
    priority: int = 0,
    attributes: Mapping[str, str] | None = None,
    not_before: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    at_most_once: bool = False,
    clock: Clock | None = None,
    origin: str | None = None,
) -> Message:
    """The Message that carries this mail, its wire bytes fixed here and never changed again.

    Bytes are kept as they are, but for four things: Bcc and Resent-Bcc
    fields of the outermost header are taken out; Message-ID and Date are
    added on top where they are missing; LF throughout becomes CRLF; and
    "From " lines of a mailbox file before the header are passed over, as
    Postfix's sendmail does.  What cannot be sent safely or at all is refused:
    mixed line ends, a bare CR, NUL, lines over 998 octets, what is no header
    field, control characters and hidden line breaks in the header.

    An object of the ``email`` package is written out first, and is not
    changed by it.  What was signed is written as it was parsed; text lines
    that are too long are encoded anew where nothing is signed.

    Args:
        source: An ``EmailMessage``, an ``email.message.Message``, or bytes.
        sender: The envelope's return path; ``""`` is the null path.  Without
            it the Sender field's mailbox, or else From's, which must be one.
        recipients: The envelope's recipients.  Without them To, Cc and Bcc.
            Mail with Resent fields gives both from the topmost block of
            those (RFC 5322 section 3.6.6), and from nothing else.
        id: The Message's id; a new one unless given.
        clock: Where Date, and the new ids, have their time from.
        origin: The domain that completes bare local names such as ``root``,
            in headers and arguments; without it they are refused.

    The other arguments are :class:`~outbox.Message`'s own.

    Raises:
        InvalidMessage: the text names the line (from 1; of an object, in its
            written form), the rule and what to do.  Nothing was stored.
    """
    content = wire.canonical(_octets(source))
    begin = wire.skip_postmark(content)
    header = wire.fields(content, begin)
    wire.check_lengths(content, wire.header_end(header, begin))
    check_header(content, header)
    who = envelope(content, header, sender, recipients, origin)
    clock = clock or SystemClock()
    own_id = new_id(clock) if id is None else id
    added = _missing(header, who.sender, own_id if id is None else new_id(clock), clock)
    return Message(
        recipients=who.recipients,
        content=_finished(content, begin, header, added),
        sender=who.sender,
        queue=queue,
        priority=priority,
        id=own_id,
        attributes=attributes or {},
        not_before=not_before,
        expires_at=expires_at,
        at_most_once=at_most_once,
    )


def is_8bit(message: Message) -> bool:
    """Whether a server must offer 8BITMIME to be sent this mail as it is (RFC 6152)."""
    return not message.content.isascii()


def needs_smtputf8(message: Message) -> bool:
    """Whether a server must offer SMTPUTF8 (RFC 6531): an address or the header is not ASCII."""
    if not all(name.isascii() for name in (message.sender, *message.recipients)):
        return True
    return is_8bit(message) and not wire.header_block(message.content).isascii()


def _octets(source: Email | bytes | bytearray | memoryview) -> bytes:
    if isinstance(source, Email):
        return written(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    raise InvalidMessage(
        f"a mail is an email.message.Message or bytes, not {type(source).__name__}: "
        "encode text, read files in binary mode"
    )


def _missing(header: Sequence[wire.Field], sender: str, token: str, clock: Clock) -> bytes:
    names = {field.key for field in header}
    lines = []
    if "message-id" not in names:
        lines.append(f"Message-ID: <{token}@{domain(sender) or 'localhost'}>\r\n")
    if "date" not in names:
        lines.append(f"Date: {format_datetime(clock.now().astimezone(dt.UTC))}\r\n")
    return "".join(lines).encode("ascii")


def _finished(content: bytes, begin: wire.Start, header: Sequence[wire.Field], added: bytes) -> bytes:
    if not added and not begin.offset and not any(field.key in _BLIND for field in header):
        return content
    return b"".join([added, *_kept(content, begin, header)])


def _kept(content: bytes, begin: wire.Start, header: Sequence[wire.Field]) -> Iterator[memoryview]:
    view, at = memoryview(content), begin.offset
    for field in header:
        if field.key in _BLIND:
            yield view[at : field.start]
            at = field.end
    yield view[at:]

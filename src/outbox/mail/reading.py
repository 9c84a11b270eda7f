"""from_email: a mail as a program or a file has it becomes the Message that is stored and sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message as Email
from email.utils import format_datetime
from typing import Final

from outbox.address import domain, parse_mailbox
from outbox.clock import Clock, SystemClock
from outbox.errors import InvalidMessage
from outbox.message import Message, new_id

from . import wire
from .envelope import envelope
from .heads import foreign_heads
from .hidden import check_header, check_parts
from .signatures import check_signatures
from .writing import written

__all__ = ["from_email", "is_8bit", "needs_smtputf8"]

_NEEDED: Final = {"message-id": "Message-ID", "date": "Date"}
_BLIND: Final = frozenset({"bcc", "resent-bcc"})


def from_email(
    source: Email | bytes | bytearray | memoryview,
    *,
    sender: str | None = None,
    recipients: Iterable[str] | None = None,
    also: Iterable[str] = (),
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
    added on top where they are missing or empty; LF throughout becomes CRLF;
    and "From " lines of a mailbox file before the header are passed over, as
    Postfix's sendmail does.  What cannot be sent safely or at all is refused:
    mixed line ends, a bare CR, NUL, lines over 998 octets, what is no header
    field, control characters and hidden line breaks in the header, what is
    not UTF-8 in any header, and a field to be added or taken out that a DKIM
    or ARC signature covers.

    An object of the ``email`` package is written out first, and is not
    changed by it.  What was signed is written as it was parsed; text lines
    that are too long are encoded anew where nothing is signed.  Submit signed
    mail as the bytes that were signed: an object does not hold all of them.

    Args:
        source: An ``EmailMessage``, an ``email.message.Message``, or bytes.
        sender: The envelope's return path; ``""`` is the null path.  Without
            it the Sender field's mailbox, or else From's, which must be one.
        recipients: The envelope's recipients.  Without them To, Cc and Bcc.
            Mail with Resent fields gives both from the topmost block of
            those (RFC 5322 section 3.6.6), and from nothing else; where
            nobody can tell the blocks apart it is refused.
        also: Who gets it besides; then the header need name nobody.
        id: The Message's id; a new one unless given.
        clock: Where Date, and the new ids, have their time from.
        origin: The domain that completes bare local names such as ``root``,
            in headers and arguments; without it they are refused.  A
            Message-ID to be added has it where the sender is the null path.

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
    check_parts(content)
    who = envelope(content, header, sender, recipients, also=also, origin=origin)
    missing = _missing(content, header)
    dropped = _dropped(header, missing)
    check_signatures(content, header, missing=missing, dropped=dropped)
    clock = clock or SystemClock()
    own_id = new_id(clock) if id is None else id
    added = b""
    if missing:
        added = _added(missing, _host(who.sender, origin), own_id if id is None else new_id(clock), clock)
    return Message(
        recipients=who.recipients,
        content=_finished(content, begin, dropped, added),
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
    """Whether a server must offer SMTPUTF8 (RFC 6531): an address is not ASCII, or the header of the mail or a part."""
    if not all(name.isascii() for name in (message.sender, *message.recipients)):
        return True
    return is_8bit(message) and next(foreign_heads(message.content), None) is not None


def _octets(source: Email | bytes | bytearray | memoryview) -> bytes:
    if isinstance(source, Email):
        return written(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    raise InvalidMessage(
        f"a mail is an email.message.Message or bytes, not {type(source).__name__}: "
        "encode text, read files in binary mode"
    )


def _missing(content: bytes, header: Sequence[wire.Field]) -> Sequence[str]:
    """Those of the needed fields that no field says anything for."""
    candidates = [field for field in header if field.key in _NEEDED]
    said = {field.key for field in candidates if field.value(content)}
    return [name for key, name in _NEEDED.items() if key not in said]


def _dropped(header: Sequence[wire.Field], missing: Sequence[str]) -> Sequence[wire.Field]:
    """What is not sent: who is not to be seen, and empty fields in place of which one is added."""
    keys = _BLIND | {name.lower() for name in missing}
    return [field for field in header if field.key in keys]


def _host(sender: str, origin: str | None) -> str:
    """Whose the Message-ID is: where nobody is the sender, the system's."""
    return domain(sender or parse_mailbox("postmaster", origin=origin or "localhost"))


def _added(missing: Sequence[str], host: str, token: str, clock: Clock) -> bytes:
    values = {
        "Message-ID": f"<{token}@{host}>",
        "Date": format_datetime(clock.now().astimezone(dt.UTC)),
    }
    return "".join(f"{name}: {values[name]}\r\n" for name in missing).encode("ascii")


def _finished(content: bytes, begin: wire.Start, dropped: Sequence[wire.Field], added: bytes) -> bytes:
    if not (added or begin.offset or dropped):
        return content
    return b"".join([added, *_kept(content, begin, dropped)])


def _kept(content: bytes, begin: wire.Start, dropped: Sequence[wire.Field]) -> Iterator[memoryview]:
    view, at = memoryview(content), begin.offset
    for field in dropped:
        yield view[at : field.start]
        at = field.end
    yield view[at:]

"""The file of a message: a line of the spool, then the record as :mod:`outbox.codec` writes it.

The spool's line is what a repeated put is compared with, and tells the
ticket under which the message was first put: from it what was begun can be
finished.  The file of a tombstone holds the first two lines only.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

import attrs

from outbox import codec
from outbox.errors import CorruptRecord, FormatError
from outbox.message import Message
from outbox.stores import standing as standings

from .folders import Folders
from .names import Path, Ticket, ids_path, queued_path, stamp, unstamp

__all__ = [
    "HEAD",
    "Header",
    "beginning",
    "encode",
    "first",
    "header",
    "header_length",
    "recipients",
    "since",
    "whole",
]

VERSION: Final = 1
_PAGE: Final = 4096
HEAD: Final = 1024
"""The spool's line is never longer than this."""


@attrs.frozen(kw_only=True)
class Header:
    """The spool's line: the ticket as it was first put, the queue, and the digest of the envelope."""

    ticket: Ticket
    queue: str
    digest: bytes
    name: str = attrs.field(init=False)

    @name.default
    def _name(self) -> str:
        return self.ticket.name

    @classmethod
    def of(cls, message: Message, now: int) -> Header:
        # The generation starts anywhere: a token of an earlier message of this id, purged since, never fits.
        ticket = Ticket(
            at=standings.fresh(message, now).due,
            id=message.id,
            priority=message.priority,
            generation=secrets.randbits(47),
            submitted=now,
            size=len(message.content),
        )
        return cls(ticket=ticket, queue=message.queue, digest=message.envelope_digest)

    @property
    def place(self) -> Path:
        """The folder where its first ticket was put."""
        return queued_path(self.queue, self.ticket, self.ticket.submitted)


def encode(message: Message, header: Header) -> bytes:
    ticket = header.ticket
    line = {
        "spool": VERSION,
        "id": ticket.id,
        "queue": header.queue,
        "priority": ticket.priority,
        "submitted": stamp(ticket.submitted),
        "due": stamp(ticket.at),
        "generation": ticket.token,
        "size": ticket.size,
        "envelope": header.digest.hex(),
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n" + codec.encode(message)


def header(data: bytes) -> Header:
    """The spool's line of a file of which *data* is at least the first :data:`HEAD` bytes.

    Raises:
        CorruptRecord: it is not one of ours.
        FormatError: a newer release wrote it.
    """
    try:
        line: dict[str, Any] = json.loads(data.partition(b"\n")[0])
        version = line["spool"]
        if version == VERSION:
            return _header(line)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptRecord(f"the first line cannot be read: {error}") from error
    raise FormatError(f"the file has format {version!r}, this release reads {VERSION}: upgrade outbox")


def _header(line: dict[str, Any]) -> Header:
    ticket = Ticket(
        at=unstamp(line["due"]),
        id=line["id"],
        priority=line["priority"],
        generation=int(line["generation"], 16),
        submitted=unstamp(line["submitted"]),
        size=line["size"],
    )
    if Ticket.parse(ticket.name) != ticket:
        raise ValueError("its values make no ticket")
    return Header(ticket=ticket, queue=line["queue"], digest=bytes.fromhex(line["envelope"]))


def header_length(data: bytes) -> int:
    """How long the two lines before the content are; all of it where they cannot be told apart."""
    first = data.find(b"\n")
    second = data.find(b"\n", first + 1)
    return len(data) if first < 0 or second < 0 else second + 1


def whole(id: str, data: bytes) -> tuple[Header, Message]:
    """The message as it was put, or not at all.

    Raises:
        CorruptRecord: it is not what was put.
        FormatError: a newer release put it.
    """
    try:
        head = header(data)
        message = codec.decode(data.partition(b"\n")[2])
    except FormatError as error:
        raise FormatError(f"{id}: {error}") from error
    except Exception as error:  # whatever else a damaged record makes the decoder raise: it stops no other
        raise CorruptRecord(f"{id}: {error}") from error
    if message.id != id or message.envelope_digest != head.digest or message.queue != head.queue:
        raise CorruptRecord(f"{id}: the envelope is not the one that was stored")
    return head, message


def recipients(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Sender and recipients for a list, from what may be damaged; nobody where they cannot be read."""
    try:
        envelope = json.loads(data.split(b"\n", 2)[1])
        return str(envelope["sender"]), tuple(map(str, envelope["recipients"]))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return "", ()


def since(message: Message, submitted: int) -> int:
    """What the age of a message counts from that was never requeued."""
    return standings.fresh(message, submitted).since


def first(folders: Folders, id: str) -> tuple[int | None, int]:
    """When a message that has learned nothing counts its age from, and how many recipients it has.

    None and 0 where its file cannot be read.

    Raises:
        FileNotFoundError: the id is not known.
    """
    data = beginning(folders, id)
    try:
        since = header(data).ticket.at
    except (CorruptRecord, FormatError):
        since = None
    return since, len(recipients(data)[1])


def beginning(folders: Folders, id: str) -> bytes:
    """The two lines of a message's file, and some of its content; empty where it cannot be read."""
    handle = folders.get(ids_path(id)).handle
    size = _PAGE
    while True:
        try:
            status, data = folders.disk.read(handle, id, size)
        except FileNotFoundError:
            raise
        except OSError:
            return b""
        if data.count(b"\n") > 1 or len(data) >= status.size:
            return data
        size *= 16

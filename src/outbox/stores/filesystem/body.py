"""The file of a message: a line of the spool, then the record as :mod:`outbox.codec` writes it.

The spool's line is what a repeated put is compared with, and tells the
ticket under which the message was first put: from it what was begun can be
finished.  The content may be coded; its coding stands in the line.  The file
of a tombstone holds the first two lines only, as does that of a delivered
message that is kept without its content.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs

from outbox import codec
from outbox.errors import CorruptRecord, FormatError
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import Codings, intact

from . import reading
from .folders import Folders
from .names import Path, Ticket, claimed_path, ids_path, queued_path, stamp, unstamp

__all__ = [
    "HEAD",
    "LONGEST_CODING",
    "Header",
    "beginning",
    "encode",
    "first",
    "header",
    "header_length",
    "opened",
    "recipients",
    "tombstone",
    "whole",
]

VERSION: Final = 1
_PAGE: Final = 4096
HEAD: Final = 1024
"""The spool's line is never longer than this."""
LONGEST_CODING: Final = 500
"""How long the names of the codings may be, so that this holds."""
_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode
_PARSE: Final = json.JSONDecoder().decode


@attrs.frozen(kw_only=True)
class Header:
    """The spool's line: what the message was first put as, the queue, the digest of the envelope, the coding.

    Attributes:
        ticket: As it waits for its first claim.
        leased: Until when whoever put it had a lease on it from the start.
    """

    ticket: Ticket
    queue: str
    digest: bytes
    coding: str = ""
    leased: int | None = None

    @classmethod
    def of(
        cls, message: Message, now: int, *, generation: int, coding: str, leased: int | None = None
    ) -> Header:
        ticket = Ticket(
            at=standings.fresh(message, now).due,
            id=message.id,
            priority=message.priority,
            generation=generation,
            submitted=now,
            size=len(message.content),
        )
        return cls(
            ticket=ticket, queue=message.queue, digest=message.envelope_digest, coding=coding, leased=leased
        )

    @property
    def first(self) -> Ticket:
        """The ticket under which its own put puts it."""
        if self.leased is None:
            return self.ticket
        return attrs.evolve(self.ticket, at=self.leased, attempts=1)

    @property
    def queued(self) -> Path:
        """The folder where it waits for its first claim."""
        return queued_path(self.queue, self.ticket, self.ticket.submitted)

    @property
    def place(self) -> Path:
        """The folder where its own put puts it."""
        return self.queued if self.leased is None else claimed_path(self.queue, self.leased)


def encode(message: Message, header: Header, codings: Codings) -> bytes:
    content = codings.encode(message.content, message.id)
    return b"\n".join((_first_line(header), codec.encode_envelope(message), content))


def tombstone(header: Header) -> bytes:
    """The file of a remembered id whose message was never here: no more of it than a repeated put is compared with."""
    return b"\n".join((_first_line(header), b"{}", b""))


def _first_line(header: Header) -> bytes:
    ticket = header.ticket
    line: dict[str, Any] = {
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
    if header.leased is not None:
        line["leased"] = stamp(header.leased)
    if header.coding:
        line["coding"] = header.coding
    return _JSON(line).encode()


def _line(text: bytes) -> dict[str, Any]:
    try:
        line: dict[str, Any] = _PARSE(text.decode())
        version = line["spool"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptRecord(f"the first line cannot be read: {error}") from error
    if version != VERSION:
        raise FormatError(f"the file has format {version!r}, this release reads {VERSION}: upgrade outbox")
    return line


def header(data: bytes) -> Header:
    """The spool's line of a file of which *data* is at least the first :data:`HEAD` bytes.

    Raises:
        CorruptRecord: it is not one of ours.
        FormatError: a newer release wrote it.
    """
    line = _line(data.partition(b"\n")[0])
    try:
        return _header(line)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptRecord(f"the first line cannot be read: {error}") from error


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
    return Header(
        ticket=ticket,
        queue=line["queue"],
        digest=bytes.fromhex(line["envelope"]),
        coding=line.get("coding", ""),
        leased=unstamp(line["leased"]) if "leased" in line else None,
    )


def header_length(data: bytes) -> int:
    """How long the two lines before the content are; all of it where they cannot be told apart."""
    first = data.find(b"\n")
    second = data.find(b"\n", first + 1)
    return len(data) if first < 0 or second < 0 else second + 1


def opened(id: str, data: bytes, codings: Codings) -> tuple[Message, int]:
    """The message as it was put, or not at all, and where in *data* its content begins.

    Raises:
        CorruptRecord: it is not what was put.
        FormatError: a newer release put it.
        ConfigurationError: its content is in a coding that this store was opened without.
    """
    first, start = data.find(b"\n"), header_length(data)

    def read() -> Message:
        coding = str(_line(data[: max(first, 0)]).get("coding", ""))
        return codec.join(data[first + 1 : start - 1], codings.decode(data[start:], coding, id))

    message = intact(id, read)
    if message.id != id:
        raise CorruptRecord(f"{id}: it is the file of {message.id}")
    return message, start


def whole(id: str, data: bytes, codings: Codings) -> Message:
    """The same, where the spool's line fits it too: by that a repeated put is known."""
    message, _ = opened(id, data, codings)
    head = header(data)
    if message.envelope_digest != head.digest or message.queue != head.queue:
        raise CorruptRecord(f"{id}: the envelope is not the one that was stored")
    return message


def recipients(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Sender and recipients for a list, from what may be damaged; nobody where they cannot be read."""
    try:
        envelope = json.loads(data.split(b"\n", 2)[1])
        return str(envelope["sender"]), tuple(map(str, envelope["recipients"]))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return "", ()


def first(folders: Folders, id: str) -> tuple[int | None, int]:
    """When a message that has learned nothing counts its age from, and how many recipients it has.

    None and 0 where its file cannot be read.

    Raises:
        FileNotFoundError: the id is not known.
    """
    data = beginning(folders, ids_path(id), id)
    try:
        since = header(data).ticket.at
    except (CorruptRecord, FormatError):
        since = None
    return since, len(recipients(data)[1])


def beginning(folders: Folders, path: Path, name: str) -> bytes:
    """The two lines of a message's file, and some of its content; empty where it cannot be read."""
    size = _PAGE
    while True:
        try:
            status, data = reading.head(folders, path, name, size)
        except CorruptRecord:
            return b""
        if data.count(b"\n") > 1 or len(data) >= status.size:
            return data
        size *= 16

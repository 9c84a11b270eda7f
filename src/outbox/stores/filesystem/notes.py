"""Notes: what was learned of a message since it was put.

A note is written once, whole, before the rename of the ticket that names it,
and never changed.  So a ticket's note is always there; a note that no ticket
names was left by a crash, and says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import attrs

from outbox.codec import decode_results, encode_envelope, encode_results
from outbox.errors import CorruptRecord
from outbox.lifecycle import Attempt, Event, Fate
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.instants import micros, moment
from outbox.stores.standing import Standing

from . import reading
from .folders import Folders
from .names import note_path, stamp, unstamp

__all__ = ["Note", "bare", "discard", "name_of", "parse_name", "read", "require", "write", "write_again"]


@attrs.frozen(kw_only=True)
class Note:
    """What a ticket's name has no room for.

    Attributes:
        fates: In the order of the recipients; or one that is everybody's,
            where they could not be read when it was written.
        since: What its age counts from.
        lost: How many claims in a row had been lost by then, which the fates
            tell of.
        resumes: When the message was due, where a person holds it.
        bare: The envelope of what is kept without its content, as
            :mod:`outbox.codec` writes it; ``""`` where the content is there.
    """

    fates: tuple[Fate, ...]
    since: int
    reason: str = ""
    history: tuple[Attempt, ...] = ()
    lost: int = 0
    resumes: int | None = None
    bare: str = ""

    @classmethod
    def of(cls, standing: Standing, history: Sequence[Attempt]) -> Note:
        return cls(
            fates=standing.fates,
            since=standing.since,
            reason=standing.reason,
            history=tuple(history),
            lost=standing.lost,
            resumes=standing.resumes,
        )

    def on(self, standing: Standing) -> Standing:
        """The standing with what the note tells."""
        return standings.in_doubt(
            attrs.evolve(
                standing, fates=self.fates, since=self.since, reason=self.reason, resumes=self.resumes
            ),
            told=self.lost,
        )

    def about(self, recipients: int) -> Note:
        """The same with a fate for each of so many recipients."""
        return attrs.evolve(self, fates=self.fates * recipients) if len(self.fates) == 1 else self

    def encode(self) -> bytes:
        fields: dict[str, Any] = {
            "reason": self.reason,
            "fates": [fate.value for fate in self.fates],
            "since": stamp(self.since),
            "history": [_attempt_fields(attempt) for attempt in self.history],
        }
        # A record of an earlier release has none of them.
        if self.resumes is not None:
            fields["resumes"] = stamp(self.resumes)
        if self.lost:
            fields["lost"] = self.lost
        if self.bare:
            fields["bare"] = self.bare
        text = json.dumps(fields, ensure_ascii=False, indent=1).encode(errors="surrogatepass")
        return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Note:
        """The inverse of :meth:`encode`; raises CorruptRecord."""
        text, _, digest = data[:-1].rpartition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            raise CorruptRecord("its digest is not that of its text")
        try:
            fields: dict[str, Any] = json.loads(text.decode(errors="surrogatepass"))
            return cls(
                fates=tuple(map(Fate, fields["fates"])),
                since=unstamp(fields["since"]),
                reason=fields["reason"],
                history=tuple(map(_attempt, fields["history"])),
                lost=fields.get("lost", 0),
                resumes=unstamp(fields["resumes"]) if "resumes" in fields else None,
                bare=fields.get("bare", ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptRecord(f"it cannot be read: {error}") from error


def bare(message: Message) -> str:
    """The envelope of this message without its content."""
    return encode_envelope(attrs.evolve(message, content=b"")).decode()


def _attempt_fields(attempt: Attempt) -> dict[str, Any]:
    # A line of it a line of the note: whoever looks with cat reads it, too.
    said = {"dialogue": attempt.dialogue.split("\n")} if attempt.dialogue else {}
    return {
        "number": attempt.number,
        "at": stamp(micros(attempt.at)),
        "event": attempt.event.value,
        "relay": attempt.relay,
        "reason": attempt.reason,
        "results": json.loads(encode_results(attempt.results)),
        **said,
    }


def _attempt(fields: dict[str, Any]) -> Attempt:
    return Attempt(
        number=fields["number"],
        at=moment(unstamp(fields["at"])),
        event=Event(fields["event"]),
        relay=fields["relay"],
        reason=fields["reason"],
        results=decode_results(json.dumps(fields["results"])),
        dialogue="\n".join(fields.get("dialogue", ())),
    )


def name_of(id: str, revision: int) -> str:
    return f"{id},{stamp(revision)}"


def parse_name(name: str) -> tuple[str, int] | None:
    """Whose note it is, and which; None where the name is no note's."""
    id, comma, revision = name.partition(",")
    try:
        found = id, unstamp(revision)
    except ValueError:
        return None
    return found if comma and name == name_of(*found) else None


def write(folders: Folders, id: str, note: Note, *, after: int, now: int) -> int:
    """Write the next note of a message, newer than revision *after*; its folder is not synced.

    Returns:
        Its revision.
    """
    revision = max(now, after + 1)
    data = note.encode()
    while True:
        try:
            folders.create(note_path(revision), name_of(id, revision), data)
        except FileExistsError:
            # Left there by a crash, or written by somebody who came too late.
            revision += 1
        else:
            return revision


def write_again(folders: Folders, id: str, note: Note, revision: int) -> None:
    """Write a note that somebody has removed; its folder is not synced."""
    with contextlib.suppress(FileExistsError):
        folders.create(note_path(revision), name_of(id, revision), note.encode())


def require(folders: Folders, id: str, revision: int) -> None:
    """Raise FileNotFoundError where there is no such note."""
    folders.stat(note_path(revision), name_of(id, revision))


def read(folders: Folders, id: str, revision: int) -> Note:
    """The note of a message that has one.

    Raises:
        CorruptRecord: it cannot be read.
        FileNotFoundError: there is none: the ticket that named it has moved on.
    """
    try:
        return Note.decode(reading.head(folders, note_path(revision), name_of(id, revision))[1])
    except CorruptRecord as error:
        raise type(error)(f"{id}: its note: {error}") from error


def discard(folders: Folders, id: str, revision: int) -> None:
    """Remove a note that no ticket names any more; not durable, for it costs only room."""
    if revision:
        folders.unlink(note_path(revision), name_of(id, revision))

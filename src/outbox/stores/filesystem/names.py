"""How things are called in the spool: instants, tickets, queues, and the folder that each ticket belongs in.

A ticket's name says all that a claim decides by, so that no file is opened
to find out which is next::

    20261121T064302.250000,0193f2…,p+000,a002,l000,g5f0c2a91d3e4,n20261121T064112.034000,s20261121T063000.000000,b2048

when it is due (the end of its lease while claimed, when it was settled
afterwards), id, priority, attempts, claims lost in a row, generation, note,
when it was submitted, bytes of content.  By their names tickets sort as they
are due, and among equals by id.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
from typing import Final, TypeAlias

import attrs

from outbox.lifecycle import State
from outbox.stores.standing import Standing

__all__ = [
    "ARRIVING",
    "CLAIMED",
    "GONE",
    "HERE",
    "IDS",
    "LATER",
    "LEVELS",
    "MOVING",
    "NOTES",
    "QUEUES",
    "READY",
    "READY_WIDTH",
    "REMEMBERED",
    "SECOND",
    "SETTLED_WIDTH",
    "SUSPENDED",
    "TMP",
    "Path",
    "Ticket",
    "claimed_path",
    "ids_path",
    "later_path",
    "note_path",
    "queue_folder",
    "queue_of",
    "ready_path",
    "remembered_path",
    "settled_path",
    "slot",
    "slot_start",
    "stamp",
    "unstamp",
]

Path: TypeAlias = tuple[str, ...]
"""A folder, by the names that lead to it from the root of the spool."""

TMP: Final = ("tmp",)
GONE: Final = ("gone",)
SUSPENDED: Final = ("suspended",)
HERE: Final = ("here",)
MOVING: Final = ("moving",)
ARRIVING: Final = ("moving", "arriving")
IDS: Final = ("ids",)
NOTES: Final = ("notes",)
QUEUES: Final = ("queues",)
REMEMBERED: Final = ("remembered",)
LATER, READY, CLAIMED = "later", "ready", "claimed"

SECOND: Final = 1_000_000
# In UTC, but not aware of it: an aware one costs three times as much, and there are several in each name.
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - see above
LEVELS: Final = (SECOND, 64 * SECOND, 64**2 * SECOND, 64**3 * SECOND)
"""How wide the slots of ``later`` are: a scheduled ticket goes into ever finer ones as its time comes."""
READY_WIDTH: Final = 64 * SECOND
SETTLED_WIDTH: Final = 1024 * SECOND

_STAMP: Final = r"\d{8}T\d{6}\.\d{6}"
_NAME: Final = re.compile(
    rf"({_STAMP}),([a-z0-9_-]{{1,64}}),p([+-]\d{{3}}),a(\d{{3,9}}),l(\d{{3,9}}),"
    rf"g([0-9a-f]{{12}}),n(0|{_STAMP}),s({_STAMP}),b(\d+)",
    re.ASCII,
)
_ID: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_SLOT: Final = re.compile(r"(?:([0-3])-)?(\d{8}T\d{6})", re.ASCII)


# -- instants


def stamp(at: int) -> str:
    """Microseconds since 1970 as ``20261121T064302.250000``, UTC: fixed in width, so that text sorts as time."""
    text = (_EPOCH + dt.timedelta(0, 0, at)).isoformat("T", "microseconds")
    return text[:4] + text[5:7] + text[8:13] + text[14:16] + text[17:]


def unstamp(text: str) -> int:
    """The inverse of :func:`stamp`, also of a slot's name; raises ValueError."""
    try:
        since = dt.datetime.fromisoformat(text) - _EPOCH
    except TypeError as error:
        raise ValueError(f"{text!r} names no instant in UTC") from error
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def slot(at: int, width: int) -> str:
    """The name of the slot, so many microseconds wide, that an instant falls into: when it begins."""
    return stamp(at - at % width)[:15]


def slot_start(name: str) -> int | None:
    """When a slot begins; None where the name is not a slot's."""
    match = _SLOT.fullmatch(name)
    if match is None:
        return None
    try:
        return unstamp(match[2])
    except ValueError:
        return None


# -- tickets


@attrs.frozen(kw_only=True, slots=False)  # so that the name is made once
class Ticket:
    """What a ticket's name says.

    Attributes:
        at: When it is due; when its lease ends; when it was settled.
        generation: The token of its claim; it only grows.
        revision: Which note tells the rest; 0 is none.
    """

    at: int
    id: str
    priority: int
    attempts: int = 0
    lost: int = 0
    generation: int
    revision: int = 0
    submitted: int
    size: int

    @functools.cached_property
    def name(self) -> str:
        note = stamp(self.revision) if self.revision else "0"
        return (
            f"{stamp(self.at)},{self.id},p{self.priority:+04},a{self.attempts:03},l{self.lost:03},"
            f"g{self.generation:012x},n{note},s{stamp(self.submitted)},b{self.size}"
        )

    @property
    def token(self) -> str:
        return f"{self.generation:012x}"

    @classmethod
    def parse(cls, name: str) -> Ticket | None:
        """The ticket of this name; None where it is not one of ours."""
        match = _NAME.fullmatch(name)
        try:
            return None if match is None else cls._read(name, match)
        except ValueError:
            return None

    @staticmethod
    def is_name(name: str) -> bool:
        """Whether it looks like a ticket's, which is quicker to tell than whether it is one."""
        return _NAME.fullmatch(name) is not None

    @classmethod
    def _read(cls, name: str, match: re.Match[str]) -> Ticket:
        at, id, priority, attempts, lost, generation, revision, submitted, size = match.groups()
        ticket = cls(
            at=unstamp(at),
            id=id,
            priority=int(priority),
            attempts=int(attempts),
            lost=int(lost),
            generation=int(generation, 16),
            revision=0 if revision == "0" else unstamp(revision),
            submitted=unstamp(submitted),
            size=int(size),
        )
        vars(ticket)["name"] = name
        return ticket

    @staticmethod
    def is_id(text: str) -> bool:
        """Whether a message can have this id: whatever else there is must not become a file's name."""
        return isinstance(text, str) and _ID.fullmatch(text) is not None

    def standing(self, state: State) -> Standing:
        """How the message stands, as far as the name tells: not its fates, its age and its reason."""
        return Standing(
            state=state,
            fates=(),
            due=self.at,
            since=self.submitted,
            submitted=self.submitted,
            settled=None if state in (State.QUEUED, State.CLAIMED) else self.at,
            attempts=self.attempts,
            lost=self.lost,
        )

    def after(
        self, standing: Standing, *, generation: int | None = None, revision: int | None = None
    ) -> Ticket:
        """The ticket of the same message once it stands so; what is not said stays."""
        return Ticket(
            at=standing.due if standing.settled is None else standing.settled,
            id=self.id,
            priority=self.priority,
            attempts=standing.attempts,
            lost=standing.lost,
            generation=self.generation if generation is None else generation,
            revision=self.revision if revision is None else revision,
            submitted=self.submitted,
            size=self.size,
        )


# -- where they belong


def queue_folder(queue: str) -> str:
    """A queue may be called ``..``: its folder may not."""
    return f"%2e{queue[1:]}" if queue.startswith(".") else queue


def queue_of(folder: str) -> str:
    return f".{folder[3:]}" if folder.startswith("%2e") else folder


def ids_path(id: str) -> Path:
    """Spread over 256 folders by a hash, for ids begin alike."""
    return (*IDS, hashlib.blake2b(id.encode(), digest_size=1).hexdigest())


def note_path(revision: int) -> Path:
    return (*NOTES, slot(revision, SETTLED_WIDTH))


def ready_path(queue: str, priority: int, due: int) -> Path:
    return (*QUEUES, queue_folder(queue), READY, f"{priority:+04}", slot(due, READY_WIDTH))


def later_path(queue: str, due: int, now: int) -> Path:
    """Into the finest slots that reach so far; what is farther than all of them waits in the last."""
    level = next((k for k, width in enumerate(LEVELS) if due - now < 64 * width), len(LEVELS) - 1)
    shown = min(due, now + 64 * LEVELS[-1] - 1)
    return (*QUEUES, queue_folder(queue), LATER, f"{level}-{slot(shown, LEVELS[level])}")


def queued_path(queue: str, ticket: Ticket, now: int) -> Path:
    """Where a ticket waits that can be claimed from ``ticket.at`` on."""
    if ticket.at <= now:
        return ready_path(queue, ticket.priority, ticket.at)
    return later_path(queue, ticket.at, now)


def claimed_path(queue: str, until: int) -> Path:
    return (*QUEUES, queue_folder(queue), CLAIMED, slot(until, READY_WIDTH))


def settled_path(queue: str, state: State, at: int) -> Path:
    return (*QUEUES, queue_folder(queue), state.value, slot(at, SETTLED_WIDTH))


def remembered_path(at: int) -> Path:
    return (*REMEMBERED, slot(at, SETTLED_WIDTH))

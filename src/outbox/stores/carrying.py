"""What becomes of a message that leaves for another store, or comes from one: pure, and the same for every store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Final, Generic, Protocol, TypeVar

import attrs

from outbox.errors import ConfigurationError, ConflictError, CorruptRecord
from outbox.lifecycle import Record, State
from outbox.moving import ON_ITS_WAY, Batch, Remembered
from outbox.protocols import Finding

from .instants import FOREVER, micros
from .standing import Standing

__all__ = [
    "LEFT",
    "UNTOLD",
    "Arrival",
    "Given",
    "UnderWay",
    "arrivals",
    "arrived",
    "damaged",
    "findings",
    "leaving",
    "next_name",
    "page",
    "require_partner",
    "untold",
]

D = TypeVar("D")

LEFT: Final = "moved to another store"
"""The reason that an id is remembered for where its message has left."""
UNTOLD: Final = "it was on its way to another store, and the note of how it stood before was damaged"
"""The reason of a message that is held since such a move was given up."""
_GIVE_UP: Final = "outbox move --from THIS --abandon gives it up"
_LONG: Final = 600 * 10**6
_DIGITS: Final = 18
"""Of a name: microseconds for thirty thousand years."""


@attrs.frozen
class Arrival(Generic[D]):
    """A record that is to be stored, made ready before the store is asked; *draft* is its message, as the store keeps one."""

    record: Record
    standing: Standing
    draft: D

    @property
    def id(self) -> str:
        return self.record.message.id


def arrivals(batch: Batch, drafts: Sequence[D]) -> list[Arrival[D]]:
    """What comes with *batch*; *drafts* are of its messages, in their order."""
    made = zip(batch.records, drafts, strict=True)
    return [Arrival(record, arrived(record), draft) for record, draft in made]


def arrived(record: Record) -> Standing:
    """How a message stands that another store kept as *record*."""
    summary, message = record.summary, record.message
    settled = None if summary.settled_at is None else micros(summary.settled_at)
    submitted = micros(summary.submitted_at)
    due = summary.due_at or summary.leased_until or summary.settled_at or summary.submitted_at
    return Standing(
        state=summary.state,
        fates=tuple(summary.fates[recipient] for recipient in message.recipients),
        due=micros(due),
        since=submitted if summary.since is None else micros(summary.since),
        submitted=submitted,
        settled=settled,
        attempts=summary.attempts,
        lost=summary.lost,
        reason=summary.reason,
        resumes=None if summary.resumes_at is None else micros(summary.resumes_at),
    )


def leaving(standing: Standing) -> Standing:
    """How it stands while it is on its way: under a lease that never runs out, so that no verb touches it."""
    return attrs.evolve(
        standing, state=State.CLAIMED, due=FOREVER, settled=None, resumes=None, reason=ON_ITS_WAY
    )


def untold(standing: Standing, now: int) -> Standing:
    """How it stands from now on where nobody can tell how it stood before it was taken: a person decides."""
    return attrs.evolve(standing, state=State.HELD, due=now, settled=now, resumes=None, reason=UNTOLD)


def damaged(error: Exception) -> CorruptRecord:
    """What is raised where the note of what is under way cannot be read."""
    return CorruptRecord(
        f"the note of what is on its way to another store is damaged ({error}): {_GIVE_UP}; they are held then"
    )


class UnderWay(Protocol):
    """What a store reads of a batch that leaves it: its name, and how each of its messages stood."""

    @property
    def name(self) -> str: ...
    @property
    def stood(self) -> Sized: ...


def findings(read: Callable[[], UnderWay], now: int) -> Iterator[Finding]:
    """What ``check`` says of what is under way; *read* raises CorruptRecord where nobody can tell."""
    try:
        batch = read()
    except CorruptRecord as error:
        yield Finding("error", str(error))
        return
    number = len(batch.stood)
    if number:
        lasts = now - int(batch.name[:_DIGITS] or 0) > _LONG
        yield Finding(
            "warning" if lasts else "ok",
            f"{number:,} messages are on their way to another store, by an outbox move that is at it or was killed",
            f"the same command again finishes it; where that store is gone for good, {_GIVE_UP}",
        )


def next_name(last: str, now: int, after: str = "") -> str:
    """The name of the next batch that leaves a store, which has given *last*, and *after* to whom it leads to.

    Greater than the last by the clock, too: a store that was restored from a
    backup has forgotten some of its batches, and gives their names to no other.
    """
    import secrets  # noqa: PLC0415 - brings OpenSSL, and only a move asks for it

    number = max(now, int(max(last, after)[:_DIGITS] or 0) + 1)
    return f"{number:0{_DIGITS}}-{secrets.token_hex(4)}"


def page(since: int, after: Remembered | None, limit: int) -> dict[str, str | int]:
    """What a statement that lists the ids remembered *since* then is asked with; those of messages that left are none."""
    return {
        "since": since,
        "settled": since if after is None else micros(after.settled_at),
        "id": "" if after is None else after.id,
        "left": LEFT,
        "limit": limit,
    }


def require_partner(under_way_to: str, to: str) -> None:
    """Raise ConfigurationError where the batch under way leads to another store than *to*; ``""`` is any."""
    if to and under_way_to != to:
        raise ConfigurationError(
            f"some of its messages are on their way to another store (of identity {under_way_to}): finish that move "
            "first, by the same command again; where that store is gone for good, outbox move --from THIS --abandon"
        )


@attrs.frozen
class Given:
    """What a store keeps of the last batch that it was given from one other.

    Attributes:
        name: Of that batch; ``""`` where there was none.
        refused: The ids of it that were not stored.
    """

    name: str = ""
    refused: tuple[str, ...] = ()

    def repeats(self, batch: Batch) -> bool:
        """Whether *batch* is this one.

        Raises:
            ConflictError: it is an earlier one, and so is known to be concluded.
        """
        if batch.name < self.name:
            raise ConflictError(
                f"the batch {batch.name} comes after a later one of the same store ({self.name}): another program "
                "moves the same messages, or the clock of the source was set back; nothing of it was stored"
            )
        return batch.name == self.name

    def encode(self) -> str:
        return json.dumps([self.name, *self.refused])

    @classmethod
    def decode(cls, text: str) -> Given:
        """The inverse; raises ValueError."""
        name, *refused = json.loads(text)
        return cls(str(name), tuple(map(str, refused)))

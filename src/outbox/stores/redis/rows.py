"""Rows and what they stand for: one line of text a message, as ``lua/common.lua`` reads and writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.codec import decode_results, encode_results
from outbox.errors import CorruptRecord
from outbox.lifecycle import Attempt, Event, Fate, State
from outbox.stores.instants import EARLIEST, FOREVER, moment
from outbox.stores.standing import Standing

__all__ = ["Row", "attempt_text", "history", "letters"]

# Held to the last detail: lua/common.lua reads the same rows, and no others.
_INSTANT: Final = rb"\t(-[0-9]{1,17}|[0-9]{1,18})"
_INSTANT_OR_NOTHING: Final = rb"\t(-[0-9]{1,17}|[0-9]{0,18})"
_PATTERN: Final = re.compile(
    rb"([a-z0-9._-]{1,64})\t(-?[0-9]{1,3})\t([0-9]{1,14})\t((?:[0-9A-Fa-f]{2})*)\t([0-9]{1,14})\t([0-9A-Fa-f]*)"
    rb"\t([a-z]+)\t([wdafu]*)"
    + 3 * _INSTANT
    + _INSTANT_OR_NOTHING
    + rb"\t([0-9]{1,14})\t([0-9]{1,14})"
    + _INSTANT_OR_NOTHING
    + rb"\t(.*)",
    re.DOTALL,
)
_PRIORITIES: Final = range(-100, 101)
_QUEUE: Final = re.compile(rb"[a-z0-9._-]{1,64}(?=\t|$)")
_LETTERS: Final = {fate: fate.value[0] for fate in Fate}
_FATES: Final = {letter: fate for fate, letter in _LETTERS.items()}
_IN_THE_QUEUE: Final = frozenset({State.QUEUED, State.CLAIMED})


def letters(fates: Sequence[Fate]) -> str:
    """One for each."""
    return "".join(_LETTERS[fate] for fate in fates)


@attrs.frozen(kw_only=True)
class Row:
    """A message and where it stands.

    Attributes:
        digest: Of its envelope.
        token: Of the latest claim.
    """

    queue: str
    priority: int
    size: int
    digest: bytes
    token: str
    standing: Standing

    @classmethod
    def read(cls, id: str, text: bytes) -> Row:
        """The inverse of :attr:`text`; raises CorruptRecord."""
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise CorruptRecord(f"{id}: its row cannot be read")
        *fields, reason = found.groups()
        queue, priority, size, digest, generation, nonce, *columns = (field.decode() for field in fields)
        try:
            return cls(
                queue=queue,
                priority=_priority(priority),
                size=int(size),
                digest=bytes.fromhex(digest),
                token=f"{int(generation)}-{nonce}",
                standing=_standing(columns, reason.decode("utf-8", "backslashreplace")),
            )
        except ValueError as error:
            raise CorruptRecord(f"{id}: its row cannot be read: {error}") from error

    @classmethod
    def unreadable(cls, text: bytes, reason: str) -> Row:
        """What is shown of a row that cannot be read: it is held as soon as anybody comes upon it."""
        queue = _QUEUE.match(text)
        standing = Standing(state=State.HELD, fates=(), due=0, since=0, submitted=0, reason=reason)
        name = "unreadable" if queue is None else queue[0].decode()
        return cls(queue=name, priority=0, size=0, digest=b"", token="", standing=standing)

    def next_token(self, nonce: str) -> str:
        """That of a claim which follows the latest."""
        return f"{int(self.token.partition('-')[0]) + 1}-{nonce}"

    @property
    def text(self) -> str:
        """As it is kept."""
        standing = self.standing
        generation, _, nonce = self.token.partition("-")
        columns = (
            *(self.queue, self.priority, self.size, self.digest.hex(), generation, nonce),
            *(
                standing.state.value,
                letters(standing.fates),
                standing.due,
                standing.since,
                standing.submitted,
            ),
            *(_or_nothing(standing.settled), standing.attempts, standing.lost, _or_nothing(standing.resumes)),
            standing.reason,
        )
        return "\t".join(map(str, columns))


def _priority(text: str) -> int:
    value = int(text)
    if value in _PRIORITIES:
        return value
    raise ValueError(f"{value} is no priority")


def _standing(columns: Sequence[str], reason: str) -> Standing:
    state, fates, due, since, submitted, settled, attempts, lost, resumes = columns
    if (State(state) in _IN_THE_QUEUE) == bool(settled):
        raise ValueError(f"it is {state}, and settled at {settled!r}")
    return Standing(
        state=State(state),
        fates=tuple([_FATES[letter] for letter in fates]),
        due=_instant(due),
        since=_instant(since),
        submitted=_instant(submitted),
        settled=_instant(settled) if settled else None,
        attempts=int(attempts),
        lost=int(lost),
        reason=reason,
        resumes=_instant(resumes) if resumes else None,
    )


def _instant(text: str) -> int:
    value = int(text)
    if EARLIEST <= value <= FOREVER:
        return value
    raise ValueError(f"{value} is no instant")


def _or_nothing(value: int | None) -> object:
    return "" if value is None else value


def attempt_text(attempt: Attempt | None) -> tuple[str, str]:
    """An attempt as it is kept, behind the time that the server writes; and what was said at it."""
    if attempt is None:
        return "", ""
    fields = {
        "number": attempt.number,
        "event": attempt.event.value,
        "relay": attempt.relay,
        "results": encode_results(attempt.results),
        "reason": attempt.reason,
    }
    return json.dumps(fields), attempt.dialogue.encode("utf-8", "backslashreplace").decode()


def history(id: str, past: bytes, said: bytes) -> list[Attempt]:
    """The attempts of a message, the latest dialogue with the one it is of; raises CorruptRecord."""
    try:
        place, _, dialogue = said.decode().partition("\t")
        made = [_attempt(line) for line in past.decode().split("\n") if line]
        if dialogue:
            made[int(place)] = attrs.evolve(made[int(place)], dialogue=dialogue)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, CorruptRecord) as error:
        raise CorruptRecord(f"{id}: an attempt in its history cannot be read: {error}") from error
    return made


def _attempt(line: str) -> Attempt:
    at, _, text = line.partition("\t")
    fields: Mapping[str, Any] = json.loads(text)
    return Attempt(
        number=int(fields["number"]),
        at=moment(_instant(at)),
        event=Event(fields["event"]),
        relay=str(fields["relay"]),
        results=decode_results(fields["results"]),
        reason=str(fields["reason"]),
    )

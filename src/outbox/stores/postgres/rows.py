"""Rows and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from outbox.codec import decode_results, encode_results
from outbox.errors import CorruptRecord
from outbox.lifecycle import Attempt, Event, Fate, State
from outbox.stores.instants import EARLIEST, FOREVER, moment
from outbox.stores.standing import Standing

__all__ = [
    "ATTEMPTS",
    "GENERATION",
    "NOW",
    "STANDING",
    "Row",
    "attempt",
    "attempts",
    "columns",
    "fates",
    "legible",
    "letters",
    "likely_fates",
    "standing",
    "state",
    "steered",
    "text",
]

Row: TypeAlias = tuple[Any, ...]

NOW: Final = "coalesce(%(now)s::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
"""Microseconds since 1970 by the server's clock, where no other is injected as ``now``."""

GENERATION: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""No token is given twice, also where a server forgot the last claims when it crashed, or another took its place."""

STANDING: Final = (
    "m.state, m.fates, m.due, m.since, m.submitted, m.settled, m.attempts, m.lost, m.reason, m.resumes"
)
"""The columns that :func:`standing` takes, in its order, of the table ``m``."""

_LETTERS: Final[Mapping[Fate, str]] = {fate: fate.value[0] for fate in Fate}
_FATES: Final[Mapping[str, Fate]] = {letter: fate for fate, letter in _LETTERS.items()}
_STATES: Final[Mapping[str, State]] = {state.value: state for state in State}
_NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")

ATTEMPTS: Final = """
    SELECT number, at, event, relay, results, reason, dialogue FROM outbox_attempt WHERE id = %(id)s ORDER BY row
"""


def letters(fates: Sequence[Fate]) -> str:
    return "".join(_LETTERS[fate] for fate in fates)


def fates(text: str) -> tuple[Fate, ...]:
    return tuple(_FATES[letter] for letter in text)


def likely_fates(text: str) -> tuple[Fate, ...]:
    """The same; of whom it cannot be read nobody can tell whether he received it."""
    return tuple(_FATES.get(letter, Fate.UNCERTAIN) for letter in text)


def state(text: str) -> State:
    """HELD where it is none that there is: that is what it is going to be."""
    return _STATES.get(text, State.HELD)


def legible(at: int) -> int:
    """The nearest instant that can be shown."""
    return min(max(at, EARLIEST), FOREVER)


def text(value: str) -> str:
    """The same as PostgreSQL can keep it: what it cannot is escaped, and only what is shown is kept in this way."""
    return _NO_TEXT.sub(lambda found: ascii(found[0])[1:-1], value)


def standing(row: Row) -> Standing:
    """How a message stands, from its columns.

    Raises:
        CorruptRecord: somebody else has written to them.
    """
    state, letters, due, since, submitted, settled, attempts, lost, reason, resumes = row
    try:
        _require_instants(due, since, submitted, settled, resumes)
        if not letters:
            raise ValueError("it tells of no recipient")  # noqa: TRY301 - as each of the others does
        return Standing(
            state=_STATES[state],
            fates=fates(letters),
            due=due,
            since=since,
            submitted=submitted,
            settled=settled,
            attempts=attempts,
            lost=lost,
            reason=reason,
            resumes=resumes,
        )
    except (KeyError, ValueError) as error:
        raise CorruptRecord(f"its row cannot be read: {error!r}") from error


def _require_instants(*instants: int | None) -> None:
    for at in instants:
        if at is not None and not EARLIEST <= at <= FOREVER:
            raise ValueError(f"{at} is no instant")


def steered(row: Row, now: int) -> Standing:
    """The same of what somebody removes or steers; what cannot be read keeps nobody from it.

    It is held, unless a worker has it, and nobody can tell who received it.
    """
    try:
        return standing(row)
    except CorruptRecord as error:
        return _likely(row, now, str(error))


def _likely(row: Row, now: int, reason: str) -> Standing:
    state, letters, due, since, submitted, settled, attempts, lost, *_ = row
    leased = state == State.CLAIMED and now < due
    return Standing(
        state=State.CLAIMED if leased else State.HELD,
        fates=likely_fates(letters) or (Fate.UNCERTAIN,),
        due=legible(due),
        since=legible(since),
        submitted=legible(submitted),
        settled=None if leased else legible(now if settled is None else settled),
        attempts=attempts,
        lost=lost,
        reason=reason,
    )


def columns(standing: Standing) -> Row:
    """The inverse of :func:`standing`."""
    return (
        standing.state.value,
        letters(standing.fates),
        standing.due,
        standing.since,
        standing.submitted,
        standing.settled,
        standing.attempts,
        standing.lost,
        text(standing.reason),
        standing.resumes,
    )


def attempt(made: Attempt) -> Row:
    """What is kept of an attempt, but for when it was."""
    return (
        made.number,
        made.event.value,
        text(made.relay),
        text(encode_results(made.results)),
        text(made.reason),
        text(made.dialogue),
    )


def attempts(id: str, found: Sequence[Row]) -> list[Attempt]:
    """The history of a message; raises CorruptRecord where it cannot be read."""
    try:
        return [
            Attempt(
                number=number,
                at=moment(at),
                event=Event(event),
                relay=relay,
                results=decode_results(results),
                reason=reason,
                dialogue=dialogue,
            )
            for number, at, event, relay, results, reason, dialogue in found
        ]
    except (ValueError, OverflowError, CorruptRecord) as error:
        raise CorruptRecord(f"{id}: an attempt in its history cannot be read: {error}") from error

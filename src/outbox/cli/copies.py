"""Who may have a message more than once, and by which of its attempts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from outbox.lifecycle import Attempt, Record, State
from outbox.outcome import Accepted, Uncertain
from outbox.values import printable

__all__ = ["copies"]

_SHOWN: Final = 5


def copies(record: Record) -> list[str]:
    """A sentence for each recipient who may have more than one copy."""
    may_have = _may_have(record)
    found = [
        f"{printable(recipient)} may have {'it twice' if len(ways) == 2 else f'{len(ways)} copies of it'}: "  # noqa: PLR2004 - twice
        + ", ".join(ways[:_SHOWN])
        + (f" and {len(ways) - _SHOWN} more" if len(ways) > _SHOWN else "")
        for recipient, ways in may_have.items()
        if len(ways) > 1
    ]
    more = len(found) - _SHOWN
    return [*found[:_SHOWN], f"and {more} more recipients may have copies"] if more > 0 else found


def _may_have(record: Record) -> Mapping[str, Sequence[str]]:
    """By recipient, each attempt that may have brought him the message."""
    found: dict[str, list[str]] = {recipient: [] for recipient in record.summary.fates}
    settled: set[str] = set()
    for number, attempt in _attempts(record):
        for recipient, ways in found.items():
            if recipient not in settled:
                ways.extend(_way(number, attempt, recipient))
        if attempt is not None:
            settled |= {r for r, result in attempt.results.items() if isinstance(result, Accepted)}
    return found


def _way(number: int, attempt: Attempt | None, recipient: str) -> Iterator[str]:
    if attempt is None:
        yield f"attempt {number} never reported back"
        return
    match attempt.results.get(recipient):
        case Accepted():
            yield f"attempt {number} was accepted"
        case Uncertain():
            yield f"attempt {number} was sent and got no answer"


def _attempts(record: Record) -> Iterator[tuple[int, Attempt | None]]:
    """Every attempt, None for one that nothing was heard of; a requeue begins the count anew."""
    expected = 1
    for attempt in record.history:
        if attempt.number < expected:
            expected = 1
        yield from ((number, None) for number in range(expected, attempt.number))
        yield attempt.number, attempt
        expected = attempt.number + 1
    last = record.summary.attempts
    under_way = record.summary.state is State.CLAIMED
    yield from ((number, None) for number in range(expected, last + 1) if not (under_way and number == last))

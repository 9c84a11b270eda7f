"""What failed last: the dead, expired and held, by when that was settled."""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Iterable, Sequence
from typing import Final

from outbox.lifecycle import State, Summary
from outbox.protocols import QueueCount, SupportsBrowse

__all__ = ["failures"]

_FAILED: Final = (State.DEAD, State.EXPIRED, State.HELD)
_PAGE: Final = 100
_BACK: Final = tuple(dt.timedelta(**ago) for ago in ({"minutes": 10}, {"hours": 2}, {"days": 1}, {"days": 7}))
_LONG_AGO: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


def failures(
    store: SupportsBrowse, counts: Iterable[QueueCount], now: dt.datetime, most: int = 5
) -> Sequence[Summary]:
    """The last that failed, the latest first.

    Lists go along the ids, which tell when a message was submitted, not when
    it failed.  Where there are many, those are looked at that were submitted
    within the last minutes, hours, days: some hundred, however many there are.
    """
    failed = [count for count in counts if count.state in _FAILED]
    if not failed:
        return []
    many = any(count.more for count in failed) or sum(count.number for count in failed) > _PAGE
    states = sorted({count.state for count in failed})
    found: dict[str, Summary] = {}
    for after in ("", *(_drawn_at(now - ago) for ago in _BACK)) if many else ("",):
        found |= {each.id: each for each in store.browse(states=states, after=after, limit=_PAGE)}
    return heapq.nlargest(most, found.values(), key=_settled)


def _settled(summary: Summary) -> tuple[dt.datetime, str]:
    return summary.settled_at or _LONG_AGO, summary.id


def _drawn_at(moment: dt.datetime) -> str:
    """What every id that is drawn later is greater than."""
    stamp = f"{max(0, int(moment.timestamp() * 1000)):012x}"
    return f"{stamp[:8]}-{stamp[8:]}"

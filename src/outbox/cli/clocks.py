"""Whether this machine's clock agrees with what is stored and with what runners say; where not, in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Final

from outbox.lifecycle import Record, Summary
from outbox.locate import spell
from outbox.values import printable

from .runners import Runners

__all__ = ["in_the_future", "lines", "moved"]

_MUCH: Final = dt.timedelta(minutes=1)
"""Clocks are corrected by seconds all the time."""


def in_the_future(summary: Summary, record: Record | None, now: dt.datetime) -> str:
    """What is said to have happened to a message, and cannot have yet; nothing where all is in the past."""
    tried = max((attempt.at for attempt in record.history), default=now) if record else now
    if summary.submitted_at - now > _MUCH:
        return f"it was submitted in the future, {spell(summary.submitted_at - now)} from now"
    return f"it was tried in the future, {spell(tried - now)} from now" if tried - now > _MUCH else ""


def moved(runners: Runners) -> Iterator[str]:
    """What runners alive have seen of their clocks, each machine once."""
    told = set()
    for each in runners.alive:
        by = dt.timedelta(seconds=each.said.clock_moved)
        if abs(by) >= _MUCH and each.said.host not in told:
            told.add(each.said.host)
            how = f"forward by {spell(by)}, or it slept," if by > _MUCH else f"back by {spell(-by)}"
            yield f"CLOCK of {printable(each.said.host)}: set {how} since pid {each.said.pid} began"


def lines(waiting: Iterable[Summary], runners: Runners, now: dt.datetime) -> list[str]:
    """What ``status`` says of clocks; nothing where they agree."""
    ahead = [each for each in waiting if (each.due_at or now) > now and each.submitted_at - now > _MUCH]
    found = [*moved(runners)]
    if ahead:
        latest = max(each.submitted_at for each in ahead)
        wait = "message waits that was" if len(ahead) == 1 else "messages wait that were"
        found.append("CLOCK WRONG, now or before:")
        found.append(f"  {len(ahead)} {wait} submitted in the future, up to {spell(latest - now)} from now")
    return ["", *found, "  -> outbox check; is the clock of this machine right?"] if found else []

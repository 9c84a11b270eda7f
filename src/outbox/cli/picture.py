"""What `top` shows: the sections of one look at a store, fitted to a screen.

Pure: what was seen goes in, lines come out.
"""

from __future__ import annotations

import collections
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.lifecycle import State, Summary
from outbox.locate import Config, spell
from outbox.protocols import QueueCount
from outbox.values import printable

from . import runners, withheld
from .columns import Tone, Toned, at_least, cut, laid_out, padded, width_of
from .output import ago
from .rows import toned_state
from .runners import Runners
from .sight import Sight

__all__ = ["Section", "Trend", "fitted", "sections"]

Line = Sequence[str]

_HEAD: Final = ("QUEUE", "WAIT", "DUE", "FOR", "CLAIMED", "HELD", "DEAD", "CHANGE")
_RIGHT: Final = ("WAIT", "DUE", "FOR", "CLAIMED", "HELD", "DEAD", "CHANGE")
_LATE: Final = dt.timedelta(minutes=10)
_MINUTE: Final = 60.0
_ALARMS: Final = 3
_MOST_RUNNERS: Final = 50
_DEAD: Final = (State.DEAD, State.EXPIRED)


@attrs.frozen
class Section:
    """Lines under a title, of which *least* are shown in any case; ``""`` is no title."""

    title: str
    lines: Sequence[Line]
    least: int = 2


class Trend:
    """How the number that waits in each queue has changed within the last minute."""

    def __init__(self) -> None:
        self._seen: collections.deque[tuple[float, Mapping[str, int]]] = collections.deque()

    def add(self, at: float, counts: Sequence[QueueCount]) -> None:
        """What was counted at this moment, by a clock of seconds."""
        waiting = [count for count in counts if count.state is State.QUEUED]
        uncounted = {count.queue for count in waiting if count.more}
        numbers = {count.queue: 0 for count in counts}
        numbers |= {count.queue: count.number for count in waiting}
        self._seen.append((at, {name: n for name, n in numbers.items() if name not in uncounted}))
        while len(self._seen) > 1 and self._seen[1][0] <= at - _MINUTE:
            self._seen.popleft()

    def of(self, queue: str) -> str:
        """``+12.0/min``; ``""`` where it is not known, or nothing changes."""
        (first, before), (last, now) = self._seen[0], self._seen[-1]
        if queue not in before or queue not in now or last <= first:
            return ""
        change = (now[queue] - before[queue]) / (last - first)
        return f"{'+' if change > 0 else '-'}{runners.rate(abs(change))}" if change else ""


def sections(
    seen: Sight,
    failed: Sequence[Summary],
    *,
    trend: Trend,
    config: Config,
    now: dt.datetime,
    width: int | None,
) -> list[Section]:
    """All that there is to show, the most urgent first."""
    found = [
        Section("", list(_alarms(seen, config, now)), least=_ALARMS),
        Section("", _queues(seen, trend, now, width), least=4),
        Section("RUNNERS", list(_runners(seen.runners)), least=3),
        Section("RELAYS", list(_relays(seen.runners)), least=3),
        Section("WAITING AFTER", list(_waits(seen)), least=2),
        Section("LAST FAILURES", [_failure(each, now) for each in failed], least=2),
    ]
    return [section for section in found if section.lines]


def _alarms(seen: Sight, config: Config, now: dt.datetime) -> Iterator[Line]:
    for count in seen.forgotten(config, now):
        since = spell(now - (count.oldest_due_at or now))
        yield (Toned(f"NO RUNNER ALIVE serves {count.queue}: its mail has been due for {since}", "bad"),)
    for count in seen.unserved(config):
        waiting = at_least(count.number, count.more)
        yield (Toned(f"NOBODY SERVES {count.queue} here: {waiting} waiting", "bad"),)
    for each in seen.suspensions:
        yield (Toned(f"STOPPED: {withheld.phrase(each, now)}", "stopped"),)


def _queues(seen: Sight, trend: Trend, now: dt.datetime, width: int | None) -> list[Line]:
    by_queue: dict[str, dict[State, QueueCount]] = {}
    for count in seen.counts:
        by_queue.setdefault(count.queue, {})[count.state] = count
    if not by_queue:
        return [("No messages.",)]
    rows = [
        _row(name, by_queue[name], trend, now)
        for name in sorted(by_queue, key=lambda name: _urgency(by_queue[name], now), reverse=True)
    ]
    table = laid_out(_HEAD, rows, right=_RIGHT, width=width, give=("QUEUE",))
    more = any(count.more for count in seen.counts)
    note = [("+ and more that were not counted: outbox status --exact",)] if more else []
    return [*table, *note]


def _urgency(counts: Mapping[State, QueueCount], now: dt.datetime) -> tuple[dt.timedelta, int]:
    """The queue whose mail has been due for longest comes first, then the fullest."""
    queued = counts.get(State.QUEUED)
    if queued is None:
        return dt.timedelta(0), 0
    due = now - queued.oldest_due_at if queued.due and queued.oldest_due_at else dt.timedelta(0)
    return due, queued.number


def _row(name: str, counts: Mapping[State, QueueCount], trend: Trend, now: dt.datetime) -> tuple[str, ...]:
    queued = counts.get(State.QUEUED)
    since = queued.oldest_due_at if queued is not None and queued.due else None
    late: Tone = "bad" if since is not None and now - since >= _LATE else ""
    due = f"{queued.due:,}{'+' if queued.more else ''}" if queued is not None and queued.due else ""
    return (
        name,
        _number(counts, State.QUEUED),
        due,
        Toned("" if since is None else spell(now - since, units=1), late),
        _number(counts, State.CLAIMED),
        Toned(_number(counts, State.HELD), "stopped"),
        Toned(_number(counts, *_DEAD), "bad"),
        trend.of(name),
    )


def _number(counts: Mapping[State, QueueCount], *states: State) -> str:
    found = [counts[state] for state in states if state in counts]
    number = sum(count.number for count in found)
    return f"{number:,}{'+' if any(count.more for count in found) else ''}" if number else ""


def _runners(known: Runners) -> Iterator[Line]:
    if len(known.alive) > 1:
        together = runners.all_rates(known) or "nothing done"
        yield (f"  {len(known.alive)} are alive, together: {together}",)
    yield from ((line,) for line in runners.lines(known, _MOST_RUNNERS))
    if known.told and not known.every:
        yield ("  none: nobody delivers",)


def _relays(known: Runners) -> Iterator[Line]:
    """Those that are not well, and then in a line each those that are, with how many connections they have."""
    yield from ((line,) for line in runners.relay_lines(known))
    well: dict[str, int] = {}
    for each in known.alive:
        for relay in each.said.relays:
            if not runners.relay_phrase(each, relay):
                name = runners.relay_name(relay)
                well[name] = well.get(name, 0) + relay.connections
    for name, number in sorted(well.items()):
        connections = f", {number} {'connection' if number == 1 else 'connections'}" if number else ""
        yield (f"  {name} is well{connections}",)


def _waits(seen: Sight) -> Iterator[Line]:
    for each in seen.met:
        at = f"at {printable(each.domain)}: " if each.domain else ""
        yield (f"  {each.number:>3}  {at}{printable(each.reason)}",)


def _failure(summary: Summary, now: dt.datetime) -> Line:
    when = ago(summary.settled_at, now) if summary.settled_at else ""
    said = printable(summary.reason)
    if summary.by_hand:
        said = f"by a person: {said}"
    if len(summary.recipients) == 1:
        to = printable(summary.recipients[0], 200)
        said = f"{to}: {said.removeprefix(f'{to}: ')}"
    state = Toned(padded(summary.state, 7), toned_state(summary.state).tone)
    return (f"  {when:<12}  ", state, f"  {summary.id[:18]}  {said}")


def fitted(every: Sequence[Section], width: int | None, height: int | None) -> list[Line]:
    """Lines for a screen: long ones are cut, and of the longest sections so many left out that all are there.

    Where even so there is little room, no blank lines are between them.  Of an unknown size everything is shown.
    """
    shown = [len(section.lines) for section in every]
    titles = sum(bool(section.title) for section in every)
    gap = height is None or titles + sum(min(s.least, len(s.lines)) + 1 for s in every) <= height
    if height is not None:
        room = height - titles - gap * len(every)
        while sum(shown) > room and _shorten(every, shown):
            pass
    lines = [line for n, each in enumerate(every) for line in _painted(each, shown[n], gap=gap)]
    lines = lines if height is None else lines[:height]
    return lines if width is None else [_cut(line, width) for line in lines]


def _shorten(every: Sequence[Section], shown: list[int]) -> bool:
    most, longest = max((number - every[n].least, n) for n, number in enumerate(shown))
    if most <= 0:
        return False
    shown[longest] -= 1
    return True


def _painted(section: Section, number: int, *, gap: bool) -> Iterator[Line]:
    if gap:
        yield ()
    if section.title:
        yield (Toned(section.title, "head"),)
    left_out = len(section.lines) - number
    yield from section.lines[: number - 1 if left_out else number]
    if left_out:
        yield (f"  … and {left_out + 1} more",)


def _cut(line: Line, width: int) -> Line:
    parts: list[str] = []
    for part in line:
        left = width - sum(map(width_of, parts))
        parts.append(cut(part, max(0, left)) if left > 0 else "")
    return parts

"""How old is what waits, by recipient domain: as Postfix's qshape, whose columns double."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from outbox.ages import Group, SupportsAges, domains
from outbox.clock import SystemClock
from outbox.filters import Filter, find
from outbox.lifecycle import State
from outbox.protocols import SupportsBrowse
from outbox.values import printable

from .columns import cut
from .exits import Exit
from .output import Console

__all__ = ["BORDERS", "ages", "counted", "shown"]

BORDERS: Final = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""Minutes: a column ends with each, and one more takes the rest."""
_ELSEWHERE: Final = "(no domain)"
_SELDOM: Final = 10_000


def counted(waiting: Iterable[Group]) -> tuple[list[int], dict[str, list[int]]]:
    """How many messages wait, by age: all of them, and those for somebody at each domain.

    A message counts once for each domain that it has an open recipient at.
    """
    total = [0] * (len(BORDERS) + 1)
    rows: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BORDERS) + 1))
    for group in waiting:
        total[group.age] += group.number
        for name in group.domains:
            rows[name or _ELSEWHERE][group.age] += group.number
    return total, rows


def ages(store: SupportsBrowse, borders: Sequence[dt.datetime]) -> Iterator[Group]:
    """As :meth:`outbox.ages.SupportsAges.ages`, in any store that can be looked at."""
    if isinstance(store, SupportsAges):
        yield from store.ages(borders)
        return
    for summary in find(store, Filter(states=(State.QUEUED, State.CLAIMED))):
        age = sum(summary.submitted_at <= border for border in borders)
        yield Group(1, age, domains(r for r, fate in summary.fates.items() if fate.open))


def shown(store: SupportsBrowse, most: int, console: Console) -> int:
    """The table, the domain with the most first; every message that waits is looked at."""
    now = SystemClock().now()
    borders = [now - dt.timedelta(minutes=minutes) for minutes in BORDERS]
    total, rows = counted(_noted(ages(store, borders), console))
    console.progress("")
    first = sorted(rows.items(), key=lambda row: (-sum(row[1]), row[0]))
    if console.as_json:
        console.data(_data(total, first[:most], len(first)))
        return Exit.OK
    if not sum(total):
        console.line("Nothing waits.")
        return Exit.OK
    head = ["", "T", *map(str, BORDERS), f"{BORDERS[-1]}+"]
    table = [_row("TOTAL", total), *(_row(printable(name), counts) for name, counts in first[:most])]
    console.table(head, _fitted(table, console.width), right=" ".join(head[1:]))
    if len(first) > most:
        more = len(first) - most
        console.note(f"{more:,} more {'domain' if more == 1 else 'domains'}: --rows {len(first)}")
    console.note("Minutes since submitted; each column ends with its number. T is the total.")
    return Exit.OK


def _fitted(table: list[list[str]], width: int | None) -> list[list[str]]:
    """With the names cut so that the numbers stand on the terminal."""
    if width is None:
        return table
    heads = [len(str(border)) for border in BORDERS]
    widths = [max(len(row[n]) for row in table) for n in range(1, len(table[0]))]
    numbers = sum(max(w, h) + 2 for w, h in zip(widths, [1, *heads, heads[-1] + 1], strict=True))
    return [[cut(row[0], max(8, width - numbers)), *row[1:]] for row in table]


def _noted(waiting: Iterable[Group], console: Console) -> Iterator[Group]:
    """With a line of progress for whoever watches."""
    number, shown = 0, 0
    for group in waiting:
        number += group.number
        if console.live and number >= shown + _SELDOM:
            shown = number
            console.progress(f"{number:,} looked at")
        yield group


def _row(name: str, counts: list[int]) -> list[str]:
    return [name, f"{sum(counts):,}", *(f"{count:,}" if count else "0" for count in counts)]


def _data(total: list[int], rows: list[tuple[str, list[int]]], domains: int) -> Mapping[str, Any]:
    return {
        "minutes": BORDERS,
        "total": total,
        "domains": domains,
        "rows": [{"domain": name, "total": sum(counts), "counts": counts} for name, counts in rows],
    }

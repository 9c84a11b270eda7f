"""Changes to many messages: in bounded steps while deliveries go on, with progress, to be ended and repeated at will."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs

from outbox.clock import SystemClock
from outbox.filters import Filter, find
from outbox.lifecycle import Summary
from outbox.protocols import Change, SupportsBrowse

from .exits import Exit
from .output import Console
from .pace import Pace
from .rows import printed
from .signals import Asked, heeded

__all__ = ["LEASED", "Foreseen", "counted", "foretold", "stepwise"]

Act: TypeAlias = Callable[[Sequence[str]], Sequence[Change]]
Refuses: TypeAlias = Callable[[Summary], str]
"""Why one would be refused, as far as a list tells; ``""`` where it would not."""

LEASED: Final = "with a worker at this moment; say it again when their leases have ended"

_SHOWN: Final = 10
_SELDOM: Final = 0.1
_ENDS: Final = "\noutbox: ends after this step; the same command does the rest\n"
_SIGNAL: Final = 128


@attrs.define
class Foreseen:
    """How many messages a filter finds: what the command would do to how many, and for how many it would be refused, why."""

    would: int = 0
    refused: Counter[str] = attrs.Factory(Counter)

    @property
    def number(self) -> int:
        return self.would + self.refused.total()

    def add(self, why: str) -> None:
        if why:
            self.refused[why] += 1
        else:
            self.would += 1


def counted(store: SupportsBrowse, sought: Filter, refuses: Refuses, console: Console) -> Foreseen:
    """How many messages a filter finds; somebody watches."""
    foreseen = Foreseen()
    progress = _Progress(console)
    for summary in find(store, sought):
        foreseen.add(refuses(summary))
        progress.show(f"looking: {foreseen.number:,} found")
    progress.end()
    return foreseen


def foretold(store: SupportsBrowse, sought: Filter, refuses: Refuses, done: str, console: Console) -> int:
    """Show what would be changed: some of them, how many there are, and how many would be refused, and why."""
    foreseen = Foreseen()
    first: list[Summary] = []
    progress = _Progress(console)
    for summary in find(store, sought):
        why = refuses(summary)
        foreseen.add(why)
        if console.as_json:
            status = "would be refused" if why else "would be done"
            console.data({"id": summary.id, "status": status, "reason": why})
        elif not why and len(first) < _SHOWN:
            first.append(summary)
        progress.show(f"looking: {foreseen.number:,} found")
    progress.end()
    if not console.as_json:
        _shown(first, foreseen, done, console)
    return Exit.NOT_ALL if foreseen.refused else Exit.OK


def _shown(first: Sequence[Summary], foreseen: Foreseen, done: str, console: Console) -> None:
    if first:
        printed(first, console)
    if foreseen.would > len(first):
        console.line(f"... and {foreseen.would - len(first):,} more")
    console.line(f"{foreseen.would:,} would be {done}; nothing was changed")
    for why, number in foreseen.refused.most_common():
        console.complain(f"{number:,} would not be {done}: {why}")


def stepwise(
    store: SupportsBrowse,
    sought: Filter,
    act: Act,
    *,
    done: str,
    number: int | None,
    suits: Callable[[Change], str],
    console: Console,
    each: Callable[[Change], None] | None,
) -> int:
    """Change all that a filter finds, some at a time, and say how many that were.

    Args:
        number: How many there were a moment ago, where that is known.
        suits: What is said of one that was not changed where that is as good; ``""`` where it is not.
        each: Is told of every change.
    """
    tally = _Tally(suits)
    progress = _Progress(console)
    end = "" if number is None else f" of {number:,}"
    with heeded(_ENDS, left="the same command does the rest") as asked:
        # From here on it ends between two steps.
        asked.raising = False
        for changes in _stepping(store, sought, act, asked):
            tally.add(changes)
            if each is not None:
                for change in changes:
                    each(change)
            progress.show(f"{tally.done:,}{end} {done}", tally.looked_at, number)
    progress.end()
    if each is None or not console.as_json:
        tally.tell(done, console, ended=asked.stop is not None)
    if asked.stop is not None:
        return _SIGNAL + asked.stop
    return Exit.NOT_ALL if tally.refused else Exit.OK


def _stepping(store: SupportsBrowse, sought: Filter, act: Act, asked: Asked) -> Iterator[Sequence[Change]]:
    """What became of one step after the other."""
    found = itertools.takewhile(lambda _: asked.stop is None, find(store, sought))
    pace = Pace()
    while ids := [summary.id for summary in itertools.islice(found, pace.number)]:
        if asked.stop is not None:
            return
        with pace.step():
            changes = act(ids)
        yield changes
        pace.rest()


@attrs.define
class _Tally:
    suits: Callable[[Change], str]
    done: int = 0
    suited: Counter[str] = attrs.Factory(Counter)
    refused: Counter[str] = attrs.Factory(Counter)

    @property
    def looked_at(self) -> int:
        return self.done + self.suited.total() + self.refused.total()

    def add(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.status == "done":
                self.done += 1
            elif word := self.suits(change):
                self.suited[word] += 1
            else:
                self.refused[_why(change)] += 1

    def tell(self, done: str, console: Console, *, ended: bool) -> None:
        rest = ", and then it was ended: the same command does the rest" if ended else ""
        console.line(f"{self.done:,} {done}{rest}")
        for word, number in self.suited.most_common():
            console.line(f"{number:,} {word}")
        for why, number in self.refused.most_common():
            console.complain(f"{number:,} not {done}: {why}")


def _why(change: Change) -> str:
    match change.status:
        case "unknown":
            return "gone meanwhile"
        case "leased":
            return LEASED
        case _:
            return change.reason


class _Progress:
    """A line on a terminal, with a bar where it is known how many there are, ten times a second at most; nowhere else anything."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock = SystemClock()
        self._next = 0.0

    def show(self, text: str, done: int = 0, total: int | None = None) -> None:
        if self._console.live and self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + _SELDOM
            self._console.progress(text, done, total)

    def end(self) -> None:
        self._console.progress("")

"""Messages as a table: on a terminal with the reason below each, in a pipe one whole line each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.lifecycle import State, Summary
from outbox.locate import spell
from outbox.moving import ON_ITS_WAY
from outbox.protocols import Suspension
from outbox.values import printable

from . import withheld
from .columns import Tone, Toned, cut
from .output import Console, ago
from .staged import is_staged

__all__ = ["printed", "toned_state"]

_PLACE: Final = 24
_HEAD: Final = ("ID", "STATE", "AGE", "TRIES", "TO")
_A_MINUTE: Final = dt.timedelta(minutes=1)


_TONES: Final[dict[State, Tone]] = {State.DEAD: "bad", State.EXPIRED: "bad", State.HELD: "stopped"}


def toned_state(state: State) -> Toned:
    """With its weight: what has failed, and what waits for a person."""
    return Toned(state, _TONES.get(state, ""))


def printed(page: Sequence[Summary], console: Console, suspensions: Sequence[Suspension] = ()) -> None:
    """Show these; *suspensions* are those in force, of which a message's own is named."""
    now = SystemClock().now()
    whys = [_why(summary, suspensions, now) for summary in page]
    if console.width is None:
        console.table(
            (*_HEAD, "QUEUE", "WHY"),
            [(*_row(summary, now), summary.queue, why) for summary, why in zip(page, whys, strict=True)],
            right="AGE TRIES",
        )
    else:
        _for_a_person(page, whys, now, console, console.width)


def _for_a_person(
    page: Sequence[Summary], whys: Sequence[str], now: dt.datetime, console: Console, width: int
) -> None:
    rows = [_row(summary, now) for summary in page]
    # One long id would leave no room for whom the others go to.
    alone = [len(summary.id) > width // 2 for summary in page]
    rows = [("", *row[1:]) if long else row for row, long in zip(rows, alone, strict=True)]
    lines = console.rows(_HEAD, rows, right="AGE TRIES", give="TO")
    several = len({summary.queue for summary in page}) > 1
    console.line(*lines[0])
    for line, summary, why, long in zip(lines[1:], page, whys, alone, strict=True):
        if long:
            console.line(summary.id)
        console.line(*line)
        # A long name leaves room for why it waits.
        place = f"in {cut(summary.queue, _PLACE)}" if several else ""
        below = "; ".join(filter(None, [place, why]))
        if below:
            console.line(cut(f"    {below}", width))


def _row(summary: Summary, now: dt.datetime) -> tuple[str, ...]:
    to = printable(summary.recipients[0], 200) if summary.recipients else ""
    more = len(summary.recipients) - 1
    return (
        summary.id,
        toned_state(summary.state),
        _age(summary, now),
        str(summary.attempts),
        f"{to} (+{more})" if more > 0 else to,
    )


def _age(summary: Summary, now: dt.datetime) -> str:
    """How old it is; of one that a wrong clock has put into the future, how far."""
    ahead = summary.submitted_at - now
    return f"in {spell(ahead, units=1)}!" if ahead > _A_MINUTE else spell(-ahead, units=1)


def _why(summary: Summary, suspensions: Sequence[Suspension], now: dt.datetime) -> str:
    due = summary.due_at
    when = "staged" if is_staged(summary) else f"due {ago(due, now)}" if due else ""
    if summary.leased_until and summary.reason != ON_ITS_WAY:
        when = f"leased, until {ago(summary.leased_until, now)}"
    reason = printable(summary.reason)
    if len(summary.recipients) == 1:
        reason = reason.removeprefix(f"{printable(summary.recipients[0])}: ")
    if summary.state is State.HELD and summary.by_hand:
        reason = f"by hand: {reason}" if reason else "by hand"
    kept = withheld.keeps(suspensions, summary)
    # What it was given back for says the same, of one recipient or of all.
    said = [reason, *(reason.removeprefix(f"{printable(to)}: ") for to in summary.recipients)]
    if kept is not None and not any(each.startswith("suspended: ") for each in said):
        when = "; ".join(filter(None, [withheld.short(kept, now), when]))
    return "; ".join(filter(None, [when, reason]))

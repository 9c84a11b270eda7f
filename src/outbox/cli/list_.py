"""The messages, one by one, in the order of their ids: the oldest first.

On a terminal the reason stands below its message; into a pipe every message is
one line, and nothing is cut.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.lifecycle import State, Summary
from outbox.locate import spell
from outbox.values import printable, quoted

from .exits import CommandError, Exit
from .output import Console, ago, cut
from .records import summary_data
from .settings import browsable, config_of, message_id, opened_store, queue, whole

__all__ = ["arguments", "run"]

_HEAD: Final = ("ID", "STATE", "AGE", "TRIES", "TO")


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--state",
        metavar="STATE",
        action="append",
        default=[],
        help=f"only these: {', '.join(State)} (may be repeated, or with commas)",
    )
    add(
        "--queue",
        metavar="NAME",
        type=queue,
        action="append",
        default=[],
        help="only this queue (may be repeated)",
    )
    add("--limit", metavar="N", type=whole, default=100, help="at most so many (default: 100)")
    add("--after", metavar="ID", type=_after, default="", help="begin behind this id: the next page")


def _after(text: str) -> str:
    return message_id(text) if text else text


def run(options: argparse.Namespace, console: Console) -> int:
    states = _states(options.state)
    with opened_store(config_of(options, console)) as store:
        page = browsable(store).browse(
            states=states, queues=options.queue, after=options.after, limit=options.limit + 1
        )
    page, more = page[: options.limit], len(page) > options.limit
    if console.as_json:
        for summary in page:
            console.data(summary_data(summary))
    else:
        _print(page, console)
    if more:
        console.note(f"There are more: outbox list --after {page[-1].id}")
    return Exit.OK


def _states(names: Sequence[str]) -> list[State]:
    wanted = [name.strip().lower() for text in names for name in text.split(",")]
    for name in wanted:
        if name not in set(State):
            raise CommandError(Exit.USAGE, f"{quoted(name, 40)} is not a state: there are {', '.join(State)}")
    return [State(name) for name in wanted]


def _print(page: Sequence[Summary], console: Console) -> None:
    now = SystemClock().now()
    if not page:
        console.note("No messages.")
    elif console.width is None:
        console.table(
            (*_HEAD, "QUEUE", "WHY"),
            [(*_row(summary, now), summary.queue, _why(summary, now)) for summary in page],
            right="AGE TRIES",
        )
    else:
        _print_for_a_person(page, now, console, console.width)


def _print_for_a_person(page: Sequence[Summary], now: dt.datetime, console: Console, width: int) -> None:
    lines = console.rows(_HEAD, [_row(summary, now) for summary in page], right="AGE TRIES")
    several = len({summary.queue for summary in page}) > 1
    console.line(lines[0])
    for line, summary in zip(lines[1:], page, strict=True):
        console.line(line)
        place = f"in {summary.queue}" if several else ""
        below = "; ".join(filter(None, [place, _why(summary, now)]))
        if below:
            console.line(cut(f"    {below}", width))


def _row(summary: Summary, now: dt.datetime) -> tuple[str, ...]:
    to = printable(summary.recipients[0], 200)
    more = len(summary.recipients) - 1
    return (
        summary.id,
        summary.state,
        spell(now - summary.submitted_at, units=1),
        str(summary.attempts),
        f"{to} (+{more})" if more else to,
    )


def _why(summary: Summary, now: dt.datetime) -> str:
    due = summary.due_at
    when = f"due {ago(due, now)}" if due else ""
    if summary.leased_until:
        when = f"leased, until {ago(summary.leased_until, now)}"
    reason = printable(summary.reason)
    if len(summary.recipients) == 1:
        reason = reason.removeprefix(f"{printable(summary.recipients[0])}: ")
    return "; ".join(filter(None, [when, reason]))

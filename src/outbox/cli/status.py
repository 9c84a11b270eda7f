"""How many messages stand where, since when, and what those that wait have met.

A queue that this configuration does not serve is named loudly: its messages
wait for ever unless some other runner serves it.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.lifecycle import State
from outbox.locate import Config, spell
from outbox.protocols import QueueCount, Suspension
from outbox.values import printable

from . import ages, clocks, runners, withheld
from .arguments import add_key, whole
from .capable import browsable
from .columns import Toned, at_least
from .exits import Exit
from .met import lines as met_lines
from .opening import opened_store
from .output import Console
from .rows import toned_state
from .settings import config_of
from .sight import Sight, data, looked
from .staged import ADVICE

__all__ = ["EPILOG", "arguments", "nobody_alive", "run"]

EPILOG: Final = """\
examples:
  outbox status                 queues, runners, relays, what is stopped
  outbox status --ages          whose mail piles up, and since when
  outbox status --json          for a program; docs/looking.md names the fields

DUE is what could go now, and for how long the first of it has been: that, and
not the number, says whether something stands still. Runners tell of themselves
every half minute; one that was killed is SILENT for a day.
"""

_HEAD: Final = ("QUEUE", "STATE", "MESSAGES", "OLDEST", "DUE", "")


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_key(
        parser,
        "queues",
        "a queue that is served (may be repeated; default: the configuration's, or mail)",
    )
    add("--exact", action="store_true", help="count every message, however many: takes seconds for millions")
    add(
        "--ages",
        action="store_true",
        help="how old is what waits, by recipient domain: a row each, columns of ages that double",
    )
    add(
        "--rows",
        metavar="N",
        type=whole,
        default=20,
        help="with --ages: at most so many domains (default: 20)",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    if options.ages:
        with opened_store(config) as store:
            return ages.shown(browsable(store), options.rows, console)
    with opened_store(config) as store:
        seen = looked(store, exact=options.exact)
    if console.as_json:
        console.data(data(seen, config))
        return Exit.OK
    now = SystemClock().now()
    if seen.counts:
        rows = [_row(count, now) for count in seen.counts]
        console.table(_HEAD, rows, right="MESSAGES OLDEST DUE", give="QUEUE")
    else:
        console.line("No messages.")
    for line in [
        *_uncounted(seen),
        *_staged(seen, now),
        *met_lines(seen.met),
        *clocks.lines(seen.waiting, seen.runners, now),
        *_stopped(seen.suspensions, now),
        *_at_work(seen, config, now),
        *_advice(seen, config),
    ]:
        console.wrapped(line, "    ")
    return Exit.OK


def _uncounted(seen: Sight) -> Iterator[str]:
    if any(count.more for count in seen.counts):
        most = f", of {seen.at_most:,} at most in all" if seen.at_most else ""
        yield f"+ and more that were not counted{most}: outbox status --exact"


def _staged(seen: Sight, now: dt.datetime) -> Iterator[str]:
    if seen.staged is not None:
        yield ""
        yield f"  {seen.staged.phrase(now)}"
        if seen.staged.is_old(now):
            yield f"  -> {ADVICE}"


def _stopped(suspensions: Sequence[Suspension], now: dt.datetime) -> Iterator[str]:
    """What a person keeps from going out: as loud as a queue that nobody serves, for it is forgotten as easily."""
    for each in suspensions:
        yield ""
        yield Toned(f"STOPPED: {withheld.phrase(each, now, why=False)}", "stopped")
        if each.reason:
            yield f"  {printable(each.reason)}"
        yield f"  -> {withheld.undone_by(each)}"


def _at_work(seen: Sight, config: Config, now: dt.datetime) -> Iterator[str]:
    """Who delivers, and how they find their relays."""
    if seen.runners.every:
        yield from ("", Toned("RUNNERS", "head"), *runners.lines(seen.runners))
    relays = list(runners.relay_lines(seen.runners))
    if relays:
        yield from ("", Toned("RELAYS", "head"), *relays)
    forgotten = seen.forgotten(config, now)
    for count in forgotten:
        yield ""
        yield Toned(nobody_alive(count, now), "bad")
    if forgotten:
        yield "  -> outbox run   or outbox drain once (from cron, say); outbox check"


def nobody_alive(count: QueueCount, now: dt.datetime) -> str:
    since = spell(now - (count.oldest_due_at or now))
    return f"NO RUNNER ALIVE serves {count.queue}: its mail has been due for {since}"


def _row(count: QueueCount, now: dt.datetime) -> tuple[str, ...]:
    oldest = spell(now - count.oldest_at, units=1) if count.oldest_at else ""
    more = "+" if count.more else ""
    due = f"{count.due:,}{more}" if count.due else ""
    since = f"for {spell(now - count.oldest_due_at)}" if count.due and count.oldest_due_at else ""
    return (count.queue, toned_state(count.state), f"{count.number:,}{more}", oldest, due, since)


def _advice(seen: Sight, config: Config) -> Iterator[str]:
    lines: list[str] = []
    served = ", ".join(seen.served(config))
    for count in seen.unserved(config):
        waiting = at_least(count.number, count.more)
        lines += [
            Toned(f"NOBODY SERVES {count.queue} here ({waiting} waiting; served: {served})", "bad"),
            f"  -> outbox drain --queue {count.queue}   or queues = [...] in the configuration file",
        ]
    stuck = [state for state in (State.DEAD, State.HELD) if any(c.state is state for c in seen.counts)]
    if stuck:
        lines.append(f"  -> outbox list --state {','.join(stuck)}   says which, and why")
    if any(c.due for c in seen.counts):
        lines.append("  -> outbox explain ID   says why a message is not out yet")
    yield from ["", *lines] if lines else []

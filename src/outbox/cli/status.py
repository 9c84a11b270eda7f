"""How many messages stand where, since when, and what those that wait have met.

A queue that this configuration does not serve is named loudly: its messages
wait for ever unless some other runner serves it.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.clock import SystemClock
from outbox.lifecycle import State
from outbox.locate import Config, spell
from outbox.protocols import QueueCount, SupportsBrowse
from outbox.values import printable

from .exits import Exit
from .output import Console, cut
from .settings import browsable, config_of, opened_store, queue

__all__ = ["arguments", "run"]

_HEAD: Final = ("QUEUE", "STATE", "MESSAGES", "OLDEST", "DUE", "")
_SAMPLE: Final = 100
_REASONS: Final = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--queue",
        dest="queues",
        metavar="NAME",
        type=queue,
        action="append",
        help="a queue that is served (may be repeated; default: the configuration's, or mail)",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    with opened_store(config) as store:
        counts = browsable(store).count()
        waits = _waits(browsable(store))
    now = SystemClock().now()
    unserved = _unserved(counts, config)
    if console.as_json:
        console.data(_data(counts, config, unserved, waits))
    elif not counts:
        console.line("No messages.")
    else:
        console.table(_HEAD, [_row(count, now) for count in counts], right="MESSAGES OLDEST DUE")
        for line in [*_met(waits), *_advice(counts, config, unserved)]:
            console.line(line)
    return Exit.OK


def _unserved(counts: Sequence[QueueCount], config: Config) -> dict[str, int]:
    """How many messages wait in queues that this configuration does not serve."""
    return {
        count.queue: count.number
        for count in counts
        if count.state is State.QUEUED and count.queue not in config.queues
    }


def _waits(store: SupportsBrowse) -> list[tuple[str, int]]:
    """What the oldest that wait have met, the most frequent first; of many, only so many are asked."""
    waiting = store.browse(states=[State.QUEUED], limit=_SAMPLE)
    return Counter(summary.reason for summary in waiting if summary.reason).most_common(_REASONS)


def _met(waits: Sequence[tuple[str, int]]) -> list[str]:
    lines = [
        f"  {number} {'waits' if number == 1 else 'wait'}: {cut(printable(reason), 300)}"
        for reason, number in waits
    ]
    return ["", *lines] if lines else []


def _data(
    counts: Sequence[QueueCount], config: Config, unserved: dict[str, int], waits: Sequence[tuple[str, int]]
) -> dict[str, Any]:
    return {
        "counts": [attrs.asdict(count) for count in counts],
        "served": config.queues,
        "unserved": unserved,
        "waits": [{"reason": reason, "number": number} for reason, number in waits],
    }


def _row(count: QueueCount, now: dt.datetime) -> tuple[str, ...]:
    oldest = spell(now - count.oldest_at, units=1) if count.oldest_at else ""
    due = f"{count.due:,}" if count.due else ""
    since = f"for {spell(now - count.oldest_due_at)}" if count.due and count.oldest_due_at else ""
    return (count.queue, count.state, f"{count.number:,}", oldest, due, since)


def _advice(counts: Sequence[QueueCount], config: Config, unserved: dict[str, int]) -> list[str]:
    lines = []
    for name, number in unserved.items():
        lines.append(
            f"NOBODY SERVES {name} here ({number:,} waiting; served: {', '.join(config.queues)})"
            f"\n  -> outbox drain --queue {name}, or queues = [...] in the configuration file"
        )
    stuck = [state for state in (State.DEAD, State.HELD) if any(c.state is state for c in counts)]
    if stuck:
        lines.append(f"  -> outbox list --state {','.join(stuck)}   says which, and why")
    return ["", *lines] if lines else []

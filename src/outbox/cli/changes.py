"""What requeue, cancel and purge have in common: ids in, one line for each out."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from outbox.clock import SystemClock
from outbox.protocols import Change, SupportsManage
from outbox.values import printable

from .exits import Exit
from .output import Console, ago
from .records import full_id_to_change
from .settings import config_of, manageable, message_id, opened_store

__all__ = ["add_ids", "changed"]

Verb: TypeAlias = Callable[[SupportsManage, Sequence[str]], Sequence[Change]]


def add_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ids",
        metavar="ID",
        type=message_id,
        nargs="+",
        help="a message (of an id that was drawn, eight characters will do where one begins so)",
    )


def changed(options: argparse.Namespace, console: Console, done: str, verb: Verb) -> int:
    """Let *verb* change the messages and say of each what became of it; *done* is the word for success."""
    with opened_store(config_of(options, console)) as store:
        ids = [full_id_to_change(store, text) for text in options.ids]
        changes = verb(manageable(store), list(dict.fromkeys(ids)))
    now = SystemClock().now()
    for change in changes:
        if console.as_json:
            console.data(attrs.asdict(change))
        elif change.status == "done":
            console.line(f"{change.id} {done}")
        else:
            console.complain(f"{printable(change.id, 80)} not {done}: {_why(change, now)}")
    return Exit.OK if all(change.status == "done" for change in changes) else Exit.NOT_ALL


def _why(change: Change, now: dt.datetime) -> str:
    if change.status == "unknown":
        return "there is no such message (see outbox list)"
    if change.status == "leased":
        until = f", whose lease ends {ago(change.until, now)}" if change.until else ""
        return f"it is with a worker{until}; ask again then"
    return change.reason

"""Move all messages of one store to another.

One of the two may be left out: it is the configured store. Messages go as
they stand: what is due, scheduled, held, dead, with their attempts and the
fates of their recipients; and the ids of settled messages that are still
known. Nobody has to stop meanwhile: what workers have is waited for, what
they deliver is delivered, and each message is in one store at any time.

Whatever ends it, or kills it: the same command again goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError
from outbox.locate import Config, masked
from outbox.mover import Move, Step, abandon, require_source
from outbox.protocols import Store
from outbox.stores.memory import MemoryStore

from .arguments import add_duration, whole
from .exits import CommandError, Exit
from .opening import opened_store
from .output import Console
from .settings import config_of, naming
from .signals import Asked, heeded

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox move --from sqlite:///old.db --to sqlite:///new.db --dry-run
  outbox move --from sqlite:///old.db --to sqlite:///new.db
  outbox move --from file:///var/spool/outbox      to the configured store

Let the programs that submit use the new store first (then say --join), or
stop them: what they put into the old one later is moved by the same command
again. See docs/moving.md.

exit status: 0 when all were moved, 1 where some stay (they are named), 75
where workers had some for too long or the disk is full: the same command
again does the rest, 78 where the stores do not fit together.
"""
_SECOND: Final = 1.0
_NAMED: Final = 5
_SIGNAL: Final = 128
_ENDS: Final = "\noutbox: ends after this batch; the same command does the rest\n"
_LEFT: Final = "the same command finishes the batch under way"


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--from", dest="source", metavar="URL", help="the store that has them (default: the configured one)")
    add(
        "--to",
        dest="destination",
        metavar="URL",
        help="the store that gets them (default: the configured one)",
    )
    add("--join", action="store_true", help="also where the other store has messages of its own")
    add("--batch", metavar="N", type=whole, default=500, help="so many at a time (default: 500)")
    add_duration(parser, "--timeout", help="wait for what workers have no longer than this: 30s, 10m")
    add(
        "--abandon",
        action="store_true",
        help="give up a move that was not finished, where the other store is gone for good: what is on its way "
        "stands in --from again, and would be sent twice if the other store came back",
    )
    add("-n", "--dry-run", action="store_true", help="say what would be moved, and move nothing")


def run(options: argparse.Namespace, console: Console) -> int:
    if options.abandon:
        return _abandoned(options, console)
    if options.source is None and options.destination is None:
        raise CommandError(
            Exit.USAGE, "say --from URL, or --to URL, or both: which is left out is the configured store"
        )
    config = config_of(options, console)
    ends = [
        naming(config, url, f"--{name}", console)
        for name, url in (("from", options.source), ("to", options.destination))
    ]
    source, destination = ends
    if options.dry_run:
        return _foretold(source, destination, console)
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(opened_store(source))
        require_source(old)
        new = stack.enter_context(opened_store(destination, create=True))
        move = Move(old, new, joins=options.join, limit=options.batch)
        with heeded(_ENDS, left=_LEFT) as asked:
            # From here on it ends between two batches.
            asked.raising = False
            waited = _moved(move, asked, console, options.timeout)
        console.progress("")
        _tell(move, source, destination, console, ended=waited is not None or asked.stop is not None)
    if asked.stop is not None:
        return _SIGNAL + asked.stop
    if waited is not None:
        console.complain(
            f"{waited.leased:,} stay, for workers have them: the same command moves them when they are done"
        )
        return Exit.TEMPORARY
    return Exit.NOT_ALL if move.refused or move.unreadable or move.unfit else Exit.OK


def _abandoned(options: argparse.Namespace, console: Console) -> int:
    if options.destination is not None:
        raise CommandError(
            Exit.USAGE, "--abandon is for the store that the messages leave: say --from URL alone"
        )
    with opened_store(naming(config_of(options, console), options.source, "--from", console)) as old:
        done = abandon(old)
    if console.as_json:
        console.data({"given_back": done.given_back, "held": done.held})
    elif done.given_back or not done.held:
        stand = f"{done.given_back:,} stand as they stood before they were taken"
        console.line(stand if done.given_back else "nothing was on its way")
    if done.held:
        console.complain(
            f"{done.held:,} are held, for the note of how they stood was damaged: outbox list --state held shows them"
        )
    return Exit.NOT_ALL if done.held else Exit.OK


def _moved(move: Move, asked: Asked, console: Console, timeout: dt.timedelta | None) -> Step | None:
    """Move all there is, or until the end is asked for; the last look where workers had some for too long."""
    clock = SystemClock()
    total = sum(each.number for each in move.plan().counts)
    since: float | None = None
    for step in move.steps():
        if asked.stop is not None:
            return None
        if not step.leased:
            since = None
            done = (
                f"{step.moved:,} of {total:,} moved" if step.moved else f"{step.remembered:,} known ids told"
            )
            console.progress(done, step.moved, max(total, step.moved))
            continue
        since = clock.monotonic() if since is None else since
        if timeout is not None and clock.monotonic() - since >= timeout.total_seconds():
            return step
        console.progress(_waits(step, clock))
        threading.Event().wait(_SECOND)
    return None


def _waits(step: Step, clock: Clock) -> str:
    left = (
        ""
        if step.until is None
        else f", for {max(0, round((step.until - clock.now()).total_seconds()))} s or less"
    )
    return f"{step.moved:,} moved; waiting for {step.leased:,} that workers have{left}"


def _tell(move: Move, source: Config, destination: Config, console: Console, *, ended: bool) -> None:
    if console.as_json:
        console.data(
            {
                "moved": move.moved,
                "known": move.remembered,
                "refused": move.refused,
                "unreadable": move.unreadable,
                "unfit": move.unfit,
                "unsuspended": [{"kind": each.kind, "value": each.value} for each in move.unsuspended],
                "ended": ended,
            }
        )
        return
    told = f", and {move.remembered:,} ids of settled ones are known there" if move.remembered else ""
    where = f"from {masked(source.store or '')} to {masked(destination.store or '')}"
    console.line(f"moved {move.moved:,} messages {where}{told}")
    for ids, why in (
        (move.refused, "the other store has messages of these ids"),
        (move.unreadable, "they cannot be read, see outbox check"),
        (list(move.unfit), f"the other store cannot hold them ({_first(move.unfit.values())})"),
    ):
        if ids:
            more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
            console.complain(f"{len(ids):,} stay, for {why}: {', '.join(ids[:_NAMED])}{more}")
    for each in move.unsuspended:
        console.complain(
            f"{each.kind} {console.discreet(each.value)} is suspended in the store that they left, and not in the other: "
            "where it is to be so there, say so there (outbox suspend)"
        )


def _first(texts: Iterable[str]) -> str:
    return next(iter(texts), "")


def _foretold(source: Config, destination: Config, console: Console) -> int:
    """What would be moved; a store that is not there yet is not made."""
    with opened_store(source) as old, _if_there(destination, console) as new:
        plan = Move(old, new or MemoryStore()).plan()
    if console.as_json:
        console.data(
            {
                "counts": [{"queue": c.queue, "state": c.state, "number": c.number} for c in plan.counts],
                "suspended": plan.suspended,
                "under_way": plan.under_way,
                "others": plan.others,
            }
        )
        return Exit.OK
    for count in plan.counts:
        console.line(f"{count.number:>9,} {count.state} in {count.queue}")
    if plan.suspended:
        console.line(f"{plan.suspended:,} suspensions go with them")
    if plan.under_way:
        console.line(f"{plan.under_way:,} are on their way already")
    if plan.others:
        console.complain("the other store has messages of its own: it takes --join")
    console.line(f"{sum(count.number for count in plan.counts):,} would be moved; nothing was changed")
    return Exit.OK


@contextlib.contextmanager
def _if_there(config: Config, console: Console) -> Iterator[Store | None]:
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(opened_store(config))
        except ConfigurationError as error:
            console.note(f"note: {console.discreet(str(error))}")
            store = None
        yield store

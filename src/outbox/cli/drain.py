"""Deliver what is due now, then end.

Made for cron: nothing is written where nothing was due, and with -q only what
is wrong.  Any number of drains may run at once; each message goes to one of
them.  What failed for now is due again later, and waits for a later drain.

  */1 * * * *  outbox drain -q
"""

from __future__ import annotations

import argparse
import threading
from typing import Final

import attrs

from outbox import Outbox, Tally
from outbox.errors import OutboxError
from outbox.events import LeaseLost, Notice, RelayPaused, Settled
from outbox.lifecycle import Event
from outbox.locate import Config, spell
from outbox.protocols import SupportsWait

from .arguments import whole
from .delivering import opened_outbox
from .exits import Exit, Signalled, exit_of
from .journal import Journal
from .output import Console
from .settings import add_serving, config_of
from .signals import heeded
from .unserved import warn_of_unserved

__all__ = ["arguments", "run"]

EPILOG: Final = """\
exit status:
  0   done; what was refused for good is in `outbox list --state dead`
  75  not all that is due could be delivered now: the relay or the store
      cannot be reached, or a signal came; the next drain goes on
  78  a person has to mend something first: a URL, a password, a certificate,
      a permission
SIGTERM or Ctrl-C ends it when what is under way has ended; a second one at
once.
"""

STOPPING: Final = "outbox: stopping when what is under way has ended; the same signal again leaves at once\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", metavar="N", type=whole, help="deliver at most so many messages")
    add_serving(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    console.form = options.log_format
    with console.held():
        config = config_of(options, console)
        console.form = config.log_format
    journal, count = Journal(console), Count()
    try:
        with heeded(STOPPING), opened_outbox(config, [journal, count]) as outbox:
            tally = outbox.drain(limit=options.limit)
            if console.as_json:
                _print(tally, console, stopped=False)
            _report(tally, outbox, config, journal, console)
            warn_of_unserved(outbox.store, config, console)
    except Signalled:
        if console.as_json:
            _print(count.tally, console, stopped=True)
        journal.say("Stopped before all that is due was tried.", {"msg": "stopped"})
        return Exit.TEMPORARY
    for fault in tally.faults.values():
        console.complain(f"relay {fault}")
    return max((exit_of(fault) for fault in tally.faults.values()), default=Exit.OK)


class Count:
    """A listener that keeps the tally, for a drain that is ended before it can return one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tally = Tally()

    @property
    def tally(self) -> Tally:
        with self._lock:
            return self._tally

    def __call__(self, notice: Notice) -> None:
        with self._lock:
            match notice:
                case Settled(verdict=verdict):
                    name = "retried" if verdict.event is Event.RETRY else str(verdict.event)
                    self._tally = attrs.evolve(self._tally, **{name: getattr(self._tally, name) + 1})
                case LeaseLost():
                    self._tally = attrs.evolve(self._tally, lost=self._tally.lost + 1)
                case RelayPaused(fault=fault):
                    faults = {**self._tally.faults, fault.relay: fault}
                    self._tally = attrs.evolve(self._tally, faults=faults)


def _print(tally: Tally, console: Console, *, stopped: bool) -> None:
    every = {field.name: getattr(tally, field.name) for field in attrs.fields(Tally)}
    faults = {relay: str(fault) for relay, fault in tally.faults.items()}
    console.data(every | {"faults": faults, "stopped": stopped})


def _report(tally: Tally, outbox: Outbox, config: Config, journal: Journal, console: Console) -> None:
    counts = {
        field.name: number
        for field in attrs.fields(Tally)
        if isinstance(number := getattr(tally, field.name), int) and number
    }
    next_due = _next_due(outbox, config)
    if counts or console.live:
        journal.say(_words(counts, next_due), {"msg": "drained", **counts})


def _words(counts: dict[str, int], next_due: str) -> str:
    if not counts:
        return f"Nothing was due{next_due}."
    names = {"retried": "to retry", "released": "left for later", "lost": "taken over by another runner"}
    parts = [f"{number:,} {names.get(name, name)}" for name, number in counts.items()]
    return f"{', '.join(parts)}{next_due}."


def _next_due(outbox: Outbox, config: Config) -> str:
    try:
        due = outbox.store.next_due(config.queues) if isinstance(outbox.store, SupportsWait) else None
    except OutboxError:
        return ""
    return f"; the next is due in {spell(due)}" if due else ""

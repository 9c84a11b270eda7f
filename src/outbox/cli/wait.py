"""Wait until nothing is left to deliver: neither queued nor with a worker.

It looks when something happens, where the store can tell, and every second
otherwise; it delivers nothing itself. What is paused, suspended or waits for a
retry is waited for, too; what is dead or held is not, nor what is staged: only
the program that staged it publishes it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import threading
from typing import Final

from outbox.clock import SystemClock
from outbox.filters import Filter, find
from outbox.lifecycle import STAGED, State
from outbox.protocols import Store, SupportsBrowse, SupportsGlance, SupportsWait

from . import withheld
from .arguments import add_duration, queue
from .capable import browsable
from .columns import at_least
from .exits import Exit
from .opening import opened_store
from .output import Console
from .settings import config_of

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox wait                                 until all queues are empty
  outbox wait --queue mail --timeout 10m && systemctl stop shop-outbox

exit status: 0 when they are empty, 75 when the timeout came first.
"""
_LEFT: Final = (State.QUEUED, State.CLAIMED)
_SECOND: Final = dt.timedelta(seconds=1)
_LOOKS: Final = 2
_SELDOM: Final = 2.0
"""Seconds between two counts that are shown: a store that has no glance reads all that is there."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--queue",
        dest="waited_for",
        metavar="NAME",
        type=queue,
        action="append",
        default=[],
        help="this queue (may be repeated; default: all there are, but for what is staged)",
    )
    add_duration(parser, "--timeout", help="for no longer than this: 30s, 10m")


def run(options: argparse.Namespace, console: Console) -> int:
    clock = SystemClock()
    begun = clock.monotonic()
    limit = None if options.timeout is None else options.timeout.total_seconds()
    with opened_store(config_of(options, console)) as store:
        looked_at = browsable(store)
        for suspension in withheld.in_force(store):
            if suspension.kind != "queue" or suspension.value in (options.waited_for or [suspension.value]):
                console.note(f"note: {withheld.phrase(suspension, clock.now())}")
        watch = _Watch(looked_at, store, options.waited_for, console)
        while watch.something_is_left():
            left = None if limit is None else limit - (clock.monotonic() - begun)
            if left is not None and left <= 0:
                return _too_late(looked_at, options, console)
            watch.rest(_SECOND if left is None else min(_SECOND, dt.timedelta(seconds=left)))
        if not options.waited_for and looked_at.browse(states=[State.QUEUED], queues=[STAGED], limit=1):
            console.note("note: what is staged was not waited for: see outbox status")
    console.progress("")
    if console.as_json:
        console.data({"empty": True})
    return Exit.OK


def _too_late(store: SupportsBrowse, options: argparse.Namespace, console: Console) -> int:
    number, more = _left(store, options.waited_for)
    if console.as_json:
        console.data({"empty": False, "left": number, "more": more})
    else:
        console.complain(
            f"{at_least(number, more)} are left: see outbox status, and outbox list --state queued,claimed"
        )
    return Exit.TEMPORARY


def _left(store: SupportsBrowse, queues: list[str]) -> tuple[int, bool]:
    """How many, and whether there are more: who watches the time counts no million to its end."""
    counts = store.glance().counts if isinstance(store, SupportsGlance) else store.count()
    left = [each for each in counts if each.state in _LEFT and _is_meant(each.queue, queues)]
    return sum(each.number for each in left), any(each.more for each in left)


def _is_meant(queue: str, queues: list[str]) -> bool:
    return queue in queues if queues else queue != STAGED


class _Watch:
    """Looks whether something is left, and sleeps until that may have changed."""

    def __init__(self, store: SupportsBrowse, whole: Store, queues: list[str], console: Console) -> None:
        self._store = store
        self._waits = whole if isinstance(whole, SupportsWait) else None
        self._queues = queues
        self._console = console
        self._clock = SystemClock()
        self._counted = 0.0
        self._sleep = threading.Event()

    def something_is_left(self) -> bool:
        if self._waits is not None and self._queues and self._waits.next_due(self._queues) is not None:
            return True
        # Nothing is believed only when it was seen twice: a look goes from what is queued to what is claimed,
        # and a retry goes the other way meanwhile.
        return any(self._is_some_there() for _ in range(_LOOKS))

    def _is_some_there(self) -> bool:
        found = find(self._store, Filter(states=_LEFT, queues=self._queues))
        return any(_is_meant(each.queue, self._queues) for each in found)

    def rest(self, timeout: dt.timedelta) -> None:
        if self._console.live and self._clock.monotonic() - self._counted > _SELDOM:
            self._console.progress(f"{at_least(*_left(self._store, self._queues))} left")
            self._counted = self._clock.monotonic()
        if self._waits is not None:
            self._waits.wait(timeout)
        else:
            self._sleep.wait(timeout.total_seconds())

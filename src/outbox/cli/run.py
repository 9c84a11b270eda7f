"""Deliver for ever, until SIGTERM or Ctrl-C.

For systemd, a container or a terminal: it stays in the foreground and logs to
standard error, a line for each recipient.  Any number of runs and drains may
share one store.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import threading
from typing import Final

from outbox import Outbox
from outbox.clock import SystemClock
from outbox.lifecycle import State
from outbox.locate import masked, spell

from .drain import STOPPING
from .exits import Exit
from .journal import Entry, Journal
from .output import Console
from .settings import add_serving, browsable, config_of, opened_outbox
from .signals import Signalled, heeded
from .unserved import warn_of_unserved

__all__ = ["arguments", "run"]

_LAST_STEPS: Final = 0.5
_MANY: Final = 10_000

EPILOG: Final = """\
exit status:
  0   ended by a signal, in good order
  70  its workers ended by a bug: the lines before say which
  75  ended by a signal, and what was under way did not end in the grace time:
      the last line says how much, and when it is taken up again
  78  it could not start: a URL, a password, a permission
A relay or a store that cannot be reached does not end it: it says so, waits,
and tries again.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_serving(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    journal = Journal(console, forever=True)
    queues, transport = ",".join(config.queues), masked(config.transport or "")
    try:
        with heeded(STOPPING), opened_outbox(config, [journal]) as outbox:
            warn_of_unserved(outbox.store, config, console)
            journal.say(
                f"Delivering {queues} through {transport}.",
                {"msg": "running", "queues": queues, "transport": transport},
            )
            return _deliver(outbox, journal)
    except Signalled:
        return _stopped(journal)


def _deliver(outbox: Outbox, journal: Journal) -> int:
    try:
        outbox.runner().run_forever()
    except Signalled:
        hanging = _hanging()
        if hanging:
            return _left_behind(hanging, outbox, journal)
    return _stopped(journal)


def _stopped(journal: Journal) -> int:
    journal.say("Stopped.", {"msg": "stopped"})
    return Exit.OK


def _hanging() -> int:
    """How many workers were still with a transaction when the grace time ended.

    What stopping brought to light is lost where an exception stops the
    runner, so the threads themselves are looked at.
    """
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("outbox-worker")]
    for worker in workers:
        worker.join(_LAST_STEPS)
    return sum(worker.is_alive() for worker in workers)


def _left_behind(hanging: int, outbox: Outbox, journal: Journal) -> int:
    ends = [
        summary.leased_until
        for summary in browsable(outbox.store).browse(states=[State.CLAIMED], limit=_MANY)
        if summary.leased_until
    ]
    wait = max(ends) - SystemClock().now() if ends else dt.timedelta(0)
    words = (
        f"Stopped with {hanging} under way that did not end within the grace time; {len(ends)} claimed in the store, "
        f"to be taken up again when their leases end, the last in {spell(wait)}."
    )
    fields = {"msg": "stopped", "hanging": hanging, "claimed": len(ends), "lease_ends_in": wait}
    journal.write(Entry(logging.WARNING, fields, words))
    return Exit.TEMPORARY

"""Deliver for ever, until SIGTERM or Ctrl-C.

For systemd, a container or a terminal: it stays in the foreground and logs to
standard error, a line for each recipient.  Any number of runs and drains may
share one store.
"""

from __future__ import annotations

import argparse
from typing import Final

from outbox.locate import masked

from .drain import STOPPING
from .exits import Exit
from .journal import Journal
from .output import Console
from .settings import add_serving, config_of, opened_outbox
from .signals import Signalled, heeded

__all__ = ["arguments", "run"]

EPILOG: Final = """\
exit status:
  0   ended by a signal, in good order
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
            journal.say(
                f"Delivering {queues} through {transport}.",
                {"msg": "running", "queues": queues, "transport": transport},
            )
            outbox.runner().run_forever()
    except Signalled:
        journal.say("Stopped.", {"msg": "stopped"})
    return Exit.OK

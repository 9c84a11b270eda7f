"""Stop a queue: nothing of it goes out until it is resumed, or until a time.

What is on its way at this moment finishes; what is submitted meanwhile is
stored and waits. Every process that serves the queue feels it at once.
"""

from __future__ import annotations

import argparse
from typing import Final

from . import moments, suspending
from .arguments import queue
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox pause mail --because 'the relay is moved'
  outbox pause mail.bulk --until 18:00
  outbox pause mail mail.bulk --for 2h

outbox status says what is paused, and how long still; outbox resume ends it.
Messages grow older meanwhile, and expire by their own expires_at.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("queues", metavar="QUEUE", type=queue, nargs="+", help="which")
    moments.add_end(parser)
    suspending.add_reason(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    named: list[suspending.Named] = [("queue", name) for name in dict.fromkeys(options.queues)]
    # They are not those that this configuration serves.
    apart = argparse.Namespace(**{**vars(options), "queues": None})
    return suspending.stopped(named, apart, console)

"""Let a queue go on that was paused (outbox pause), now."""

from __future__ import annotations

import argparse
from typing import Final

from . import suspending
from .arguments import queue
from .exits import Exit
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox resume mail
  outbox status            says what is paused

exit status: 0, or 1 where a queue was not paused.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("queues", metavar="QUEUE", type=queue, nargs="+", help="which")


def run(options: argparse.Namespace, console: Console) -> int:
    named: list[suspending.Named] = [("queue", name) for name in dict.fromkeys(options.queues)]
    # They are not those that this configuration serves.
    apart = argparse.Namespace(**{**vars(options), "queues": None})
    gone = suspending.taken_back(named, "no longer paused", apart, console)
    return Exit.OK if len(gone) == len(named) else Exit.NOT_ALL

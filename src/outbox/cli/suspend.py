"""Keep part of the mail from going out, what is submitted later included.

Until a time, or until it is taken back (outbox unsuspend).

Running processes feel it before their next claim, a second later; what they
have claimed already, after ten seconds at the latest.  It costs no message an
attempt, and kills none.
"""

from __future__ import annotations

import argparse
from typing import Final

from . import moments, suspending
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox suspend --domain example.net --until 18:00 --because 'their move'
  outbox suspend --relay smtp.example.org:587 --for 2h
  outbox suspend --relay '*'                  every relay: nothing goes out
  outbox suspend --attribute campaign=spring --because 'wrong prices'

outbox status says what is suspended, and how long still; outbox unsuspend ends
it. To keep back single messages, and no others, say outbox hold.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    suspending.add_kinds(parser)
    moments.add_end(parser)
    suspending.add_reason(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    named = suspending.keyed(suspending.kinds(options), options, console)
    return suspending.stopped(named, options, console)

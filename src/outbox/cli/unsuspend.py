"""Let go out again what was suspended (outbox suspend), or paused."""

from __future__ import annotations

import argparse
from typing import Final

from . import shell, suspending
from .exits import Exit
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox unsuspend --domain example.net
  outbox unsuspend --relay '*'
  outbox status                          says what is suspended

What waited looks again after a tenth of its age, a minute at least and a
quarter of an hour at most; `outbox requeue` lets it go at once, with its age
and its attempts counted anew.

exit status: 0, or 1 where something was not suspended.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    suspending.add_kinds(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    named = suspending.keyed(suspending.kinds(options), options, console, quietly=True)
    gone = suspending.taken_back(named, "no longer suspended", options, console)
    for kind, value in gone:
        if kind != "queue" and not console.as_json:
            words = shell.word(f"suspended: {kind} {value}")
            console.note(
                "  what waits looks again within a quarter of an hour; at once, and counted anew, by:\n"
                f"  outbox requeue --state queued --reason {words}"
            )
    return Exit.OK if len(gone) == len(named) else Exit.NOT_ALL

"""Keep these messages back until outbox release lets them go on.

For what waits.  They stay, held, and the others of their queue go on; nothing
of what they were is lost: their attempts, their age, and when they were due.
To stop a whole queue, say outbox pause; a domain, a relay or all with an
attribute, those to come included: outbox suspend.
"""

from __future__ import annotations

import argparse
import functools
from typing import Final

from outbox.lifecycle import State

from .arguments import words
from .capable import holdable
from .changes import Verb, add_choice, changed, teaching
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

_TO: Final = (State.QUEUED, State.CLAIMED)
EPILOG: Final = teaching(
    "outbox hold 0193f2a4 --because 'wrong attachment, ask Ann'",
    "outbox hold --recipient ann@example.net --because 'she moves'",
    "outbox hold --attribute campaign=spring --because 'wrong prices'",
)
_VERB: Final = Verb(does="hold", done="held", to=_TO, unless_said=_TO)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_choice(parser, _VERB)
    parser.add_argument(
        "--because", metavar="TEXT", type=words, default="", help="why, for the next one who looks"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(
        options,
        console,
        _VERB,
        lambda store: functools.partial(holdable(store).hold, reason=options.because),
    )

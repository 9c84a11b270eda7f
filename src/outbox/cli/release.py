"""Let messages go on that a person holds (outbox hold), as they were before.

Their attempts and their age are what they were, and so is when they are due;
recipients who may have it already are not sent to again.  What outbox itself
has held, for it needs a person's decision, is refused: see outbox show, and
outbox requeue.
"""

from __future__ import annotations

import argparse
from typing import Final

from outbox.lifecycle import State

from .capable import holdable
from .changes import Verb, add_choice, changed, teaching
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = teaching(
    "outbox release 0193f2a4",
    "outbox release --attribute campaign=spring",
    "outbox release --reason 'wrong prices'     those held because of this",
    "outbox release --state held                    all that persons hold",
)
_VERB: Final = Verb(
    does="release", done="released", to=(State.HELD,), unless_said=(State.HELD,), by_hand=True
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_choice(parser, _VERB)


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(options, console, _VERB, lambda store: holdable(store).release)

"""Remove settled messages for good, and say how many.

Dead, expired, cancelled, held, or delivered and kept.  What waits or is on its
way is refused: cancel it first.  There is no way back.

A filter means what is held only where --state says so: that waits for a
person.
"""

from __future__ import annotations

import argparse
from typing import Final

from outbox.lifecycle import State

from .capable import manageable
from .changes import Verb, add_choice, changed, teaching
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

_SETTLED: Final = (State.DEAD, State.EXPIRED, State.CANCELLED, State.DELIVERED)
EPILOG: Final = teaching(
    "outbox purge 0193f2a4",
    "outbox purge --state dead --older-than 30d",
    "outbox purge --state dead --dry-run    how many, and some of them",
    "outbox purge --state dead --yes        without a question",
)
_VERB: Final = Verb(does="purge", done="purged", to=(*_SETTLED, State.HELD), unless_said=_SETTLED)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_choice(parser, _VERB)


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(options, console, _VERB, lambda store: manageable(store).purge)

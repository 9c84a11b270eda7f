"""Never hand these messages over any more.

They stay, cancelled, until they are purged or requeued.  One that is with a
worker at this moment is refused, with the time to ask again: it may be on its
way.
"""

from __future__ import annotations

import argparse
from typing import Final

from outbox.lifecycle import State

from .capable import manageable
from .changes import Verb, add_choice, changed, teaching
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

_TO: Final = (State.QUEUED, State.CLAIMED, State.HELD)
EPILOG: Final = teaching(
    "outbox cancel 0193f2a4",
    "outbox cancel --attribute campaign=spring    what is left of a campaign",
    "outbox cancel --queue mail.bulk --dry-run    how many, and some of them",
)
_VERB: Final = Verb(does="cancel", done="cancelled", to=_TO, unless_said=_TO)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_choice(parser, _VERB)


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(options, console, _VERB, lambda store: manageable(store).cancel)

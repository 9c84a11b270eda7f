"""Let dead, held or cancelled messages go on, or waiting ones go now.

Their attempts and their age start anew.  Who has the message does not get it
again; who was refused is tried again; who may have it (uncertain) only with
--uncertain, for he may get it twice.

A filter means what is queued, dead, or held by a verdict.  What a person has
cancelled it means only where --state says so, and what a person holds never:
outbox release gives that back.  What a worker takes up, or has delivered,
while the command runs is left to him.
"""

from __future__ import annotations

import argparse
import functools
from typing import Final

from outbox.lifecycle import State

from .capable import manageable
from .changes import Verb, add_choice, changed, teaching
from .output import Console

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = teaching(
    "outbox requeue 0193f2a4                      this one, now",
    "outbox requeue --state dead --domain example.net",
    "outbox requeue --state dead --reason '550 5.7.1'",
    "outbox requeue --state queued --queue mail   what waits for its retry: now",
)
_VERB: Final = Verb(
    does="requeue",
    done="requeued",
    to=(State.QUEUED, State.CLAIMED, State.DEAD, State.HELD, State.CANCELLED),
    unless_said=(State.QUEUED, State.DEAD, State.HELD),
    by_hand=False,
    sends=True,
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add_choice(parser, _VERB)
    parser.add_argument(
        "--uncertain",
        action="store_true",
        help="also recipients who may have it already: they may get it twice",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(
        options,
        console,
        _VERB,
        lambda store: functools.partial(manageable(store).requeue, uncertain=options.uncertain),
    )

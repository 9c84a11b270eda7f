"""Let dead, held or cancelled messages go on, or waiting ones go now.

Their attempts and their age start anew.  Who has the message does not get it
again; who was refused is tried again; who may have it (uncertain) only with
--uncertain, for he may get it twice.
"""

from __future__ import annotations

import argparse

from .changes import add_ids, changed
from .output import Console

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_ids(parser)
    parser.add_argument(
        "--uncertain",
        action="store_true",
        help="also recipients who may have it already: they may get it twice",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(
        options, console, "requeued", lambda store, ids: store.requeue(ids, uncertain=options.uncertain)
    )

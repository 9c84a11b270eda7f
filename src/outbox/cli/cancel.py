"""Never hand these messages over any more.

They stay, cancelled, until they are purged or requeued.  One that is with a
worker at this moment is refused, with the time to ask again: it may be on its
way.
"""

from __future__ import annotations

import argparse

from .changes import add_ids, changed
from .output import Console

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_ids(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(options, console, "cancelled", lambda store, ids: store.cancel(ids))

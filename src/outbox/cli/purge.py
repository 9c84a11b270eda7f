"""Remove settled messages for good.

Dead, held, expired, cancelled, or delivered and kept.  What waits or is on its
way is refused: cancel it first.  There is no way back.
"""

from __future__ import annotations

import argparse

from .changes import add_ids, changed
from .output import Console

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_ids(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    return changed(options, console, "purged", lambda store, ids: store.purge(ids))

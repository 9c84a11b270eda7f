"""Bring the store to the format of this release, and say what was done.

Every command that submits or delivers does it, too, when it opens the store;
this one does it when you choose. It is refused while programs of the earlier
release are delivering: stop them first. There is no way back: make a backup.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from outbox.errors import FormatError
from outbox.locate import Config
from outbox.protocols import Store, SupportsMaintain

from .exits import Exit
from .opening import opened_store
from .output import Console
from .settings import config_of

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
exit status: 0 (also where there was nothing to do), 75 while programs of an
earlier release are delivering, 78 where a newer release wrote the store.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes no options but those of all commands."""
    del parser


def run(options: argparse.Namespace, console: Console) -> int:
    done = _migrated(config_of(options, console))
    if console.as_json:
        console.data({"done": done})
    else:
        for line in done or ["there was nothing to do: the store is in the format of this release"]:
            console.line(line)
    return Exit.OK


def _migrated(config: Config) -> list[str]:
    try:
        with opened_store(config) as store:
            return list(_by_itself(store))
    except FormatError as error:
        old = str(error)
    # It is there, and another release wrote it; where that is a newer one, this says so.
    with opened_store(config, create=True) as store:
        return [f"brought to the format of this release ({old.partition(', which')[0]})", *_by_itself(store)]


def _by_itself(store: Store) -> Sequence[str]:
    return store.migrate() if isinstance(store, SupportsMaintain) else ()

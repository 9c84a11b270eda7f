"""Bring the store to the format of this release, and say what was done.

Where it is on a server and is not there yet, it is made; on SQS, each queue.
Every command that submits or delivers does it, too, when it opens the store;
this one does it when you choose. It is refused while programs of the earlier
release are delivering: stop them first. There is no way back: make a backup.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from outbox.errors import FormatError, UnsupportedError
from outbox.locate import Config, migration_from_url
from outbox.protocols import Store, SupportsMaintain

from .arguments import add_key
from .exits import Exit
from .opening import opened_store, store_url
from .output import Console
from .settings import config_of

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
exit status: 0 (also where there was nothing to do), 75 while programs of an
earlier release are delivering, 78 where a newer release wrote the store.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is to be seen before it is done, and for which queues it is."""
    add_key(
        parser,
        "queues",
        "make this queue, too, where a queue is something to be made (SQS); repeat it for several",
    )
    parser.add_argument(
        "--sql",
        action="store_true",
        help="print what would be done, as a script for psql, and do nothing (PostgreSQL)",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    if options.sql:
        return _shown(config, console)
    done = _migrated(config)
    if console.as_json:
        console.data({"done": done})
    else:
        for line in done or ["there was nothing to do: the store is in the format of this release"]:
            console.line(line)
    return Exit.OK


def _shown(config: Config, console: Console) -> int:
    migration = migration_from_url(store_url(config))
    if migration is None:
        raise UnsupportedError(
            "this store has no tables that a person makes: it is brought up to date when it is opened"
        )
    script = migration.script()
    if console.as_json:
        console.data({"sql": list(script)})
    for line in (
        () if console.as_json else script or ["-- nothing to do: the tables are those of this release"]
    ):
        console.line(line)
    return Exit.OK


def _migrated(config: Config) -> list[str]:
    migration = migration_from_url(store_url(config))
    if migration is not None:
        return list(migration.run())
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

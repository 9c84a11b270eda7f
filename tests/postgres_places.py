"""A schema for each store of a test, swept and used again: to make the tables anew takes longer than most tests."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import psycopg

from outbox.stores.postgres import PostgresStore

_SWEEP: Final = """
    DELETE FROM {0}.outbox_message; DELETE FROM {0}.outbox_attempt; DELETE FROM {0}.outbox_suspension;
    DELETE FROM {0}.outbox_meta
    WHERE name LIKE 'here:%' OR name LIKE 'given:%' OR name LIKE 'register:%' OR name = 'leaving'
"""


class Places:
    """Which schema belongs to the store in which directory: a file in there says it, to other processes too.

    A schema is free when that file is gone.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._used: dict[str, Path] = {}

    def schema(self, path: Path) -> str:
        told = path / "schema"
        if told.exists():
            return told.read_text()
        name = self._free() or self._new()
        self._used[name] = told
        path.mkdir(parents=True, exist_ok=True)
        told.write_text(name)
        return name

    def leave(self, path: Path) -> None:
        (path / "schema").unlink(missing_ok=True)

    def _free(self) -> str | None:
        for name, told in self._used.items():
            if not told.exists():
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    connection.execute(_SWEEP.format(name).encode())
                return name
        return None

    def _new(self) -> str:
        name = f"s{os.getpid()}_{len(self._used)}"
        PostgresStore(self.dsn, schema=name).close()
        return name

    def open(self, path: Path, **settings: Any) -> PostgresStore:
        return PostgresStore(self.dsn, schema=self.schema(path), **settings)

    def drop(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            # What a test that failed has left open keeps nobody: the server ends soon.
            connection.execute("SET lock_timeout = '5s'")
            for name in self._used:
                with contextlib.suppress(psycopg.errors.LockNotAvailable):
                    connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE".encode())


class _Told(dict[str, Places]):
    """The places of this process, by server."""

    def __missing__(self, dsn: str) -> Places:
        self[dsn] = Places(dsn)
        return self[dsn]


TOLD: Final = "OUTBOX_POSTGRES_OF_THIS_RUN"
"""How the processes that a test begins learn of the server."""
_TOLD: Final = _Told()


def places() -> Places:
    return _TOLD[os.environ[TOLD]]

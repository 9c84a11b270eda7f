"""The same statements over tables of another prefix, for a store inside somebody's own database."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from outbox.errors import ConfigurationError
from outbox.values import quoted

__all__ = ["PREFIX", "Names", "Renamed", "Sql"]

PREFIX: Final = "outbox_"
"""What the statements of this package call their tables and indexes by."""

_FIT: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_OURS: Final = re.compile(rf"(?P<index>INDEXED BY )?\b{PREFIX}(?=[a-z])")


class Sql(Protocol):
    """What executes statements: a connection, or a cursor of the caller's."""

    def execute(self, statement: str, parameters: Any = ..., /) -> sqlite3.Cursor: ...

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> sqlite3.Cursor: ...


class Names:
    """From a statement of ours to the same over tables that begin with *prefix*.

    Args:
        prefix: None is a file of our own, with nothing else in it.
    """

    def __init__(self, prefix: str | None = None) -> None:
        self.embedded = prefix is not None
        prefix = PREFIX if prefix is None else prefix
        if not _FIT.fullmatch(prefix):
            raise ConfigurationError(
                f"prefix {quoted(prefix)} is not a letter and up to 39 of a-z, 0-9 and '_'"
            )
        if prefix.startswith("sqlite_"):
            raise ConfigurationError(
                f"prefix {quoted(prefix)}: names that begin with sqlite_ SQLite keeps for itself"
            )
        self.prefix = prefix
        self._renaming = _Renaming(prefix)
        self._into_main = _Renaming(prefix, "main.")

    def apply(self, sql: Sql) -> Sql:
        return sql if self.prefix == PREFIX else Renamed(sql, self._renaming)

    def in_main(self, sql: Sql) -> Sql:
        """The same for a connection that may have temporary tables, or databases attached, with tables of these names."""
        return Renamed(sql, self._into_main)


class _Renaming:
    def __init__(self, prefix: str, schema: str = "") -> None:
        self._table = f"{schema}{prefix}"
        # The name of an index in a query is that of one of its table, and takes no database before it.
        self._index = f"INDEXED BY {prefix}"
        self._known: dict[str, str] = {}

    def __call__(self, statement: str) -> str:
        renamed = self._known.get(statement)
        if renamed is None:
            renamed = self._known[statement] = _OURS.sub(self._named, statement)
        return renamed

    def _named(self, found: re.Match[str]) -> str:
        return self._index if found["index"] else self._table


class Renamed:
    """See :class:`Names`."""

    def __init__(self, sql: Sql, rename: Callable[[str], str]) -> None:
        self._sql = sql
        self._rename = rename

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return self._sql.execute(self._rename(statement), parameters)

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        return self._sql.executemany(self._rename(statement), parameters)

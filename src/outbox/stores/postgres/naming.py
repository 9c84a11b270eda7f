"""The same statements over the tables of whichever schema."""

from __future__ import annotations

import re
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.values import quoted

from .driver import Connection, Cursor, cursor

__all__ = ["Names", "Sql"]

_FIT: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)
_OURS: Final = re.compile(r"\boutbox_(?=[a-z])")


class Names:
    """From a statement of ours to the same over the tables in *schema*, whatever the connection's search path is."""

    def __init__(self, schema: str) -> None:
        if not isinstance(schema, str) or not _FIT.fullmatch(schema) or schema.startswith("pg_"):
            raise ConfigurationError(
                f"schema {quoted(str(schema))} is not a small letter and up to 39 of a-z, 0-9 and '_', or begins with pg_"
            )
        self.schema = schema
        self.quoted = f'"{schema}"'
        self._known: dict[str, bytes] = {}

    def __call__(self, statement: str) -> bytes:
        known = self._known.get(statement)
        if known is None:
            named = _OURS.sub(f"{self.quoted}.outbox_", statement)
            known = self._known[statement] = re.sub(r"\s+", " ", named).strip().encode()
        return known


class Sql:
    """What executes statements on one connection.

    Args:
        prepare: Whether to prepare them; None: as the connection has it.
    """

    __slots__ = ("_names", "_prepare", "connection")

    def __init__(self, connection: Connection, names: Names, *, prepare: bool | None = None) -> None:
        self.connection = connection
        self._names = names
        self._prepare = prepare

    def execute(self, statement: str, parameters: Any = None) -> Cursor:
        """Within a pipeline its answer is waited for when it is fetched."""
        return cursor(self.connection).execute(self._names(statement), parameters, prepare=self._prepare)

    def execute_raw(self, statement: str) -> Cursor:
        """One that names its schema by itself; it is not prepared."""
        return cursor(self.connection).execute(statement.encode(), prepare=False)

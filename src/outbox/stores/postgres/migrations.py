"""How a database comes by the tables, and from those of one release to those of the next.

Releases work side by side while they are rolled out.  So a step only adds, and
what it adds has a default; the table that tells of the store says of itself
which version its tables have (``version``), and which is the oldest that a
program may know and still work with them (``readable``).  The order is: first
migrate, then start the new programs, which refuse older tables; the old ones
go on meanwhile.

A step waits for no other transaction longer than a few seconds, for all others
would wait behind it.  It is undone then, and may be tried again.

An index is made by its own statement, ``IF NOT EXISTS``, so that whoever has a
big table makes it beforehand, ``CONCURRENTLY`` and without a lock.  It may be
of a column that the same step adds, which then is there beforehand, too: so
whatever a step does it can do a second time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from outbox.errors import ConfigurationError, FormatError, UnsupportedError

from .driver import begin
from .links import linked, transaction
from .naming import Names, Sql
from .schema import INDEXES, TABLES, VERSION, Index
from .upkeep import ISOLATION, ISOLATIONS, LESS, OLDEST, stricter

__all__ = [
    "STEPS",
    "PostgresMigration",
    "Step",
    "identity",
    "migrate",
    "require_fit",
    "require_isolation",
    "require_known",
    "script",
    "version",
]

_ENCODING: Final = "UTF8"


_ONCE: Final = re.compile(
    r"\b(ADD COLUMN|CREATE TABLE|ADD CONSTRAINT|CREATE (?:UNIQUE )?INDEX)\b(?! IF NOT EXISTS)", re.IGNORECASE
)


def _require_repeatable(_: Step, __: object, statements: Sequence[str]) -> None:
    for statement in statements:
        found = _ONCE.search(" ".join(statement.split()))
        if found is not None:
            raise ValueError(
                f"a step of a migration has {found[1]} without IF NOT EXISTS, and may find it done: whoever has a big table "
                "makes its columns and its indexes beforehand (an index goes into indexes)"
            )


@attrs.frozen
class Step:
    """What leads from the version before it to *version*: statements that only add, and indexes.

    Attributes:
        readable: The oldest version whose programs work with these tables.
        statements: Each can be executed a second time, and then does nothing.

    Raises:
        ValueError: one of them cannot.
    """

    version: int
    readable: int
    statements: Sequence[str] = attrs.field(validator=_require_repeatable)
    indexes: Sequence[Index] = ()

    def changes(self, names: Names) -> list[str]:
        """The statements, as they are executed in this schema."""
        return [names(statement).decode() for statement in self.statements]

    def makes(self, names: Names, *, concurrently: bool = False) -> list[str]:
        """The statements that make the indexes."""
        return [index.statement(names.quoted, concurrently=concurrently) for index in self.indexes]

    def says(self, names: Names) -> list[str]:
        """What says that it is done."""
        pairs = (("version", self.version), ("readable", self.readable))
        return [names(_SAY.format(name, value)).decode() for name, value in pairs]

    def all(self, names: Names) -> list[str]:
        """What does all of it in one transaction."""
        return [*self.changes(names), *self.makes(names), *self.says(names)]


_SAY: Final = """
    INSERT INTO outbox_meta (name, value) VALUES ('{0}', '{1}') ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
STEPS: Final[Sequence[Step]] = (Step(VERSION, 1, TABLES, INDEXES),)
"""In order; the first makes all that there is."""

_SCHEMA: Final = "SELECT FROM pg_namespace WHERE nspname = %(schema)s"
_THERE: Final = "SELECT to_regclass(%(table)s) IS NOT NULL"
_SAID: Final = "SELECT name, value FROM outbox_meta WHERE name IN ('version', 'readable')"
_IDENTITY: Final = "SELECT value FROM outbox_meta WHERE name = 'store'"
# Whoever waits to alter a table has all wait behind him who only want to use it.
_PATIENCE: Final = "5s"
_BRIEFLY: Final = """
    SELECT set_config('lock_timeout', %(patience)s, true) WHERE current_setting('lock_timeout') = '0'
"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('outbox migration ' || %(schema)s))"


def require_fit(sql: Sql, name: str) -> None:
    """See that the server can hold a store in this database.

    Raises:
        UnsupportedError: it is too old.
        ConfigurationError: the database cannot hold every text, or holds any.
    """
    info = sql.connection.info
    if info.server_version < OLDEST:
        raise UnsupportedError(
            f"{name} runs PostgreSQL {info.server_version // 10_000}, and PostgresStore needs {OLDEST // 10_000} or newer"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != _ENCODING:
        raise ConfigurationError(
            f"the database {name} has the encoding {encoding}, in which not every address and not every reply of a server "
            "can be kept: make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and keep the outbox there"
        )


def require_isolation(sql: Sql, name: str) -> None:
    """See that the transactions here are those that the statements were made for.

    Raises:
        ConfigurationError: they are isolated further, and would undo each other wherever two claim.
    """
    ((found,),) = sql.execute(ISOLATION).fetchall()
    if found not in ISOLATIONS:
        raise ConfigurationError(f"{name}: {stricter(found)}: {LESS}")


def version(sql: Sql, names: Names) -> Mapping[str, int]:
    """``version`` and ``readable`` of the tables; 0 where there are none."""
    ((there,),) = sql.execute(_THERE, {"table": f"{names.quoted}.outbox_meta"}).fetchall()
    said: dict[str, str] = dict(sql.execute(_SAID).fetchall()) if there else {}
    try:
        return {name: int(said.get(name, 0)) for name in ("version", "readable")}
    except ValueError:
        raise FormatError(f"schema {names.schema} holds a store of a version that is no number") from None


def identity(sql: Sql) -> str:
    """What this store, and its copies, are told from every other by."""
    ((value,),) = sql.execute(_IDENTITY).fetchall()
    return str(value)


def require_known(found: Mapping[str, int], name: str, names: Names) -> None:
    """See that this release works with these tables.

    Raises:
        ConfigurationError: there are none.
        FormatError: they are older, or newer by more than a step.
    """
    where = f"{name}, schema {names.schema},"
    if not found["version"]:
        raise ConfigurationError(f"{where} holds no store: outbox migrate makes one")
    if found["version"] < VERSION:
        raise FormatError(
            f"{where} holds a store of version {found['version']}, and this release works with version {VERSION}: "
            "run outbox migrate; programs of the release before go on meanwhile"
        )
    if found["readable"] > VERSION:
        raise FormatError(
            f"{where} holds a store of version {found['version']}, which is for programs that know version "
            f"{found['readable']} or a newer one, and this release knows {VERSION}: use a newer release"
        )


def migrate(sql: Sql, names: Names, steps: Sequence[Step] = STEPS) -> list[str]:
    """Take the tables to this release's version; what was done.  One at a time, and each step in a transaction."""
    # To make an index of a big table takes what it takes; who has it locked is waited for briefly.
    begin(sql.connection, None)
    done = []
    for step in steps:
        with transaction(sql):
            sql.execute(_LOCK, {"schema": names.schema}).fetchall()
            before = version(sql, names)["version"]
            if before >= step.version:
                continue
            sql.execute(_BRIEFLY, {"patience": _PATIENCE})
            _require_schema(sql, names)
            for statement in step.all(names):
                sql.execute_raw(statement)
        done.append(
            f"brought to version {step.version}"
            if before
            else f"made the tables of version {step.version} in schema {names.schema}"
        )
    return done


def _has_schema(sql: Sql, names: Names) -> bool:
    return bool(sql.execute(_SCHEMA, {"schema": names.schema}).fetchall())


def _require_schema(sql: Sql, names: Names) -> None:
    # Who may make tables in there need not be one who may make schemas: IF NOT EXISTS asks for that first.
    if not _has_schema(sql, names):
        sql.execute_raw(f"CREATE SCHEMA {names.quoted}")


def script(found: int, names: Names, steps: Sequence[Step] = STEPS, *, has_schema: bool = False) -> list[str]:
    """What :func:`migrate` would do from version *found* on, as a script for psql; with the indexes of a big table made without a lock."""
    schema = [f"CREATE SCHEMA IF NOT EXISTS {names.quoted}"] if not (found or has_schema) else []
    lines = []
    for step in steps:
        if step.version <= found:
            continue
        if not (found and step.indexes):
            lines += _transaction(names, [*schema, *step.all(names)])
            continue
        if step.statements:
            lines += _transaction(names, step.changes(names))
        lines += [
            f"-- outside of a transaction: the indexes of version {step.version}; drop one that fails, and make it anew"
        ]
        lines += [f"{statement};" for statement in step.makes(names, concurrently=True)]
        lines += _transaction(names, step.says(names))
    return lines


def _transaction(names: Names, statements: Sequence[str]) -> list[str]:
    return [
        "BEGIN;",
        f"SELECT pg_advisory_xact_lock(hashtext('outbox migration {names.schema}'));",
        f"SET LOCAL lock_timeout = '{_PATIENCE}';",
        *(f"{statement};" for statement in statements),
        "COMMIT;",
    ]


class PostgresMigration:
    """How the tables of a database are made, or brought to this release's version, when a person says so.

    Args:
        dsn: As :class:`.PostgresStore` takes it.
        schema: In which the tables are to be.

    Raises:
        ConfigurationError: the dsn cannot be used, or the schema is no name.
    """

    def __init__(self, dsn: str, *, schema: str = "public") -> None:
        self._names = Names(schema)
        self._links = linked(dsn, self._names)

    def run(self) -> Sequence[str]:
        """Do it, under a lock; what was done, in words."""

        def run(sql: Sql) -> list[str]:
            require_fit(sql, self._links.name)
            return migrate(sql, self._names)

        return self._use(run)

    def script(self) -> Sequence[str]:
        """What :meth:`run` would do, as a script for psql; nothing where there is nothing to do."""

        def said(sql: Sql) -> list[str]:
            found = version(sql, self._names)["version"]
            return script(found, self._names, has_schema=_has_schema(sql, self._names))

        return self._use(said)

    def _use(self, act: Callable[[Sql], Sequence[str]]) -> Sequence[str]:
        with contextlib.closing(self._links):
            return self._links.use(act)

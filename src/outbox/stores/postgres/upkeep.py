"""Whether all is well with the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outbox.lifecycle import State
from outbox.protocols import Finding
from outbox.stores import surroundings
from outbox.stores.content import Codings
from outbox.values import quoted

from . import contending, rows, vacuuming
from .browsing import QUEUED
from .naming import Names, Sql
from .schema import INDEXES, VERSION

__all__ = ["ISOLATION", "ISOLATIONS", "LESS", "OLDEST", "check", "stricter"]

OLDEST: Final = 140000
"""The oldest server that this works with."""
_SETTINGS: Final = """
    SELECT name, setting FROM pg_settings WHERE name IN (
        'server_version', 'synchronous_commit', 'fsync', 'full_page_writes', 'transaction_read_only', 'autovacuum',
        'default_transaction_isolation'
    )
"""
ISOLATION: Final = "SELECT current_setting('default_transaction_isolation')"
ISOLATIONS: Final = ("read committed", "read uncommitted")
"""Which are one in PostgreSQL."""
LESS: Final = (
    "ALTER ROLE ... SET default_transaction_isolation = 'read committed' for the user of the outbox, "
    "or options=-cdefault_transaction_isolation=read%5C%20committed in its URL"
)
_MADE: Final = """
    SELECT c.relname, i.indisvalid FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s)
"""
_LACKING: Final = """
    SELECT c.relname, array_agg(p.name ORDER BY p.place), current_user::text
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (name, place)
    WHERE n.nspname = %(schema)s AND c.relname = ANY(%(tables)s) AND NOT has_table_privilege(c.oid, p.name)
    GROUP BY c.relname ORDER BY c.relname
"""
_TABLES: Final = ("outbox_meta", "outbox_message", "outbox_attempt", "outbox_suspension")
_CODINGS: Final = "SELECT coding, count(*) FROM outbox_message WHERE coding <> '' GROUP BY coding"
_SHOWN: Final = 5
_NOWHERE: Final = f"""
    SELECT count(*), (array_agg(m.id ORDER BY m.id))[1:{_SHOWN}] FROM outbox_message AS m
    WHERE m.stage <> 4 AND (
        m.stage NOT IN (0, 1, 2, 3) OR m.state <> ALL(%(states)s) OR (m.stage = 0 AND m.state = ANY(%(queued)s))
    )
"""  # noqa: S608 - a number of our own
_FROM_THE_FUTURE: Final = f"""
    WITH t AS MATERIALIZED (SELECT {rows.NOW} AS now)
    SELECT count(*), max(latest), min(t.now) FROM t, LATERAL (
        SELECT greatest(m.submitted, coalesce((SELECT max(a.at) FROM outbox_attempt AS a WHERE a.id = m.id), 0)) AS latest
        FROM outbox_message AS m WHERE m.stage = 1 AND m.state = 'queued' AND m.due > t.now
    ) AS w WHERE latest > t.now + {surroundings.AHEAD}
"""  # noqa: S608 - columns of our own


def stricter(isolation: str) -> str:
    """What is wrong with it."""
    return f"default_transaction_isolation is {isolation}, in which claims and settles of several threads undo each other"


def check(sql: Sql, name: str, names: Names, codings: Codings, now: int | None) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`."""
    settings: dict[str, str] = dict(sql.execute(_SETTINGS).fetchall())
    yield Finding(
        "ok",
        f"{name}, schema {names.schema}, holds a store of version {VERSION} (PostgreSQL {settings['server_version']})",
    )
    if settings["default_transaction_isolation"] not in ISOLATIONS:
        yield Finding("error", stricter(settings["default_transaction_isolation"]), LESS)
    yield from _durability(settings)
    yield from _rights(sql, names)
    yield from _indexes(sql, names)
    yield from vacuuming.check(sql, names, autovacuum=settings["autovacuum"])
    for coding, number in sql.execute(_CODINGS).fetchall():
        if codings.missing(coding):
            yield Finding(
                "error",
                f"{number} messages have content in the coding {quoted(coding)}, which this store was opened without",
                "open it with that coding, or cancel them: a claim that comes upon one of them takes nothing",
            )
    yield from _nowhere(sql)
    yield from contending.check(sql)
    ((number, latest, at),) = sql.execute(_FROM_THE_FUTURE, {"now": now}).fetchall()
    yield surroundings.clock(number, (latest or 0) - (at or 0))


def _durability(settings: dict[str, str]) -> Iterator[Finding]:
    if settings["transaction_read_only"] == "on":
        yield Finding(
            "error",
            "this server takes no writes: it is a standby, or was made read-only",
            "name the primary, or all servers with target_session_attrs=read-write",
        )
    harmed = False
    for name, bad, what in (
        (
            "fsync",
            "off",
            "what was acknowledged may be gone, and the database with it, after a power failure",
        ),
        ("full_page_writes", "off", "a power failure may leave pages half written"),
        (
            "synchronous_commit",
            "off",
            "what was acknowledged in the last second may be gone after a crash of the server",
        ),
    ):
        if settings[name] == bad:
            harmed = True
            yield Finding("error", f"{name} is {bad}: {what}", f"set {name} to on for this database")
    if not harmed:
        yield Finding(
            "ok",
            f"commits are on the disk when they return: synchronous_commit={settings['synchronous_commit']}",
        )


def _rights(sql: Sql, names: Names) -> Iterator[Finding]:
    for table, lacking, user in sql.execute(
        _LACKING, {"schema": names.schema, "tables": list(_TABLES)}
    ).fetchall():
        rights = ", ".join(lacking)
        yield Finding(
            "warning",
            f"the user {quoted(user)} may not {rights} in {table}: with these rights programs can look at most",
            f'GRANT {rights} ON {names.quoted}.{table} TO "{user}"',
        )


def _nowhere(sql: Sql) -> Iterator[Finding]:
    """What somebody else's hand, or a newer release, has put where no claim and no list comes by."""
    states = {"states": [state.value for state in State], "queued": [state.value for state in QUEUED]}
    ((number, ids),) = sql.execute(_NOWHERE, states).fetchall()
    if number:
        they = "1 message is" if number == 1 else f"{number:,} messages are"
        more = f" and {number - _SHOWN:,} more" if number > _SHOWN else ""
        yield Finding(
            "error",
            f"{they} in a stage or state that there is not, or in two that do not go together, so that no runner takes, "
            f"or no list shows, {', '.join(map(quoted, ids))}{more}",
            "outbox show ID   says what one is; outbox requeue ID   sends it, outbox cancel ID   does not; where a newer "
            "release works here, too, ask its outbox check",
        )


def _indexes(sql: Sql, names: Names) -> Iterator[Finding]:
    found: dict[str, bool] = dict(
        sql.execute(_MADE, {"schema": names.schema, "names": [index.name for index in INDEXES]}).fetchall()
    )
    for index in INDEXES:
        if not found.get(index.name):
            state = "was left half made by CREATE INDEX CONCURRENTLY" if index.name in found else "is missing"
            yield Finding(
                "error",
                f"the index {index.name} {state}: claims and lists grow slow with the number of messages",
                f"DROP INDEX IF EXISTS {names.quoted}.{index.name}; {index.statement(names.quoted, concurrently=True)}",
            )

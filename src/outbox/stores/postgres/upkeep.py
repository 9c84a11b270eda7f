"""Whether all is well with the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outbox.protocols import Finding
from outbox.stores import surroundings
from outbox.stores.content import Codings
from outbox.values import quoted

from . import rows
from .driver import Error
from .naming import Names, Sql
from .schema import INDEXES, VERSION

__all__ = ["OLDEST", "check"]

OLDEST: Final = 140000
"""The oldest server that this works with."""
_SETTINGS: Final = """
    SELECT name, setting FROM pg_settings
    WHERE name IN ('server_version', 'synchronous_commit', 'fsync', 'full_page_writes', 'transaction_read_only', 'autovacuum')
"""
_MADE: Final = """
    SELECT c.relname, i.indisvalid FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s)
"""
_DEAD: Final = """
    SELECT n_live_tup, n_dead_tup FROM pg_stat_all_tables WHERE schemaname = %(schema)s AND relname = 'outbox_message'
"""
_PINNED: Final = """
    SELECT coalesce(extract(epoch FROM max(clock_timestamp() - coalesce(xact_start, state_change))), 0)::bigint,
        coalesce(max(application_name) FILTER (WHERE pid <> pg_backend_pid()), '')
    FROM pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()
        AND clock_timestamp() - coalesce(xact_start, state_change) > interval '10 minutes'
"""
_CODINGS: Final = "SELECT coding, count(*) FROM outbox_message WHERE coding <> '' GROUP BY coding"
_FROM_THE_FUTURE: Final = f"""
    WITH t AS MATERIALIZED (SELECT {rows.NOW} AS now)
    SELECT count(*), max(latest), min(t.now) FROM t, LATERAL (
        SELECT greatest(m.submitted, coalesce((SELECT max(a.at) FROM outbox_attempt AS a WHERE a.id = m.id), 0)) AS latest
        FROM outbox_message AS m WHERE m.stage = 1 AND m.state = 'queued' AND m.due > t.now
    ) AS w WHERE latest > t.now + {surroundings.AHEAD}
"""  # noqa: S608 - columns of our own
_MANY: Final = 100_000


def check(sql: Sql, name: str, names: Names, codings: Codings, now: int | None) -> Iterator[Finding]:
    """See :meth:`outbox.protocols.SupportsMaintain.check`."""
    settings: dict[str, str] = dict(sql.execute(_SETTINGS).fetchall())
    yield Finding(
        "ok",
        f"{name}, schema {names.schema}, holds a store of version {VERSION} (PostgreSQL {settings['server_version']})",
    )
    yield from _durability(settings)
    yield from _indexes(sql, names)
    yield from _vacuum(sql, names, settings)
    for coding, number in sql.execute(_CODINGS).fetchall():
        if codings.missing(coding):
            yield Finding(
                "error",
                f"{number} messages have content in the coding {quoted(coding)}, which this store was opened without",
                "open it with that coding, or cancel them: a claim that comes upon one of them takes nothing",
            )
    ((number, latest, at),) = sql.execute(_FROM_THE_FUTURE, {"now": now}).fetchall()
    yield surroundings.clock(number, (latest or 0) - (at or 0))


def _durability(settings: dict[str, str]) -> Iterator[Finding]:
    if settings["transaction_read_only"] == "on":
        yield Finding(
            "error",
            "this server takes no writes: it is a standby, or was made read-only",
            "name the primary, or all servers with target_session_attrs=read-write",
        )
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
            yield Finding("error", f"{name} is {bad}: {what}", f"set {name} to on for this database")
    yield Finding(
        "ok", f"commits are on the disk when they return: synchronous_commit={settings['synchronous_commit']}"
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


def _vacuum(sql: Sql, names: Names, settings: dict[str, str]) -> Iterator[Finding]:
    if settings["autovacuum"] == "off":
        yield Finding(
            "error", "autovacuum is off: claims grow slower with every message", "set autovacuum to on"
        )
    try:
        live, dead = (sql.execute(_DEAD, {"schema": names.schema}).fetchall() or [(0, 0)])[0]
        ((seconds, who),) = sql.execute(_PINNED).fetchall()
    except Error:
        return
    if seconds:
        by = f" (application {quoted(who)})" if who else ""
        yield Finding(
            "warning",
            f"a transaction has been open for {seconds // 60} min{by}: until it ends no dead row is removed, "
            f"and claims wade through them ({dead:,} by now)",
            "end it: SELECT pid, state, query FROM pg_stat_activity ORDER BY xact_start",
        )
    elif dead > max(_MANY, 2 * live):
        yield Finding(
            "warning",
            f"there are {dead:,} dead rows beside {live:,}: autovacuum does not keep up, and claims wade through them",
            f"VACUUM {names.quoted}.outbox_message; raise autovacuum_vacuum_cost_limit",
        )
    else:
        yield Finding("ok", f"autovacuum keeps up: {dead:,} dead rows beside {live:,}")

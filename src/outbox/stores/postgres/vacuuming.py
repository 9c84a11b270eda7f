"""Dead rows, which every step of a message leaves behind, and who keeps them from being removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from outbox.protocols import Finding
from outbox.values import quoted

from .driver import Error
from .naming import Names, Sql

__all__ = ["check"]

# The name of the table as a value: in a statement it would be qualified by its schema.
_DEAD: Final = """
    SELECT n_live_tup, n_dead_tup FROM pg_stat_all_tables WHERE schemaname = %(schema)s AND relname = %(table)s
"""
# What has written holds rows back by its own number, also where it has no snapshot at the moment.
_SESSION: Final = """
    SELECT greatest(age(backend_xmin), age(backend_xid)), pid::text, application_name, coalesce(state, ''),
        coalesce(extract(epoch FROM clock_timestamp() - coalesce(xact_start, backend_start)), 0)::bigint
    FROM pg_stat_activity
    WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
        AND (datname = current_database() OR backend_type = 'walsender')
    ORDER BY 1 DESC, 5 DESC LIMIT 1
"""
_PREPARED: Final = """
    SELECT age(transaction), gid, '', '', extract(epoch FROM clock_timestamp() - prepared)::bigint
    FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1 DESC LIMIT 1
"""
_SLOT: Final = """
    SELECT greatest(age(xmin), age(catalog_xmin)), slot_name::text, '', CASE WHEN active THEN 'active' ELSE '' END, 0::bigint
    FROM pg_replication_slots WHERE (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
        AND (database IS NULL OR database = current_database())
    ORDER BY active, 1 DESC LIMIT 1
"""
_LONG: Final = 600
"""Seconds for which nothing that is in order keeps a transaction open."""
_BRIEF: Final = 10
"""The same where dead rows are many already."""
_MANY: Final = 100_000
"""So many dead rows a claim wades through in some tens of milliseconds."""


@attrs.frozen
class _Pin:
    """What keeps rows that died since it began: *behind* counts the transactions since then."""

    behind: int
    name: str
    application: str
    state: str
    seconds: int


def check(sql: Sql, names: Names, *, autovacuum: str) -> Iterator[Finding]:
    """What is to be said of dead rows, and of each kind of thing that holds them back."""
    if autovacuum == "off":
        yield Finding(
            "error", "autovacuum is off: claims grow slower with every message", "set autovacuum to on"
        )
    try:
        live, dead = (
            sql.execute(_DEAD, {"schema": names.schema, "table": "outbox_message"}).fetchall() or [(0, 0)]
        )[0]
        pins = list(_pins(sql, dead, many=dead > max(_MANY, 2 * live)))
    except Error:
        return
    yield from pins
    if dead > max(_MANY, 2 * live):
        if not pins:
            yield Finding(
                "warning",
                f"there are {dead:,} dead rows beside {live:,}: autovacuum does not keep up, or is held back by a "
                "transaction that this user may not see, and claims wade through them",
                f"VACUUM (VERBOSE) {names.quoted}.outbox_message says which; raise autovacuum_vacuum_cost_limit, "
                "or GRANT pg_monitor to this user and check again",
            )
    elif not pins:
        yield Finding("ok", f"autovacuum keeps up: {dead:,} dead rows beside {live:,}")


def _pins(sql: Sql, dead: int, *, many: bool) -> Iterator[Finding]:
    wading = f"and claims wade through them ({dead:,} by now)"
    least = _BRIEF if many else _LONG
    for pin in _found(sql, _SESSION):
        if pin.seconds >= least:
            by = f" (application {quoted(pin.application)})" if pin.application else ""
            yield Finding(
                "warning",
                f"a transaction has been open for {_span(pin.seconds)}{by}: no row that died in the {pin.behind:,} "
                f"transactions since then is removed until it ends, {wading}",
                f"end it: SELECT pg_terminate_backend({pin.name}); its state is {quoted(pin.state)}; "
                "idle_in_transaction_session_timeout ends such by itself",
            )
    for pin in _found(sql, _PREPARED):
        if pin.seconds >= least:
            yield Finding(
                "warning",
                f"the transaction {quoted(pin.name)} was prepared {_span(pin.seconds)} ago and never ended: no row that "
                f"died in the {pin.behind:,} transactions since then is removed, {wading}",
                f"whoever prepared it is to end it; else COMMIT PREPARED or ROLLBACK PREPARED {quoted(pin.name)}",
            )
    for pin in _found(sql, _SLOT):
        if many or not pin.state:
            use = "lags behind" if pin.state else "is used by nobody"
            yield Finding(
                "warning",
                f"the replication slot {quoted(pin.name)} {use}: what died in the {pin.behind:,} transactions since it was "
                f"read last is kept for it, and the server's log with it ({dead:,} dead rows by now)",
                f"let its standby or subscriber go on, or SELECT pg_drop_replication_slot({quoted(pin.name)})",
            )


def _found(sql: Sql, statement: str) -> list[_Pin]:
    return [_Pin(behind or 0, *rest) for behind, *rest in sql.execute(statement).fetchall()]


def _span(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"  # noqa: PLR2004 - two minutes

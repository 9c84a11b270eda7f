"""A person's word: requeue, cancel, hold, release, purge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from outbox.protocols import Change, Expected
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing, Step

from . import rows
from .contending import LOCK
from .links import Links, transaction
from .naming import Sql
from .settling import BURIED

__all__ = ["Command", "discard", "purge", "stage", "steer", "write"]

Command: TypeAlias = Callable[[str, Standing, int], Step]

_STANDS: Final = f"""
    WITH t AS MATERIALIZED (SELECT {rows.NOW} AS now)
    SELECT t.now, m.id, {rows.STANDING} FROM t LEFT JOIN outbox_message AS m
    ON m.id = ANY(%(ids)s) AND m.stage <> 4 ORDER BY m.id
"""  # noqa: S608 - columns of our own
_COLUMNS: Final = (
    "id text, stage int8, state text, fates text, due int8, since int8, submitted int8, settled int8, attempts int8, "
    "lost int8, reason text, resumes int8"
)
_NAMES: Final = [column.split()[0] for column in _COLUMNS.split(", ")]
_ARRAYS: Final = ", ".join(
    f"%({name})b::{kind}[]" for name, kind in (column.split() for column in _COLUMNS.split(", "))
)
_WRITE: Final = f"""
    UPDATE outbox_message AS m SET {", ".join(f"{name} = w.{name}" for name in _NAMES[1:])}
    FROM unnest({_ARRAYS}) AS w ({", ".join(_NAMES)}) WHERE m.id = w.id
"""  # noqa: S608 - columns of our own
_FORGET_ATTEMPTS: Final = "DELETE FROM outbox_attempt WHERE id = ANY(%(ids)s)"
_DELETE: Final = "DELETE FROM outbox_message WHERE id = ANY(%(ids)s)"
_BURY: Final = f"""
    UPDATE outbox_message SET settled = coalesce(settled, %(now)s::int8), {BURIED} WHERE id = ANY(%(ids)s)
"""  # noqa: S608 - columns of our own


def steer(links: Links, ids: Sequence[str], command: Command, now: int | None) -> list[Change]:
    """Apply a command of :mod:`outbox.stores.standing` to each, in order."""

    def act(sql: Sql) -> list[Change]:
        with transaction(sql):
            at, found = _standings(sql, ids, now)
            before = dict(found)
            changes = _applied(ids, found, command, at)
            write(sql, [(id, new) for id, new in found.items() if new is not before[id]], at)
        return changes

    return links.use(act)


def _standings(sql: Sql, ids: Sequence[str], now: int | None) -> tuple[int, dict[str, Standing]]:
    """Now, and how each stands; from here on nobody changes them."""
    # Locked by a statement of its own: the next one sees what those have written who were waited for.
    sql.execute(LOCK, {"ids": list(ids)})
    found = sql.execute(_STANDS, {"ids": list(ids), "now": now}).fetchall()
    at: int = found[0][0]
    return at, {id: rows.steered(tuple(columns), at) for _, id, *columns in found if id is not None}


def _applied(ids: Sequence[str], found: dict[str, Standing], command: Command, now: int) -> list[Change]:
    """The answers; *found* is as it stands thereafter."""
    changes = []
    for id in ids:
        step = command(id, found[id], now) if id in found else Step(standings.unknown(id))
        if step.standing is not None:
            found[id] = step.standing
        changes.append(step.change)
    return changes


def write(sql: Sql, news: Sequence[tuple[str, Standing]], now: int) -> None:
    """Let the messages of these ids stand so."""
    if news:
        table = zip(
            *(
                (id, stage(new, now), *rows.columns(new))
                for id, new in sorted(news, key=lambda each: each[0])
            ),
            strict=True,
        )
        sql.execute(_WRITE, dict(zip(_NAMES, map(list, table), strict=True)))


def stage(standing: Standing, now: int) -> int:
    """Where the row belongs; see :mod:`.schema`."""
    if not standing.queued:
        return 0
    if standing.due > now:
        return 1
    return 3 if standing.suspect else 2


def purge(
    links: Links, ids: Sequence[str], retention: Retention, now: int | None, *, expected: Expected | None
) -> list[Change]:
    """See :meth:`PostgresStore.purge`."""

    def act(sql: Sql) -> list[Change]:
        gone: dict[str, Standing] = {}

        def purged(id: str, standing: Standing, at: int) -> Step:
            if id in gone:
                return Step(standings.unknown(id))
            change = standings.purge(id, standing, at, expected=expected)
            if change.status == "done":
                gone[id] = standing
            return Step(change)

        with transaction(sql):
            at, found = _standings(sql, ids, now)
            changes = _applied(ids, found, purged, at)
            discard(sql, gone, retention, at)
        return changes

    return links.use(act)


def discard(sql: Sql, gone: dict[str, Standing], retention: Retention, now: int) -> None:
    """Delete all that is kept of these messages, but for the ids of those that are to be remembered."""
    buried = [id for id, standing in gone.items() if retention.buries(id, standing, now)]
    deleted = sorted(set(gone) - set(buried))
    if gone:
        sql.execute(_FORGET_ATTEMPTS, {"ids": list(gone)})
    if buried:
        sql.execute(_BURY, {"ids": buried, "now": now})
    if deleted:
        sql.execute(_DELETE, {"ids": deleted})

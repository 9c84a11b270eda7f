"""How much is in the queue, counted no more often than the limits ask for."""

from __future__ import annotations

from typing import Final

from outbox.errors import StoreFull
from outbox.stores.limits import Limits, Load

from .naming import Names, Sql

__all__ = ["Crowd"]

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('outbox room ' || %(schema)s))"
_COUNT: Final = """
    SELECT count(*), coalesce(sum(size), 0)::bigint, extract(epoch FROM clock_timestamp())::bigint FROM (
        SELECT size FROM outbox_message WHERE stage = 1
        UNION ALL SELECT size FROM outbox_message WHERE stage = 2
        UNION ALL SELECT size FROM outbox_message WHERE stage = 3
    ) AS q
"""
_TIME: Final = "SELECT extract(epoch FROM clock_timestamp())::bigint"
_AT_ONCE: Final = 10_000
"""So many messages are counted in a few milliseconds."""


class Crowd:
    """The queue as this store object last counted it, and what it has put in since.

    Who puts where there are limits waits until whoever puts beside him has
    committed.  A refusal always follows a count.  What other processes have
    put in is seen at once where few messages wait, and within a second where
    more than ten thousand do.
    """

    def __init__(self, limits: Limits, names: Names) -> None:
        self._limits = limits
        self._schema = names.schema
        self._counted_at = 0
        self._held = Load(_AT_ONCE)

    @property
    def limited(self) -> bool:
        return self._limits.any

    def admit(self, sql: Sql, new: Load) -> None:
        """Raise StoreFull where so much more is too much; otherwise it is taken as put.  Within a transaction."""
        sql.execute(_LOCK, {"schema": self._schema})
        if self._held.messages > _AT_ONCE:
            ((now,),) = sql.execute(_TIME).fetchall()
            if now == self._counted_at:
                try:
                    self._limits.require_room(self._held, new)
                except StoreFull:
                    pass
                else:
                    self._held += new
                    return
        self._count(sql)
        self._limits.require_room(self._held, new)
        self._held += new

    def forget(self) -> None:
        """What was admitted may not have been put."""
        self._counted_at = 0

    def _count(self, sql: Sql) -> None:
        ((messages, content, self._counted_at),) = sql.execute(_COUNT).fetchall()
        self._held = Load(messages, content)

"""How much is in the queue, counted no more often than the limits ask for."""

from __future__ import annotations

from typing import Final

from outbox.errors import StoreFull
from outbox.stores.limits import Limits, Load

from .naming import Sql

__all__ = ["Crowd"]

_COUNT: Final = """
    SELECT count(*), coalesce(sum(iif(size BETWEEN 0 AND 2147483647, size, 0)), 0) FROM (
        SELECT size FROM outbox_message INDEXED BY outbox_scheduled WHERE stage = 1
        UNION ALL SELECT size FROM outbox_message INDEXED BY outbox_ready WHERE stage = 2
        UNION ALL SELECT size FROM outbox_message INDEXED BY outbox_suspect WHERE stage = 3
    )
"""
_VERSION: Final = "PRAGMA data_version"
_SECOND: Final = 1_000_000
_AT_ONCE: Final = 10_000
"""So many messages are counted in about the time of a commit."""


class Crowd:
    """The queue as this store object last counted it, and what it has put in since.

    A refusal always follows a count.  What other processes have put in is
    seen at once where few messages wait, and within a second where more than
    ten thousand do.  Only used within a write transaction, of which a process
    has one at a time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counted_at = -_SECOND
        self._held = Load()
        self._version: object = None

    @property
    def limited(self) -> bool:
        return self._limits.any

    def admit(self, sql: Sql, new: Load, now: int, *, unwritten: Load) -> None:
        """Raise StoreFull where so much more is too much; otherwise it is taken as put.

        Args:
            unwritten: What was admitted in this transaction, and a count does not find yet.
        """
        version = id(sql), *sql.execute(_VERSION).fetchone()
        old = not 0 <= now - self._counted_at < _SECOND
        if old or (version != self._version and self._held.messages <= _AT_ONCE):
            self._count(sql, now, unwritten)
            self._version = version
        try:
            self._limits.require_room(self._held, new)
        except StoreFull:
            self._count(sql, now, unwritten)
            self._limits.require_room(self._held, new)
        self._held += new

    def _count(self, sql: Sql, now: int, unwritten: Load) -> None:
        self._held = Load(*sql.execute(_COUNT).fetchone()) + unwritten
        self._counted_at = now

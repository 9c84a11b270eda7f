"""What is done where damage keeps a verb from its work: what it cannot read is held, and it is done without.

SQLite goes on badly in a transaction that met damage; so what is damaged is
found, and each thing done, in transactions of their own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from outbox.clock import SystemClock
from outbox.errors import ConfigurationError, CorruptRecord, FormatError, StoreError
from outbox.stores.content import Codings
from outbox.values import printable

from . import claiming, damage
from .connection import Database
from .damage import Key
from .naming import Sql

__all__ = ["Indexes", "alone", "apart", "hold_damaged"]

_LOG: Final = logging.getLogger("outbox.stores.sqlite")

T = TypeVar("T")
R = TypeVar("R")

_READY: Final = """
    SELECT CAST(id AS BLOB), typeof(id) = 'blob' FROM outbox_message
    WHERE stage = ? AND queue = ? ORDER BY priority DESC, due, id LIMIT ?
"""
_SCHEDULED: Final = """
    SELECT CAST(id AS BLOB), typeof(id) = 'blob' FROM outbox_message
    WHERE stage = 1 AND queue = ? AND due <= ? ORDER BY due, id LIMIT ?
"""
# Of a table without rowid the table itself too: its rows are sorted anew.
_REINDEX: Final = ("REINDEX outbox_message", "REINDEX outbox_attempt")
_SELDOM: Final = 60.0
"""Seconds between two: what one has not mended the next does not mend either, and each reads every row."""
_BODY: Final = f"""
    SELECT m.digest, b.envelope, b.content, b.coding
    FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body WHERE m.id = {damage.KEY}
"""  # noqa: S608 - a condition of our own


def hold_damaged(database: Database, order: claiming.Order, codings: Codings, now: int) -> bool:
    """Hold what a claim comes upon next and cannot read; False where there is nothing of the kind."""
    try:
        keys = database.read(lambda sql: _next(sql, order, now))
    except CorruptRecord:
        return False
    held = False
    for key in keys:
        try:
            database.read(functools.partial(_read, key=key, codings=codings), legible=False)
        except (CorruptRecord, FormatError) as error:
            held |= _held(database, key, f"it cannot be read: {error}", now)
    return held


def _next(sql: Sql, order: claiming.Order, now: int) -> list[Key]:
    """Those that a claim would come upon, those among them that only become ready by it."""
    promoted = claiming.promoted(order.queues)
    found: list[tuple[bytes, int]] = []
    for queue in order.queues:
        for stage in (2, 3):
            found += sql.execute(_READY, (stage, queue, order.limit + 1))
        found += sql.execute(_SCHEDULED, (queue, now, promoted))
    return [Key(raw, bool(blob)) for raw, blob in found]


def _read(sql: Sql, key: Key, codings: Codings) -> None:
    """Read all that a claim reads of it.

    Raises:
        CorruptRecord: it cannot be read.
        FormatError: a newer release put it.
    """
    facts = damage.look(sql, key)
    if facts is None:
        return  # settled or purged meanwhile
    standing = facts.standing
    digest, *body = sql.execute(_BODY, key.parameters).fetchone()
    # Without its coding the record is as well as ever.
    with contextlib.suppress(ConfigurationError):
        claiming.read(key.name, digest, body, len(standing.fates), codings)


def _held(database: Database, key: Key, reason: str, now: int) -> bool:
    try:
        return database.write(lambda sql: damage.hold(sql, key, printable(reason), now)) is not None
    except CorruptRecord:
        return False  # not even its row can be written


class Indexes:
    """Made anew from the rows, where the two do not agree: a bit that flipped in an index keeps every claim from its work."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = SystemClock()
        self._made = -math.inf

    def trusted(self, act: Callable[[], T]) -> T:
        """What *act* returns; where damage keeps it from that, once more with new indexes."""
        try:
            return act()
        except CorruptRecord:
            if not self._made_anew():
                raise
        return act()

    def _made_anew(self) -> bool:
        now = self._clock.monotonic()
        if now < self._made + _SELDOM:
            return False
        self._made = now
        try:
            self._database.write(self._make)
        except StoreError:
            return False  # a page of theirs, or of the rows, cannot be read at all
        _LOG.warning(
            "%s: damage was met, and the indexes were made anew from the rows: look at the disk, "
            "and at what `check` says",
            self._database.path,
        )
        return True

    def _make(self, sql: Sql) -> None:
        for statement in _REINDEX:
            sql.execute(statement)


def apart(act: Callable[[Sequence[T], bool], Sequence[R]], items: Sequence[T], indexes: Indexes) -> list[R]:
    """What *act* comes to on all *items*; where damage keeps it from that, on each by itself.

    Args:
        act: Acts on some of them in one transaction.  It is told whether to
            do all that there is to do, or to leave alone what is large and
            may be what is damaged: contents and histories.

    Raises:
        CorruptRecord: not even so could something be done for one of them; for the others it was.
    """
    try:
        return list(act(items, True))
    except CorruptRecord:
        pass
    results: list[R] = []
    failures: list[CorruptRecord] = []
    for item in items:
        try:
            results += indexes.trusted(functools.partial(alone, act, item))
        except CorruptRecord as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return results


def alone(act: Callable[[Sequence[T], bool], Sequence[R]], item: T) -> Sequence[R]:
    """What *act* comes to on one; see :func:`apart`."""
    try:
        return act([item], True)
    except CorruptRecord:
        return act([item], False)

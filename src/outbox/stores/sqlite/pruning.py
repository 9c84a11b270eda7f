"""What is past its retention is removed, and what damage keeps from that stops nothing else."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from outbox.errors import CorruptRecord
from outbox.lifecycle import State
from outbox.stores.instants import FOREVER
from outbox.stores.retention import FAILED, Retention
from outbox.stores.standing import Standing

from . import damage, rows, salvage, suspending
from .connection import Database
from .damage import Key
from .naming import Sql

__all__ = ["prune"]

# Only what has to be known of them: whatever else of them may be damaged, their time is over.
_AGED: Final = """
    SELECT CAST(id AS BLOB), typeof(id) = 'blob', CAST(fates AS BLOB), settled
    FROM outbox_message INDEXED BY outbox_aged
    WHERE stage = 0 AND state = ? AND settled <= ? ORDER BY settled, id LIMIT ?
"""
_OVER: Final = """
    stage = 0 AND EXISTS (SELECT 1 FROM json_each(:since) AS s WHERE s.key = state AND settled <= s.value)
"""
# Along the rows themselves, from either end as far as they can be read: what cannot lies together.
_KEYS: Final = f"""
    SELECT CAST(id AS BLOB), typeof(id) = 'blob' FROM outbox_message NOT INDEXED
    WHERE {_OVER} ORDER BY id {{}} LIMIT :limit
"""  # noqa: S608 - a condition of our own
_ONE: Final = f"""
    SELECT CAST(id AS BLOB), typeof(id) = 'blob', CAST(fates AS BLOB), settled FROM outbox_message
    WHERE id = {damage.KEY} AND {_OVER}
"""  # noqa: S608 - a condition of our own
_GONE: Final = """
    SELECT id FROM outbox_message INDEXED BY outbox_gone
    WHERE stage = 4 AND settled <= ? ORDER BY settled, id LIMIT ?
"""
_FORGET: Final = f"DELETE FROM outbox_message WHERE id IN ({_GONE})"  # noqa: S608 - a statement of our own
_GONE_IN_ALL: Final = """
    SELECT count(*) FROM (SELECT 1 FROM outbox_message INDEXED BY outbox_gone WHERE stage = 4 LIMIT ?)
"""
_STATES: Final = (State.DELIVERED, *FAILED)
_SPARE: Final = 1000
"""So many that cannot be removed keep none of the others."""


def prune(database: Database, retention: Retention, indexes: salvage.Indexes, *, limit: int, now: int) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`.

    Raises:
        CorruptRecord: damage keeps something from being removed; the rest was, up to *limit*.
    """
    pruning = _Pruning(database, retention, now)
    try:
        return database.write(lambda sql: pruning.at_once(sql, limit))
    except CorruptRecord:
        return pruning.apart(limit, indexes)


@attrs.frozen
class _Pruning:
    """What is removed at *now*."""

    database: Database
    retention: Retention
    now: int

    def at_once(self, sql: Sql, limit: int) -> int:
        left = limit - self._forget(sql, limit)
        self._look_after(sql)
        for state in _STATES:
            since = self.retention.kept_since(self.now, state)
            if since is not None and left > 0:
                left -= self._discard(
                    sql, sql.execute(_AGED, (state.value, since, left)).fetchall(), whole=True
                )
        return limit - left

    def apart(self, limit: int, indexes: salvage.Indexes) -> int:
        """The same, each by itself: what cannot be removed is passed over, and said in the end."""
        removed = 0
        failures: list[CorruptRecord] = []
        for act in self._each(limit):
            try:
                removed += indexes.trusted(act)
            except CorruptRecord as error:
                failures.append(error)
            if removed >= limit:
                break
        if failures:
            raise failures[0]
        return removed

    def _each(self, limit: int) -> Iterator[Callable[[], int]]:
        yield lambda: self.database.write(lambda sql: self._forget(sql, limit))
        yield lambda: self.database.write(self._look_after)
        for order in ("ASC", "DESC"):
            keys: list[Key] = []
            try:
                # As far as they come.
                self.database.read(functools.partial(self._find, keys, order, limit + _SPARE))
                whole = True
            except CorruptRecord:
                whole = False
            yield from (functools.partial(self._discard_one, key) for key in keys)
            if whole:
                return

    def _find(self, keys: list[Key], order: str, limit: int, sql: Sql) -> None:
        found = sql.execute(_KEYS.format(order), {"since": self._since, "limit": limit})
        keys.extend(Key(raw, bool(blob)) for raw, blob in found)

    @property
    def _since(self) -> str:
        """Since when what is in each state is kept."""
        kept = {state.value: self.retention.kept_since(self.now, state) for state in _STATES}
        return json.dumps({state: since for state, since in kept.items() if since is not None})

    def _discard_one(self, key: Key) -> int:
        def discard(_: Sequence[Key], whole: bool) -> Sequence[int]:
            return [self.database.write(functools.partial(self._discard_if_over, key=key, whole=whole))]

        return sum(salvage.alone(discard, key))

    def _discard_if_over(self, sql: Sql, *, key: Key, whole: bool) -> int:
        row = sql.execute(_ONE, {"since": self._since, **key.parameters}).fetchone()
        return self._discard(sql, [] if row is None else [row], whole=whole)

    def _forget(self, sql: Sql, limit: int) -> int:
        """Forget the oldest of the ids that are known for long enough, or are too many; return how many."""
        retention = self.retention
        aged = sql.execute(_FORGET, (retention.known_since(self.now), limit)).rowcount
        (known,) = sql.execute(_GONE_IN_ALL, (retention.remember_at_most + limit,)).fetchone()
        spare = min(limit - aged, known - retention.remember_at_most)
        if spare <= 0:
            return aged
        return aged + sql.execute(_FORGET, (FOREVER, spare)).rowcount

    def _look_after(self, sql: Sql) -> int:
        """Forget suspensions that are long over, and hold what is never due; it counts for nothing."""
        suspending.prune(sql, self.now)
        for key in damage.never_due(sql):
            damage.hold(sql, key, "its row cannot be read: it is due at no time that there is", self.now)
        return 0

    def _discard(self, sql: Sql, aged: Sequence[rows.Row], *, whole: bool) -> int:
        """Remove these; *whole* as in :func:`.rows.discard`."""
        gone: list[str] = []
        buried: list[str] = []
        for raw, blob, letters, settled in aged:
            key = Key(raw, bool(blob))
            fates = rows.fates(rows.legible(letters), lenient=True)
            if not key.whole:
                damage.hold(sql, key, "its row cannot be read: its id is no text", self.now)
                continue
            gone.append(key.name)
            standing = Standing(fates=fates, due=0, since=0, submitted=0, settled=settled)
            if self.retention.buries(key.name, standing, self.now):
                buried.append(key.name)
        if whole:
            damage.detach(sql, gone)
        rows.discard(sql, gone, buried, self.now, whole=whole)
        return len(gone)

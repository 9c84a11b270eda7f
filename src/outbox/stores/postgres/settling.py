"""Verdicts into rows: one statement for what is delivered and gone, one for what stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from outbox.codec import encode_envelope
from outbox.lifecycle import Claim, Delivered, Fate, Held, Settlement, State, Verdict
from outbox.stores import standing as standings
from outbox.stores.instants import FOREVER
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing

from . import contending, rows
from .claiming import Unreadable, number
from .contending import BRIEFLY, LOCK, Key
from .driver import Cursor, array
from .naming import Sql

__all__ = ["BURIED", "BURY", "DELETE", "Settling", "T", "hold"]

_T: Final = f"t AS MATERIALIZED (SELECT {rows.NOW} AS now)"
T: Final = f"t AS MATERIALIZED (SELECT {rows.NOW} AS now, {BRIEFLY})"
"""The time as ``t``, for a statement that waits only briefly for rows that somebody has locked."""
_OURS: Final = "m.id = w.id AND m.state = 'claimed' AND m.generation = w.token"
_BLANK: Final = """
    reason = '', resumes = NULL, coding = '', sender = '', recipients = '', envelope = '', content = '', fates = ''
"""
BURIED: Final = f"stage = 4, state = 'delivered', {_BLANK}"
"""What is written over a message of which only the id is remembered; beside it, when it was settled."""
_W: Final = "unnest(%(ids)s::text[], %(tokens)s::int8[]) AS w (id, token)"
_CLEARED: Final = "cleared AS (DELETE FROM outbox_attempt AS a USING gone WHERE a.id = gone.id)"
BURY: Final = f"""
    gone AS (
        UPDATE outbox_message AS m SET settled = t.now, {BURIED} FROM t, {_W} WHERE {_OURS} RETURNING m.id, m.generation
    ),
    {_CLEARED}
"""  # noqa: S608 - columns of our own
"""As part of a statement that has the time as :data:`T`: what is delivered, and its id remembered, as ``gone``."""
DELETE: Final = f"""
    gone AS (DELETE FROM outbox_message AS m USING t, {_W} WHERE {_OURS} RETURNING m.id, m.generation), {_CLEARED}
"""  # noqa: S608 - columns of our own
"""The same where no id is remembered."""
_GONE: Final = {
    part: f"WITH {T}, {part} SELECT id, generation FROM gone"  # noqa: S608 - statements of our own
    for part in (BURY, DELETE)
}
_COLUMNS: Final = (
    "id text, token int8, state text, fates text, delay int8, stays boolean, attempts int8, keeps boolean, reason text, "
    "envelope bytea, made boolean, number int8, event text, relay text, results text, why text, dialogue text"
)
_NAMES: Final = [column.split()[0] for column in _COLUMNS.split(", ")]
_KINDS: Final = [(name, kind) for name, kind in (column.split() for column in _COLUMNS.split(", "))]
_ARRAYS: Final = ", ".join(f"%({name})b::{kind}[]" for name, kind in _KINDS)
_DUE: Final = f"least(t.now + w.delay, {FOREVER})"
_LOST: Final = "CASE WHEN w.keeps THEN m.lost ELSE 0 END"
_WRITE: Final = f"""
    WITH {T},
    w AS MATERIALIZED (SELECT * FROM unnest({_ARRAYS}) AS w ({", ".join(_NAMES)})),
    settled AS (
        UPDATE outbox_message AS m
        SET state = w.state, fates = w.fates, due = {_DUE}, settled = CASE WHEN w.stays THEN NULL ELSE t.now END,
            attempts = m.attempts + w.attempts, lost = {_LOST}, reason = w.reason, resumes = NULL,
            stage = CASE WHEN NOT w.stays THEN 0 WHEN w.delay > 0 THEN 1 WHEN {_LOST} > 0 THEN 3 ELSE 2 END,
            envelope = coalesce(w.envelope, m.envelope),
            content = CASE WHEN w.envelope IS NULL THEN m.content ELSE '' END,
            coding = CASE WHEN w.envelope IS NULL THEN m.coding ELSE '' END
        FROM w, t WHERE {_OURS}
        RETURNING m.id, m.generation
    ),
    hushed AS (
        UPDATE outbox_attempt AS a SET dialogue = ''
        FROM settled JOIN w ON w.id = settled.id AND w.token = settled.generation
        WHERE a.id = w.id AND w.dialogue <> '' AND a.dialogue <> ''
    ),
    told AS (
        INSERT INTO outbox_attempt (id, number, at, event, relay, results, reason, dialogue)
        SELECT w.id, w.number, t.now, w.event, w.relay, w.results, w.why, w.dialogue
        FROM t, settled JOIN w ON w.id = settled.id AND w.token = settled.generation WHERE w.made
    )
    SELECT id, generation FROM settled
"""  # noqa: S608 - columns of our own

_KEPT: Final = 4096
_ZERO: Final = Standing(state=State.CLAIMED, fates=(), due=0, since=0, submitted=0, attempts=0, lost=1)
"""What a verdict makes of this is what it adds to whatever the row has."""


class Settling:
    """Some settlements, ready to be written; whoever has written them asks which were lost.

    Args:
        fates: The verdicts', in the recipients' order.
    """

    def __init__(
        self,
        settlements: Sequence[Settlement],
        fates: Sequence[tuple[Fate, ...]],
        retention: Retention,
    ) -> None:
        self._all = [(_key(settlement), settlement) for settlement in settlements]
        self._retention = retention
        self._first: dict[Key, tuple[Settlement, tuple[Fate, ...]]] = {}
        for (key, settlement), new in zip(self._all, fates, strict=True):
            # A second settlement of the same claim comes too late.
            self._first.setdefault(key, (settlement, new))
        self._done: set[Key] = set()
        self._plan()
        self._written: list[Cursor] = []
        self._held: set[Key] | None = None

    def _plan(self) -> None:
        # In the order of the ids, in which they are locked.
        each = [(key, *rest) for key, rest in sorted(self._first.items()) if key not in self._done]
        self._gone = [key for key, settlement, _ in each if self._goes(settlement.verdict)]
        self._stay = [
            (key, settlement, new) for key, settlement, new in each if not self._goes(settlement.verdict)
        ]

    def _goes(self, verdict: Verdict) -> bool:
        return isinstance(verdict, Delivered) and self._retention.keep_delivered is None

    @property
    def keys(self) -> list[Key]:
        """Of all that is to be written."""
        return sorted([*self._gone, *(key for key, *_ in self._stay)])

    @property
    def alone(self) -> bool:
        """Whether it is one statement at most."""
        return not (self._gone and self._stay)

    @property
    def part(self) -> str:
        """:data:`BURY` or :data:`DELETE` where that is all there is to write; "" otherwise."""
        if self._stay or not self._gone:
            return ""
        return BURY if self._retention.remembers else DELETE

    @property
    def parameters(self) -> dict[str, object]:
        """For :attr:`part`."""
        return _parameters(self._gone)

    def wrote(self, keys: Iterable[Key] | None) -> None:
        """Somebody has written :attr:`part`: these rows, or all where there is None."""
        self._held = set(self._gone if keys is None else keys)

    def write(self, sql: Sql, now: int | None) -> None:
        """Without waiting for the answers, where this is a pipeline.

        Raises:
            Locked: somebody else's transaction has one of the rows, and none is written; now, or when an answer is waited for.
        """
        if not self.alone:
            sql.execute(f"SELECT {BRIEFLY}")
            sql.execute(LOCK, {"ids": [id for id, _ in self.keys]})
        self._written = self._write(sql, now, self._gone, self._stay)

    def write_past(self, sql: Sql, now: int | None, name: str) -> None:
        """Write what nobody has locked, and the others where they become free in time; *name* is the database's.

        Raises:
            StoreUnavailable: some did not, and it says which.
        """

        def act(sql: Sql, keys: Sequence[Key]) -> Sequence[Cursor]:
            free = set(keys)
            gone = [key for key in self._gone if key in free]
            return self._write(sql, now, gone, [each for each in self._stay if each[0] in free])

        left = contending.write(sql, self.keys, act, self._done.update, attempts=True)
        self._plan()
        if left:
            error = contending.locked(sql, name, left)
            error.left = {settlement.claim.key for key, settlement in self._all if key not in self._done}
            raise error
        self._held = set()

    def _write(
        self,
        sql: Sql,
        now: int | None,
        gone: Sequence[Key],
        stay: Sequence[tuple[Key, Settlement, tuple[Fate, ...]]],
    ) -> list[Cursor]:
        written = []
        if gone:
            part = BURY if self._retention.remembers else DELETE
            written.append(sql.execute(_GONE[part], {**_parameters(gone), "now": now}))
        if stay:
            table = zip(*(self._row(*each) for each in stay), strict=True)
            arrays = {name: array(kind, each) for (name, kind), each in zip(_KINDS, table, strict=True)}
            written.append(sql.execute(_WRITE, {**arrays, "now": now}))
        return written

    def _row(self, key: Key, settlement: Settlement, fates: tuple[Fate, ...]) -> rows.Row:
        verdict, claim = settlement.verdict, settlement.claim
        step = standings.settled(_ZERO, fates, verdict, 0)
        made = standings.attempt(claim.attempt, verdict, 0)
        redacted = isinstance(verdict, Delivered) and not self._retention.keep_content
        return (
            *key,
            step.state.value,
            rows.letters(step.fates),
            step.due,
            step.settled is None,
            step.attempts,
            step.lost > 0,
            rows.text(step.reason),
            encode_envelope(attrs.evolve(claim.message, content=b"")) if redacted else None,
            made is not None,
            *((0, "", "", "", "", "") if made is None else rows.attempt(made)),
        )

    def lost(self) -> list[Claim]:
        """Those whose token was stale, once the answers are there."""
        held = self._held
        if held is None:
            held = {key for cursor in self._written for key in cursor.fetchall()}
        held |= self._done
        stale = []
        for key, settlement in self._all:
            if key in held:
                held.discard(key)
            else:
                stale.append(settlement.claim)
        return stale


def _parameters(keys: Sequence[Key]) -> dict[str, object]:
    return {
        "ids": array("text", [id for id, _ in keys]),
        "tokens": array("int8", [token for _, token in keys]),
    }


def _key(settlement: Settlement) -> Key:
    return settlement.claim.message.id, number(settlement.claim.token)


_HOLD: Final = f"""
    WITH {_T},
    held AS (
        UPDATE outbox_message AS m SET stage = 0, state = 'held', settled = t.now, reason = %(reason)s, resumes = NULL
        FROM t WHERE m.id = %(id)s AND m.state = 'claimed' AND m.generation = %(token)s RETURNING m.id
    )
    INSERT INTO outbox_attempt (id, number, at, event, relay, results, reason, dialogue)
    SELECT id, %(number)s::int8, t.now, 'held', '', %(results)s, %(reason)s, '' FROM held, t
"""  # noqa: S608 - columns of our own


def hold(sql: Sql, found: Unreadable, now: int | None) -> None:
    """Hold what has just been taken and cannot be read: nobody was given it."""
    made = standings.attempt(found.attempt, Held(fates={}, reason=found.reason), 0)
    if made is None:
        return
    number, _, _, results, reason, _ = rows.attempt(made)
    parameters = {
        "id": found.id,
        "token": found.token,
        "number": number,
        "results": results,
        "reason": reason,
    }
    sql.execute(_HOLD, {**parameters, "now": now})

"""One row, read so that no damage keeps it from being looked at, named, and held with the reason.

What is asked for here is asked in types that SQLite can always answer in:
text as its bytes, and a number that is none as nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.errors import CorruptRecord
from outbox.lifecycle import Fate, State
from outbox.stores.instants import FOREVER
from outbox.stores.standing import Standing
from outbox.values import printable

from . import rows
from .naming import Sql

__all__ = ["KEY", "Facts", "Key", "detach", "each", "find", "hold", "look", "nameable", "never_due"]

_TEXTS: Final = ("queue", "state", "fates", "reason")
_NUMBERS: Final = (
    "stage",
    "priority",
    "size",
    "generation",
    "due",
    "since",
    "submitted",
    "settled",
    "attempts",
    "lost",
    "resumes",
)
_COLUMNS: Final = ", ".join(
    [f"iif(typeof(m.{name}) = 'text', CAST(m.{name} AS BLOB), NULL)" for name in _TEXTS]
    + [f"iif(typeof(m.{name}) = 'integer', m.{name}, NULL)" for name in _NUMBERS]
    + ["typeof(m.settled)", "typeof(m.resumes)"]
)
_KEY_OF: Final = "CAST(m.id AS BLOB), typeof(m.id) = 'blob'"
KEY: Final = "iif(:blob, :raw, CAST(:raw AS TEXT))"
"""An id in a statement, by the parameters of a :class:`Key`: also one that is no text."""
# Of a message that is gone only the id is left, and it is said to be delivered.
_KEPT: Final = "(m.stage IS NOT 4 OR m.state IS NOT 'delivered')"
_LOOK: Final = f"SELECT {_COLUMNS} FROM outbox_message AS m WHERE m.id = {KEY} AND {_KEPT}"  # noqa: S608 - columns of our own
_EACH: Final = f"""
    SELECT {_KEY_OF}, b.number IS NULL, {_COLUMNS}
    FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body WHERE {_KEPT}
"""  # noqa: S608 - columns of our own
# From one queue to the next along the index; what is due after the end of time is at the end of each.
_NEVER: Final = f"""
    WITH RECURSIVE queues(name) AS (
        SELECT min(queue) FROM outbox_message INDEXED BY outbox_scheduled WHERE stage = 1
        UNION ALL
        SELECT (
            SELECT min(queue) FROM outbox_message INDEXED BY outbox_scheduled WHERE stage = 1 AND queue > queues.name
        )
        FROM queues WHERE queues.name IS NOT NULL
    )
    SELECT {_KEY_OF} FROM queues CROSS JOIN outbox_message AS m INDEXED BY outbox_scheduled
    ON m.stage = 1 AND m.queue = queues.name AND m.due > ?
"""  # noqa: S608 - columns of our own
_HOLD: Final = f"""
    UPDATE outbox_message
    SET id = :id, queue = :queue, priority = :priority, stage = 0, state = 'held', fates = :fates, due = :now,
        since = :now, submitted = :submitted, settled = :now, generation = coalesce(:generation, random() & :generations),
        attempts = :attempts, lost = :lost, reason = :reason, size = :size, resumes = NULL
    WHERE id = {KEY}
"""  # noqa: S608 - a condition of our own
# Only where the body is not this message's is it looked whether it is another's: that is a walk over all.
_DETACH: Final = """
    UPDATE outbox_message AS m SET body = -1
    WHERE m.id IN (SELECT value FROM json_each(?))
    AND EXISTS (
        SELECT 1 FROM outbox_body AS b
        WHERE b.number = m.body AND instr(CAST(b.envelope AS TEXT), '"id":"' || m.id || '"') = 0
    )
    AND EXISTS (SELECT 1 FROM outbox_message AS o WHERE o.body = m.body AND o.id <> m.id)
"""
_GENERATIONS: Final = (1 << 48) - 1
_LAST_GENERATION: Final = 1 << 62
_PRIORITIES: Final = range(-100, 101)
_UNLEASED: Final = frozenset(state.value for state in State if state is not State.CLAIMED)
_BLOB: Final = re.compile(r"x'((?:[0-9a-f]{2})*)'")
_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")


@attrs.frozen
class Key:
    """What a row is found by; an id that is no text has none better.

    Attributes:
        raw: The bytes of the id.
        blob: Whether SQLite has them as a blob.
    """

    raw: bytes
    blob: bool = False

    @property
    def name(self) -> str:
        """As a person is shown it: no id that is whole looks like that of a damaged one."""
        return f"x'{self.raw.hex()}'" if self.blob else rows.legible(self.raw)

    @property
    def whole(self) -> bool:
        """Whether the id is a text."""
        return not self.blob and Key.of(self.name).raw == self.raw

    @property
    def parameters(self) -> dict[str, object]:
        return {"raw": self.raw, "blob": self.blob}

    @classmethod
    def of(cls, name: str) -> Key:
        """The key of an id that is a text."""
        return cls(name.encode("utf-8", "surrogatepass"))

    @classmethod
    def shown(cls, name: str) -> Key | None:
        """The key of an id that is no text and is shown by this name; None where none is."""
        blob = _BLOB.fullmatch(name)
        raw = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), cls.of(name).raw)
        key = cls(raw) if blob is None else cls(bytes.fromhex(blob[1]), blob=True)
        return key if key.name == name and not key.whole else None


@attrs.frozen
class Facts:
    """The columns of a row, as far as they are of their kinds; None is what is not.

    Attributes:
        odd: What is wrong with the row, in words; ``""`` where nothing is.
    """

    key: Key
    columns: Mapping[str, Any]
    odd: str

    @property
    def row(self) -> rows.Row:
        """What :func:`.rows.standing` takes."""
        return tuple(self.columns[name] for name in rows.STANDING.split(", "))

    @property
    def standing(self) -> Standing:
        """How the message stands.

        Raises:
            CorruptRecord: its row cannot be read.
        """
        if self.odd:
            raise CorruptRecord(f"its row cannot be read: {self.odd}")
        return rows.standing(self.row)

    @property
    def likely(self) -> Standing:
        """How it seems to stand."""
        return rows.unreadable(self.row, f"its row cannot be read: {self.odd}")

    def number(self, name: str, least: int, most: int) -> int | None:
        """The number in a column, where it is one from *least* to *most*."""
        value = self.columns[name]
        return value if type(value) is int and least <= value <= most else None


def look(sql: Sql, key: Key) -> Facts | None:
    """The row of *key*; None where there is none."""
    row = sql.execute(_LOOK, key.parameters).fetchone()
    return None if row is None else _facts(key, row)


def nameable(name: object) -> bool:
    """Whether a row can be shown under this name: that of a damaged id need be none."""
    return isinstance(name, str) and name.isprintable()


def find(sql: Sql, name: str) -> Facts | None:
    """The row of an id as it is written, or as one that is no text is shown."""
    found = look(sql, Key.of(name))
    other = Key.shown(name)
    return look(sql, other) if found is None and other is not None else found


def each(sql: Sql) -> Iterator[tuple[Facts, bool]]:
    """Every row, and whether it has lost its body."""
    for raw, blob, bodiless, *row in sql.execute(_EACH):
        yield _facts(Key(raw, bool(blob)), row), bool(bodiless)


def never_due(sql: Sql) -> list[Key]:
    """Those that no claim ever comes upon: scheduled for after the end of time, or for what is no time."""
    return [Key(raw, bool(blob)) for raw, blob in sql.execute(_NEVER, (FOREVER,)).fetchall()]


def hold(
    sql: Sql, key: Key, reason: str, now: int, *, fates: tuple[Fate, ...] | None = None
) -> Standing | None:
    """Hold the message of *key*: what cannot be read of its row is replaced, so that it can be from now on.

    Where somebody may have had it under a lease, whoever waited is in doubt,
    unless *fates* are known.

    Returns:
        How it stands then; None where there is no such row.
    """
    facts = look(sql, key)
    if facts is None:
        return None
    likely = facts.likely
    if fates is None:
        unleased = facts.columns["state"] in _UNLEASED
        fates = likely.fates if unleased else tuple(fate.doubted for fate in likely.fates)
    changed = {
        "id": key.name,
        "queue": facts.columns["queue"] or "",
        "priority": facts.number("priority", _PRIORITIES[0], _PRIORITIES[-1]) or 0,
        "fates": rows.letters(fates or (Fate.UNCERTAIN,)),
        "submitted": now if likely.submitted == 0 else likely.submitted,
        "generation": facts.number("generation", 0, _LAST_GENERATION),
        "generations": _GENERATIONS,
        "attempts": likely.attempts,
        "lost": likely.lost,
        "size": facts.number("size", 0, rows.SIZES[-1]) or 0,
        "reason": printable(reason),
        "now": now,
    }
    sql.execute(_HOLD, {**changed, **key.parameters})
    held = look(sql, Key.of(key.name))
    return None if held is None else held.standing


def detach(sql: Sql, ids: Sequence[str]) -> None:
    """Before these are removed, let them go of bodies that are other messages'."""
    sql.execute(_DETACH, (rows.listed(ids),))


def _facts(key: Key, row: rows.Row) -> Facts:
    *values, settled, resumes = row
    columns = dict(zip((*_TEXTS, *_NUMBERS), values, strict=True))
    odd = [] if key.whole else ["its id is no text"]
    for name in _TEXTS:
        try:
            columns[name] = columns[name].decode()
        except (AttributeError, UnicodeDecodeError):
            odd.append(f"its {name} is no text")
            columns[name] = None if columns[name] is None else rows.legible(columns[name])
    kinds = {"settled": settled, "resumes": resumes}
    odd += [
        f"its {name} is no number" for name in _NUMBERS if columns[name] is None and kinds.get(name) != "null"
    ]
    facts = Facts(key, columns, "")
    return attrs.evolve(facts, odd="; ".join(odd) or _out_of_range(facts))


def _out_of_range(facts: Facts) -> str:
    """What is wrong with columns that are all of their kinds."""
    for name, least, most in (
        ("stage", 0, 4),
        ("priority", _PRIORITIES[0], _PRIORITIES[-1]),
        ("size", 0, rows.SIZES[-1]),
        ("generation", 0, _LAST_GENERATION),
    ):
        if facts.number(name, least, most) is None:
            return f"its {name} is {facts.columns[name]}"
    try:
        standing = rows.standing(facts.row)
    except CorruptRecord as error:
        return str(error.__cause__)
    if facts.columns["stage"] not in ((1, 2, 3) if standing.queued else (0,)):
        return f"its stage is {facts.columns['stage']}, and its state {standing.state}"
    return ""

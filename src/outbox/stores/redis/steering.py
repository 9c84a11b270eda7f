"""A person's word, and what age takes away: decided here, and written only where a row is still what was read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from outbox.errors import CorruptRecord
from outbox.protocols import Change, Expected
from outbox.stores import standing as standings
from outbox.stores.retention import Retention
from outbox.stores.standing import Standing, Step

from .caller import Caller
from .rows import Row
from .scripts import APPLY, HOLD, LOOK
from .tidings import Number, number

__all__ = ["LEFT", "Command", "Edit", "apply", "hold", "is_gone", "purge", "steer"]

Command: TypeAlias = Callable[[str, Standing, int], Step]
_AT_ONCE = 500
LEFT: Final = "\tleft"
"""Behind the time of an id whose message has left for another store."""
_TOMBSTONE: Final = re.compile(rb"\t[0-9A-Fa-f]*\t[0-9]+(?:\tleft)?")


@attrs.frozen
class Edit:
    """A row as it was read, and what becomes of it: another text, or nothing, its id *buried* or not."""

    id: str
    row: Row
    read: bytes
    text: str = ""
    buried: bool = False


def is_gone(text: bytes | None) -> bool:
    """Whether there is no message, and at most a memory of one."""
    return text is None or _TOMBSTONE.fullmatch(text) is not None


def apply(caller: Caller, edits: Sequence[Edit]) -> tuple[set[str], Number]:
    """Write them; return the ids of those that had changed meanwhile, and stay as they are."""
    if not edits:
        return set(), (0, 0)
    _, news, changed = caller.run(
        APPLY,
        {"changes": [(each.id, each.text, each.buried) for each in edits]},
        queues=[each.row.queue for each in edits],
        content=[each.read for each in edits],
    )
    return {edits[place].id for place in changed}, number(news)


def hold(caller: Caller, damaged: Mapping[str, bytes]) -> None:
    """Hold what has these rows, which cannot be read; from then on they can be."""
    if damaged:
        queues = [Row.unreadable(text, "").queue for text in damaged.values()]
        caller.run(HOLD, {"ids": list(damaged)}, queues=queues, content=list(damaged.values()))


def steer(caller: Caller, ids: Sequence[str], command: Command) -> tuple[list[Change], Number]:
    """Apply a command of :mod:`outbox.stores.standing` to each, in order."""

    def edited(id: str, row: Row, now: int) -> tuple[Change, Row | None, bool]:
        step = command(id, row.standing, now)
        new = None if step.standing is None else attrs.evolve(row, standing=step.standing)
        return step.change, new, False

    return _each(caller, ids, edited, Retention())


def purge(
    caller: Caller, ids: Sequence[str], retention: Retention, expected: Expected | None
) -> list[Change]:
    """See :meth:`RedisStore.purge`."""

    def edited(id: str, row: Row, now: int) -> tuple[Change, Row | None, bool]:
        change = standings.purge(id, row.standing, now, expected=expected)
        return change, None, change.status == "done"

    return _each(caller, ids, edited, retention)[0]


_Edited: TypeAlias = Callable[[str, Row, int], tuple[Change, Row | None, bool]]


def _each(
    caller: Caller, ids: Sequence[str], edited: _Edited, retention: Retention
) -> tuple[list[Change], Number]:
    """A change for each id; an id that comes again meets what the first has made of it."""
    answers: dict[int, Change] = {}
    latest: Number = (0, 0)
    for first in range(0, len(ids), _AT_ONCE):
        left = set(ids[first : first + _AT_ONCE])
        places = range(first, min(first + _AT_ONCE, len(ids)))
        while left:
            these = [place for place in places if ids[place] in left]
            found, edits = _decided(caller, [ids[place] for place in these], edited, retention)
            left, news = apply(caller, edits)
            latest = max(latest, news)
            answers.update(zip(these, found, strict=True))
    return [answers[place] for place in range(len(ids))], latest


def _decided(
    caller: Caller, ids: Sequence[str], edited: _Edited, retention: Retention
) -> tuple[list[Change], list[Edit]]:
    unique = list(dict.fromkeys(ids))
    now, read, rows = _looked_at(caller, unique)
    edits: dict[str, Edit] = {}
    changes = [_one(id, now, edited, read=read, rows=rows, edits=edits, retention=retention) for id in ids]
    return changes, list(edits.values())


def _looked_at(
    caller: Caller, ids: Sequence[str]
) -> tuple[int, Mapping[str, bytes | None], dict[str, Row | None]]:
    """The rows of *ids* as they stand now, None of what is gone; what could not be read is held by then."""
    while True:
        now, texts = caller.run(LOOK, {"ids": ids})
        read: dict[str, bytes | None] = dict(zip(ids, texts, strict=True))
        rows: dict[str, Row | None] = {}
        damaged: dict[str, bytes] = {}
        for id, text in read.items():
            try:
                rows[id] = None if text is None or is_gone(text) else Row.read(id, text)
            except CorruptRecord:
                damaged[id] = text or b""
        if not damaged:
            return int(now), read, rows
        hold(caller, damaged)


def _one(
    id: str,
    now: int,
    edited: _Edited,
    *,
    read: Mapping[str, bytes | None],
    rows: dict[str, Row | None],
    edits: dict[str, Edit],
    retention: Retention,
) -> Change:
    text, row = read[id], rows[id]
    if row is None or text is None:
        return standings.unknown(id)
    change, new, gone = edited(id, row, now)
    first = edits[id].row if id in edits else row
    if gone:
        rows[id] = None
        edits[id] = Edit(id, first, text, "", retention.buries(id, row.standing, now))
    elif new is not None:
        rows[id] = new
        edits[id] = Edit(id, first, text, new.text)
    return change

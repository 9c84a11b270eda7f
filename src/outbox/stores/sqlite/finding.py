"""What a filter finds: SQLite leaves out most of what does not fit, and the filter has the last word.

A walk along the ids, a bounded number of rows at a time, so that no reading
lasts: one that does keeps the WAL from being emptied.
"""

from __future__ import annotations

import functools
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from outbox.filters import Filter
from outbox.lifecycle import State, Summary
from outbox.stores.instants import micros

from . import browsing, damage, rows
from .damage import Key
from .naming import Sql

__all__ = ["RANGE", "Read", "find", "span"]

Read: TypeAlias = Callable[[Callable[[Sql], Any]], Any]

_AT_FIRST: Final = 100
_LOOKED_AT: Final = 5000
"""How many rows one reading looks at: some tens of milliseconds; the first ones fewer, for a list may want no more."""
_QUEUED: Final = (State.QUEUED, State.CLAIMED)
_BORDER: Final = "iif(:{0}_blob, :{0}, CAST(:{0} AS TEXT))"
RANGE: Final = f"m.id >= {_BORDER.format('first')} AND m.id <= {_BORDER.format('last')}"
# What is only remembered does not count among the many: it costs less than a tenth of a row that is looked at.
_BORDERS: Final = """
    SELECT CAST(min(id) AS BLOB), typeof(min(id)) = 'blob', CAST(max(id) AS BLOB), typeof(max(id)) = 'blob' FROM (
        SELECT m.id FROM outbox_message AS m WHERE {0} AND m.id > {1} ORDER BY m.id LIMIT :many
    )
"""
_THERE: Final = "m.stage IS NOT 4"
_SETTLED: Final = "m.stage = 0 AND m.state = :state"
_FOUND_OF_ALL: Final = f"{browsing.SUMMARY} WHERE {_THERE} AND {RANGE}{{0}} ORDER BY m.id"
_FOUND_OF_STATE: Final = f"{browsing.SUMMARY} WHERE {_SETTLED} AND {RANGE}{{0}} ORDER BY m.id"
# Of one value, and of several: a table of them costs as much in each row as all the rest.
_EQUAL: Final = "{0} = :{1}", "{0} IN (SELECT value FROM json_each(:{1}))"
_WITHIN: Final = "instr({0}, :{1})", "EXISTS (SELECT 1 FROM json_each(:{1}) AS w WHERE instr({0}, w.value))"
_TERMS: Final[Mapping[str, tuple[tuple[str, str], str]]] = {
    "queues": (_EQUAL, "m.queue"),
    "states": (_EQUAL, "m.state"),
    "reasons": (_WITHIN, "lower(m.reason)"),
    "senders": (_EQUAL, "lower(b.sender)"),
    "recipients": (_WITHIN, "lower(b.recipients)"),
    "domains": (_WITHIN, "lower(b.recipients)"),
    "attributes": (_WITHIN, "CAST(b.envelope AS TEXT)"),
}
_BEFORE: Final = "m.submitted <= :before"
_SINCE: Final = "m.settled >= :since"
_LATELY: Final = """
    SELECT id FROM outbox_message INDEXED BY outbox_aged WHERE stage = 0 AND state = :state AND settled >= :since
"""
_HOW_MANY_LATELY: Final = f"SELECT count(*) FROM ({_LATELY} LIMIT :few + 1)"  # noqa: S608 - a statement of our own
_FOUND_LATELY: Final = (
    f"{browsing.SUMMARY} WHERE m.id IN ({_LATELY}) AND m.id > {damage.KEY}{{0}} ORDER BY m.id"
)
_BY_HAND: Final = "(m.resumes IS NOT NULL) = :by_hand"


@attrs.frozen
class _Page:
    """What one reading found, and where the next begins; None at the end."""

    found: Iterable[Summary]
    after: Key | None


def find(read: Read, sought: Filter, after: str) -> Iterator[Summary]:
    """See :meth:`outbox.filters.SupportsFind.find`; *read* performs a reading."""
    if not sought.states or set(sought.states) & set(_QUEUED):
        return _few_or_walked(read, sought, after)
    # Each is a walk along an index of its own.
    walks = [_settled(read, sought, after, state) for state in sought.states]
    return heapq.merge(*walks, key=lambda summary: summary.id)


def _few_or_walked(read: Read, sought: Filter, after: str) -> Iterator[Summary]:
    queued = bool(sought.states)
    few = not queued or set(sought.states) <= set(_QUEUED)
    many = _AT_FIRST
    while few:
        many = min(2 * many, _LOOKED_AT)
        page = read(functools.partial(_few, queued=queued, sought=sought, after=after, many=many))
        if page is None:
            break
        yield from filter(sought.fits, page)
        if len(page) < many:
            return
        after = page[-1].id
    yield from _walk(read, sought, after, None)


def _few(sql: Sql, *, queued: bool, sought: Filter, after: str, many: int) -> list[Summary] | None:
    terms = {
        "queues": rows.listed(sought.queues),
        "limit": many,
        **browsing.behind(sql, after).parameters,
    }
    found = browsing.few(sql, terms, queued=queued)
    return None if found is None else [browsing.summary(row) for row in found]


def _settled(read: Read, sought: Filter, after: str, state: State) -> Iterator[Summary]:
    """Those in one state; where few of them were settled lately, and those are sought, no others are looked at."""
    lately = None
    if sought.settled_since is not None:
        lately = read(functools.partial(_lately, sought=sought, after=after, state=state))
    yield from _walk(read, sought, after, state) if lately is None else lately


def _lately(sql: Sql, *, sought: Filter, after: str, state: State) -> list[Summary] | None:
    conditions, asked = _asked(sought)
    terms = {"state": state.value, "few": browsing.FEW, **browsing.behind(sql, after).parameters, **asked}
    (number,) = sql.execute(_HOW_MANY_LATELY, terms).fetchone()
    if number > browsing.FEW:
        return None
    shown = map(browsing.summary, sql.execute(_FOUND_LATELY.format(conditions), terms))
    return [summary for summary in shown if sought.fits(summary)]


def _walk(read: Read, sought: Filter, name: str, state: State | None) -> Iterator[Summary]:
    after: Key | None = read(lambda sql: browsing.behind(sql, name))
    many = _AT_FIRST
    while after is not None:
        many = min(2 * many, _LOOKED_AT)
        page: _Page = read(functools.partial(_page, sought=sought, after=after, state=state, many=many))
        yield from page.found
        after = page.after


def _page(sql: Sql, *, sought: Filter, after: Key, state: State | None, many: int) -> _Page:
    of_state = {} if state is None else {"state": state.value}
    there = span(sql, _THERE if state is None else _SETTLED, after, many, of_state)
    if there is None:
        return _Page([], None)
    last, terms = there
    conditions, asked = _asked(sought)
    found = (_FOUND_OF_ALL if state is None else _FOUND_OF_STATE).format(conditions)
    read = sql.execute(found, {**terms, **of_state, **asked}).fetchall()
    # What of them is not asked for is not made: a row costs less than what it tells.
    return _Page(filter(sought.fits, map(browsing.summary, read)), last)


def span(
    sql: Sql, which: str, after: Key, many: int, terms: Mapping[str, object] | None = None
) -> tuple[Key, Mapping[str, object]] | None:
    """Where so many rows of a kind end that are behind *after*, and what :data:`RANGE` finds them by; None at the end."""
    found = {**after.parameters, "many": many, **(terms or {})}
    row = sql.execute(_BORDERS.format(which, damage.KEY), found).fetchone()
    if row[0] is None:
        return None
    first, first_blob, last, last_blob = row
    borders = {"first": first, "first_blob": first_blob, "last": last, "last_blob": last_blob}
    return Key(last, bool(last_blob)), borders


def _asked(sought: Filter) -> tuple[str, Mapping[str, object]]:
    """What SQLite is to look for, and nothing else: whatever it leaves out would not fit."""
    conditions, terms = [], dict[str, object]()
    for name, values in _looked_for(sought).items():
        # What is no plain ASCII is not asked for here: SQLite's lower() knows no other letters.
        if values and all(map(str.isascii, values)):
            (one, several), column = _TERMS[name]
            conditions.append((one if len(values) == 1 else several).format(column, name))
            terms[name] = values[0] if len(values) == 1 else rows.listed(values)
    if sought.submitted_before is not None:
        conditions.append(_BEFORE)
        terms["before"] = micros(sought.submitted_before)
    if sought.settled_since is not None:
        conditions.append(_SINCE)
        terms["since"] = micros(sought.settled_since)
    if sought.by_hand is not None:
        conditions.append(_BY_HAND)
        terms["by_hand"] = sought.by_hand
    return "".join(f" AND {condition}" for condition in conditions), terms


def _looked_for(sought: Filter) -> Mapping[str, Sequence[str]]:
    """The texts one of which a row has to have, by what they are looked for in."""
    return {
        "queues": sought.queues,
        "states": [state.value for state in sought.states],
        "reasons": [max(text.split() or [""], key=len) for text in sought.reasons],
        "senders": sought.senders,
        "recipients": [json.dumps(each, ensure_ascii=False) for each in sought.recipients],
        "domains": [f"@{json.dumps(each, ensure_ascii=False)[1:]}" for each in sought.domains],
        "attributes": [
            json.dumps(value, ensure_ascii=False)
            for values in list(sought.attributes.values())[:1]
            for value in values
        ],
    }

"""How old is what waits, by domain: grouped by SQLite, for a row costs it a tenth of what it costs to show one."""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from outbox.ages import Group, domains
from outbox.stores.instants import micros

from . import finding, rows
from .damage import Key
from .naming import Sql

__all__ = ["ages"]

_MANY: Final = 20_000
"""So many rows are counted in one reading: less than a tenth of a second, and few groups of each domain."""
_WAITS: Final = "m.stage IN (1, 2, 3)"
# One recipient of whom nothing is escaped has his domain behind the only @; all others are looked at one by one.
_GROUPS: Final = f"""
    SELECT age, simple, iif(
        simple, substr(recipients, instr(recipients, '@') + 1, length(recipients) - instr(recipients, '@') - 2), recipients
    ), fates, count(*) FROM (
        SELECT {{0}} AS age, m.fates AS fates, coalesce(b.recipients, '[]') AS recipients,
            length(m.fates) = 1 AND instr(b.recipients, '@') > 0 AND instr(b.recipients, '\\') = 0 AS simple
        FROM outbox_message AS m LEFT JOIN outbox_body AS b ON b.number = m.body
        WHERE {_WAITS} AND {finding.RANGE}
    ) GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - conditions of our own


def ages(read: finding.Read, borders: Sequence[dt.datetime]) -> Iterator[Group]:
    """See :meth:`outbox.ages.SupportsAges.ages`; *read* performs a reading."""
    older = " + ".join(f"(m.submitted <= :border{n})" for n in range(len(borders))) or "0"
    terms = {f"border{n}": micros(border) for n, border in enumerate(borders)}
    after: Key | None = Key.of("")
    while after is not None:
        look = functools.partial(_page, statement=_GROUPS.format(older), terms=terms, after=after)
        groups, after = read(look)
        yield from groups


def _page(
    sql: Sql, *, statement: str, terms: Mapping[str, object], after: Key
) -> tuple[list[Group], Key | None]:
    found = finding.span(sql, _WAITS, after, _MANY)
    if found is None:
        return [], None
    last, span = found
    return [_group(*row) for row in sql.execute(statement, {**span, **terms})], last


def _group(age: int, simple: int, place: str, letters: object, number: int) -> Group:
    fates = rows.fates(rows.legible(letters), lenient=True)
    if simple:
        return Group(number, age, frozenset({place.lower()}) if fates[0].open else frozenset())
    return Group(number, age, domains(r for r, fate in zip(_named(place), fates, strict=False) if fate.open))


def _named(recipients: str) -> list[str]:
    try:
        return list(map(str, json.loads(recipients)))
    except (ValueError, TypeError, RecursionError):
        return []

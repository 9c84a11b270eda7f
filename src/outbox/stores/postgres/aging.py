"""How old is what waits, by domain: grouped by PostgreSQL, for a row that is counted costs less than one that is shown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

from outbox.ages import Group, domains
from outbox.stores.instants import micros

from . import rows
from .browsing import named
from .links import Links

__all__ = ["ages"]

# A stage at a time, so that each is come to along its own index, and what is settled is not read.
_QUEUED: Final = " UNION ALL ".join(
    f"SELECT submitted, fates, recipients FROM outbox_message WHERE stage = {stage}"  # noqa: S608 - a number of ours
    for stage in (1, 2, 3)
)
# One recipient of whom nothing is escaped has his domain behind the only @; all others are looked at one by one.
_GROUPS: Final = f"""
    SELECT age, simple, place, fates, count(*) FROM (
        SELECT (SELECT count(*) FROM unnest(%(borders)s::int8[]) AS b (at) WHERE m.submitted <= b.at) AS age, simple,
            CASE WHEN simple THEN rtrim(split_part(m.recipients, '@', 2), '"]') ELSE m.recipients END AS place, m.fates
        FROM (
            SELECT submitted, fates, recipients,
                length(fates) = 1 AND strpos(recipients, '@') > 0 AND strpos(recipients, '\\') = 0
                AND split_part(recipients, '@', 3) = '' AS simple
            FROM ({_QUEUED}) AS q
        ) AS m
    ) AS g GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - columns of our own


def ages(links: Links, borders: Sequence[dt.datetime]) -> Iterator[Group]:
    """See :meth:`outbox.ages.SupportsAges.ages`."""
    instants = [micros(border) for border in borders]
    found = links.use(lambda sql: sql.execute(_GROUPS, {"borders": instants}).fetchall(), slowly=True)
    yield from (_group(*row) for row in found)


def _group(age: int, simple: bool, place: str, letters: str, number: int) -> Group:
    fates = rows.likely_fates(letters)
    if simple:
        return Group(number, age, frozenset({place.lower()}) if fates[0].open else frozenset())
    open_ones = (r for r, fate in zip(named(place), fates, strict=False) if fate.open)
    return Group(number, age, domains(open_ones))

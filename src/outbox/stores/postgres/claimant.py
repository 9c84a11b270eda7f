"""Claims, and exchanges: two round trips, and a commit that is on the disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from outbox.errors import StoreError
from outbox.lifecycle import Claim
from outbox.stores.content import Codings
from outbox.stores.selection import Turns

from . import claiming, plain, settling
from .claiming import Chosen, Order, Taken
from .contending import Locked
from .links import Links, transaction
from .naming import Sql
from .settling import Settling

__all__ = ["Claimant"]

T = TypeVar("T")

_NOTHING: Final = Taken((), ())


class Claimant:
    """Claims for all threads of a process."""

    def __init__(self, links: Links, codings: Codings, now: Callable[[], int | None]) -> None:
        self._links = links
        self._codings = codings
        self._now = now
        self._turns = Turns()

    def claim(self, order: Order, settled: Settling | None = None) -> Sequence[Claim]:
        """What there is, and in the same commit what was settled; what cannot be read is held by then."""
        taken = self._taken(order, settled)
        while True:
            if taken is None:
                taken = self._links.use(lambda sql: self._carefully(sql, order))
            try:
                for each in taken.unreadable:
                    self._links.use(functools.partial(settling.hold, found=each, now=self._now()))
            except StoreError:
                # What is not held now is when its lease is over; the others are leased to whoever asked.
                if not taken.claims:
                    raise
            if taken.claims or not taken.unreadable:
                return taken.claims
            # Others are taken for what is held.
            taken = self._taken(order, None)

    def _taken(self, order: Order, settled: Settling | None) -> Taken | None:
        """In one statement where that does; None as of :meth:`_claim`."""
        if not plain.is_plain(order):
            return self._links.use(self._past(settled, lambda sql, settled: self._claim(sql, order, settled)))
        answer = self._links.use(
            self._past(settled, lambda sql, settled: plain.ask(sql, order, settled, self._now()))
        )
        if answer.plain:
            return claiming.taken(answer.found, answer.ids, self._codings)
        try:
            return self._links.use(lambda sql: self._claim(sql, order, None))
        except StoreError:
            # What was settled is, and whoever is told otherwise would settle it again.
            if settled is None:
                raise
            return _NOTHING

    def _past(
        self, settled: Settling | None, claim: Callable[[Sql, Settling | None], T]
    ) -> Callable[[Sql], T]:
        """What claims, and settles before where it cannot do both at once."""

        def act(sql: Sql) -> T:
            try:
                return claim(sql, settled)
            except Locked:
                if settled is None:
                    raise
            settled.write_past(sql, self._now(), self._links.name)
            return claim(sql, None)

        return act

    def _claim(self, sql: Sql, order: Order, settled: Settling | None) -> Taken | None:
        """None where content is coded at rest, and more has to be seen to."""
        now = self._now()
        with sql.connection.pipeline():
            if settled is not None:
                settled.write(sql, now)
            chosen = (
                claiming.choose_from(sql, order, self._turns, now)
                if order.limit >= 1
                else Chosen((), coded=False)
            )
            lease = chosen.ids and not chosen.coded
            cursor = claiming.take(sql, chosen.ids, order.lease, now) if lease else None
        if chosen.coded:
            return None
        if cursor is None:
            return _NOTHING
        return claiming.taken(cursor.fetchall(), chosen.ids, self._codings)

    def _carefully(self, sql: Sql, order: Order) -> Taken:
        """The same where content is coded at rest: where a coding is not to be had now, nothing is claimed."""
        now = self._now()
        with transaction(sql):
            chosen = claiming.choose_from(sql, order, self._turns, now)
            found = claiming.take(sql, chosen.ids, order.lease, now).fetchall() if chosen.ids else []
            return claiming.taken(found, chosen.ids, self._codings)

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
from .plain import Answer
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
        try:
            return self._readable(order, taken)
        except StoreError:
            # What was settled is, and whoever is told otherwise would settle it again.
            if settled is None:
                raise
            return ()

    def _readable(self, order: Order, taken: Taken | None) -> Sequence[Claim]:
        """Of what was taken; what cannot be read is held, and others are taken for it.  None as of :meth:`_claim`."""
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
            taken = self._taken(order, None)

    def _taken(self, order: Order, settled: Settling | None) -> Taken | None:
        """In one statement where that does; None as of :meth:`_claim`."""

        def claim(sql: Sql, settled: Settling | None) -> Taken | None:
            return self._claim(sql, order, settled)

        def ask(sql: Sql, settled: Settling | None) -> Answer:
            return plain.ask(sql, order, settled, self._now())

        if not plain.is_plain(order):
            return self._past(settled, claim)
        answer = self._past(settled, ask)
        if isinstance(answer, Taken):
            return answer
        if answer.plain:
            return claiming.taken(answer.found, answer.ids, self._codings)
        return self._behind(settled, claim)

    def _past(self, settled: Settling | None, claim: Callable[[Sql, Settling | None], T]) -> T | Taken:
        """What *claim* takes, which settles, too; what is settled before, where it cannot do both at once."""

        def act(sql: Sql) -> list[T]:
            try:
                return [claim(sql, settled)]
            except Locked:
                if settled is None:
                    raise
            settled.write_past(sql, self._now(), self._links.name)
            return []

        for taken in self._links.use(act):
            return taken
        return self._behind(settled, claim)

    def _behind(self, settled: Settling | None, claim: Callable[[Sql, Settling | None], T]) -> T | Taken:
        """What *claim* takes when all is settled; nothing where it cannot."""
        try:
            return self._links.use(lambda sql: claim(sql, None))
        except StoreError:
            # As in claim().
            if settled is None:
                raise
            return _NOTHING

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

"""Claims that damage does not stop, and that are as durable as what is claimed asks for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

from outbox.errors import CorruptRecord
from outbox.lifecycle import Claim
from outbox.stores.content import Codings
from outbox.stores.selection import Turns

from . import claiming, salvage
from .connection import Database
from .naming import Sql

__all__ = ["Claimant"]


class _Unsure(Exception):
    """A claim that may not be lost in a power failure was made so that it could be; it is undone."""


class Claimant:
    """Claims for all threads; what each met last tells how its next claim is best begun."""

    def __init__(
        self, database: Database, indexes: salvage.Indexes, codings: Codings, now: Callable[[], int]
    ) -> None:
        self._database = database
        self._indexes = indexes
        self._codings = codings
        self._now = now
        self._turns = Turns()
        self._thread = threading.local()

    def claim(self, order: claiming.Order) -> Sequence[Claim]:
        """What was claimed; what could not be read is held by then."""
        return self._indexes.trusted(functools.partial(self._past_damage, order))

    def claim_within(self, sql: Sql, order: claiming.Order) -> Sequence[Claim]:
        """The same in a transaction whose commit is on the disk when it returns.

        Raises:
            CorruptRecord: damage was met; nothing is held.
        """
        return self._claim(sql, order, surely=True)

    def _past_damage(self, order: claiming.Order) -> Sequence[Claim]:
        while True:
            try:
                return self._surely(order)
            except CorruptRecord:
                if not salvage.hold_damaged(self._database, order, self._codings, self._now()):
                    raise

    def _surely(self, order: claiming.Order) -> Sequence[Claim]:
        """One transaction, so that a disk that fails leaves nobody a lease; only in it is seen whether it must be on the disk."""
        try:
            surely = getattr(self._thread, "surely", False)
            claims = self._database.write(
                functools.partial(self._claim, order=order, surely=surely), durable=surely
            )
        except _Unsure:
            claims = self._database.write(functools.partial(self._claim, order=order, surely=True))
        self._thread.surely = any(claim.message.at_most_once for claim in claims)
        return claims

    def _claim(self, sql: Sql, order: claiming.Order, *, surely: bool) -> Sequence[Claim]:
        claims = claiming.claim(sql, order, self._turns, self._codings, self._now())
        if not surely and any(claim.message.at_most_once for claim in claims):
            raise _Unsure
        return claims

"""Broken stores that look, let go, and write some time later; and those that break with a second object or transaction.

See ``breaking``.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import attrs
from breaking import caught_by

from outbox.lifecycle import State
from outbox.protocols import MAX_BYTES, Exchanged
from outbox.stores import standing as standings
from outbox.stores.instants import later
from outbox.stores.memory import MemoryStore
from outbox.stores.selection import choose
from outbox.stores.sqlite import SQLiteStore

T = TypeVar("T")


class Racy(MemoryStore):
    """A store that does in two turns what has to be done in one."""

    def twice(self, look: Callable[[int], T], write: Callable[[T, int], Any]) -> Any:
        with self._lock:
            seen = look(self._now())
        # For so long that the other comes in meanwhile on a busy machine, too: red has to come every time.
        time.sleep(0.05)
        with self._lock:
            return write(seen, self._now())

    def chosen(self, queues: Sequence[str], limit: int, now: int) -> list[str]:
        offers = [self._shelf._lanes.offer(queue, now, limit, 1000) for queue in queues]
        return choose(self._shelf._turns.sort(offers), limit=limit, max_bytes=MAX_BYTES)

    def leased(self, ids: Sequence[str], lease: dt.timedelta, now: int) -> list[Any]:
        rows = self._shelf.rows
        return [self._shelf.lease(rows[id], now, later(now, lease)) for id in ids if id in rows]

    def steered(self, ids: Sequence[str], step: Callable[..., Any]) -> list[Any]:
        """A person's word on each, by the standing that it was seen in."""
        rows = self._shelf.rows

        def look(now: int) -> Any:
            return [step(id, rows[id].standing, now) if id in rows else None for id in ids]

        def write(steps: Any, now: int) -> list[Any]:
            for id, each in zip(ids, steps, strict=True):
                if each and each.standing and id in rows:
                    self._shelf.stand(rows[id], each.standing, now)
            return [
                each.change if each else standings.unknown(id) for id, each in zip(ids, steps, strict=True)
            ]

        answer: list[Any] = self.twice(look, write)
        return answer


@caught_by("test_threads_that_claim_at_once_are_given_different_messages")
class RacyClaim(Racy):
    def claim(self, *, limit: int, lease: Any, queues: Any, max_bytes: int = MAX_BYTES) -> Any:
        return self.twice(
            functools.partial(self.chosen, queues, limit), lambda ids, now: self.leased(ids, lease, now)
        )


@caught_by("test_threads_that_exchange_at_once_are_given_different_messages")
class RacyExchange(Racy):
    def exchange(self, settlements: Any, /, *, limit: int, lease: Any, queues: Any, **_: Any) -> Any:
        lost = self.settle(settlements)
        look = functools.partial(self.chosen, queues, limit)
        return Exchanged(lost, self.twice(look, lambda ids, now: self.leased(ids, lease, now)))


@caught_by("test_what_is_put_claimed_is_never_in_two_hands")
class Steals(Racy):
    def put_claimed(self, messages: Any, /, *, lease: Any, attempted: bool = False) -> Any:
        new = [result.id for result in self.put(messages) if result.status == "stored"]
        return self.twice(lambda _: new, lambda ids, now: self.leased(ids, lease, now))


@caught_by("test_what_is_settled_while_its_lease_is_extended_stays_settled")
class RacyExtend(Racy):
    def extend(self, claims: Any, /, *, lease: dt.timedelta) -> Any:
        def look(_: int) -> Any:
            rows = [self._shelf.held(each) for each in claims]
            return [(row, row.standing) for row in rows if row], [
                each for each, row in zip(claims, rows, strict=True) if not row
            ]

        def write(seen: Any, now: int) -> Any:
            for row, standing in seen[0]:
                row.standing = attrs.evolve(standing, due=later(now, lease))
                self._shelf._lanes.schedule(row)
            return seen[1]

        return self.twice(look, write)


@caught_by("test_a_lease_that_ran_out_is_either_extended_or_taken")
class RacyExtendOfTheLost(RacyExtend):
    pass


@caught_by("test_a_lease_that_ran_out_is_either_settled_or_taken")
class RacySettle(Racy):
    def settle(self, settlements: Any, /) -> Any:
        fates = [standings.fates_of(each.verdict, each.claim.message) for each in settlements]

        def look(now: int) -> Any:
            rows = [self._shelf.held(each.claim) for each in settlements]
            return [
                (row, row and standings.settled(row.standing, new, each.verdict, now), each.claim)
                for row, new, each in zip(rows, fates, settlements, strict=True)
            ]

        def write(seen: Any, now: int) -> Any:
            for row, standing, _ in seen:
                if row:
                    self._shelf.stand(row, standing, now)
            return [claim for row, _, claim in seen if not row]

        return self.twice(look, write)


@caught_by("test_what_is_cancelled_at_the_end_of_its_lease_stays_cancelled")
class RacySettleOfTheCancelled(RacySettle):
    pass


@caught_by("test_a_lease_that_ran_out_is_either_exchanged_or_taken")
class RacyExchangeOfTheLost(RacySettle):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        return Exchanged(self.settle(settlements), self.claim(**order))


@caught_by("test_threads_that_hand_over_the_same_ids_are_not_given_one_twice")
class HandsToBoth(Racy):
    """Looks whether an id is known, and leases it to whoever saw that it was not."""

    def put_claimed(self, messages: Any, /, *, lease: Any, attempted: bool = False) -> Any:
        def look(_: int) -> list[str]:
            return [each.id for each in messages if each.id not in self._shelf.rows]

        new = self.twice(look, lambda seen, _: seen)
        self.put(messages)
        with self._lock:
            return self.leased(new, lease, self._now())


@caught_by("test_a_requeue_takes_nothing_out_of_the_hands_that_claimed_it")
class RacyRequeue(Racy):
    def requeue(self, ids: Sequence[str], /, *, uncertain: bool = False, **more: Any) -> Any:
        return self.steered(ids, functools.partial(standings.requeue, uncertain=uncertain, **more))


@caught_by("test_a_message_is_either_requeued_or_purged")
class RacyPurge(Racy):
    def purge(self, ids: Sequence[str], /, **more: Any) -> Any:
        rows = self._shelf.rows

        def look(now: int) -> Any:
            return [
                standings.purge(id, rows[id].standing, now, **more) if id in rows else standings.unknown(id)
                for id in ids
            ]

        def write(changes: Any, now: int) -> Any:
            for each in changes:
                if each.status == "done" and each.id in rows:
                    self._shelf.discard(rows[each.id], now)
            return changes

        return self.twice(look, write)


@caught_by("test_what_is_requeued_while_the_store_is_pruned_is_not_discarded")
class RacyPrune(Racy):
    def prune(self, *, limit: int = 1000) -> int:
        def write(rows: Any, now: int) -> int:
            for row in rows[:limit]:
                if row.id in self._shelf.rows:
                    self._shelf.discard(row, now)
            return len(rows)

        answer: int = self.twice(lambda now: self._shelf._aged(State.DEAD, now), write)
        return answer


# -- with another object of the store, and within a transaction


class OnDisk(SQLiteStore):
    """A store that lasts; *path* is the directory it is in."""

    lasting: ClassVar[bool] = True

    def __init__(self, path: Path, **settings: Any) -> None:
        super().__init__(path / "outbox.db", **settings)


@caught_by("test_a_token_of_one_object_fits_no_claim_of_another")
class Counting(OnDisk):
    """Its tokens are a count of its own, beginning at 1, and what is on the disk is no more than that."""

    disk: ClassVar[dict[str, tuple[str, Any]]] = {}

    def __init__(self, path: Path, **settings: Any) -> None:
        super().__init__(path, **settings)
        self._numbers = itertools.count(1)

    def claim(self, **order: Any) -> Any:
        claims = [(str(next(self._numbers)), claim) for claim in super().claim(**order)]
        self.disk.update({claim.message.id: (token, claim) for token, claim in claims})
        return [attrs.evolve(claim, token=token) for token, claim in claims]

    def settle(self, settlements: Any, /) -> Any:
        real = [self.disk[each.claim.message.id] for each in settlements]
        fitting = [
            attrs.evolve(each, claim=claim) if each.claim.token == token else each
            for each, (token, claim) in zip(settlements, real, strict=True)
        ]
        lost = super().settle(fitting)
        return [each.claim for each, fit in zip(settlements, fitting, strict=True) if fit.claim in lost]

    def extend(self, claims: Any, /, *, lease: Any) -> Any:
        return [claim for claim in claims if self.disk[claim.message.id][0] != claim.token]


@caught_by("test_what_was_put_within_a_transaction_that_was_undone_never_was")
class Autonomous(OnDisk):
    """Commits at once what is put within the caller's transaction."""

    def within(self, connection: sqlite3.Connection, /) -> Any:
        return self


@caught_by("test_nobody_sees_it_before_the_commit")
class Impatient(Autonomous):
    pass


@caught_by("test_a_conflict_stores_nothing_of_its_batch_and_undoes_nothing_else")
class OneByOne(OnDisk):
    def within(self, connection: sqlite3.Connection, /) -> Any:
        intake = super().within(connection)
        put = intake.put
        intake.put = lambda messages: [put([message])[0] for message in messages]  # type: ignore[method-assign]  # that is the point
        return intake


@caught_by("test_an_id_is_known_within_a_transaction_and_in_the_next")
class AlwaysStored(OnDisk):
    def within(self, connection: sqlite3.Connection, /) -> Any:
        intake = super().within(connection)
        put = intake.put
        intake.put = lambda messages: [attrs.evolve(each, status="stored") for each in put(messages)]  # type: ignore[method-assign]  # that is the point
        return intake


@caught_by("test_a_limit_holds_within_a_transaction_too")
class Roomy(OnDisk):
    def within(self, connection: sqlite3.Connection, /) -> Any:
        crowd = self._entrance.crowd
        crowd._limits = attrs.evolve(crowd._limits, max_messages=None)
        return super().within(connection)


@caught_by("test_what_was_put_within_a_transaction_that_committed_is_claimed_like_any_other")
class Undoing(OnDisk):
    def within(self, connection: sqlite3.Connection, /) -> Any:
        intake = super().within(connection)
        put = intake.put

        def undone(messages: Any) -> Any:
            answer = put(messages)
            connection.rollback()
            return answer

        intake.put = undone  # type: ignore[method-assign]  # that is the point
        return intake

"""What ``within`` promises: a message exists if and only if the caller's transaction commits."""

from __future__ import annotations

import contextlib
from pathlib import Path

from outbox.errors import ConflictError, StoreFull
from outbox.protocols import Guarantee, SupportsBrowse, SupportsTransaction
from outbox.testing.clock import ManualClock

from .exacting import said
from .scene import (
    SECOND,
    ZERO,
    Clauses,
    Reopen,
    Whole,
    clause,
    delivered,
    ids,
    mail,
    put,
    raises,
    settle,
    statuses,
    take,
)

__all__ = ["JoinClauses"]


class _Regret(Exception):
    """The caller's own, which undoes his transaction."""


class JoinClauses(Clauses):
    """The caller's transaction decides, and goes on whatever it is answered."""

    @clause(SupportsTransaction)
    def test_what_was_put_within_a_transaction_that_committed_is_claimed_like_any_other(
        self, store: Whole, tmp_path: Path
    ) -> None:
        with self.transaction(store, tmp_path) as connection:
            assert statuses(store.within(connection).put([mail("b"), mail("a")])) == ["stored"] * 2

        a, b = take(store)
        assert [a.message, b.message] == [mail("a"), mail("b")]
        assert [(claim.attempt, claim.lost) for claim in (a, b)] == [(1, 0)] * 2

    @clause(SupportsTransaction)
    def test_what_was_put_within_a_transaction_keeps_all_that_was_said_of_it(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        message = said(clock, "a", not_before=clock.now() + SECOND)
        with self.transaction(store, tmp_path) as connection:
            store.within(connection).put([message])
        assert take(store) == []

        clock.advance(SECOND)
        (claim,) = take(store)
        assert claim.message == message
        assert claim.message.attributes == message.attributes
        assert claim.age == ZERO

    @clause(SupportsTransaction, Guarantee.DEDUPLICATION)
    def test_a_delivered_id_is_known_within_a_transaction(self, store: Whole, tmp_path: Path) -> None:
        put(store, "a")
        (claim,) = take(store)
        settle(store, claim, delivered(claim))

        with self.transaction(store, tmp_path) as connection:
            assert statuses(store.within(connection).put([mail("a"), mail("b")])) == ["known", "stored"]
        assert ids(take(store)) == ["b"]
        assert statuses(store.put([mail("a")])) == ["known"]

    @clause(SupportsTransaction)
    def test_what_was_put_within_a_transaction_that_was_undone_never_was(
        self, store: Whole, tmp_path: Path
    ) -> None:
        with contextlib.suppress(_Regret), self.transaction(store, tmp_path) as connection:
            store.within(connection).put([mail("a")])
            raise _Regret

        assert take(store) == []
        assert statuses(store.put([mail("a", "other@example.org")])) == ["stored"]

    @clause(SupportsTransaction, SupportsBrowse)
    def test_nobody_sees_it_before_the_commit(self, store: Whole, tmp_path: Path) -> None:
        with self.transaction(store, tmp_path) as connection:
            store.within(connection).put([mail("a")])
            assert store.get("a") is None

        assert store.get("a") is not None

    @clause(SupportsTransaction, Guarantee.DEDUPLICATION)
    def test_an_id_is_known_within_a_transaction_and_in_the_next(self, store: Whole, tmp_path: Path) -> None:
        put(store, "a")
        with self.transaction(store, tmp_path) as connection:
            assert statuses(store.within(connection).put([mail("a"), mail("b")])) == ["known", "stored"]
            assert statuses(store.within(connection).put([mail("b")])) == ["known"]

        assert statuses(store.put([mail("b")])) == ["known"]
        assert ids(take(store)) == ["a", "b"]

    @clause(SupportsTransaction, Guarantee.DEDUPLICATION)
    def test_a_conflict_stores_nothing_of_its_batch_and_undoes_nothing_else(
        self, store: Whole, tmp_path: Path
    ) -> None:
        put(store, "a")
        with self.transaction(store, tmp_path) as connection:
            intake = store.within(connection)
            intake.put([mail("before")])
            with raises(ConflictError, "a"):
                intake.put([mail("b"), mail("a", "other@example.org")])
            intake.put([mail("behind")])

        assert ids(take(store)) == ["a", "before", "behind"]

    @clause(SupportsTransaction)
    def test_a_limit_holds_within_a_transaction_too(self, reopen: Reopen, tmp_path: Path) -> None:
        store = reopen(max_messages=2)
        with self.transaction(store, tmp_path) as connection:
            intake = store.within(connection)
            intake.put([mail("a")])
            with raises(StoreFull, "max_messages"):
                intake.put([mail("b"), mail("c")])

        assert ids(take(store)) == ["a"]

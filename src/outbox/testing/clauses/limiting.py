"""What may wait at once: the settings of :class:`outbox.stores.limits.Limits`, which only a put ever meets."""

from __future__ import annotations

import datetime as dt

from outbox.errors import ConflictError, StoreFull
from outbox.protocols import Guarantee, SupportsHandOver, SupportsManage
from outbox.testing.clock import ManualClock

from .crowding import together
from .scene import (
    LEASE,
    SECOND,
    VERDICTS,
    Clauses,
    Reopen,
    all_of,
    clause,
    dead,
    delivered,
    ids,
    mail,
    put,
    raises,
    released,
    retry,
    settle,
    statuses,
    take,
)

__all__ = ["LimitClauses"]


class LimitClauses(Clauses):
    """Full is said, and harms nothing that was there before."""

    def test_as_many_messages_are_taken_as_was_said_and_no_more(self, reopen: Reopen) -> None:
        store = reopen(max_messages=3)
        put(store, "a", "b")
        put(store, "c")

        with raises(StoreFull, "max_messages", "3"):
            put(store, "d")
        assert ids(take(store)) == ["a", "b", "c"]

    def test_as_much_content_is_taken_as_was_said_and_no_more(self, reopen: Reopen) -> None:
        store = reopen(max_bytes=100)
        put(store, mail("a", content=b"x" * 60), mail("b", content=b"x" * 40))

        with raises(StoreFull, "max_bytes", "100"):
            put(store, mail("c", content=b"x"))
        put(store, mail("empty", content=b""))
        assert ids(take(store)) == ["a", "b", "empty"]

    def test_a_batch_that_does_not_fit_stores_nothing(self, reopen: Reopen) -> None:
        store = reopen(max_messages=3, max_bytes=1000)
        put(store, "a")

        with raises(StoreFull, "max_messages"):
            put(store, "b", "c", "d")
        with raises(StoreFull, "max_bytes"):
            put(store, "b", mail("c", content=b"x" * 1000))
        assert ids(take(store)) == ["a"]

    def test_a_batch_that_can_never_fit_is_told_apart(self, reopen: Reopen) -> None:
        store = reopen(max_messages=1)

        with raises(StoreFull, "max_messages", "less at a time"):
            put(store, "a", "b")
        put(store, "a")

    @clause(Guarantee.DEDUPLICATION)
    def test_what_is_known_is_answered_by_a_full_store_too(self, reopen: Reopen) -> None:
        store = reopen(max_messages=2, max_bytes=200)
        put(store, mail("delivered", content=b""))
        (claim,) = take(store)
        settle(store, claim, delivered(claim))
        put(store, mail("a", content=b"x" * 200), mail("b", content=b""))

        assert statuses(store.put([mail("delivered"), mail("a"), mail("b"), mail("a")])) == ["known"] * 4
        with raises(ConflictError, "b"):
            store.put([mail("c"), mail("b", "other@example.org")])
        with raises(StoreFull, "max_messages"):
            store.put([mail("a"), mail("c")])

    @clause(Guarantee.DEDUPLICATION)
    def test_an_id_twice_in_one_batch_takes_the_room_of_one(self, reopen: Reopen) -> None:
        store = reopen(max_messages=1, max_bytes=100)
        message = mail("a", content=b"x" * 100)

        assert statuses(store.put([message, message])) == ["stored", "known"]

    def test_deliveries_go_on_in_a_full_store(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(max_messages=3, max_bytes=300)
        put(store, *(mail(name, content=b"x" * 100) for name in "abc"))
        a, b, c = take(store)
        settle(store, a, retry(a))
        settle(store, b, released(b))
        assert list(store.extend([c], lease=LEASE)) == []

        assert ids(take(store)) == ["a", "b"]
        clock.advance(LEASE)
        assert len({name for _ in "abc" for name in ids(take(store))}) == 3

    def test_what_is_claimed_or_waits_for_its_retry_still_takes_its_room(self, reopen: Reopen) -> None:
        store = reopen(max_messages=2)
        put(store, "a", "b")
        a, _ = take(store)
        settle(store, a, retry(a, SECOND))

        with raises(StoreFull, "max_messages"):
            put(store, "c")

    def test_what_is_settled_makes_room(self, reopen: Reopen) -> None:
        store = reopen(max_messages=2, max_bytes=200, keep_delivered=dt.timedelta(days=1))
        for name in "abcd":
            put(store, mail(name, content=b"x" * 100))
            put(store, mail(f"{name}{name}", content=b"x" * 100))
            with raises(StoreFull, "max_messages"):
                put(store, "e")
            first, second = take(store)
            settle(store, first, delivered(first))
            settle(store, second, dead(second))

    @clause(SupportsManage)
    def test_what_is_cancelled_makes_room_and_what_is_requeued_takes_it(self, reopen: Reopen) -> None:
        store = reopen(max_messages=1)
        put(store, "a")
        store.cancel(["a"])
        put(store, "b")

        assert statuses(store.requeue(["a"])) == ["done"]
        assert ids(take(store)) == ["a", "b"]
        assert statuses(store.purge(["a"])) == ["leased"]
        with raises(StoreFull, "max_messages"):
            put(store, "c")

    @clause(SupportsHandOver)
    def test_what_is_put_claimed_needs_room_too(self, reopen: Reopen) -> None:
        store = reopen(max_messages=1)
        (claim,) = store.put_claimed([mail("a")], lease=LEASE)

        with raises(StoreFull, "max_messages"):
            store.put_claimed([mail("b")], lease=LEASE)
        settle(store, claim, delivered(claim))
        assert ids(store.put_claimed([mail("b")], lease=LEASE)) == ["b"]

    def test_what_was_there_counts_after_opening_again(self, reopen: Reopen) -> None:
        store = reopen()
        self.require_persistence()
        put(store, "a", "b", "c")
        take(store, 1)

        store = reopen(max_messages=3)
        with raises(StoreFull, "max_messages"):
            put(store, "d")
        store = reopen(max_messages=2)
        assert len(take(store)) == 2
        store = reopen(max_messages=4)
        put(store, "d")

    def test_threads_that_put_at_once_pass_no_limit(self, reopen: Reopen) -> None:
        store = reopen(max_messages=20)
        full: list[str] = []

        def act(thread: int) -> None:
            for n in range(5):
                try:
                    put(store, f"t{thread}-{n}")
                except StoreFull:
                    full.append("")

        together(8, act)

        assert len(full) == 20
        assert len(all_of(store)) == 20

    def test_however_it_ended_it_makes_room(self, reopen: Reopen) -> None:
        store = reopen(max_messages=1, max_bytes=100)
        for state, verdict in VERDICTS.items():
            put(store, mail(state, content=b"x" * 100))
            (claim,) = take(store)
            settle(store, claim, verdict(claim))

        put(store, mail("last", content=b"x" * 100))

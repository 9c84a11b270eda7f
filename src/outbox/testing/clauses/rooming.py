"""That what is counted against a limit is what waits: no step leaks room until all is full, and none gives it back twice."""

from __future__ import annotations

from typing import Final

from outbox.errors import ConflictError, StoreFull
from outbox.lifecycle import Claim, Settlement
from outbox.message import Message
from outbox.protocols import (
    Guarantee,
    SupportsExchange,
    SupportsHandOver,
    SupportsMaintain,
    SupportsManage,
)
from outbox.testing.clock import ManualClock

from .crowding import together
from .scene import (
    DAY,
    LEASE,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    mail,
    put,
    raises,
    released,
    retry,
    settle,
    statuses,
    take,
)

__all__ = ["RoomClauses"]

SIZE: Final = 100
ROOM: Final = 4


def full_size(id: str, *recipients: str) -> Message:
    return mail(id, *recipients, content=b"x" * SIZE)


def require_room(store: Whole, number: int) -> None:
    """So many more are taken, and not one beyond."""
    for n in range(number):
        put(store, full_size(f"probe{n}"))
    with raises(StoreFull):
        put(store, full_size("beyond"))


class RoomClauses(Clauses):
    """Room is neither lost nor won."""

    @clause(Guarantee.DEDUPLICATION)
    def test_what_is_refused_or_known_takes_no_room(self, reopen: Reopen) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE)
        put(store, full_size("a"))
        for _ in range(2):
            with raises(StoreFull):
                put(store, *(full_size(f"n{n}") for n in range(ROOM)))
            with raises(ConflictError):
                put(store, full_size("b"), full_size("a", "other@example.org"))
            assert statuses(store.put([full_size("a"), full_size("a")])) == ["known"] * 2

        require_room(store, ROOM - 1)

    @clause(SupportsManage)
    def test_what_is_purged_gives_its_room_back_once(self, reopen: Reopen) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE)
        put(store, full_size("a"), full_size("b"), full_size("stays"))
        store.cancel(["a", "b"])
        assert statuses(store.purge(["a", "b", "b", "stays"]))[:2] == ["done"] * 2

        require_room(store, ROOM - 1)

    @clause(SupportsManage, SupportsMaintain)
    def test_what_is_pruned_gives_its_room_back_once(self, reopen: Reopen, clock: ManualClock) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE, discard_after=DAY, keep_delivered=DAY)
        put(store, full_size("a"), full_size("b"))
        a, b = take(store)
        settle(store, a, dead(a))
        settle(store, b, delivered(b))
        clock.advance(2 * DAY)
        put(store, full_size("stays"))
        assert store.prune() >= 2

        require_room(store, ROOM - 1)

    @clause(SupportsManage, Guarantee.LEASES)
    def test_what_is_requeued_and_cancelled_takes_and_gives_its_room_once(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE)
        put(store, full_size("a"), full_size("b"), full_size("c"))
        take(store)
        clock.advance(LEASE)
        assert statuses(store.cancel(["a"])) == ["done"]
        for name in "bbcc":
            assert statuses(store.requeue([name], uncertain=True)) == ["done"]
        assert statuses(store.requeue(["a"], uncertain=True)) == ["done"]
        assert statuses(store.cancel(["a", "b"])) == ["done"] * 2

        require_room(store, ROOM - 1)

    @clause(Guarantee.LEASES, Guarantee.FENCING)
    def test_no_claim_takes_room_and_no_stale_settle_gives_any(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE)
        put(store, full_size("a"))
        (old,) = take(store)
        new = old
        for _ in range(ROOM):
            clock.advance(LEASE)
            (new,) = take(store)
            for verdict in (delivered, dead, retry):
                assert list(store.settle([Settlement(old, verdict(old))])) == [old]

        require_room(store, ROOM - 1)
        settle(store, new, delivered(new))

    def test_what_goes_back_into_the_queue_keeps_its_room(self, reopen: Reopen) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE)
        put(store, full_size("a"))
        for verdict in (released, retry, released, retry):
            (claim,) = take(store)
            settle(store, claim, verdict(claim))

        require_room(store, ROOM - 1)

    @clause(SupportsExchange)
    def test_an_exchange_gives_back_the_room_of_what_it_ends_and_of_nothing_else(
        self, reopen: Reopen
    ) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE)
        put(store, *(full_size(name) for name in "abcd"))
        a, b, c, d = take(store)
        verdicts = [
            Settlement(a, delivered(a)),
            Settlement(b, dead(b)),
            Settlement(c, retry(c)),
            Settlement(d, released(d)),
        ]
        assert list(store.exchange(verdicts, limit=9, lease=LEASE, queues=("mail",)).lost) == []

        require_room(store, 2)

    @clause(SupportsHandOver)
    def test_what_is_put_claimed_takes_its_room_once(self, reopen: Reopen) -> None:
        store = reopen(max_messages=ROOM, max_bytes=ROOM * SIZE)
        (claim,) = store.put_claimed([full_size("a")], lease=LEASE)
        put(store, full_size("b"))
        require_room(store, ROOM - 2)
        settle(store, claim, delivered(claim))

        put(store, full_size("c"))

    @clause(SupportsHandOver)
    def test_the_content_of_what_is_put_claimed_takes_room(self, reopen: Reopen) -> None:
        store = reopen(max_bytes=ROOM * SIZE)
        store.put_claimed([full_size("a"), full_size("b")], lease=LEASE)

        require_room(store, ROOM - 2)

    @clause(SupportsHandOver)
    def test_threads_that_hand_over_at_once_pass_no_limit(self, reopen: Reopen) -> None:
        store = reopen(max_messages=20)
        handed: list[Claim] = []
        full: list[str] = []

        def act(thread: int) -> None:
            for n in range(5):
                try:
                    handed.extend(store.put_claimed([mail(f"t{thread}-{n}")], lease=LEASE))
                except StoreFull:
                    full.append("")

        together(8, act)

        assert (len(handed), len(full)) == (20, 20)

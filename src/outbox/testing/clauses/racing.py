"""What holds when two verbs meet on one message: one of them comes first, and the other sees what it did.

Each clause lets them meet again and again, all at once, and judges what both
were told.  A store that looks, lets go and then writes is found by it, where
a millisecond lies between; what is closer together is for its own author to
prove.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from outbox.lifecycle import Claim, Settlement
from outbox.protocols import Guarantee, SupportsExchange, SupportsHandOver, SupportsMaintain, SupportsManage
from outbox.testing.clock import ManualClock

from .crowding import together
from .scene import (
    DAY,
    LEASE,
    Reopen,
    Whole,
    all_of,
    clause,
    dead,
    ids,
    mail,
    put,
    retry,
    settle,
    statuses,
    take,
)

__all__ = ["RaceClauses"]

ROUNDS = 20
_EAGER = 1e-5
A = TypeVar("A")
B = TypeVar("B")


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Let the interpreter change between threads often."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_EAGER)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def meet(number: int, one: Callable[[], A], other: Callable[[], B]) -> tuple[A, B]:
    """What the two answer that are called at once, each on its own thread.

    Whose thread starts last is mostly the first to act; so the two change
    places with each *number*.
    """
    answers: dict[object, Any] = {}
    acts = [one, other] if number % 2 else [other, one]

    def act(index: int) -> None:
        answers[acts[index]] = acts[index]()

    with eager():
        together(2, act)
    return answers[one], answers[other]


def at_once(two: Callable[[], Sequence[Claim]]) -> list[Claim]:
    """What eight threads are given that ask for two messages at once, again and again."""
    given: list[Claim] = []
    step = threading.Barrier(8, timeout=60)

    def act(_: int) -> None:
        for _ in range(ROUNDS // 2):
            step.wait()
            given.extend(two())

    with eager():
        together(8, act)
    return given


def lone(store: Whole) -> Iterator[str]:
    """A message in a queue of its own, again and again; yields the name of both."""
    for number in range(ROUNDS):
        name = f"m{number}"
        put(store, mail(name, queue=name))
        yield name


def leased(store: Whole) -> list[Claim]:
    """The same, all of them claimed."""
    return [claim for name in lone(store) for claim in take(store, 1, name)]


class RaceClauses:
    """Whoever comes second is told so."""

    def test_threads_that_claim_at_once_are_given_different_messages(self, store: Whole) -> None:
        """None settles before all have claimed: a message in two hands would hide behind the first settle."""
        put(store, *(mail(f"m{n:03}") for n in range(8 * ROUNDS)))
        given = at_once(lambda: take(store, 2))

        assert Counter(ids(given)) == Counter(f"m{n:03}" for n in range(8 * ROUNDS))
        assert list(store.settle([Settlement(claim, dead(claim)) for claim in given])) == []

    @clause(SupportsExchange)
    def test_threads_that_exchange_at_once_are_given_different_messages(self, store: Whole) -> None:
        put(store, *(mail(f"m{n:03}") for n in range(8 * ROUNDS)))
        given = at_once(lambda: store.exchange([], limit=2, lease=LEASE, queues=("mail",)).claims)

        assert Counter(ids(given)) == Counter(f"m{n:03}" for n in range(8 * ROUNDS))

    @clause(SupportsHandOver)
    def test_what_is_put_claimed_is_never_in_two_hands(self, store: Whole) -> None:
        done = threading.Event()

        def hand_over() -> list[Claim]:
            try:
                batches = [store.put_claimed([mail(f"m{n}")], lease=LEASE) for n in range(ROUNDS)]
            finally:
                done.set()
            return [claim for batch in batches for claim in batch]

        def claim() -> list[Claim]:
            claims = take(store)
            while not done.is_set():
                claims += take(store)
            return claims

        mine, theirs = meet(0, hand_over, claim)

        assert ids(theirs) == []
        assert ids(mine) == [f"m{n}" for n in range(ROUNDS)]

    @clause(SupportsHandOver, Guarantee.DEDUPLICATION)
    def test_threads_that_hand_over_the_same_ids_are_not_given_one_twice(self, store: Whole) -> None:
        given: list[Claim] = []
        step = threading.Barrier(4, timeout=60)

        def act(_: int) -> None:
            for n in range(ROUNDS):
                step.wait()
                given.extend(store.put_claimed([mail(f"m{n}")], lease=LEASE))

        with eager():
            together(4, act)

        assert Counter(ids(given + all_of(store))) == Counter(f"m{n}" for n in range(ROUNDS))

    def test_what_is_settled_while_its_lease_is_extended_stays_settled(
        self, store: Whole, clock: ManualClock
    ) -> None:
        claims = leased(store)
        for number, claim in enumerate(claims):
            _, stale = meet(
                number,
                partial(store.extend, [claim], lease=LEASE),
                partial(store.settle, [Settlement(claim, dead(claim))]),
            )
            assert list(stale) == []
        clock.advance(2 * LEASE)

        assert take(store, 100, *(claim.message.queue for claim in claims)) == []

    @clause(Guarantee.LEASES, Guarantee.FENCING)
    def test_a_lease_that_ran_out_is_either_extended_or_taken(self, store: Whole, clock: ManualClock) -> None:
        claims = leased(store)
        clock.advance(LEASE)
        for number, old in enumerate(claims):
            lost, new = meet(
                number, partial(store.extend, [old], lease=LEASE), partial(take, store, 1, old.message.queue)
            )

            assert len(new) == len(lost)
            holder = new[0] if new else old
            settle(store, holder, dead(holder))

    @clause(Guarantee.LEASES, Guarantee.FENCING)
    def test_a_lease_that_ran_out_is_either_settled_or_taken(self, store: Whole, clock: ManualClock) -> None:
        claims = leased(store)
        clock.advance(LEASE)
        for number, old in enumerate(claims):
            lost, new = meet(
                number,
                partial(store.settle, [Settlement(old, dead(old))]),
                partial(take, store, 1, old.message.queue),
            )

            assert len(new) == len(lost)
            for claim in new:
                settle(store, claim, dead(claim))

    @clause(Guarantee.LEASES, Guarantee.FENCING, SupportsExchange)
    def test_a_lease_that_ran_out_is_either_exchanged_or_taken(
        self, store: Whole, clock: ManualClock
    ) -> None:
        claims = leased(store)
        clock.advance(LEASE)
        for number, old in enumerate(claims):
            answer, new = meet(
                number,
                partial(store.exchange, [Settlement(old, dead(old))], limit=0, lease=LEASE, queues=("none",)),
                partial(take, store, 1, old.message.queue),
            )

            assert len(new) == len(answer.lost)
            for claim in new:
                settle(store, claim, dead(claim))

    @clause(SupportsManage)
    def test_a_requeue_takes_nothing_out_of_the_hands_that_claimed_it(self, store: Whole) -> None:
        for number, name in enumerate(lone(store)):
            _, claims = meet(number, partial(store.requeue, [name]), partial(take, store, 1, name))

            for claim in claims:
                assert take(store, 1, name) == []
                settle(store, claim, dead(claim))

    @clause(SupportsManage)
    def test_a_message_is_either_requeued_or_purged(self, store: Whole) -> None:
        for number, name in enumerate(lone(store)):
            (claim,) = take(store, 1, name)
            settle(store, claim, dead(claim))
            requeued, purged = meet(number, partial(store.requeue, [name]), partial(store.purge, [name]))

            answers = statuses([*requeued, *purged])
            assert answers in (["done", "refused"], ["unknown", "done"])
            assert len(take(store, 1, name)) == (answers[0] == "done")

    @clause(SupportsManage, SupportsMaintain)
    def test_what_is_requeued_while_the_store_is_pruned_is_not_discarded(
        self, reopen: Reopen, clock: ManualClock
    ) -> None:
        store = reopen(discard_after=DAY)
        for number in range(ROUNDS // 2):
            put(store, *"abcd")
            for claim in take(store):
                settle(store, claim, dead(claim))
            clock.advance(DAY)
            changes, _ = meet(number, partial(store.requeue, [*"abcd"]), store.prune)

            claims = take(store)
            assert ids(claims) == [change.id for change in changes if change.status == "done"]
            for claim in claims:
                settle(store, claim, dead(claim))
            store.purge([*"abcd"])

    @clause(SupportsManage, Guarantee.FENCING)
    def test_what_is_cancelled_at_the_end_of_its_lease_stays_cancelled(
        self, store: Whole, clock: ManualClock
    ) -> None:
        claims = leased(store)
        clock.advance(LEASE)
        for number, claim in enumerate(claims):
            _, changes = meet(
                number,
                partial(store.settle, [Settlement(claim, retry(claim))]),
                partial(store.cancel, [claim.message.id]),
            )

            assert statuses(changes) == ["done"]
            assert take(store, 1, claim.message.queue) == []

"""What holds for many threads at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from outbox.errors import ConflictError, StoreUnavailable
from outbox.lifecycle import Settlement
from outbox.protocols import Guarantee, SupportsBrowse, SupportsManage

from .scene import (
    Whole,
    all_of,
    clause,
    dead,
    delivered,
    ids,
    mail,
    put,
    raises,
    states,
    take,
)

__all__ = ["CrowdClauses"]


def together(number: int, act: Callable[[int], None]) -> None:
    """Run *act* on so many threads at once; what one raises is raised here."""
    failures: list[BaseException] = []
    start = threading.Barrier(number)

    def run(index: int) -> None:
        try:
            start.wait()
            act(index)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class CrowdClauses:
    """Safe to use from many threads."""

    def test_threads_claim_disjointly_and_each_message_is_settled_once(self, store: Whole) -> None:
        put(store, *(mail(f"m{n:03}") for n in range(200)))
        settled: Counter[str] = Counter()
        lock = threading.Lock()

        def work(_: int) -> None:
            while claims := take(store, 7):
                answer = store.settle([Settlement(claim, delivered(claim)) for claim in claims])
                with lock:
                    settled.update(ids(claims))
                assert list(answer) == []

        together(8, work)

        assert settled == Counter({f"m{n:03}": 1 for n in range(200)})

    def test_threads_put_at_once_and_all_of_it_is_there(self, store: Whole) -> None:
        together(8, lambda thread: put(store, *(f"t{thread}-{n}" for n in range(10))))

        assert sorted(ids(all_of(store))) == sorted(f"t{t}-{n}" for t in range(8) for n in range(10))

    @clause(Guarantee.DEDUPLICATION)
    def test_what_is_put_beside_a_put_of_the_same_that_fails_is_there_all_the_same(
        self, store: Whole
    ) -> None:
        put(store, "taken")
        names = [f"m{n:02}" for n in range(60)]

        def act(thread: int) -> None:
            for name in names:
                if thread:
                    with raises(ConflictError, "taken"):
                        store.put([mail(name), mail("taken", "another@example.org")])
                else:
                    put(store, name)

        together(2, act)

        assert sorted(ids(all_of(store))) == [*names, "taken"]

    @clause(Guarantee.DEDUPLICATION)
    def test_threads_that_put_the_same_id_store_it_once(self, store: Whole) -> None:
        answers: list[str] = []
        together(8, lambda _: answers.extend(result.status for result in store.put([mail("a")])))

        assert sorted(answers) == ["known"] * 7 + ["stored"]
        assert ids(take(store)) == ["a"]

    @clause(Guarantee.FENCING, SupportsBrowse)
    def test_threads_that_settle_the_same_claim_settle_it_once(self, store: Whole) -> None:
        put(store, "a")
        (claim,) = take(store)
        stale: list[int] = []
        together(8, lambda _: stale.append(len(store.settle([Settlement(claim, dead(claim))]))))

        assert sorted(stale) == [0] + [1] * 7
        record = store.get("a")
        assert record is not None
        assert len(record.history) == 1

    @clause(SupportsManage, SupportsBrowse)
    def test_a_message_is_either_cancelled_or_claimed(self, store: Whole) -> None:
        put(store, *(mail(f"m{n:02}") for n in range(40)))
        claimed: list[str] = []
        cancelled: list[str] = []

        def act(thread: int) -> None:
            if thread % 2:
                for n in range(40):
                    changes = store.cancel([f"m{n:02}"])
                    cancelled.extend(change.id for change in changes if change.status == "done")
            else:
                while claims := take(store, 3):
                    claimed.extend(ids(claims))

        together(4, act)

        assert sorted(claimed + cancelled) == [f"m{n:02}" for n in range(40)]
        found = states(store)
        assert all(found[name] == "cancelled" for name in cancelled)
        assert all(found[name] == "claimed" for name in claimed)

    def test_a_store_may_be_closed_while_others_use_it(self, store: Whole) -> None:
        """They are told that it is closed, or finish; nothing else."""
        started = threading.Barrier(4)

        def act(thread: int) -> None:
            started.wait()
            if thread == 0:
                store.close()
                return
            try:
                for n in range(50):
                    put(store, f"t{thread}-{n}")
                    take(store, 1)
            except StoreUnavailable:
                return

        together(4, act)

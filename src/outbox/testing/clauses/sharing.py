"""What holds for many processes at once, and when one of them is killed.

Each process opens the store as the suite does: it imports the suite's class
and calls its ``open`` with the same path and a clock that shows the same time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import multiprocessing
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import attrs

from outbox.lifecycle import Settlement
from outbox.protocols import Guarantee, SupportsBrowse, SupportsExchange, SupportsSuspend, Suspension
from outbox.testing.clock import ManualClock

from .scene import (
    LEASE,
    SECOND,
    Clauses,
    Whole,
    clause,
    dead,
    delivered,
    ids,
    line,
    mail,
    put,
    settle,
    states,
    statuses,
    take,
)

__all__ = ["ShareClauses"]

_PATIENCE: Final = 120.0
Act: TypeAlias = Callable[[Whole, int], Any]


@attrs.frozen(kw_only=True)
class _Errand:
    """What another process is to do."""

    suite: type[Clauses]
    path: Path
    now: dt.datetime
    act: Act
    number: int
    killed: bool


def _perform(errand: _Errand, ends: Connection) -> None:
    """In the other process: open the store, wait for the word, act, and answer."""
    try:
        store = cast(Whole, errand.suite().open(ManualClock(errand.now), errand.path))
        ends.send("ready")
        ends.recv()
        answer = errand.act(store, errand.number)
    except BaseException:  # noqa: BLE001 - told to the test, which fails of it
        ends.send(AssertionError(traceback.format_exc()))
        return
    ends.send(answer)
    if errand.killed:
        # As a kill leaves it: nothing is closed, nothing is flushed, no handler runs.
        os._exit(9)
    store.close()


@attrs.frozen
class _Other:
    """Another process, seen from the test."""

    process: Any
    ends: Connection

    def answer(self) -> Any:
        """What it has to say next; what it failed of is raised here."""
        if not self.ends.poll(_PATIENCE):
            raise AssertionError(f"another process said nothing for {_PATIENCE:.0f} s")
        try:
            said = self.ends.recv()
        except EOFError:
            raise AssertionError("another process died without a word") from None
        if isinstance(said, AssertionError):
            raise said
        return said


class ShareClauses(Clauses):
    """Safe to use from many processes, and safe from their death."""

    def elsewhere(
        self, clock: ManualClock, path: Path, act: Act, *, number: int = 1, killed: bool = False
    ) -> list[Any]:
        """The answers of so many processes that *act* at once."""
        with contextlib.ExitStack() as stack:
            errands = [
                _Errand(suite=type(self), path=path, now=clock.now(), act=act, number=n, killed=killed)
                for n in range(number)
            ]
            others = [stack.enter_context(_started(errand)) for errand in errands]
            assert [other.answer() for other in others] == ["ready"] * number
            for other in others:
                other.ends.send("go")
            return [other.answer() for other in others]

    def test_processes_claim_disjointly_and_each_message_is_settled_once(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        self.require_persistence()
        names = [f"m{n:03}" for n in range(120)]
        put(store, *names)

        answers = self.elsewhere(clock, tmp_path, _settle_all, number=4)

        settled = Counter(name for done, _ in answers for name in done)
        assert settled == Counter(names)
        assert [stale for _, stale in answers] == [0] * 4
        assert take(store) == []

    @clause(SupportsExchange)
    def test_processes_that_exchange_claim_disjointly_too(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        self.require_persistence()
        names = [f"m{n:03}" for n in range(120)]
        put(store, *names)

        answers = self.elsewhere(clock, tmp_path, _exchange_all, number=4)

        settled = Counter(name for done, _ in answers for name in done)
        assert settled == Counter(names)
        assert [stale for _, stale in answers] == [0] * 4

    @clause(Guarantee.DEDUPLICATION)
    def test_processes_that_put_the_same_ids_store_each_once(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        self.require_persistence()

        answers = self.elsewhere(clock, tmp_path, _put_ten, number=4)

        assert Counter(status for answer in answers for status in answer) == {"stored": 10, "known": 30}
        assert len(take(store)) == 10

    @clause(SupportsBrowse, Guarantee.LEASES, Guarantee.DEDUPLICATION)
    def test_what_a_killed_process_was_told_is_true(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        self.require_persistence()

        self.elsewhere(clock, tmp_path, _put_and_settle, killed=True)

        found = states(store)
        # Its claim need not have lasted; if it did, its lease ends.
        assert found.pop("claimed") in ("claimed", "queued")
        assert found == {"dead": "dead", "put": "queued"}
        assert statuses(store.put([mail("delivered")])) == ["known"]
        clock.advance(LEASE)
        back = [claim for _ in range(2) for claim in line(store)]
        assert sorted(ids(back)) == ["claimed", "put"]
        assert {claim.message.id: claim.lost for claim in back}["put"] == 0

    @clause(SupportsBrowse, Guarantee.LEASES)
    def test_that_a_killed_process_had_a_message_at_most_once_is_never_forgotten(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        self.require_persistence()
        put(store, mail("a", at_most_once=True))

        self.elsewhere(clock, tmp_path, _take_one, killed=True)

        assert take(store) == []
        clock.advance(LEASE - SECOND)
        assert take(store) == []
        clock.advance(SECOND)
        (claim,) = take(store)
        assert (claim.lost, claim.attempt) == (1, 2)

    @clause(SupportsSuspend)
    def test_what_one_process_suspends_no_other_claims(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        self.require_persistence()
        put(store, "a")

        self.elsewhere(clock, tmp_path, _suspend)

        assert take(store) == []
        store.unsuspend("queue", "mail")
        assert ids(take(store)) == ["a"]


@contextlib.contextmanager
def _started(errand: _Errand) -> Iterator[_Other]:
    # Spawned, not forked: a fork would bring this process's connections and locks along.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_perform, args=(errand, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield _Other(process, ours)
        process.join(_PATIENCE)
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


# -- what they do there


def _settle_all(store: Whole, _: int) -> tuple[list[str], int]:
    done: list[str] = []
    stale = 0
    while claims := take(store, 5):
        stale += len(store.settle([Settlement(claim, delivered(claim)) for claim in claims]))
        done += ids(claims)
    return done, stale


def _exchange_all(store: Whole, _: int) -> tuple[list[str], int]:
    done: list[str] = []
    stale = 0
    claims = take(store, 5)
    while claims:
        settlements = [Settlement(claim, delivered(claim)) for claim in claims]
        done += ids(claims)
        answer = store.exchange(settlements, limit=5, lease=LEASE, queues=("mail",))
        stale += len(answer.lost)
        claims = list(answer.claims)
    return done, stale


def _put_ten(store: Whole, _: int) -> list[str]:
    return [status for n in range(10) for status in statuses(store.put([mail(f"m{n}")]))]


def _put_and_settle(store: Whole, _: int) -> None:
    put(store, "claimed", "dead", "delivered")
    claims = {claim.message.id: claim for claim in take(store)}
    settle(store, claims["dead"], dead(claims["dead"]))
    settle(store, claims["delivered"], delivered(claims["delivered"]))
    put(store, "put")


def _take_one(store: Whole, _: int) -> list[str]:
    return ids(take(store, 1))


def _suspend(store: Whole, _: int) -> None:
    store.suspend(Suspension(kind="queue", value="mail"))

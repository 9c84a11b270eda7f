"""What every verb leaves behind: the same truth to whoever opens the store next, however it was left."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, TypeAlias

from outbox.lifecycle import Settlement, State, Summary
from outbox.protocols import (
    Guarantee,
    QueueCount,
    SupportsBrowse,
    SupportsExchange,
    SupportsHandOver,
    SupportsMaintain,
    SupportsManage,
    SupportsSuspend,
    SupportsWait,
    Suspension,
)
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    SECOND,
    VERDICTS,
    Clauses,
    Reopen,
    Whole,
    clause,
    dead,
    delivered,
    held,
    ids,
    mail,
    put,
    released,
    retry,
    settle,
    summaries,
    take,
)

__all__ = ["EndureClauses"]

STORY: Final = (Guarantee.LEASES, Guarantee.DEDUPLICATION, Guarantee.FENCING)
"""What the story asks for beside the capabilities."""
Story: TypeAlias = Generator[str, Whole, None]


def story(store: Whole, clock: ManualClock) -> Story:
    """Every verb once or more.  At each ``yield`` the store may have been closed and opened again."""
    put(store, *VERDICTS, "retried", "released", "extended", mail("later", not_before=clock.now() + DAY))
    store = yield "put"
    claims = {claim.message.id: claim for claim in take(store)}
    assert len(claims) == 7
    store = yield "claim"
    clock.advance(SECOND)
    assert list(store.extend(list(claims.values()), lease=2 * LEASE)) == []
    store = yield "extend"
    for state, verdict in VERDICTS.items():
        settle(store, claims[state], verdict(claims[state]))
        store = yield f"settle as {state}"
    settle(store, claims["retried"], retry(claims["retried"], SECOND))
    settle(store, claims["released"], released(claims["released"]))
    store = yield "settle as retry and as released"
    assert list(store.settle([Settlement(claims["dead"], held(claims["dead"]))])) == [claims["dead"]]
    store = yield "settle with a stale token"
    store.requeue(["dead", "held"])
    store = yield "requeue"
    store.cancel(["held", "later"])
    store = yield "cancel"
    store.purge(["expired", "later"])
    store = yield "purge"
    clock.advance(2 * LEASE)
    assert len(take(store, 1)) == 1
    store = yield "claim again"
    put(store, "released", "delivered", "extended")
    store = yield "put what is known"
    yield from _capable(store, clock)


def _capable(store: Whole, clock: ManualClock) -> Story:
    """The verbs that not every store has."""
    if isinstance(store, SupportsHandOver):
        (claim,) = store.put_claimed([mail("own", queue="other")], lease=LEASE)
        store = yield "put_claimed"
        if isinstance(store, SupportsExchange):
            answer = store.exchange([Settlement(claim, retry(claim))], limit=1, lease=LEASE, queues=["other"])
            assert ids(answer.claims) == ["own"]
            store = yield "exchange"
    if isinstance(store, SupportsSuspend):
        store.suspend(Suspension(kind="queue", value="mail", until=clock.now() + DAY, reason="enough"))
        store.suspend(Suspension(kind="queue", value="other"))
        store = yield "suspend"
        assert store.unsuspend("queue", "mail")
        store = yield "unsuspend"
    if isinstance(store, SupportsMaintain):
        clock.advance(30 * DAY)
        store.prune()
        yield "prune"


def truth(store: Whole) -> object:
    """All that there is to see."""
    seen = summaries(store)
    records = {name: store.get(name) for name in seen}
    due = store.next_due(["mail", "other"]) if isinstance(store, SupportsWait) else None
    stopped = list(store.suspensions()) if isinstance(store, SupportsSuspend) else None
    return seen, records, list(store.count()), due, stopped


def count(store: Whole, clock: ManualClock) -> list[QueueCount]:
    """What ``count`` should say, by the rows that ``browse`` shows."""
    groups: dict[tuple[str, State], list[Summary]] = {}
    for summary in store.browse(limit=10_000):
        groups.setdefault((summary.queue, summary.state), []).append(summary)
    stopped = {each.value for each in store.suspensions()} if isinstance(store, SupportsSuspend) else set()
    return [_counted(key, groups[key], clock.now(), stopped=key[0] in stopped) for key in sorted(groups)]


def _counted(key: tuple[str, State], rows: list[Summary], now: dt.datetime, *, stopped: bool) -> QueueCount:
    times = [at for row in rows if (at := row.due_at or row.leased_until)]
    due = [at for at in times if at <= now and not stopped]
    return QueueCount(
        queue=key[0],
        state=key[1],
        number=len(rows),
        due=len(due),
        oldest_at=min(row.submitted_at for row in rows),
        oldest_due_at=min(due, default=None),
    )


def follow(store: Whole, clock: ManualClock, after: Callable[[str, Whole], Whole]) -> None:
    """Tell the story, with whatever store *after* makes of it behind each verb."""
    told = story(store, clock)
    with contextlib.suppress(StopIteration):
        verb = next(told)
        while True:
            store = after(verb, store)
            verb = told.send(store)


def _opened_again(reopen: Callable[[], Whole], verb: str, store: Whole) -> Whole:
    before = truth(store)
    again = reopen()
    assert truth(again) == before, verb
    return again


class EndureClauses(Clauses):
    """Opened again after every verb."""

    @clause(SupportsBrowse, SupportsManage, *STORY)
    def test_after_every_verb_the_counts_are_the_rows(self, store: Whole, clock: ManualClock) -> None:
        def look(verb: str, store: Whole) -> Whole:
            assert list(store.count()) == count(store, clock), verb
            return store

        follow(store, clock, look)

    @clause(SupportsBrowse, SupportsManage, *STORY)
    def test_after_every_verb_the_store_that_is_opened_again_tells_the_same(
        self, store: Whole, reopen: Reopen, clock: ManualClock
    ) -> None:
        self.require_persistence()
        follow(store, clock, functools.partial(_opened_again, reopen))

    @clause(SupportsBrowse, SupportsManage, *STORY)
    def test_after_every_verb_the_store_tells_the_same_though_it_was_never_closed(
        self, store: Whole, reopen: Reopen, clock: ManualClock
    ) -> None:
        self.require_persistence()
        follow(store, clock, functools.partial(_opened_again, functools.partial(reopen, crash=True)))

    @clause(Guarantee.FENCING, Guarantee.LEASES)
    def test_a_token_of_one_object_fits_no_claim_of_another(
        self, reopen: Reopen, clock: ManualClock, tmp_path: Path
    ) -> None:
        """Nor one from before the store was opened again: a count that begins anew is no token."""
        self.require_persistence()
        store = reopen()
        put(store, "a")
        seen = []
        other = self.open(clock, tmp_path)
        try:
            for opened in (store, other, reopen(crash=True), reopen(crash=True)):
                (claim,) = take(opened)
                seen.append(claim)
                for stale in seen[:-1]:
                    assert list(opened.extend([stale], lease=LEASE)) == [stale]
                    assert list(opened.settle([Settlement(stale, dead(stale))])) == [stale]
                clock.advance(LEASE)
            settle(other, seen[-1], delivered(seen[-1]))
        finally:
            other.close()

        assert len({claim.token for claim in seen}) == 4

    @clause(Guarantee.FENCING)
    def test_two_objects_of_one_store_know_of_each_other_s_work(
        self, store: Whole, clock: ManualClock, tmp_path: Path
    ) -> None:
        self.require_persistence()
        other = self.open(clock, tmp_path)
        try:
            put(other, "a", "b")
            (a,) = take(store, 1)
            (b,) = take(other)
            assert {a.message.id, b.message.id} == {"a", "b"}
            settle(other, a, delivered(a))
            settle(store, b, dead(b))
            assert list(store.settle([Settlement(a, dead(a))])) == [a]
        finally:
            other.close()

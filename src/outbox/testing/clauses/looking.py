"""What can be seen: lists in pages, counts that are the rows, records that are whole."""

from __future__ import annotations

import datetime as dt
import itertools

from outbox.errors import CorruptRecord
from outbox.lifecycle import State
from outbox.protocols import Guarantee, QueueCount, SupportsBrowse, SupportsManage
from outbox.testing.clock import ManualClock

from .scene import (
    SECOND,
    Clauses,
    Whole,
    clause,
    dead,
    held,
    known,
    mail,
    put,
    raises,
    retry,
    settle,
    summaries,
    take,
)

__all__ = ["BrowseClauses"]


class BrowseClauses(Clauses):
    """The numbers shown are the rows there."""

    @clause(SupportsBrowse)
    def test_an_unknown_id_has_no_record(self, store: Whole) -> None:
        assert store.get("nobody") is None
        assert list(store.browse()) == []
        assert list(store.count()) == []

    @clause(SupportsBrowse)
    def test_a_record_holds_the_message_as_it_was_put(self, store: Whole) -> None:
        message = mail("a", "x@example.org", attributes={"k": "v"}, content=b"\xff\x00")
        put(store, message)

        record = known(store, "a")
        assert record.message == message
        assert record.message.attributes == message.attributes
        assert record.summary == summaries(store)["a"]
        assert record.history == ()

    @clause(SupportsBrowse)
    def test_pages_are_complete_and_without_repeats(self, store: Whole) -> None:
        names = sorted(["".join(pair) for pair in itertools.product("ab-_09", repeat=2)])
        put(store, *reversed(names))

        for size in (1, 5, 36, 100):
            seen: list[str] = []
            while page := store.browse(after=seen[-1] if seen else "", limit=size):
                assert len(page) <= size
                seen += [summary.id for summary in page]
            assert seen == names

    @clause(SupportsBrowse)
    def test_a_list_can_be_of_some_states_and_some_queues(self, store: Whole) -> None:
        put(store, *(mail(f"{queue}{n}", queue=queue) for queue in "xyz" for n in range(4)))
        for queue in "xy":
            first, second, third = take(store, 3, queue)
            settle(store, first, dead(first))
            settle(store, second, held(second))
            settle(store, third, retry(third))

        def listed(limit: int = 100, after: str = "", **criteria: object) -> list[str]:
            page = store.browse(after=after, limit=limit, **criteria)  # type: ignore[arg-type]  # the names are typed at the calls
            return [summary.id for summary in page]

        assert listed(states=[State.DEAD]) == ["x0", "y0"]
        assert listed(states=[State.HELD, State.DEAD]) == ["x0", "x1", "y0", "y1"]
        assert listed(states=[State.HELD, State.DEAD, State.QUEUED], queues=["y"]) == ["y0", "y1", "y2", "y3"]
        assert listed(states=[State.QUEUED], queues=["x", "z"]) == ["x2", "x3", "z0", "z1", "z2", "z3"]
        assert listed(queues=["z"]) == ["z0", "z1", "z2", "z3"]
        assert listed(states=[State.EXPIRED]) == []
        assert listed(queues=["nobody"]) == []
        assert listed(3, "x1", states=[State.DEAD, State.HELD, State.QUEUED]) == ["x2", "x3", "y0"]

    @clause(SupportsBrowse)
    def test_a_short_list_finds_what_stands_behind_many_others(self, store: Whole) -> None:
        """The filter comes before the limit."""
        put(store, *(mail(f"a{n:03}", queue="long", content=b"") for n in range(400)), "b")

        (found,) = store.browse(queues=["mail"], limit=1)
        assert found.id == "b"
        (claim,) = take(store)
        settle(store, claim, dead(claim))
        (found,) = store.browse(states=[State.DEAD], limit=1)
        assert found.id == "b"

    @clause(SupportsBrowse, SupportsManage)
    def test_the_counts_are_the_rows(self, store: Whole, clock: ManualClock) -> None:
        submitted = clock.now()
        put(store, *(mail(f"m{n}", priority=-n) for n in range(6)), mail("b0", queue="mail.bulk"))
        put(store, mail("later", not_before=clock.now() + dt.timedelta(hours=1), priority=-99))
        clock.advance(SECOND)
        claims = take(store, 5)
        settle(store, claims[0], dead(claims[0]))
        settle(store, claims[1], held(claims[1]))
        settle(store, claims[2], retry(claims[2]))
        store.cancel(["m5"])

        counts = list(store.count())

        assert counts == [
            QueueCount(queue="mail", state=State.CANCELLED, number=1, oldest_at=submitted),
            QueueCount(queue="mail", state=State.CLAIMED, number=2, oldest_at=submitted),
            QueueCount(queue="mail", state=State.DEAD, number=1, oldest_at=submitted),
            QueueCount(queue="mail", state=State.HELD, number=1, oldest_at=submitted),
            QueueCount(
                queue="mail",
                state=State.QUEUED,
                number=2,
                due=1,
                oldest_at=submitted,
                oldest_due_at=clock.now(),
            ),
            QueueCount(
                queue="mail.bulk",
                state=State.QUEUED,
                number=1,
                due=1,
                oldest_at=submitted,
                oldest_due_at=submitted,
            ),
        ]
        assert sum(count.number for count in counts) == len(store.browse(limit=100))

    @clause(SupportsBrowse, Guarantee.LEASES)
    def test_an_expired_lease_counts_as_due(self, store: Whole, clock: ManualClock) -> None:
        put(store, "a")
        take(store, lease=SECOND)
        ran_out = clock.now() + SECOND
        clock.advance(5 * SECOND)

        (count,) = store.count()

        assert (count.state, count.due, count.oldest_due_at) == (State.CLAIMED, 1, ran_out)

    @clause(SupportsBrowse)
    def test_a_damaged_record_is_reported_and_breaks_no_list(self, store: Whole) -> None:
        put(store, "a", "b", "c")
        self.corrupt(store, "b")

        with raises(CorruptRecord, "b"):
            store.get("b")
        assert list(summaries(store)) == ["a", "b", "c"]
        assert [count.number for count in store.count()] == [3]

    @clause(SupportsBrowse, SupportsManage)
    def test_a_damaged_record_can_be_cancelled_and_purged(self, store: Whole) -> None:
        put(store, "a")
        self.corrupt(store, "a")

        assert [change.status for change in (*store.cancel(["a"]), *store.purge(["a"]))] == ["done", "done"]
        assert list(store.browse()) == []

"""What a claim costs does not depend on how much is stored: counted in steps of SQLite's machine, not in seconds."""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outbox.filters import Filter
from outbox.lifecycle import Settlement, State
from outbox.stores.sqlite import SQLiteStore, browsing, claiming, pruning, putting, rows, settling
from outbox.testing.clauses.scene import LEASE, dead, delivered, mail, put, retry, settle, take
from outbox.testing.clock import ManualClock

HOUR = dt.timedelta(hours=1)
FEW, MANY = 200, 20_000


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[[], SQLiteStore]]:
    stores: list[SQLiteStore] = []

    def new() -> SQLiteStore:
        stores.append(SQLiteStore(tmp_path / f"{len(stores)}.db", clock=clock))
        return stores[-1]

    yield new
    for store in stores:
        store.close()


def steps(store: SQLiteStore, act: Callable[[], object]) -> int:
    """How many steps (by tens) SQLite's machine makes for *act*."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connections = both(store)
    for connection in connections:
        connection.set_progress_handler(tick, 10)
    act()
    for connection in connections:
        connection.set_progress_handler(None, 10)
    return count


def both(store: SQLiteStore) -> list[sqlite3.Connection]:
    """The connection that writes, and the one that this thread reads with."""
    links = store._database._links
    return [which().connection for which in (links.writes, links.reads)]


def round_of_ten(store: SQLiteStore) -> None:
    claims = take(store, 10)
    assert len(claims) == 10
    assert store.settle([Settlement(claim, delivered(claim)) for claim in claims]) == []


def nothing(store: SQLiteStore, clock: ManualClock, number: int) -> None:
    """The store as it is."""


def many_due(store: SQLiteStore, clock: ManualClock, number: int) -> None:
    put(store, *(mail(f"due{n:05}", priority=-1, content=b"") for n in range(number)))


def many_not_due(store: SQLiteStore, clock: ManualClock, number: int) -> None:
    later = clock.now() + HOUR
    put(store, *(mail(f"later{n:05}", priority=9, not_before=later, content=b"") for n in range(number)))


def many_leased(store: SQLiteStore, clock: ManualClock, number: int) -> None:
    many_due(store, clock, number)
    take(store, number, lease=HOUR)


def many_suspects(store: SQLiteStore, clock: ManualClock, number: int) -> None:
    many_due(store, clock, number)
    take(store, number, lease=HOUR)
    clock.advance(HOUR)
    for _ in range(number // 1000 + 1):  # each claim makes a thousand of them ready
        for claim in take(store, 1):
            settle(store, claim, dead(claim))


def many_in_another_queue(store: SQLiteStore, clock: ManualClock, number: int) -> None:
    put(store, *(mail(f"other{n:05}", priority=9, queue="other", content=b"") for n in range(number)))


def many_dead(store: SQLiteStore, clock: ManualClock, number: int) -> None:
    many_due(store, clock, number)
    assert store.settle([Settlement(claim, dead(claim)) for claim in take(store, number)]) == []


@pytest.mark.parametrize(
    "crowd", [many_due, many_not_due, many_leased, many_suspects, many_in_another_queue, many_dead]
)
def test_a_claim_and_its_settle_cost_the_same_beside_few_and_beside_many(
    opened: Callable[[], SQLiteStore],
    clock: ManualClock,
    crowd: Callable[[SQLiteStore, ManualClock, int], None],
) -> None:
    costs = []
    for number in (FEW, MANY):
        store = opened()
        crowd(store, clock, number)
        put(store, *(mail(f"mine{n}", priority=1) for n in range(10)))
        costs.append(steps(store, lambda store=store: round_of_ten(store)))  # type: ignore[misc]  # mypy cannot infer a default

    few, many = costs
    assert few > 0
    assert many < few * 1.2


def test_a_put_costs_the_same_beside_few_and_beside_many(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    costs = []
    for number in (FEW, MANY):
        store = opened()
        many_due(store, clock, number)
        costs.append(steps(store, lambda store=store: put(store, "a")))  # type: ignore[misc]  # mypy cannot infer a default

    few, many = costs
    assert many < few * 1.2


def test_an_empty_claim_and_the_next_due_cost_the_same(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    costs = []
    for number in (FEW, MANY):
        store = opened()
        many_not_due(store, clock, number)
        costs.append(steps(store, lambda store=store: (take(store), store.next_due(["mail"]))))  # type: ignore[misc]  # mypy cannot infer a default

    few, many = costs
    assert many < few * 1.2 + 1


def test_a_page_of_the_dead_costs_the_same_behind_many_that_live(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    costs = []
    for number in (FEW, MANY):
        store = opened()
        put(store, *(mail(f"{n:03}") for n in range(20)))
        assert store.settle([Settlement(claim, dead(claim)) for claim in take(store)]) == []
        many_due(store, clock, number)
        costs.append(steps(store, lambda store=store: store.browse(states=[State.DEAD], limit=10)))  # type: ignore[misc]  # mypy cannot infer a default

    few, many = costs
    assert many < few * 1.2


def test_a_claim_makes_no_more_than_a_thousand_ready(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    store = opened()
    many_not_due(store, clock, 2500)
    clock.advance(HOUR)
    take(store, 1)

    count = "SELECT count(*) FROM outbox_message WHERE stage = 2"
    ready = store._database.read(lambda sql: sql.execute(count).fetchone())
    assert ready == (999,)


@pytest.mark.parametrize(
    ("statement", "parameters", "index"),
    [
        (claiming._PROMOTE, ("mail", 1, 10), "outbox_scheduled"),
        (claiming._FIRST, {"queue": "mail", "limit": 10, "now": 1}, "outbox_ready"),
        (claiming._FIRST, {"queue": "mail", "limit": 10, "now": 1}, "outbox_suspect"),
        (claiming._FIRST, {"queue": "mail", "limit": 10, "now": 1}, "outbox_scheduled"),
        (claiming._DUE, {"queues": "[]", "now": 1}, "outbox_scheduled"),
        (claiming.BODIES, ("[]",), "PRIMARY KEY"),
        (claiming._TAKE, (1, "[]"), "PRIMARY KEY"),
        (claiming._EXTEND, (1, "a", "1"), "PRIMARY KEY"),
        (putting._KNOWN, {"ids": "[]", "since": 1}, "PRIMARY KEY"),
        (settling._HELD, ("[]",), "PRIMARY KEY"),
        (rows._WRITE, (0,) * 12, "PRIMARY KEY"),
        (rows._BURY, (1, "[]"), "PRIMARY KEY"),
        (rows._REMOVE_BODIES, ("[]",), "PRIMARY KEY"),
        (rows._REMOVE_ATTEMPTS, ("[]",), "outbox_history"),
        (rows._REMOVE_MESSAGES, ("[]",), "PRIMARY KEY"),
        (rows._ATTEMPTS, ("a",), "outbox_history"),
        (
            browsing._OF_STATE,
            {"queues": "[]", "raw": b"", "blob": False, "limit": 9, "state": "dead"},
            "outbox_settled",
        ),
        (pruning._GONE, (1, 10), "outbox_gone"),
        (pruning._AGED, ("dead", 1, 10), "outbox_aged"),
    ],
)
def test_no_statement_of_a_hot_path_scans_or_sorts(
    opened: Callable[[], SQLiteStore], statement: str, parameters: Any, index: str
) -> None:
    explain = f"EXPLAIN QUERY PLAN {statement}"
    plan = opened()._database.read(lambda sql: [row[3] for row in sql.execute(explain, parameters)])

    assert any(index in line for line in plan)
    for line in plan:
        assert "outbox" not in line or line.startswith("SEARCH"), plan
        assert "TEMP B-TREE" not in line, plan


def test_a_round_costs_two_commits(opened: Callable[[], SQLiteStore]) -> None:
    store = opened()
    put(store, *(mail(f"m{n}") for n in range(10)))
    committed: list[str] = []
    for connection in both(store):
        connection.set_trace_callback(committed.append)
    round_of_ten(store)

    assert len([text for text in committed if text.startswith("BEGIN IMMEDIATE")]) == 2
    assert len(committed) < 30


def test_a_retry_costs_one_commit(opened: Callable[[], SQLiteStore]) -> None:
    store = opened()
    put(store, "a")
    (claim,) = take(store, lease=LEASE)
    committed: list[str] = []
    for connection in both(store):
        connection.set_trace_callback(committed.append)
    settle(store, claim, retry(claim))

    assert [text for text in committed if text.startswith(("BEGIN", "COMMIT"))] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]


def settled(store: SQLiteStore, number: int, verdict: Callable[[Any], Any]) -> None:
    put(store, *(mail(f"a{n:05}", content=b"") for n in range(number)))
    for _ in range(0, number, 1000):
        store.settle([Settlement(claim, verdict(claim)) for claim in take(store, 1000)])


@pytest.mark.parametrize("verdict", [dead, delivered])
@pytest.mark.parametrize(
    "look",
    [
        lambda store: store.browse(states=[State.QUEUED]),
        lambda store: list(store.find(Filter(states=(State.QUEUED, State.CLAIMED)))),
        lambda store: store.glance(most=10),
    ],
)
def test_what_waits_is_found_without_wading_through_what_is_over(
    opened: Callable[[], SQLiteStore], verdict: Callable[[Any], Any], look: Callable[[SQLiteStore], object]
) -> None:
    made = []
    for number in (FEW, MANY // 4):
        store = opened()
        settled(store, number, verdict)
        put(store, *(mail(f"z{n}") for n in range(5)))
        made.append(steps(store, lambda: look(store)))  # noqa: B023 - it is called at once

    assert made[1] <= made[0] * 2 + 200, made


@pytest.mark.parametrize("prepare", [many_due, many_not_due, many_leased])
def test_a_glance_does_not_count_further_than_it_is_told(
    opened: Callable[[], SQLiteStore],
    clock: ManualClock,
    prepare: Callable[[SQLiteStore, ManualClock, int], None],
) -> None:
    made = []
    for number in (FEW, MANY // 4):
        store = opened()
        prepare(store, clock, number)
        made.append(steps(store, lambda: store.glance(most=10)))  # noqa: B023 - it is called at once

    assert made[1] <= made[0] * 2 + 200, made


def test_a_glance_at_little_is_a_count(opened: Callable[[], SQLiteStore], clock: ManualClock) -> None:
    store = opened()
    many_due(store, clock, 30)
    many_not_due(store, clock, 20)
    put(store, *(mail(f"bulk{n}", queue="mail.bulk") for n in range(3)))
    for verdict in (dead, delivered, retry):
        for claim in take(store, 4):
            settle(store, claim, verdict(claim))
    take(store, 3)
    clock.advance(HOUR)

    assert list(store.glance().counts) == list(store.count())


def test_a_glance_at_much_tells_the_least_that_there_is_and_since_when(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    store = opened()
    many_due(store, clock, 1)
    first = clock.now()
    clock.advance(HOUR)
    put(store, *(mail(f"urgent{n:03}", priority=9, content=b"") for n in range(200)))

    glance = store.glance(most=10)
    (ready,) = glance.counts
    assert (ready.number, ready.due, ready.more, ready.oldest_at) == (40, 40, True, None)
    assert ready.oldest_due_at == first
    assert glance.at_most == 201


def test_of_many_that_are_ready_no_more_is_read_than_is_told(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    store = opened()
    many_due(store, clock, FEW)
    asked: list[str] = []
    reading = both(store)[1]
    reading.set_trace_callback(asked.append)

    store.glance(most=10)

    reading.set_trace_callback(None)
    of_ready = [each for each in asked if "stage = 2 AND queue = 'mail'" in each and "count(*)" in each]
    assert len(of_ready) == 1, of_ready
    assert "submitted" not in of_ready[0]


def test_what_a_list_does_not_show_is_not_made(
    opened: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    settled(store, FEW, dead)
    made: list[str] = []

    def counted(row: rows.Row) -> Any:
        made.append(row[1])
        return summary(row)

    summary = browsing.summary
    monkeypatch.setattr(browsing, "summary", counted)
    found = list(itertools.islice(store.find(Filter(states=[State.DEAD])), 3))

    assert [each.id for each in found] == sorted(each.id for each in found)
    assert len(made) == len(found) == 3


def test_a_list_of_all_does_not_wade_through_ids_that_are_only_remembered(
    opened: Callable[[], SQLiteStore],
) -> None:
    made = []
    for number in (FEW, MANY // 4):
        store = opened()
        settled(store, number, delivered)
        put(store, *(mail(f"z{n}") for n in range(5)))
        made.append(steps(store, lambda: (store.browse(), list(store.find(Filter())))))  # noqa: B023 - it is called at once
        assert [each.id for each in store.find(Filter())] == [f"z{n}" for n in range(5)]

    assert made[1] <= made[0] * 2 + 200, made


def test_what_is_only_remembered_lengthens_no_walk_by_a_reading(
    opened: Callable[[], SQLiteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is too much else for the short way."""
    monkeypatch.setattr(browsing, "FEW", 10)
    store = opened()
    settled(store, MANY // 4, delivered)
    put(store, *(mail(f"z{n:02}") for n in range(20)))
    readings = 0
    read = store._database.read

    def counted(*args: Any, **named: Any) -> Any:
        nonlocal readings
        readings += 1
        return read(*args, **named)

    monkeypatch.setattr(store._database, "read", counted)

    assert len(list(store.find(Filter()))) == 20
    assert readings == 4  # no short way, where it begins, the page, and that there is no more


def test_a_filter_by_recipient_costs_little_more_than_to_go_along_the_rows(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    store = opened()
    many_due(store, clock, MANY // 2)
    without = steps(store, lambda: list(store.find(Filter(queues=["nowhere"]))))
    by_recipient = steps(store, lambda: list(store.find(Filter(recipients=["nobody@example.net"]))))

    assert by_recipient < without * 1.6, (without, by_recipient)


def test_a_purge_of_many_deletes_them_at_once(opened: Callable[[], SQLiteStore], clock: ManualClock) -> None:
    """While it does others wait."""
    store = opened()
    many_dead(store, clock, 100)
    ids = [summary.id for summary in store.browse(limit=100)]
    made: list[str] = []
    for connection in both(store):
        connection.set_trace_callback(made.append)
    changes = store.purge([*ids, ids[0]])

    assert [change.status for change in changes] == ["done"] * 100 + ["unknown"]
    assert len([text for text in made if "DELETE" in text]) == 3
    assert store.browse() == []


def test_who_asks_for_what_ended_lately_does_not_read_what_ended_before(
    opened: Callable[[], SQLiteStore], clock: ManualClock
) -> None:
    """As bounces do, each time a runner starts."""
    made = []
    for number in (FEW, MANY // 4):
        store = opened()
        many_dead(store, clock, number)
        clock.advance(HOUR)
        put(store, *(mail(f"a{n}") for n in range(5)))
        for claim in take(store, 5):
            settle(store, claim, dead(claim))
        sought = Filter(states=[State.DEAD, State.HELD], settled_since=clock.now() - HOUR / 2)
        made.append(steps(store, lambda: list(store.find(sought))))  # noqa: B023 - it is called at once
        assert [each.id for each in store.find(sought)] == [f"a{n}" for n in range(5)]
        assert [each.id for each in store.find(sought, after="a3")] == ["a4"]

    assert made[1] <= made[0] * 2, made

"""`status --ages`: how old what waits is, by domain, without each message being shown."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from command_line import CommandLine

from outbox import Message
from outbox.ages import Group
from outbox.cli.ages import ages
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore, aging, browsing
from outbox.testing.clauses.scene import dead, mail, put, settle, take
from outbox.testing.clock import ManualClock

MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


def message(number: int, *recipients: str) -> Message:
    return Message(id=f"m{number:03}", recipients=recipients, content=b"x")


def totals(groups: Iterator[Group]) -> Counter[tuple[int, Sequence[str]]]:
    found: Counter[tuple[int, Sequence[str]]] = Counter()
    for group in groups:
        found[group.age, tuple(sorted(group.domains))] += group.number
    return found


def test_every_message_counts_once_for_each_domain_it_has_yet_to_go_to(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message(n, "ann@example.net") for n in range(30)])
    store.put([message(40, "a@EXAMPLE.net", "b@example.net", "c@example.org")])
    store.put([message(41, '"odd @ \\" one"@example.org'), message(42, "x@[192.0.2.1]")])
    (told,) = outbox("status", "--ages", "--json").rows
    assert told["total"] == [33] + [0] * 9
    assert [(row["domain"], row["total"]) for row in told["rows"]] == [
        ("example.net", 31),
        ("example.org", 2),
        ("[192.0.2.1]", 1),
    ]


def test_what_is_over_is_not_counted_and_nothing_at_all_is_said_so(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store, "a")
    (claim,) = take(store)
    settle(store, claim, dead(claim))
    assert outbox("status", "--ages").out == "Nothing waits.\n"


def test_no_message_is_shown_for_it_and_a_reading_counts_a_bounded_number(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([message(n, f"u{n}@d{n % 3}.example") for n in range(50)])
    monkeypatch.setattr(aging, "_MANY", 10)
    monkeypatch.setattr(browsing, "summary", None)
    read, readings = store._database.read, []

    def counting(look: Any) -> Any:
        readings.append(1)
        return read(look)

    monkeypatch.setattr(store._database, "read", counting)

    assert sum(group.number for group in store.ages([])) == 50
    assert len(readings) == 6, "five that count ten rows each, and the one that finds the end"


def test_a_store_that_does_not_count_them_itself_is_looked_through(clock: ManualClock) -> None:
    store = MemoryStore(clock=clock)
    put(store, mail("old", "a@example.net", "b@EXAMPLE.org"))
    clock.advance(10 * MINUTE)
    put(store, mail("young", "a@example.net"))
    now = clock.now()

    assert totals(ages(store, [now - 5 * MINUTE, now - 20 * MINUTE])) == {
        (1, ("example.net", "example.org")): 1,
        (0, ("example.net",)): 1,
    }


def test_a_body_that_is_lost_leaves_a_message_without_a_domain_and_breaks_nothing(
    store: SQLiteStore,
) -> None:
    store.put([message(1, "a@example.net"), message(2, "b@example.net")])
    store._database.write(lambda sql: sql.execute("DELETE FROM outbox_body WHERE number = 1").rowcount)
    assert totals(store.ages([])) == {(0, ()): 1, (0, ("example.net",)): 1}

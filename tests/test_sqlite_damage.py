"""Whatever is wrong with a row of the SQLite store, it stops no other row and no command, and can be seen and removed."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outbox.errors import CorruptRecord, FormatError
from outbox.filters import Filter
from outbox.lifecycle import Fate, Settlement, State
from outbox.message import Message
from outbox.protocols import Suspension
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import (
    LEASE,
    SECOND,
    Whole,
    dead,
    delivered,
    ids,
    mail,
    put,
    released,
    retry,
    settle,
    states,
    statuses,
    summaries,
    take,
)
from outbox.testing.clock import ManualClock

DAY = dt.timedelta(days=1)
HUGE = (1 << 63) - 1

# What no claim can do anything with: the message is held.
UNREADABLE = [
    "fates = 'zz'",
    "fates = x'77ff'",
    "fates = ''",
    "state = 'bogus'",
    "state = x'00'",
    "state = 'dead'",
    "since = 'abc'",
    f"since = {HUGE}",
    "submitted = 'abc'",
    f"submitted = {HUGE}",
    "submitted = 1e300",
    "settled = 'abc'",
    "attempts = 'abc'",
    f"attempts = {HUGE}",
    "lost = 'x'",
    f"lost = {HUGE}",
    "reason = x'ff00'",
    "reason = CAST(x'ff' AS TEXT)",
    "size = 'abc'",
    "body = 'abc'",
    "body = x'00'",
    f"generation = {HUGE}",
    "id = CAST(id AS BLOB)",
    "id = CAST(x'ff' AS TEXT)",
]
# What a claim never comes upon, or does not need.
ODD = [
    "due = 'abc'",
    f"due = {HUGE}",
    "due = 1e300",
    "priority = 'abc'",
    "queue = x'00ff'",
    "queue = CAST(x'ff' AS TEXT)",
    "stage = 7",
    "stage = 'x'",
    "stage = 0, state = 'queued'",
    f"size = {HUGE}",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def store(path: Path, clock: ManualClock) -> Iterator[SQLiteStore]:
    with contextlib.closing(SQLiteStore(path, clock=clock, discard_after=DAY)) as store:
        yield store


def change(path: Path, statement: str) -> None:
    """Change the file behind the store's back."""
    with contextlib.closing(sqlite3.connect(path)) as sql, sql:
        sql.execute(statement)


def spoil(path: Path, what: str, id: str = "bad") -> None:
    change(path, f"UPDATE outbox_message SET {what} WHERE id = '{id}'")


def break_page(path: Path, content: bytes) -> None:
    """Let the pointer of the first overflow page of this content lead nowhere."""
    data = path.read_bytes()
    page = data.index(content) // 4096
    path.write_bytes(data[: page * 4096] + b"\xff\xff\xff\xf0" + data[page * 4096 + 4 :])


def break_first_leaf(path: Path) -> None:
    """Overwrite the first leaf of the tree of rows."""
    with contextlib.closing(sqlite3.connect(path)) as sql:
        (root,) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'outbox_message'").fetchone()
    data = bytearray(path.read_bytes())
    # An inner page: behind its header of 12 bytes is where its first cell is, which begins with the page it leads to.
    start = (root - 1) * 4096
    (cell,) = struct.unpack_from(">H", data, start + 12)
    (leaf,) = struct.unpack_from(">I", data, start + cell)
    data[(leaf - 1) * 4096 : leaf * 4096] = b"\xff" * 4096
    path.write_bytes(data)


def ready(store: SQLiteStore, clock: ManualClock) -> None:
    put(store, "bad")


def scheduled(store: SQLiteStore, clock: ManualClock) -> None:
    put(store, mail("bad", not_before=clock.now() + LEASE))


def leased(store: SQLiteStore, clock: ManualClock) -> None:
    put(store, "bad")
    take(store)


def held(store: Whole) -> list[str]:
    return [summary.id for summary in store.browse(states=[State.HELD])]


# -- claims


@pytest.mark.parametrize("stands", [ready, scheduled, leased])
@pytest.mark.parametrize("what", UNREADABLE)
def test_a_row_that_cannot_be_read_is_held_with_the_reason_and_the_others_are_claimed(
    store: SQLiteStore,
    path: Path,
    clock: ManualClock,
    stands: Callable[[SQLiteStore, ManualClock], None],
    what: str,
) -> None:
    stands(store, clock)
    spoil(path, what)
    clock.advance(LEASE)
    put(store, "x", "y", "z")

    found = ids(take(store, 2, lease=DAY)) + ids(take(store, 2, lease=DAY)) + ids(take(store, 2, lease=DAY))

    assert sorted(found) == ["x", "y", "z"]
    (name,) = held(store)
    assert summaries(store)[name].reason
    assert statuses(store.purge([name])) == ["done"]
    assert list(states(store)) == ["x", "y", "z"]


def test_many_that_cannot_be_read_are_held_in_one_claim(store: SQLiteStore, path: Path) -> None:
    put(store, *(mail(f"bad{n:02}", priority=1) for n in range(20)), "z")
    change(path, "UPDATE outbox_message SET reason = CAST(x'ff' AS TEXT) WHERE id LIKE 'bad%'")

    assert ids(take(store, 1)) == ["z"]
    assert len(held(store)) == 20


def test_kinds_of_damage_that_are_found_in_different_ways_do_not_hide_behind_each_other(
    store: SQLiteStore, path: Path
) -> None:
    put(store, *(mail(f"{n}", priority=9 - n) for n in range(8)), "z")
    change(path, "DELETE FROM outbox_body WHERE number <= 6")
    change(path, "UPDATE outbox_message SET reason = CAST(x'ff' AS TEXT) WHERE id IN ('6', '7')")

    assert ids(take(store, 1)) == ["z"]
    assert len(held(store)) == 8


def test_a_damaged_page_of_what_becomes_due_stops_no_other(path: Path, clock: ManualClock) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        put(store, mail("bad", content=b"A" * 50_000))
        (claim,) = take(store)
        settle(store, claim, retry(claim, SECOND))
    break_page(path, b"A" * 4000)

    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        clock.advance(SECOND)
        put(store, "good")
        assert ids(take(store)) == ["good"]
        assert held(store) == ["bad"]


@pytest.mark.parametrize("state", ["'bogus'", "x'00'"])
def test_where_nobody_can_tell_whether_it_was_claimed_it_is_in_doubt(
    store: SQLiteStore, path: Path, clock: ManualClock, state: str
) -> None:
    """Its worker may have sent it: a requeue that says nothing of that must not send it again."""
    leased(store, clock)
    spoil(path, f"state = {state}")
    clock.advance(LEASE)

    assert take(store) == []
    assert statuses(store.requeue(["bad"])) == ["refused"]
    assert statuses(store.requeue(["bad"], uncertain=True)) == ["done"]
    (claim,) = take(store)
    assert claim.fates == {"bad@example.org": Fate.DOUBTFUL}


@pytest.mark.parametrize("due", ["'abc'", f"{HUGE}", "1e300"])
def test_what_is_due_at_no_time_that_there_is_is_held_when_the_store_is_next_looked_after(
    store: SQLiteStore, path: Path, clock: ManualClock, due: str
) -> None:
    scheduled(store, clock)
    put(store, mail("later", queue="other", not_before=clock.now() + DAY))
    spoil(path, f"due = {due}")
    assert store.next_due(["mail"]) is None
    assert take(store) == []

    store.prune()

    assert held(store) == ["bad"]
    assert "due" in summaries(store)["bad"].reason
    assert states(store)["later"] == State.QUEUED


def test_a_size_that_is_none_keeps_nobody_out(path: Path, clock: ManualClock) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock, max_bytes=1000)) as store:
        put(store, "a", "b")
        spoil(path, f"size = {HUGE}", "a")
        spoil(path, "size = -5", "b")
        clock.advance(2 * SECOND)

        put(store, "c")

        assert len(states(store)) == 3


# -- settling


@pytest.mark.parametrize("what", ["fates = 'zz'", "reason = CAST(x'ff' AS TEXT)", "settled = 'abc'"])
def test_a_verdict_replaces_what_cannot_be_read(
    path: Path, clock: ManualClock, store: SQLiteStore, what: str
) -> None:
    put(store, "good", "bad")
    claims = take(store)
    spoil(path, what)

    assert list(store.settle([Settlement(claim, dead(claim)) for claim in claims])) == []
    assert states(store) == {"bad": State.DEAD, "good": State.DEAD}


@pytest.mark.parametrize(
    "what", ["submitted = 'abc'", "attempts = x'00'", "since = CAST(x'ff' AS TEXT)", f"lost = {HUGE}"]
)
@pytest.mark.parametrize("verdict", [delivered, dead, retry, released])
def test_a_verdict_on_a_row_that_cannot_be_read_is_noted_and_the_others_are_written(
    path: Path, clock: ManualClock, what: str, verdict: Callable[[Any], Any]
) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock, keep_delivered=DAY)) as store:
        put(store, "bad", "good")
        bad, good = take(store)
        spoil(path, what)

        assert list(store.settle([Settlement(bad, verdict(bad)), Settlement(good, delivered(good))])) == []

        assert states(store) == {"bad": State.HELD, "good": State.DELIVERED}
        summary = summaries(store)["bad"]
        assert "cannot be read" in summary.reason
        assert verdict(bad).event in summary.reason
        assert summary.fates == verdict(bad).fates
        record = store.get("bad")
        assert record is not None
        known = verdict is not released and "CAST" not in what
        assert [attempt.event for attempt in record.history] == [verdict(bad).event] * known
        clock.advance(LEASE)
        assert take(store) == []


def test_what_was_delivered_is_settled_although_its_content_cannot_be_removed(
    path: Path, clock: ManualClock
) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        put(store, mail("bad", content=b"A" * 50_000), "good")
        claims = take(store)
    break_page(path, b"A" * 4000)

    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        assert list(store.settle([Settlement(claim, delivered(claim)) for claim in claims])) == []
        clock.advance(LEASE)
        assert take(store) == []
        assert states(store) == {}
        assert statuses(store.put([mail("good")])) == ["known"]


# -- commands, lists and upkeep


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("what", [*UNREADABLE, *ODD])
def test_no_row_that_cannot_be_read_keeps_a_command_from_the_others(
    store: SQLiteStore, path: Path, clock: ManualClock, what: str, settled: bool
) -> None:
    put(store, "bad", "good")
    if settled:
        for claim in take(store):
            settle(store, claim, dead(claim))
    spoil(path, what)

    assert len(store.browse()) == 2
    assert len(list(store.find(Filter()))) == 2
    assert {summary.id for summary in store.browse(states=list(State))} >= {"good"}
    assert sum(count.number for count in store.count()) >= 1
    assert any(finding.level == "error" for finding in store.check()) is not (
        settled and what == "state = 'dead'"
    )
    name = next(summary.id for summary in store.browse() if summary.id != "good")
    with contextlib.suppress(CorruptRecord):
        store.get(name)
    store.next_due(["mail"])
    store.requeue(["good", name])
    store.requeue(["good", name], uncertain=True)
    store.cancel(["good", name])
    assert statuses(store.purge(["good", name])) == ["done", "done"]
    assert list(store.browse()) == []


@pytest.mark.parametrize("what", [*UNREADABLE, *ODD])
def test_no_row_that_cannot_be_read_keeps_the_others_from_being_pruned(
    store: SQLiteStore, path: Path, clock: ManualClock, what: str
) -> None:
    put(store, "bad", "good")
    for claim in take(store):
        settle(store, claim, dead(claim))
    spoil(path, what)
    clock.advance(2 * DAY)

    store.prune()

    assert "good" not in states(store)


def test_an_id_that_cannot_be_read_is_not_remembered_for_ever(
    store: SQLiteStore, path: Path, clock: ManualClock
) -> None:
    put(store, "bad", "good")
    for claim in take(store):
        settle(store, claim, delivered(claim))
    spoil(path, "id = CAST(x'ff' AS TEXT)")
    clock.advance(30 * DAY)

    assert store.prune() == 2


def test_a_leased_row_that_cannot_be_read_is_left_to_its_worker(
    store: SQLiteStore, path: Path, clock: ManualClock
) -> None:
    leased(store, clock)
    spoil(path, "fates = 'zz'")

    for command in (store.requeue, store.cancel, store.purge):
        assert statuses(command(["bad"])) == ["leased"]
    clock.advance(LEASE)
    assert statuses(store.purge(["bad"])) == ["done"]


def test_a_row_that_cannot_be_read_is_shown_in_its_state_with_the_reason(
    store: SQLiteStore, path: Path, clock: ManualClock
) -> None:
    scheduled(store, clock)
    spoil(path, "fates = 'zz'")

    (summary,) = store.browse(states=[State.QUEUED])
    assert (summary.state, [count.state for count in store.count()]) == (State.QUEUED, [State.QUEUED])
    assert "cannot be read" in summary.reason


def test_what_cannot_be_read_is_named_by_check(store: SQLiteStore, path: Path) -> None:
    put(store, *(mail(f"bad{n}") for n in range(7)), "good")
    change(path, "UPDATE outbox_message SET since = 'abc' WHERE id LIKE 'bad%'")

    (finding,) = [finding for finding in store.check() if finding.level == "error"]

    assert "7 messages" in finding.text
    assert "bad0 (its since is no number)" in finding.text
    assert "2 more" in finding.text
    assert "purge" in finding.advice


@pytest.mark.parametrize("page", [1, 2, 3])
def test_ids_that_cannot_be_read_are_paged_through_like_others(
    store: SQLiteStore, path: Path, page: int
) -> None:
    put(store, "a", "b", "c", "d", "e")
    change(path, "UPDATE outbox_message SET id = CAST('b' AS BLOB) WHERE id = 'b'")
    change(path, "UPDATE outbox_message SET id = CAST(x'61ff' AS TEXT) WHERE id = 'c'")
    change(path, "UPDATE outbox_message SET id = '\\xff' WHERE id = 'd'")

    seen: list[str] = []
    while len(seen) < 9 and (found := store.browse(after=seen[-1] if seen else "", limit=page)):
        seen += [summary.id for summary in found]

    assert sorted(seen) == sorted(["a", "x'62'", "a\\xff", "\\xff", "e"])
    assert statuses(store.cancel(seen)) == ["done"] * 5
    assert statuses(store.purge(seen)) == ["done"] * 5


def test_what_lies_on_a_damaged_page_can_be_purged(path: Path, clock: ManualClock) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        put(store, mail("bad", content=b"A" * 50_000), "good")
    break_page(path, b"A" * 4000)

    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        assert statuses(store.cancel(["bad", "good"])) == ["done", "done"]
        assert statuses(store.purge(["bad", "good"])) == ["done", "done"]
        assert states(store) == {}


def test_what_lies_on_a_damaged_page_is_pruned_with_the_others(path: Path, clock: ManualClock) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        put(store, mail("bad", content=b"A" * 50_000), "good")
        store.cancel(["bad", "good"])
    break_page(path, b"A" * 4000)

    with contextlib.closing(SQLiteStore(path, clock=clock, discard_after=DAY)) as store:
        clock.advance(DAY)
        assert store.prune(limit=10) == 2
        assert states(store) == {}


def test_a_body_that_another_row_points_at_too_is_not_removed_with_it(store: SQLiteStore, path: Path) -> None:
    put(store, "good", "bad")
    change(path, "UPDATE outbox_message SET body = (SELECT body FROM outbox_message WHERE id = 'good')")

    assert ids(take(store)) == ["good"]
    assert statuses(store.purge(["bad"])) == ["done"]
    record = store.get("good")
    assert record is not None
    assert record.message == mail("good")


@pytest.mark.parametrize(
    "what",
    [
        "event = 'bogus'",
        "at = 'abc'",
        f"at = {HUGE}",
        "number = 'x'",
        "results = x'00'",
        "results = '[]'",
        "reason = x'00'",
    ],
)
def test_a_history_that_cannot_be_read_says_so(store: SQLiteStore, path: Path, what: str) -> None:
    put(store, "bad")
    (claim,) = take(store)
    settle(store, claim, dead(claim))
    change(path, f"UPDATE outbox_attempt SET {what}")

    with pytest.raises(CorruptRecord, match="bad: an attempt in its history"):
        store.get("bad")
    assert statuses(store.purge(["bad"])) == ["done"]


# -- suspensions and the version


@pytest.mark.parametrize("until", ["'abc'", "x'00'", f"{HUGE}"])
def test_a_suspension_whose_end_cannot_be_read_lasts_until_it_is_taken_back(
    store: SQLiteStore, path: Path, clock: ManualClock, until: str
) -> None:
    put(store, "a")
    store.suspend(Suspension(kind="queue", value="mail", until=clock.now() + SECOND, reason="holidays"))
    change(path, f"UPDATE outbox_suspension SET until = {until}")
    clock.advance(DAY)

    (suspension,) = store.suspensions()
    assert (suspension.value, suspension.until) == ("mail", None)
    assert "cannot be read" in suspension.reason
    assert "holidays" in suspension.reason
    assert take(store) == []
    assert store.unsuspend("queue", "mail") is True
    assert ids(take(store)) == ["a"]


@pytest.mark.parametrize("what", ["kind = 'bogus'", "reason = x'00ff'", "value = CAST(x'ff' AS TEXT)"])
def test_a_suspension_that_cannot_be_read_keeps_no_other_from_being_shown(
    store: SQLiteStore, path: Path, what: str
) -> None:
    store.suspend(Suspension(kind="domain", value="example.com"))
    change(path, f"UPDATE outbox_suspension SET {what}")
    store.suspend(Suspension(kind="queue", value="mail"))

    assert "mail" in [suspension.value for suspension in store.suspensions()]


@pytest.mark.parametrize("version", ["x'32'", "2.0", "''"])
def test_a_version_that_is_none_is_refused(store: SQLiteStore, path: Path, version: str) -> None:
    change(path, f"UPDATE outbox_meta SET value = {version} WHERE name = 'version'")

    with pytest.raises(FormatError, match="of version"):
        SQLiteStore(path)


@pytest.mark.parametrize("stage", [0, 4, 7])
def test_a_message_that_damage_took_out_of_the_queue_is_named_and_can_be_put_back(
    store: SQLiteStore, path: Path, stage: int
) -> None:
    put(store, "bad")
    spoil(path, f"stage = {stage}")
    assert take(store) == []

    (finding,) = [finding for finding in store.check() if finding.level == "error"]
    assert f"bad (its stage is {stage}" in finding.text
    assert statuses(store.requeue(["bad"])) == ["done"]
    assert ids(take(store)) == ["bad"]


def test_check_reports_what_it_can_where_a_page_of_rows_is_damaged(path: Path, clock: ManualClock) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        put(store, *(f"m{n:03}" for n in range(300)))
    break_first_leaf(path)

    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        errors = [finding.text for finding in store.check() if finding.level == "error"]
        assert any("not every message can be read" in text for text in errors)


def test_a_command_on_what_no_page_holds_any_more_is_done_for_the_others(
    path: Path, clock: ManualClock
) -> None:
    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        put(store, *(f"m{n:03}" for n in range(300)))
    break_first_leaf(path)

    with contextlib.closing(SQLiteStore(path, clock=clock)) as store:
        with pytest.raises(CorruptRecord):
            store.cancel(["m000", "m299"])
        record = store.get("m299")
        assert record is not None
        assert record.summary.state == State.CANCELLED


def aged(path: Path, clock: ManualClock, *messages: Message | str) -> None:
    """Cancelled, and past all keeping."""
    with contextlib.closing(SQLiteStore(path, clock=clock, discard_after=DAY)) as store:
        put(store, *messages)
        store.cancel([message if isinstance(message, str) else message.id for message in messages])
    clock.advance(2 * DAY)


def test_what_lies_on_a_damaged_leaf_keeps_no_other_from_being_pruned(path: Path, clock: ManualClock) -> None:
    aged(path, clock, *(f"m{number:03}" for number in range(120)))
    break_first_leaf(path)

    with contextlib.closing(SQLiteStore(path, clock=clock, discard_after=DAY)) as store:
        for _ in range(2):
            with pytest.raises(CorruptRecord):
                store.prune(limit=100)
        assert store.get("m119") is None


def test_a_prune_without_bound_ends_although_a_body_cannot_be_removed(
    path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    aged(path, clock, mail("bad", content=b"A" * 50_000), "good")
    break_page(path, b"A" * 4000)

    with contextlib.closing(SQLiteStore(path, clock=clock, discard_after=DAY)) as store:
        assert store.prune(limit=10**9) == 2
        assert store.prune(limit=10**9) == 0
        assert states(store) == {}
    assert "indexes" not in caplog.text


def test_a_suspension_whose_name_is_no_text_keeps_nothing_from_being_sent(
    store: SQLiteStore, path: Path
) -> None:
    store.suspend(Suspension(kind="queue", value="bulk"))
    change(path, "UPDATE outbox_suspension SET value = CAST(x'ff' AS TEXT)")

    assert ids(store.put_claimed([mail("a")], lease=LEASE)) == ["a"]


def test_many_are_put_although_damage_has_made_the_last_number_of_a_body_the_last_there_is(
    store: SQLiteStore, path: Path
) -> None:
    put(store, "bad")
    change(path, f"UPDATE outbox_body SET number = {HUGE}")

    put(store, "a", "b")

    assert ids(take(store)) == ["a", "b"]

"""A row that somebody else has written to stops nothing but itself, and can be seen, thrown away and pruned."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_places import Places

from outbox.filters import Filter
from outbox.lifecycle import State
from outbox.stores.postgres import PostgresStore, settling
from outbox.testing.clauses.scene import DAY, LEASE, SECOND, delivered, ids, mail, put, settle, statuses, take
from outbox.testing.clock import ManualClock

DAMAGE = ["fates = 'z'", "fates = ''", "due = 9223372036854775807", "submitted = -9223372036854775808"]


@pytest.fixture
def store(place: Path, postgres: Places, clock: ManualClock) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place, clock=clock, discard_after=DAY)) as store:
        yield store


def spoil(store: PostgresStore, postgres: Places, what: str) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        done = connection.execute(
            f"UPDATE {store._names.schema}.outbox_message SET {what} WHERE id = 'bad'".encode()
        )
        assert done.rowcount == 1


@pytest.mark.parametrize("what", ["due = 9223372036854775807", "submitted = -9223372036854775808"])
def test_what_has_no_time_any_more_can_be_put_back(store: PostgresStore, postgres: Places, what: str) -> None:
    put(store, "bad")
    spoil(store, postgres, what)

    assert [each.status for each in store.requeue(["bad"])] == ["done"]
    assert ids(take(store)) == ["bad"]


@pytest.mark.parametrize("what", ["fates = 'z'", "fates = ''"])
def test_a_command_on_its_neighbours_does_what_it_says_and_it_is_held(
    store: PostgresStore, postgres: Places, what: str
) -> None:
    put(store, "a", "bad", "c")
    spoil(store, postgres, what)

    assert [each.status for each in store.cancel(["a", "c", "nobody"])] == ["done", "done", "unknown"]
    assert [each.status for each in store.requeue(["a", "bad", "c"])] == ["done", "refused", "done"]
    assert [each.status for each in store.cancel(["a", "bad"])] == ["done", "done"]
    assert [each.status for each in store.purge(["a", "bad"])] == ["done", "done"]

    assert ids(take(store)) == ["c"]
    assert statuses(store.put([mail("bad")])) == ["known"], "somebody may have received it"


@pytest.mark.parametrize("what", DAMAGE)
def test_it_is_pruned_with_the_others(
    store: PostgresStore, postgres: Places, clock: ManualClock, what: str
) -> None:
    put(store, "a", "bad", "c")
    store.cancel(["a", "bad", "c"])
    spoil(store, postgres, what)
    clock.advance(DAY)

    assert store.prune() == 3
    assert list(store.browse()) == []


def test_what_a_worker_has_is_not_taken_from_him_because_it_is_damaged(
    store: PostgresStore, postgres: Places, clock: ManualClock
) -> None:
    put(store, "bad")
    (claim,) = take(store)
    spoil(store, postgres, "fates = 'z'")

    assert [each.status for each in (*store.cancel(["bad"]), *store.purge(["bad"]))] == ["leased", "leased"]
    settle(store, claim, delivered(claim))
    assert list(store.browse()) == []
    clock.advance(SECOND)


@pytest.mark.parametrize("what", DAMAGE)
def test_it_is_counted_and_listed(store: PostgresStore, postgres: Places, what: str) -> None:
    put(store, "a", "bad")
    store.hold(["a"], reason="wait")
    spoil(store, postgres, what)

    assert sum(each.number for each in store.count()) == 2
    assert sum(each.number for each in store.glance().counts) == 2
    assert [each.id for each in store.browse()] == ["a", "bad"]
    assert {each.id for each in store.find(Filter())} == {"a", "bad"}
    assert sum(group.number for group in store.ages([])) == 1


@pytest.mark.parametrize(
    "what", ["stage = 9", "stage = 0", "stage = 0, state = 'lost'", "stage = -1, state = 'lost'"]
)
def test_check_names_what_no_claim_comes_by_and_what_it_says_helps(
    store: PostgresStore, postgres: Places, what: str
) -> None:
    """A newer release may have written it, too."""
    put(store, "a", "bad", "kept", "gone")
    store.hold(["kept"], reason="wait")
    store.cancel(["gone"])
    assert [each for each in store.check() if each.level == "error"] == []
    spoil(store, postgres, what)
    assert ids(take(store)) == ["a"]

    (found,) = [each for each in store.check() if each.level == "error"]
    assert found.text.startswith("1 message")
    assert "'bad'" in found.text
    assert "outbox requeue ID" in found.advice
    assert [each.status for each in store.requeue(["bad"])] == ["done"]
    assert [each for each in store.check() if each.level == "error"] == []
    assert ids(take(store)) == ["bad"]


def test_of_many_it_names_some(store: PostgresStore, postgres: Places) -> None:
    put(store, *(f"m{n:02}" for n in range(12)))
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"UPDATE {store._names.schema}.outbox_message SET stage = 9".encode())

    (found,) = [each for each in store.check() if each.level == "error"]
    assert "12 messages" in found.text
    assert found.text.endswith("'m03', 'm04' and 7 more")


def test_two_that_are_counted_as_held_are_one_count(store: PostgresStore, postgres: Places) -> None:
    put(store, "a", "bad")
    store.hold(["a"], reason="wait")
    spoil(store, postgres, "state = 'lost'")

    (count,) = store.count()
    assert (count.state, count.number) == (State.HELD, 2)
    assert sum(each.number for each in store.glance().counts) == 2


def test_what_cannot_be_held_now_keeps_no_other_from_whoever_claimed_it(
    store: PostgresStore, postgres: Places, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", "bad")
    spoil(store, postgres, "fates = 'z'")

    def locked(*_: object, **__: object) -> None:
        raise psycopg.errors.LockNotAvailable("a lock cannot be had now")

    with monkeypatch.context() as patch:
        patch.setattr(settling, "hold", locked)
        assert ids(take(store)) == ["a"]

    clock.advance(LEASE + dt.timedelta(seconds=1))
    assert ids(take(store)) == ["a"]
    assert take(store) == []
    assert [each.id for each in store.browse(states=[State.HELD])] == ["bad"]

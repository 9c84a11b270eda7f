"""What somebody else's open transaction does to the messages that it has locked, and that it does to no others."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import psycopg
import pytest
from postgres_places import Places
from started import PATIENCE

from outbox import Accepted, Message, Outbox, Outcome
from outbox.errors import StoreUnavailable
from outbox.events import LeaseLost, Notice, Settled, StoreFailed
from outbox.lifecycle import Claim, Settlement, State
from outbox.stores.postgres import PostgresStore, contending
from outbox.stores.postgres.naming import Sql
from outbox.stores.postgres.settling import Settling
from outbox.testing.clauses.scene import LEASE, delivered, put, retry, take

SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def store(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place, notify=False)) as store:
        yield store


@pytest.fixture
def others(postgres: Places) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.dsn, application_name="forgotten") as connection:
        yield connection


def lock(others: psycopg.Connection, store: PostgresStore, id: str) -> None:
    """In a transaction that is open until somebody ends it."""
    statement = f"SELECT FROM {store._names.quoted}.outbox_message WHERE id = %s FOR UPDATE"
    assert others.execute(statement.encode(), (id,)).rowcount == 1


def settled_by(store: PostgresStore, verb: str, settlements: list[Settlement]) -> list[Claim]:
    """The claims that were lost, of those that are settled so."""
    if verb == "settle":
        return list(store.settle(settlements))
    queues = ["mail"] if verb == "exchange" else ["mail", "other"]
    return list(store.exchange(settlements, limit=1, lease=LEASE, queues=queues).lost)


VERBS = pytest.mark.parametrize("verb", ["settle", "exchange", "exchange of several queues"])
KINDS = pytest.mark.parametrize("kind", ["delivered", "retried", "both"])


def verdicts(kind: str, claims: list[Claim]) -> list[Settlement]:
    later = dt.timedelta(hours=1)
    return [
        Settlement(
            claim,
            retry(claim, later) if kind == "retried" or (kind == "both" and n == 0) else delivered(claim),
        )
        for n, claim in enumerate(claims)
    ]


def written(store: PostgresStore) -> set[str]:
    """Those of a, b and c of which a verdict is there."""
    found = {id: store.get(id) for id in "abc"}
    return {id for id, record in found.items() if record is None or record.summary.state is not State.CLAIMED}


@VERBS
@KINDS
def test_a_row_that_somebody_has_locked_keeps_nobody_elses_verdict_waiting(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, verb: str, kind: str
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", PATIENCE)
    put(store, "a", "b", "c")
    claims = sorted(take(store, 3), key=lambda claim: claim.message.id)
    lock(others, store, "b")
    with ThreadPoolExecutor(1) as pool:
        settling = pool.submit(settled_by, store, verb, verdicts(kind, claims))
        while written(store) != {"a", "c"}:
            assert not settling.done()
            threading.Event().wait(0.01)
        others.rollback()
        lost = settling.result()

    assert lost == []
    assert written(store) == {"a", "b", "c"}


@VERBS
def test_what_stays_locked_is_named_and_so_is_every_claim_of_which_nothing_is_written(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    put(store, "a", "b", "c", "d")
    claims = sorted(take(store, 4), key=lambda claim: claim.message.id)
    stale = attrs.evolve(claims[3], token=str(int(claims[3].token) - 1))
    settlements = verdicts("both", [*claims[:3], stale])
    lock(others, store, "b")
    with pytest.raises(
        StoreUnavailable, match=r"what came of 'b' cannot be written: .*\(process \d+ \(forgotten\)\)"
    ) as raised:
        settled_by(store, verb, settlements)

    assert written(store) == {"a", "c"}
    assert raised.value.left == {claims[1].key, stale.key}
    others.rollback()
    left = [each for each in settlements if each.claim.key in raised.value.left]
    assert settled_by(store, verb, left) == [stale]
    assert written(store) == {"a", "b", "c"}


def lock_history(others: psycopg.Connection, store: PostgresStore, id: str) -> None:
    """The rows that tell of its attempts, and not the message's own."""
    statement = f"SELECT FROM {store._names.quoted}.outbox_attempt WHERE id = %s FOR UPDATE"
    assert others.execute(statement.encode(), (id,)).rowcount == 1


def tried_once(store: PostgresStore, *names: str) -> list[Claim]:
    """Messages that are claimed for the second time."""
    put(store, *names)
    store.settle([Settlement(claim, retry(claim, dt.timedelta(0))) for claim in take(store, len(names))])
    return sorted(take(store, len(names)), key=lambda claim: claim.message.id)


@VERBS
def test_the_history_of_one_message_that_somebody_has_locked_keeps_that_one_waiting_and_no_other(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    claims = tried_once(store, "a", "b", "c")
    settlements = verdicts("delivered", claims)
    lock_history(others, store, "b")
    with pytest.raises(
        StoreUnavailable, match=r"what came of 'b' cannot be written: .*\(process \d+ \(forgotten\)\)"
    ) as raised:
        settled_by(store, verb, settlements)

    assert written(store) == {"a", "c"}
    assert raised.value.left == {claims[1].key}
    others.rollback()
    assert settled_by(store, verb, [settlements[1]]) == []
    assert written(store) == {"a", "b", "c"}


def test_and_it_is_written_when_that_is_free(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", PATIENCE)
    claims = tried_once(store, "a", "b", "c")
    lock_history(others, store, "b")
    with ThreadPoolExecutor(1) as pool:
        settling = pool.submit(settled_by, store, "settle", verdicts("delivered", claims))
        while written(store) != {"a", "c"}:
            assert not settling.done()
            threading.Event().wait(0.01)
        others.rollback()
        assert settling.result() == []
    assert written(store) == {"a", "b", "c"}


def test_a_history_that_is_locked_keeps_no_lease_from_being_extended(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    claims = tried_once(store, "a", "b")
    lock(others, store, "a")
    lock_history(others, store, "b")

    assert store.extend(claims, lease=LEASE) == claims[:1]


def test_check_names_who_has_the_history_of_a_message_locked_for_long(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried_once(store, "a", "b")
    lock_history(others, store, "a")
    monkeypatch.setattr(contending, "_LATELY", 0)
    (found,) = [each for each in store.check() if "has locked" in each.text]
    assert re.search(r"has locked 'a': process \d+ \(forgotten\); until", found.text)


@pytest.mark.parametrize("before", range(4))
def test_what_was_to_be_prepared_when_a_row_was_locked_is_not_taken_for_prepared(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """psycopg takes it for that where it counted the statement already: so many times, and one of them is it."""
    monkeypatch.setattr(contending, "AT_MOST", PATIENCE)

    def exchange(*names: str) -> list[str]:
        put(store, *names)
        claims = take(store, len(names))
        put(store, f"{names[0]}-next")
        settled = verdicts("both", claims)
        exchanged = store.exchange(settled, limit=5, lease=LEASE, queues=["mail", "other"])
        assert exchanged.lost == []
        return [claim.message.id for claim in exchanged.claims]

    for n in range(before):
        assert exchange(f"x{n}", f"y{n}") == [f"x{n}-next"]
    put(store, "a", "b", "c")
    claims = take(store, 3)
    put(store, "d")
    lock(others, store, "b")
    with ThreadPoolExecutor(1) as pool:
        exchanging = pool.submit(
            store.exchange, verdicts("both", claims), limit=5, lease=LEASE, queues=["mail", "other"]
        )
        while written(store) != {"a", "c"}:
            assert not exchanging.done()
            threading.Event().wait(0.01)
        others.rollback()
        exchanged = exchanging.result()
    assert exchanged.lost == []
    assert [claim.message.id for claim in exchanged.claims] == ["d"]
    for n in range(4):
        assert exchange(f"z{n}", f"w{n}") == [f"z{n}-next"]


@pytest.fixture
def impatient(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    """It waits for no lock for long, whatever it is of."""
    dsn = psycopg.conninfo.make_conninfo(postgres.dsn, options="-clock_timeout=100ms")
    with contextlib.closing(PostgresStore(dsn, schema=postgres.schema(place), notify=False)) as store:
        yield store


@VERBS
@KINDS
def test_of_what_waited_for_a_table_nothing_is_said_to_be_written(
    impatient: PostgresStore,
    others: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    kind: str,
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    settlements = verdicts(kind, tried_once(impatient, "a", "b", "c"))
    others.execute(f"LOCK TABLE {impatient._names.quoted}.outbox_attempt IN ACCESS EXCLUSIVE MODE".encode())
    with pytest.raises(StoreUnavailable, match="has it locked") as raised:
        settled_by(impatient, verb, settlements)
    assert raised.value.left is None
    assert "all else" not in str(raised.value)

    others.rollback()
    assert settled_by(impatient, verb, settlements) == []
    assert written(impatient) == {"a", "b", "c"}


def test_nor_is_a_lease_said_to_be_lost(
    impatient: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    claims = tried_once(impatient, "a", "b")
    others.execute(f"LOCK TABLE {impatient._names.quoted}.outbox_message IN ACCESS EXCLUSIVE MODE".encode())
    with pytest.raises(StoreUnavailable, match="has it locked"):
        impatient.extend(claims, lease=LEASE)


@pytest.mark.parametrize("queues", [["mail"], ["mail", "other"]])
def test_what_was_written_past_a_row_is_settled_though_the_claim_behind_it_fails(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, queues: list[str]
) -> None:
    put(store, "a", "b", "c")
    settlements = verdicts("both", take(store, 3))
    put(store, "d")
    lock(others, store, "b")
    real = Settling.write_past

    def fail(*asked: object) -> None:
        next(each for each in asked if isinstance(each, Sql)).execute("SELECT 1 / 0")

    def write_past(settling: Settling, sql: Sql, now: int | None, name: str) -> None:
        others.rollback()
        real(settling, sql, now, name)
        monkeypatch.setattr("outbox.stores.postgres.plain.ask", fail)
        monkeypatch.setattr("outbox.stores.postgres.claimant.Claimant._claim", fail)

    monkeypatch.setattr(Settling, "write_past", write_past)
    exchanged = store.exchange(settlements, limit=5, lease=LEASE, queues=queues)
    assert (exchanged.lost, list(exchanged.claims)) == ([], [])
    assert written(store) == {"a", "b", "c"}

    monkeypatch.undo()
    assert [claim.message.id for claim in take(store, 5)] == ["d"]


class Mailbox:
    """Takes everything, and whatever is to be done at a message before it says so."""

    def __init__(self, **before: Callable[[], object]) -> None:
        self.taken: list[str] = []
        self._before = before

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self._before.pop(message.id, lambda: None)()
        self.taken.append(message.id)
        return Outcome(results=dict.fromkeys(recipients, Accepted()))

    def close(self) -> None:
        pass


def test_a_runner_goes_on_with_all_others_while_one_message_is_locked_and_has_it_written_when_it_is_free(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    monkeypatch.setattr("outbox.tray.STUCK", 0.05)
    heard, all_written, more = list[Notice](), threading.Event(), threading.Event()

    def hear(notice: Notice) -> None:
        heard.append(notice)
        settled = [each.claim.message.id for each in heard if isinstance(each, Settled)]
        if set(settled) == {"a", "c", "d"} and any(isinstance(each, StoreFailed) for each in heard):
            more.set()
        if len(settled) == 4:
            all_written.set()

    put(store, "a", "b", "c")
    mailbox = Mailbox(b=lambda: lock(others, store, "b"))
    with Outbox(store, mailbox, workers=1, listeners=[hear]).running():
        put(store, "d")
        assert more.wait(PATIENCE)
        failed = [each for each in heard if isinstance(each, StoreFailed)]
        assert {claim.message.id for each in failed for claim in each.claims} == {"b"}
        others.rollback()
        assert all_written.wait(PATIENCE)

    assert sorted(mailbox.taken) == ["a", "b", "c", "d"], "each once"
    assert not any(isinstance(each, LeaseLost) for each in heard)


def test_what_was_accepted_is_not_sent_again_by_its_own_runner_where_the_lock_outlasts_the_lease(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    settled = threading.Event()

    def hear(notice: Notice) -> None:
        if isinstance(notice, Settled):
            settled.set()

    put(store, "b")
    mailbox = Mailbox(b=lambda: lock(others, store, "b"))
    due = f"SELECT due FROM {store._names.quoted}.outbox_message".encode()
    over = b"SELECT extract(epoch FROM clock_timestamp()) * 1000000 > %s"
    with (
        psycopg.connect(others.info.dsn, autocommit=True) as looking,
        Outbox(store, mailbox, workers=1, lease=2 * SECOND, listeners=[hear]).running(),
    ):
        while not mailbox.taken:
            threading.Event().wait(0.01)
        while not (looking.execute(over, looking.execute(due).fetchone()).fetchone() or [False])[0]:
            threading.Event().wait(0.05)
        others.rollback()
        assert settled.wait(PATIENCE)

    assert mailbox.taken == ["b"]


def test_a_drain_that_cannot_write_what_came_of_one_message_has_written_the_others_and_names_it(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    monkeypatch.setattr("outbox.crew._DRAIN_STORE_TRIES", 2)
    put(store, "a", "b", "c")
    mailbox = Mailbox(b=lambda: lock(others, store, "b"))
    with pytest.raises(StoreUnavailable, match=r"what came of 'b' .*; handed over, .* is not noted: b;"):
        Outbox(store, mailbox).drain()

    assert written(store) >= set(mailbox.taken) - {"b"}
    assert "b" not in written(store)


def test_a_row_that_somebody_has_locked_keeps_nobody_elses_lease_from_being_extended(
    store: PostgresStore, others: psycopg.Connection, postgres: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", PATIENCE)
    put(store, "a", "b", "c")
    claims = sorted(take(store, 3), key=lambda claim: claim.message.id)
    due = f"SELECT id, due FROM {store._names.quoted}.outbox_message".encode()
    with psycopg.connect(postgres.dsn, autocommit=True) as looking, ThreadPoolExecutor(1) as pool:
        before: dict[str, int] = dict(looking.execute(due).fetchall())
        lock(others, store, "a")
        extending = pool.submit(store.extend, claims, lease=10 * LEASE)
        while {id for id, at in looking.execute(due).fetchall() if at > before[id]} != {"b", "c"}:
            assert not extending.done()
            threading.Event().wait(0.01)
        others.rollback()
        assert extending.result() == []
        assert all(at > before[id] for id, at in looking.execute(due).fetchall())


def test_a_lease_that_cannot_be_extended_for_its_row_is_locked_counts_as_lost(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contending, "AT_MOST", 0.0)
    put(store, "a", "b")
    claims = sorted(take(store, 2), key=lambda claim: claim.message.id)
    lock(others, store, "a")

    assert store.extend(claims, lease=LEASE) == claims[:1]


def test_check_names_who_has_locked_a_message_for_long(
    store: PostgresStore, others: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", "b")
    lock(others, store, "a")
    assert not any("has locked" in each.text for each in store.check()), "not of what is locked for moments"

    monkeypatch.setattr(contending, "_LATELY", 0)
    (found,) = [each for each in store.check() if "has locked" in each.text]
    assert re.search(r"has locked 'a': process \d+ \(forgotten\); until", found.text)
    others.rollback()
    assert not any("has locked" in each.text for each in store.check())

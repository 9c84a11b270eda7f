"""What several settlements at once come to in PostgreSQL: whose claim is whose, and in what order rows are locked."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from postgres_places import Places

from outbox.errors import StoreUnavailable
from outbox.lifecycle import Claim, Settlement, State, Verdict
from outbox.outcome import Outcome, TempFailed
from outbox.stores.postgres import PostgresStore, links
from outbox.stores.postgres.driver import Cursor, Error
from outbox.stores.postgres.naming import Sql
from outbox.stores.postgres.translation import is_passing
from outbox.testing.clauses.scene import LEASE, delivered, mail, put, retry, take

_BLOCKED = "SELECT cardinality(pg_blocking_pids(%s)) > 0"


@pytest.fixture
def store(place: Path, postgres: Places) -> Iterator[PostgresStore]:
    with contextlib.closing(postgres.open(place, notify=False)) as store:
        yield store


def tried(claim: Claim, dialogue: str) -> Verdict:
    results = {recipient: TempFailed(reply=f"451 {dialogue}") for recipient in claim.recipients}
    return attrs.evolve(
        retry(claim, dt.timedelta(hours=1)), outcome=Outcome(results=results, relay="r", dialogue=dialogue)
    )


@pytest.mark.parametrize("stale_first", [True, False])
def test_what_a_stale_claim_reports_beside_the_live_one_of_its_message_is_kept_nowhere(
    store: PostgresStore, *, stale_first: bool
) -> None:
    put(store, "a")
    (claim,) = take(store, 1)
    stale = attrs.evolve(claim, token=str(int(claim.token) - 1))
    both = [Settlement(stale, tried(stale, "stale")), Settlement(claim, tried(claim, "live"))]
    lost = store.settle(both if stale_first else both[::-1])

    assert [each.token for each in lost] == [stale.token]
    record = store.get("a")
    assert record is not None
    assert [each.dialogue for each in record.history] == ["live"]


def test_who_settle_the_same_messages_in_two_ways_wait_for_each_other_in_turn(
    store: PostgresStore, postgres: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", "b")
    claims = {claim.message.id: claim for claim in take(store, 2)}
    undone: list[Error] = []

    def passing(error: Error) -> bool:
        undone.append(error)
        return is_passing(error)

    def settle(gone: str, stays: str) -> None:
        verdicts = (delivered(claims[gone]), retry(claims[stays], dt.timedelta(hours=1)))
        store.settle([Settlement(claims[gone], verdicts[0]), Settlement(claims[stays], verdicts[1])])

    monkeypatch.setattr(links, "is_passing", passing)
    with psycopg.connect(postgres.dsn, autocommit=True) as looking:
        monkeypatch.setattr(Sql, "execute", Abreast(looking).execute)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(settle, *pair) for pair in (("a", "b"), ("b", "a"))]:
                done.result()

    assert not undone
    # Who came first settled both, and the other neither.
    assert [record.summary.state for record in map(store.get, "ab") if record is not None] == [State.QUEUED]


class Abreast:
    """Two who execute statements: neither goes on from his first before the other has done his, or waits for him."""

    def __init__(self, looking: psycopg.Connection) -> None:
        self._looking = looking
        self._really = Sql.execute
        self._begun: dict[int, bool] = {}
        self._lock = threading.Lock()

    @property
    def execute(self) -> Callable[[Sql, str, Any], Cursor]:
        def execute(sql: Sql, statement: str, parameters: Any = None) -> Cursor:
            pid = sql.connection.info.backend_pid
            if pid in self._begun:
                return self._really(sql, statement, parameters)
            self._begun[pid] = False
            cursor = self._really(sql, statement, parameters)
            # In a pipeline: only now it is executed.
            cursor.fetchone()
            self._begun[pid] = True
            while not self._other_is_there(pid):
                threading.Event().wait(0.001)
            return cursor

        return execute

    def _other_is_there(self, pid: int) -> bool:
        return any(done or self._waits(other) for other, done in list(self._begun.items()) if other != pid)

    def _waits(self, pid: int) -> bool:
        with self._lock:
            ((blocked,),) = self._looking.execute(_BLOCKED, (pid,)).fetchall()
        return bool(blocked)


def test_what_an_exchange_has_settled_is_not_lost_where_it_can_claim_nothing(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")
    (claim,) = take(store, 1)
    # What has become due is claimed in a second transaction.
    put(store, mail("later", not_before=dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=1)))
    store._links.use(lambda sql: sql.execute("UPDATE outbox_message SET stage = 1 WHERE id = 'later'"))

    def claims_nothing(*_: object) -> None:
        raise StoreUnavailable("the server is gone")

    monkeypatch.setattr("outbox.stores.postgres.claimant.Claimant._claim", claims_nothing)
    until_due(store)
    done = store.exchange([Settlement(claim, delivered(claim))], limit=1, lease=LEASE, queues=["mail"])

    assert (list(done.lost), list(done.claims)) == ([], [])
    assert store.get("a") is None
    with pytest.raises(StoreUnavailable):
        store.claim(limit=1, lease=LEASE, queues=["mail"])


def until_due(store: PostgresStore) -> None:
    while store.next_due(["mail"]) != dt.timedelta(0):
        threading.Event().wait(0.001)

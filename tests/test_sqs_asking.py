"""How often SQS is asked for messages, in what order, for how long; and what comes of a queue that does not answer."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqs_server import prefix_of
from sqs_wire import LEASE, SECOND, Raw, Wire, ids, mail, opening, retry, settle, take

from outbox.errors import StoreUnavailable
from outbox.lifecycle import Claim
from outbox.shift import _POLL_WITHOUT_WAIT
from outbox.stores.sqs import SQSStore
from outbox.testing.clock import ManualClock

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


class Asked:
    """What was asked for, and how long each waited; no wait takes any time but the clock's."""

    def __init__(self, store: SQSStore, clock: ManualClock) -> None:
        self.waits: list[tuple[str, int]] = []
        self.clock = clock
        self.wire = Wire(store)
        self.wire.acts["receive_message"] = self.receive

    def receive(self, real: Callable[..., Any], asked: dict[str, Any]) -> Any:
        wait = asked["WaitTimeSeconds"]
        self.waits.append((asked["QueueUrl"].rpartition("-")[2], wait))
        answer = real(**asked | {"WaitTimeSeconds": 0})
        if not answer.get("Messages"):
            self.clock.advance(wait * SECOND)
        return answer


def claim(store: SQSStore, *queues: str, limit: int = 10) -> list[Claim]:
    return list(store.claim(limit=limit, lease=LEASE, queues=queues))


def test_a_queue_with_mail_does_not_wait_behind_those_that_are_empty(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    store = open_store(poll=20 * SECOND)
    store.put([mail("a", queue="c")])
    asked = Asked(store, clock)

    assert ids(claim(store, "a", "b", "c")) == ["a"]
    assert {wait for _, wait in asked.waits} == {0}


def test_where_all_are_empty_each_is_waited_for_in_its_turn_and_all_of_them_no_longer_than_was_said(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    store = open_store(poll=20 * SECOND)
    asked = Asked(store, clock)
    for _ in range(10):
        assert claim(store, "a", "b") == []
    last = asked.waits[-4:]

    assert sorted(last) == [("a", 10), ("a", 10), ("b", 10), ("b", 10)]


def test_many_queues_are_waited_for_some_at_a_time_and_together_no_longer_than_was_said(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    """So long may a Runner take to stop."""
    names = [f"q{number}" for number in range(6)]
    store = open_store(poll=4 * SECOND)
    store._claiming._filling._in_vain = 9
    asked = Asked(store, clock)
    for _ in range(3):
        before = clock.now()
        assert claim(store, *names) == []
        assert clock.now() - before == 4 * SECOND

    waited = [queue for queue, wait in asked.waits if wait]
    assert {waited.count(name) for name in names} == {2}


@pytest.mark.parametrize("lease", [1, 3, 4, 10, 60])
def test_a_claim_that_was_waited_for_has_most_of_its_lease_before_it(
    open_store: Callable[..., SQSStore], clock: ManualClock, lease: int
) -> None:
    store = open_store(poll=20 * SECOND)
    store._claiming._filling._in_vain = 9
    names = [f"q{number}" for number in range(8)]
    asked = Asked(store, clock)
    end = clock.now() + 9 * SECOND

    def receive(real: Callable[..., Any], request: dict[str, Any]) -> Any:
        wait = request["WaitTimeSeconds"] * SECOND
        if end <= clock.now() + wait and request["QueueUrl"].endswith("q6"):
            clock.advance(wait)
            store.put([mail("a", queue="q6")])
            asked.wire.acts["receive_message"] = asked.receive
        return asked.receive(real, request)

    asked.wire.acts["receive_message"] = receive
    while not (found := store.claim(limit=1, lease=lease * SECOND, queues=names)):
        clock.advance(SECOND)
    clock.advance(lease * SECOND * 0.45)

    assert settle(store, found[0], retry(found[0])) == []


def test_what_came_long_before_the_last_is_leased_anew_when_it_is_handed_out(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    store = open_store()
    names = ["a", "b", "c", "d"]
    store.put([mail(name, queue=name) for name in names])
    wire = Wire(store)

    def slow(real: Callable[..., Any], asked: dict[str, Any]) -> Any:
        answer = real(**asked)
        clock.advance(3 * SECOND)
        return answer

    wire.acts["receive_message"] = slow
    claims = store.claim(limit=8, lease=40 * SECOND, queues=names)
    assert len(claims) > 1
    clock.advance(18 * SECOND)

    assert store.extend(claims, lease=LEASE) == []


def test_an_idle_runner_asks_less_than_two_hundred_times_an_hour(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    store = open_store(poll=dt.timedelta(seconds=20))
    asked = Asked(store, clock)
    end = clock.now() + HOUR
    while clock.now() < end:
        assert claim(store, "mail") == []
        clock.advance(_POLL_WITHOUT_WAIT)

    assert 150 < len(asked.waits) < 200
    assert [wait for _, wait in asked.waits[:6]] == [1, 2, 4, 8, 16, 20]


def test_whoever_has_mail_in_his_hands_is_not_kept_from_settling_it_by_a_long_poll(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    store = open_store(poll=20 * SECOND)
    store.put([mail("a")])
    (held,) = claim(store, "mail")
    asked = Asked(store, clock)
    assert claim(store, "mail") == []
    assert {wait for _, wait in asked.waits} == {0}

    settle(store, held, retry(held, HOUR / 10))
    asked.waits.clear()
    assert claim(store, "mail") == []
    assert {wait for _, wait in asked.waits} == {1}


def test_what_is_not_due_is_passed_on_by_some_at_a_time_and_keeps_nothing_that_is(
    open_store: Callable[..., SQSStore], clock: ManualClock, tmp_path: Path
) -> None:
    """There may be more of it than a claim can pass on before its lease is over."""
    store = open_store()
    store.put([mail("a"), mail("far", not_before=clock.now() + 100 * HOUR)])
    clock.advance(HOUR / 4)
    raw = Raw(prefix_of(tmp_path))
    texts = {json.loads(letter["Body"])["id"]: letter["Body"] for letter in raw.letters()}
    wire = Wire(store)
    rounds = iter(range(300))

    def endless(_: Callable[..., Any], asked: dict[str, Any]) -> Any:
        number = next(rounds)
        some = [{"ReceiptHandle": f"{number}.{n}", "Body": texts["far"], "Attributes": {}} for n in range(10)]
        if number == 100:
            some[0]["Body"] = texts["a"]
        return {"Messages": some[: asked["MaxNumberOfMessages"]]}

    def done(_: Callable[..., Any], asked: dict[str, Any]) -> Any:
        return {"Successful": [{"Id": each["Id"]} for each in asked["Entries"]]}

    wire.acts = {"receive_message": endless, "send_message_batch": done, "delete_message_batch": done}

    found: list[Claim] = []
    while not found:
        before = len(wire.calls)
        found = take(store)
        assert len(wire.calls) - before <= 300
    assert ids(found) == ["a"]
    assert next(rounds) < 105


def test_a_queue_that_does_not_answer_keeps_no_other_from_being_served(
    open_store: Callable[..., SQSStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(create=False, queues=["a", "b"])
    store.migrate()
    store.put([mail("x", queue="a"), mail("y", queue="b"), mail("z", queue="b")])
    raw = Raw(prefix_of(tmp_path))
    raw.client.delete_queue(QueueUrl=raw.url("a"))

    assert ids(claim(store, "a", "b", limit=1) + claim(store, "a", "b", limit=1)) in (["y", "z"], ["z", "y"])
    assert len([each for each in caplog.records if "queue" in each.getMessage()]) == 1
    with pytest.raises(StoreUnavailable, match="`outbox migrate --queue "):
        claim(store, "a", "b")


@pytest.mark.parametrize("elapsed", [0.1, 0.7], ids=["to be claimed", "to be kept"])
def test_what_is_in_hand_of_a_queue_that_was_deleted_keeps_no_other_from_being_served(
    open_store: Callable[..., SQSStore], clock: ManualClock, tmp_path: Path, elapsed: float
) -> None:
    store = open_store(create=False, queues=["a", "b"])
    store.migrate()
    store.put([mail(name, queue="a", content=bytes(1000)) for name in "uvw"])
    assert len(store.claim(limit=3, lease=LEASE, queues=["a"], max_bytes=1500)) == 1
    raw = Raw(prefix_of(tmp_path))
    raw.client.delete_queue(QueueUrl=raw.url("a"))
    store.put([mail("x", queue="b"), mail("y", queue="b")])
    clock.advance(LEASE * elapsed)

    assert sorted(ids(claim(store, "a", "b", limit=1) + claim(store, "a", "b", limit=1))) == ["x", "y"]
    with pytest.raises(StoreUnavailable, match="is not there"):
        claim(store, "a", "b")


def test_a_queue_that_was_deleted_is_made_anew_where_that_was_said_and_what_was_in_hand_goes_on(
    open_store: Callable[..., SQSStore], tmp_path: Path
) -> None:
    store = open_store()
    store.put([mail("a")])
    (held,) = take(store)
    raw = Raw(prefix_of(tmp_path))
    raw.client.delete_queue(QueueUrl=raw.url())
    with pytest.raises(StoreUnavailable, match="mail is not there"):
        store.put([mail("b")])

    store.put([mail("b")])
    assert settle(store, held, retry(held)) == []
    assert ids(take(store)) == ["a", "b"]

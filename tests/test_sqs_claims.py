"""Claims on messages in SQS: what a token is good for, for how long, and what of it stays in memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqs_server import prefix_of
from sqs_wire import LEASE, SECOND, Raw, Wire, dead, delivered, ids, mail, opening, retry, settle, take

from outbox.errors import StoreUnavailable
from outbox.lifecycle import Settlement
from outbox.stores.sqs import DirectoryBlobs, SQSStore, hand
from outbox.testing.clock import ManualClock

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


@pytest.fixture
def store(open_store: Callable[..., SQSStore]) -> SQSStore:
    return open_store()


# -- a verdict that was written by half


def test_a_verdict_that_was_sent_is_no_longer_late(store: SQSStore, clock: ManualClock) -> None:
    """Its letter could not be deleted in time: told as lost, it would be there twice and nobody would know why."""
    store.put([mail("a")])
    (claim,) = take(store)
    wire = Wire(store)
    wire.refuse("delete_message_batch", 0)
    with pytest.raises(StoreUnavailable):
        settle(store, claim, retry(claim, LEASE))
    wire.heal()
    clock.advance(LEASE)

    assert settle(store, claim, retry(claim, LEASE)) == []
    assert [(each.message.id, each.attempt, each.lost) for each in take(store)] == [("a", 2, 0)]
    assert take(store) == []


def test_a_verdict_that_was_sent_is_not_told_as_lost_where_its_letter_is_gone(
    store: SQSStore, tmp_path: Path
) -> None:
    raw = Raw(prefix_of(tmp_path))
    store.put([mail("a")])
    (claim,) = take(store)
    wire = Wire(store)
    wire.refuse("delete_message_batch", 0)
    with pytest.raises(StoreUnavailable):
        settle(store, claim, dead(claim))
    wire.heal()
    raw.client.delete_queue(QueueUrl=raw.url())
    raw.client.create_queue(QueueName=raw.prefix + "mail")

    assert settle(store, claim, dead(claim)) == []
    assert [body["id"] for body in raw.bodies("mail-dead")] == ["a"]


def test_content_that_a_verdict_was_sent_with_is_not_removed_by_a_later_word(
    open_store: Callable[..., SQSStore], tmp_path: Path
) -> None:
    store = open_store(blobs=DirectoryBlobs(tmp_path / "large"))
    store.put([mail("a", content=bytes(400_000))])
    (claim,) = take(store)
    wire = Wire(store)
    wire.refuse("delete_message_batch", 0)
    with pytest.raises(StoreUnavailable):
        settle(store, claim, retry(claim))
    wire.heal()

    assert settle(store, claim, delivered(claim)) == []
    assert [each.message for each in take(store)] == [claim.message]


# -- the fence, and what is remembered


def test_whose_lease_ran_out_is_refused_by_an_object_that_never_knew_him(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    store.put([mail("a"), mail("b")])
    a, b = take(store)
    clock.advance(LEASE)
    other = open_store()

    assert settle(other, a, retry(a)) == [a]
    assert list(other.extend([a], lease=LEASE)) == [a]
    assert settle(other, b, delivered(b)) == []
    assert ids(take(store)) == ["a"]


def test_whose_lease_lives_is_served_by_an_object_that_never_knew_him(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    clock.advance(LEASE - SECOND)
    other = open_store()

    assert settle(other, claim, retry(claim)) == []
    assert [(each.message.id, each.attempt, each.lost) for each in take(other)] == [("a", 2, 0)]


def test_whose_lease_ran_out_is_refused_also_when_he_was_forgotten(
    store: SQSStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand, "_MANY", 3)
    store.put([mail("a")])
    (late,) = take(store)
    clock.advance(LEASE)
    (again,) = take(store)
    assert settle(store, again, retry(again)) == []
    for _ in range(8):
        (claim,) = take(store)
        assert settle(store, claim, retry(claim)) == []
        clock.advance(LEASE)

    assert late.token not in str(store._claiming._hand._given)
    assert settle(store, late, retry(late)) == [late]
    assert len(take(store)) == 1


def test_what_was_settled_stays_in_memory_for_its_lease_and_without_its_body(
    store: SQSStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand, "_MANY", 10)
    kept = store._claiming._hand._given
    for _ in range(5):
        store.put([mail(f"m{n:02}", content=bytes(1000)) for n in range(10)])
        claims = take(store)
        assert store.settle([Settlement(claim, delivered(claim)) for claim in claims]) == []
        kept = store._claiming._hand._given
        assert [each.slip for each in kept.values() if each.slip is not None] == []
        assert store.settle([Settlement(claim, retry(claim)) for claim in claims]) == claims
        clock.advance(LEASE)

    assert 10 <= len(kept) <= 20


# -- twelve hours


def test_a_long_lease_is_extended_to_twelve_hours_and_no_further(store: SQSStore, clock: ManualClock) -> None:
    """SQS refuses an extension beyond them; what is refused so is not lost before they are over."""
    store.put([mail("a")])
    (claim,) = take(store, lease=9 * HOUR)
    for _ in range(3):
        clock.advance(3 * HOUR)
        assert list(store.extend([claim], lease=9 * HOUR)) == []
    clock.advance(3 * HOUR - 10 * SECOND)
    assert take(store) == []

    assert settle(store, claim, retry(claim)) == []
    assert [(each.attempt, each.lost) for each in take(store)] == [(2, 0)]


def test_twelve_hours_after_the_claim_its_lease_is_over(store: SQSStore, clock: ManualClock) -> None:
    store.put([mail("a")])
    (claim,) = take(store, lease=9 * HOUR)
    clock.advance(8 * HOUR)
    assert list(store.extend([claim], lease=9 * HOUR)) == []
    clock.advance(4 * HOUR)

    assert list(store.extend([claim], lease=9 * HOUR)) == [claim]
    assert settle(store, claim, retry(claim)) == [claim]
    assert [(each.attempt, each.lost) for each in take(store)] == [(2, 1)]

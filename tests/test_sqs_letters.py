"""What is in the letters of SQS: how large they are, whose they are, and how long their content is kept."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from sqs_server import prefix_of
from sqs_wire import LEASE, SECOND, Raw, Wire, delivered, fates, ids, mail, opening, retry, settle, take

from outbox.errors import CorruptRecord, StoreUnavailable
from outbox.lifecycle import Dead, Fate, Settlement
from outbox.stores.sqs import SQSStore
from outbox.stores.sqs.post import Letter
from outbox.stores.sqs.slips import Slip
from outbox.testing.clock import ManualClock

DAY = dt.timedelta(days=1)


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


@pytest.fixture
def store(open_store: Callable[..., SQSStore]) -> SQSStore:
    return open_store()


@pytest.fixture
def raw(tmp_path: Path, store: SQSStore) -> Raw:
    store.claim(limit=1, lease=LEASE, queues=["mail"])
    return Raw(prefix_of(tmp_path))


# -- how large they are


def size(entry: dict[str, Any]) -> int:
    """As SQS counts it."""
    attributes = entry.get("MessageAttributes", {})
    return len(entry["MessageBody"].encode()) + sum(
        len(name) + len(value["DataType"]) + len(value["StringValue"].encode())
        for name, value in attributes.items()
    )


@pytest.mark.parametrize("reason", ["x" * 1024, "\N{PILE OF POO}" * 1024], ids=["letters", "others"])
def test_however_long_a_reason_is_its_letter_and_its_request_are_not_too_large(
    open_store: Callable[..., SQSStore], reason: str
) -> None:
    most = 40_000
    store = open_store(max_message=most)
    store.put([mail(name, content=bytes(23_000)) for name in "abc"] + [mail("d")])
    wire = Wire(store)
    requests: list[int] = []

    def send(real: Callable[..., Any], asked: dict[str, Any]) -> Any:
        requests.append(sum(map(size, asked["Entries"])))
        return real(**asked)

    for _ in range(2):
        claims = take(store)
        assert ids(claims) == ["a", "b", "c", "d"]
        wire.acts["send_message_batch"] = send
        verdicts = [Settlement(claim, retry(claim)) for claim in claims]
        assert store.settle(verdicts) == []
        wire.heal()
    claims = take(store)
    wire.acts["send_message_batch"] = send
    assert (
        store.settle([Settlement(c, Dead(fates=fates(c, Fate.FAILED), reason=reason)) for c in claims]) == []
    )

    assert len(requests) >= 9
    assert max(requests) <= most


def test_a_reason_that_does_not_fit_is_cut_and_all_else_is_there(
    open_store: Callable[..., SQSStore], raw: Raw
) -> None:
    store = open_store(max_message=40_000)
    store.put([mail("a", content=bytes(23_000))])
    (claim,) = take(store)
    settle(store, claim, Dead(fates=fates(claim, Fate.FAILED), reason="\N{PILE OF POO}" * 1024))

    (body,) = raw.bodies("mail-dead")
    assert (body["id"], body["state"], body["attempts"], body["fates"]) == ("a", "dead", 1, "f")
    assert set(body["reason"]) == {"\N{PILE OF POO}", "…"}
    raw.redrive("mail-dead", "mail")
    assert [each.message for each in take(store)] == [claim.message]


def test_a_stranger_s_letter_of_any_size_is_put_aside(open_store: Callable[..., SQSStore], raw: Raw) -> None:
    store = open_store(max_message=20_000)
    text = "x" * 100_000
    raw.send(text)

    assert take(store) == []
    assert [letter["Body"] for letter in raw.letters("mail-held")] == [text]


# -- whose they are


def test_a_letter_of_a_newer_release_is_left_to_that_with_all_that_is_known_of_it(
    store: SQSStore, raw: Raw, clock: ManualClock
) -> None:
    text = json.dumps({"outbox": 2, "id": "a", "of": "a format that is to come"})
    label = {"kind": {"DataType": "String", "StringValue": "new"}}
    raw.client.send_message(QueueUrl=raw.url(), MessageBody=text, MessageAttributes=label)
    for _ in range(3):
        assert take(store) == []
        assert raw.letters() == []
        clock.advance(dt.timedelta(minutes=1))
    # Somebody has it and never reports back.
    raw.letters()
    assert take(store) == []
    clock.advance(dt.timedelta(minutes=1))

    (letter,) = raw.letters()
    assert letter["Body"] == text
    assert letter["MessageAttributes"]["kind"]["StringValue"] == "new"
    assert letter["MessageAttributes"]["receives"]["StringValue"] == "1"
    assert raw.letters("mail-held") == []


def test_what_an_older_release_has_passed_on_is_known_to_have_been_lost(
    store: SQSStore, raw: Raw, clock: ManualClock
) -> None:
    store.put([mail("a")])
    (letter,) = raw.client.receive_message(QueueUrl=raw.url())["Messages"]
    raw.client.delete_message(QueueUrl=raw.url(), ReceiptHandle=letter["ReceiptHandle"])
    told = {"receives": {"DataType": "Number", "StringValue": "2"}}
    raw.client.send_message(QueueUrl=raw.url(), MessageBody=letter["Body"], MessageAttributes=told)

    (claim,) = take(store)
    assert (claim.attempt, claim.lost, set(claim.fates.values())) == (3, 2, {Fate.DOUBTFUL})


def test_what_came_in_another_queue_than_its_own_is_held_and_not_sent_again_and_again(
    open_store: Callable[..., SQSStore], tmp_path: Path
) -> None:
    """The queue x-mail of one store is the queue mail of another whose prefix is longer by x-."""
    prefix = prefix_of(tmp_path)
    one, other = open_store(), open_store(prefix=prefix + "x-")
    other.put([mail("a")])

    assert list(one.claim(limit=1, lease=LEASE, queues=["x-mail"])) == []
    (letter,) = Raw(prefix).letters("x-mail-held")
    assert "overlap" in letter["MessageAttributes"]["reason"]["StringValue"]


# -- how long their content is kept


class Swept:
    """Blobs of which somebody removes whatever is older than a month, as docs/sqs.md advises."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.kept: dict[str, tuple[bytes, dt.datetime]] = {}
        self.puts = 0
        self.down = False

    def put(self, key: str, data: bytes, /) -> None:
        if self.down:
            raise StoreUnavailable("the shelf is locked")
        assert self.kept.get(key, (data,))[0] == data
        self.kept[key] = (data, self.clock.now())
        self.puts += 1

    def get(self, key: str, /) -> bytes:
        if key not in self.kept:
            raise CorruptRecord(f"its content is missing: {key}")
        return self.kept[key][0]

    def delete(self, key: str, /) -> None:
        self.kept.pop(key, None)

    def sweep(self) -> None:
        month = self.clock.now() - 30 * DAY
        self.kept = {key: each for key, each in self.kept.items() if each[1] > month}


def test_content_is_kept_for_as_long_as_its_message_waits_though_what_is_old_is_swept(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    shelf = Swept(clock)
    store = open_store(blobs=shelf)
    large = mail("a", content=bytes(400_000))
    store.put([large])
    for _ in range(6):
        (claim,) = take(store)
        assert settle(store, claim, retry(claim, 10 * DAY)) == []
        clock.advance(10 * DAY)
        shelf.sweep()

    (claim,) = take(store)
    assert claim.message == large
    assert shelf.puts < 10
    assert settle(store, claim, delivered(claim)) == []
    assert shelf.kept == {}


def test_content_is_kept_for_as_long_as_its_message_is_not_due(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    shelf = Swept(clock)
    store = open_store(blobs=shelf)
    large = mail("a", content=bytes(400_000), not_before=clock.now() + 60 * DAY)
    store.put([large])
    for n in range(12):
        shelf.down = n % 3 == 0
        clock.advance(5 * DAY - SECOND)
        assert take(store) == []
        shelf.sweep()

    shelf.down = False
    clock.advance(12 * SECOND + dt.timedelta(minutes=15))
    assert [each.message for each in take(store)] == [large]
    assert shelf.puts < 10


def test_content_of_what_is_aside_is_kept_for_as_long_as_sqs_keeps_the_letter(
    open_store: Callable[..., SQSStore], raw: Raw, clock: ManualClock
) -> None:
    shelf = Swept(clock)
    store = open_store(blobs=shelf)
    large = mail("a", content=bytes(400_000))
    store.put([large])
    for _ in range(2):
        (claim,) = take(store)
        assert settle(store, claim, retry(claim, 10 * DAY)) == []
        clock.advance(10 * DAY)
    (claim,) = take(store)
    settle(store, claim, Dead(fates=fates(claim, Fate.FAILED), reason="550"))
    clock.advance(13 * DAY)
    shelf.sweep()
    raw.redrive("mail-dead", "mail")

    assert [each.message for each in take(store)] == [large]


def test_a_letter_that_does_not_say_since_when_its_content_is_kept_is_as_old_as_its_message(
    open_store: Callable[..., SQSStore], raw: Raw, clock: ManualClock
) -> None:
    shelf = Swept(clock)
    store = open_store(blobs=shelf)
    store.put([mail("a", content=bytes(400_000))])
    (letter,) = raw.client.receive_message(QueueUrl=raw.url())["Messages"]
    raw.client.delete_message(QueueUrl=raw.url(), ReceiptHandle=letter["ReceiptHandle"])
    raw.send(json.dumps({k: v for k, v in json.loads(letter["Body"]).items() if k != "kept"}))
    clock.advance(8 * DAY)
    (claim,) = take(store)
    settle(store, claim, retry(claim))

    assert shelf.puts == 2


# -- what a stranger sends


@pytest.mark.parametrize("count", ["9" * 5000, "9999999", "-1", "x"], ids=lambda text: text[:8])
def test_a_count_that_a_stranger_wrote_stops_no_other_letter(
    store: SQSStore, tmp_path: Path, count: str
) -> None:
    store.put([mail("a"), mail("b")])
    raw = Raw(prefix_of(tmp_path))
    labels = {"receives": {"DataType": "String", "StringValue": count}}
    raw.client.send_message(QueueUrl=raw.url(), MessageBody="hello", MessageAttributes=labels)

    assert ids(take(store)) == ["a", "b"]
    assert [letter["Body"] for letter in raw.letters("mail-held")] == ["hello"]


def test_whatever_is_wrong_with_one_letter_stops_no_other(
    store: SQSStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([mail("a"), mail("b")])
    read = Slip.read

    def odd(text: str) -> Slip:
        if json.loads(text)["id"] == "a":
            raise ArithmeticError("nobody thought of this")
        return read(text)

    monkeypatch.setattr(Slip, "read", odd)
    assert ids(take(store)) == ["b"]
    (letter,) = Raw(prefix_of(tmp_path)).letters("mail-held")
    assert "nobody thought of this" in letter["MessageAttributes"]["reason"]["StringValue"]


# -- what was sent on and could not be deleted


def test_what_went_back_and_could_not_be_deleted_is_deleted_as_soon_as_it_can_be(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    """Until then there are two of it, and the second would be sent."""
    store.put([mail(name, content=b"x" * 1000) for name in "abc"])
    assert len(store.claim(limit=3, lease=LEASE, queues=["mail"], max_bytes=1500)) == 1
    wire = Wire(store)

    def once(_: Callable[..., Any], __: dict[str, Any]) -> Any:
        wire.heal()
        raise EndpointConnectionError(endpoint_url="http://sqs")

    wire.acts["delete_message_batch"] = once
    store.close()
    clock.advance(LEASE)

    other = open_store()
    seen = [each for _ in range(4) for each in ids(take(other))]
    assert sorted(seen) == ["a", "b", "c"]


def test_a_step_of_a_delay_that_could_not_be_deleted_is_deleted_as_soon_as_it_can_be(
    store: SQSStore, clock: ManualClock
) -> None:
    store.put([mail("a", not_before=clock.now() + DAY)])
    clock.advance(DAY / 96)
    wire = Wire(store)
    wire.refuse("delete_message_batch", 0)
    assert take(store) == []
    wire.heal()
    assert take(store) == []
    clock.advance(DAY)
    # Once for the step, and once for what is due.
    seen = [each for _ in range(4) for each in ids(take(store))]
    assert seen == ["a"]


@pytest.mark.parametrize(("number", "kept"), [(1, True), (9, True), (10, False)])
def test_what_a_stranger_s_letter_was_labelled_with_stays_where_there_is_room(
    store: SQSStore, tmp_path: Path, number: int, kept: bool
) -> None:
    take(store)
    raw = Raw(prefix_of(tmp_path))
    labels: dict[str, dict[str, str | bytes]] = {
        f"k{n}": {"DataType": "String", "StringValue": "v"} for n in range(number)
    }
    labels["k0"] = {"DataType": "Binary", "BinaryValue": b"\x00v"}
    raw.client.send_message(QueueUrl=raw.url(), MessageBody="hello", MessageAttributes=labels)
    assert take(store) == []

    (letter,) = raw.letters("mail-held")
    found = letter["MessageAttributes"]
    assert "no message of outbox" in found.pop("reason")["StringValue"]
    assert found == (labels if kept else {})


def test_labels_that_leave_no_room_for_the_reason_go_before_it() -> None:
    label = {"k": {"DataType": "String", "StringValue": "v" * 50}}
    letter = Letter(text="x" * 100, reason="why", labels=label)

    assert letter.fitting(200) == letter
    assert letter.fitting(150) == Letter(text="x" * 100, reason="why")

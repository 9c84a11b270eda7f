"""Letters that were received and not claimed: whose they are, for how long, and that nothing is held against them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from sqs_server import prefix_of
from sqs_wire import LEASE, Raw, Wire, delivered, ids, mail, opening, settle, take

from outbox.errors import CorruptRecord, StoreError, StoreUnavailable
from outbox.lifecycle import Claim
from outbox.stores.sqs import SQSStore
from outbox.testing.clock import ManualClock


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


@pytest.fixture
def store(open_store: Callable[..., SQSStore]) -> SQSStore:
    return open_store()


def left_in_hand(store: SQSStore) -> None:
    """Of a, b and c one is claimed, and two are received beside it."""
    store.put([mail(name, content=b"x" * 1000) for name in "abc"])
    assert len(store.claim(limit=3, lease=LEASE, queues=["mail"], max_bytes=1500)) == 1


# -- what is over


def test_what_others_have_delivered_meanwhile_does_not_go_back_when_the_store_is_closed(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    left_in_hand(store)
    clock.advance(LEASE)
    other = open_store()
    seen: list[str] = []
    while claims := take(other):
        seen += ids(claims)
        for claim in claims:
            assert settle(other, claim, delivered(claim)) == []

    store.close()
    assert sorted(seen) == ["a", "b", "c"]
    assert [take(other) for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize(
    "error", [StoreUnavailable("locked"), CorruptRecord("gone")], ids=lambda error: type(error).__name__
)
def test_what_cannot_be_read_and_was_delivered_by_others_meanwhile_is_not_sent_on(
    open_store: Callable[..., SQSStore], tmp_path: Path, clock: ManualClock, error: StoreError
) -> None:
    other = open_store()
    other.put([mail("a", content=bytes(400_000))])

    class Slow:
        """A shelf that answers when the lease is over."""

        def get(self, _key: str) -> bytes:
            clock.advance(LEASE)
            (claim,) = take(other)
            assert settle(other, claim, delivered(claim)) == []
            raise error

    assert take(open_store(blobs=Slow())) == []
    clock.advance(LEASE)
    assert take(other) == []
    raw = Raw(prefix_of(tmp_path))
    assert raw.letters() == []
    assert not any(url.endswith("mail-held") and raw.letters("mail-held") for url in raw_urls(raw))


def raw_urls(raw: Raw) -> list[str]:
    urls: list[str] = raw.client.list_queues(QueueNamePrefix=raw.prefix).get("QueueUrls", [])
    return urls


def test_what_is_not_due_and_came_when_its_time_in_hand_was_over_is_not_sent_on(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    """Somebody else may have sent it on meanwhile."""
    store.put([mail("a", not_before=clock.now() + 12 * LEASE)])
    clock.advance(LEASE * 3)
    other = open_store()
    fetch = store._claiming._fetching._post.receive

    def slow(*args: object, **terms: object) -> object:
        letters = fetch(*args, **terms)  # type: ignore[arg-type]
        clock.advance(LEASE)
        assert take(other) == []
        return letters

    store._claiming._fetching._post.receive = slow  # type: ignore[method-assign,assignment]
    assert take(store) == []
    clock.advance(LEASE * 9)
    assert ids(take(other)) == ["a"]
    assert take(other) == []


# -- what waits in hand while a Runner is busy


def suspects(store: SQSStore, clock: ManualClock) -> None:
    """a, b and c, each of which somebody had and never reported back."""
    store.put([mail(name) for name in "abc"])
    assert ids(take(store)) == ["a", "b", "c"]
    clock.advance(LEASE)


def keep(store: SQSStore, claims: list[Claim], clock: ManualClock, times: int) -> None:
    """As the keeper of a Runner does it, that waits for a slow relay."""
    for _ in range(times):
        clock.advance(LEASE / 3)
        assert list(store.extend(claims, lease=LEASE)) == []


def test_what_nobody_claimed_is_not_counted_as_lost_however_long_a_runner_waits_for_its_relay(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    """Four times lost it would be held, and nobody had ever handed it over."""
    first = open_store()
    suspects(first, clock)
    seen: list[tuple[str, int, int]] = []
    for _ in range(3):
        store = open_store()
        (claim,) = take(store)
        keep(store, [claim], clock, 9)
        seen.append((claim.message.id, claim.attempt, claim.lost))
        assert settle(store, claim, delivered(claim)) == []
    assert sorted(seen) == [("a", 2, 1), ("b", 2, 1), ("c", 2, 1)]
    assert take(first) == []


def test_what_nobody_claimed_goes_to_others_while_a_runner_waits_for_its_relay(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    left_in_hand(store)
    mine = [given.slip.id for given in store._claiming._hand._given.values() if given.slip is not None]
    other = open_store()
    assert take(other) == []
    # It has claims of its own, and says nothing of those.
    assert list(store.extend([], lease=LEASE)) == []
    assert take(other) == []

    keep(store, [], clock, 2)
    claims = take(other)
    assert sorted([*mine, *ids(claims)]) == ["a", "b", "c"]
    assert {(each.attempt, each.lost) for each in claims} == {(1, 0)}


@pytest.mark.parametrize("verb", ["send_message_batch", "delete_message_batch"])
def test_what_cannot_go_back_fails_no_extension_and_is_not_lost(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock, verb: str
) -> None:
    suspects(store, clock)
    (claim,) = take(store)
    wire = Wire(store)
    wire.refuse(verb, error=EndpointConnectionError(endpoint_url="http://sqs"))
    keep(store, [claim], clock, 4)
    wire.heal()
    assert settle(store, claim, delivered(claim)) == []
    clock.advance(LEASE)

    other = open_store()
    seen = {claim.message.id}
    while claims := take(other):
        for each in claims:
            seen.add(each.message.id)
            assert settle(other, each, delivered(each)) == []
    assert seen == {"a", "b", "c"}


def test_nobody_who_claims_meanwhile_has_what_goes_back(
    store: SQSStore, open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    left_in_hand(store)
    clock.advance(LEASE * 2 / 3)
    wire = Wire(store)
    meanwhile: list[str] = []

    def send(real: Callable[..., Any], asked: dict[str, Any]) -> Any:
        wire.heal()
        meanwhile.extend(ids(take(store)))
        return real(**asked)

    wire.acts["send_message_batch"] = send
    assert list(store.extend([], lease=LEASE)) == []
    assert meanwhile == []
    assert len(take(open_store())) == 2


# -- forks


def in_child(act: Callable[[], str]) -> str:
    """What it says in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "it failed"
        try:
            said = act()
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("closes", [False, True], ids=["claims", "closes"])
def test_what_its_parent_has_received_a_forked_child_neither_claims_nor_gives_back(
    store: SQSStore, open_store: Callable[..., SQSStore], closes: bool
) -> None:
    left_in_hand(store)

    def act() -> str:
        if closes:
            store.close()
            return "closed"
        return " ".join(ids(take(store))) or "nothing"

    assert in_child(act) == ("closed" if closes else "nothing")
    mine = take(store)
    assert len(mine) == 2
    assert take(open_store()) == []
    for claim in mine:
        assert settle(store, claim, delivered(claim)) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_its_parent_could_not_delete_a_forked_child_leaves_to_it(
    store: SQSStore, clock: ManualClock
) -> None:
    store.put([mail("a", not_before=clock.now() + LEASE * 12)])
    clock.advance(LEASE * 3)
    wire = Wire(store)
    wire.refuse("delete_message_batch", 0)
    assert take(store) == []
    wire.heal()

    fetching = store._claiming._fetching
    assert in_child(lambda: str(fetching._left)) == "{}"
    assert fetching._left != {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("of", ["_client", "_post"])
def test_a_forked_child_waits_for_no_lock_that_another_thread_of_its_parent_held(
    store: SQSStore, of: str
) -> None:
    store.put([mail("a")])
    lock: threading.Lock = getattr(store, of)._lock
    held, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            # Who forks waits for it, or goes on at once and is seen to have.
            ended.wait(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    said = in_child(lambda: str(lock.locked()))
    ended.set()
    thread.join()
    assert said == "False"

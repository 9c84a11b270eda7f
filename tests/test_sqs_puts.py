"""What a put to SQS stores where one of its messages cannot be stored, and what is remembered of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqs_wire import Wire, ids, mail, opening, take

from outbox.errors import AmbiguousPut, ConfigurationError
from outbox.stores.sqs import DirectoryBlobs, SQSStore, store as store_module
from outbox.testing.clock import ManualClock


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


@pytest.mark.parametrize("name", ["x-dead", "x" * 64], ids=["side", "long"])
def test_a_put_with_a_queue_that_sqs_cannot_have_stores_nothing_and_asks_for_nothing(
    open_store: Callable[..., SQSStore], tmp_path: Path, name: str
) -> None:
    """Told as not stored, it is repeated: what was stored of it would be there twice."""
    store = open_store(blobs=DirectoryBlobs(tmp_path / "large"))
    wire = Wire(store)
    with pytest.raises(ConfigurationError, match="queue"):
        store.put([mail("a", content=bytes(400_000)), mail("b", queue=name)])

    assert wire.calls == []
    assert list((tmp_path / "large").iterdir()) == []
    assert ids(take(store)) == []


def test_of_puts_that_failed_and_were_not_repeated_no_more_than_the_last_are_remembered(
    open_store: Callable[..., SQSStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_KEPT", 4)
    store = open_store()
    take(store)
    wire = Wire(store)
    wire.refuse("send_message_batch", 0)
    for number in range(5):
        with pytest.raises(AmbiguousPut):
            store.put([mail(f"{name}{number}") for name in "abc"])
    assert sorted(store._kept) == ["b3", "b4", "c3", "c4"]

    wire.heal()
    results = store.put([mail(f"{name}4") for name in "abc"])
    assert [result.status for result in results] == ["stored", "known", "known"]

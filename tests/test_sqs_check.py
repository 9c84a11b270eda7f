"""What check says of queues that somebody else keeps: how much is there, what is missing, and what to do about it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import NoCredentialsError
from sqs_server import endpoint, session
from sqs_wire import Wire, mail, opening, take

from outbox.stores.sqs import S3Blobs, SQSStore
from outbox.testing.clock import ManualClock


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


def test_what_is_scheduled_and_what_a_worker_has_is_counted_too(
    open_store: Callable[..., SQSStore], clock: ManualClock
) -> None:
    """Who empties a store before he deletes it goes by this."""
    store = open_store()
    store.put([mail("a"), mail("b"), mail("c")])
    store.put([mail(f"later{n}", not_before=clock.now() + dt.timedelta(days=2)) for n in range(5)])
    assert len(take(store, limit=1)) == 1

    found = store.check()[0]
    assert "about 2 messages wait, 5 are delayed, 1 are with a worker" in found.text


def test_what_migrate_does_not_mend_is_not_said_to_be_mended_by_it(
    open_store: Callable[..., SQSStore],
) -> None:
    store = open_store(create=False)
    Wire(store).refuse("get_queue_url", error=NoCredentialsError())

    errors = [each for each in store.check() if each.level == "error"]
    assert len(errors) == 3
    assert all("credentials" in each.text and not each.advice for each in errors)


def test_a_bucket_that_is_not_there_is_found(open_store: Callable[..., SQSStore]) -> None:
    blobs = S3Blobs("there-is-none", session=session(), endpoint=endpoint())
    (found,) = [each for each in open_store(blobs=blobs).check() if each.level == "error"]

    assert "s3://there-is-none/" in found.text
    assert "bucket that is not there" in found.text

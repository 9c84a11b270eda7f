"""The store in SQS, held to the suite over HTTP: what it skips is listed, and no more than that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from listed_skips import ListedSkips, clauses, listed_in
from sqs_server import open_sqs

from outbox.clock import Clock
from outbox.protocols import Guarantee
from outbox.stores.sqs import SQSStore
from outbox.testing import StoreSuite


class TestSQSStore(ListedSkips, StoreSuite):
    skipped = "sqs_skipped.txt"
    many = 60

    def open(self, clock: Clock, path: Path, **settings: Any) -> SQSStore:
        return open_sqs(clock, path, **settings)


def test_every_clause_that_is_listed_as_skipped_is_one() -> None:
    assert clauses() >= listed_in(TestSQSStore.skipped)


def test_it_says_what_it_lacks() -> None:
    assert SQSStore.lacks == {
        Guarantee.ORDER,
        Guarantee.DEDUPLICATION,
        Guarantee.DELAYS,
        Guarantee.LEASES,
        Guarantee.FENCING,
        Guarantee.ATOMICITY,
        Guarantee.AT_MOST_ONCE,
        Guarantee.RETENTION,
    }

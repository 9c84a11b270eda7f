"""The store in SQS, held to the suite over HTTP: what it skips is listed, and no more than that."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqs_server import open_sqs

from outbox.clock import Clock
from outbox.protocols import Guarantee
from outbox.stores.sqs import SQSStore
from outbox.testing import StoreSuite

SKIPPED = frozenset((Path(__file__).parent / "stored" / "sqs_skipped.txt").read_text().split())


class TestSQSStore(StoreSuite):
    many = 60

    @pytest.fixture(autouse=True)
    def skips_no_more_than_is_listed(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        name = request.function.__name__
        with monkeypatch.context() as patched:
            if name not in SKIPPED:
                patched.setattr(pytest, "skip", lambda reason: grown(name, reason))
            yield

    def open(self, clock: Clock, path: Path, **settings: Any) -> SQSStore:
        return open_sqs(clock, path, **settings)


def grown(name: str, reason: str) -> NoReturn:
    pytest.fail(f"{name} is skipped, and is not in tests/stored/sqs_skipped.txt: {reason}")


def test_every_clause_that_is_listed_as_skipped_is_one() -> None:
    clauses = {name for name, _ in inspect.getmembers(StoreSuite, inspect.isfunction)}

    assert clauses >= SKIPPED


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

"""The memory store is held to the contract."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.stores.memory import MemoryStore
from outbox.testing.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    persistent = False

    def open(self, clock: Clock, path: Path, **settings: Any) -> MemoryStore:
        return MemoryStore(clock=clock, **settings)


@pytest.mark.parametrize("setting", ["remember", "keep_delivered"])
def test_a_negative_retention_is_refused(setting: str) -> None:
    settings: dict[str, Any] = {setting: dt.timedelta(seconds=-1)}
    with pytest.raises(ConfigurationError, match=setting):
        MemoryStore(**settings)


@pytest.mark.parametrize("command", ["requeue", "cancel", "purge"])
def test_one_bare_id_is_not_taken_for_its_letters(command: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\['abc'\]"):
        getattr(MemoryStore(), command)("abc")


def test_its_check_says_that_nothing_lasts() -> None:
    (finding,) = MemoryStore().check()

    assert finding.level == "warning"
    assert "SQLiteStore" in finding.advice

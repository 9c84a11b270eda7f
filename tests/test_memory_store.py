"""The memory store is held to the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.protocols import (
    SupportsBrowse,
    SupportsExchange,
    SupportsHandOver,
    SupportsMaintain,
    SupportsManage,
    SupportsSuspend,
    SupportsWait,
)
from outbox.stores.memory import MemoryStore
from outbox.testing.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    persistent = False

    def open(self, clock: Clock, path: Path, **settings: Any) -> MemoryStore:
        return MemoryStore(clock=clock, **settings)


@pytest.mark.parametrize("setting", ["max_messages", "max_bytes"])
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_lets_nothing_in_is_refused(setting: str, limit: int) -> None:
    settings: dict[str, Any] = {setting: limit}
    with pytest.raises(ConfigurationError, match=f"{setting} must be at least 1"):
        MemoryStore(**settings)


def test_it_has_every_capability() -> None:
    for capability in (
        SupportsBrowse,
        SupportsExchange,
        SupportsHandOver,
        SupportsMaintain,
        SupportsManage,
        SupportsSuspend,
        SupportsWait,
    ):
        assert isinstance(MemoryStore(), capability)


@pytest.mark.parametrize("command", ["requeue", "cancel", "purge"])
def test_one_bare_id_is_not_taken_for_its_letters(command: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\['abc'\]"):
        getattr(MemoryStore(), command)("abc")


def test_its_check_says_that_nothing_lasts() -> None:
    (finding,) = MemoryStore().check()

    assert finding.level == "warning"
    assert "SQLiteStore" in finding.advice

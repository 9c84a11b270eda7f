"""The filesystem store is held to the contract, and keeps what it says of its spool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from hypothesis import settings

from outbox.clock import Clock
from outbox.stores.filesystem import FilesystemStore
from outbox.testing.clauses.scene import Whole
from outbox.testing.state_machine import StoreStateMachine
from outbox.testing.store_suite import StoreSuite

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")


class TestFilesystemStore(StoreSuite):
    def open(self, clock: Clock, path: Path, **settings: Any) -> FilesystemStore:
        return FilesystemStore(path / "spool", clock=clock, **settings)

    def corrupt(self, store: Whole, id: str) -> None:
        assert isinstance(store, FilesystemStore)
        (file,) = Path(store._path, "ids").glob(f"*/{id}")
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)


class FilesystemMachine(StoreStateMachine):
    ordered = True  # of so few messages

    def open(self, clock: Clock, path: Path, **settings: Any) -> FilesystemStore:
        return FilesystemStore(path / "spool", clock=clock, **settings)


TestFilesystemMachine = FilesystemMachine.TestCase
TestFilesystemMachine.settings = settings(max_examples=examples(50), stateful_step_count=30, deadline=None)

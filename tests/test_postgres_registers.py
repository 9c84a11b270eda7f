"""Registers in PostgreSQL: who swaps several at once holds rows for a moment, and others wait for some of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_places import Places

from outbox.protocols import Swap
from outbox.stores.postgres import registering

PATIENCE = 60.0
NAMES = [f"n{number}" for number in range(10)]


def test_two_who_swap_the_same_in_another_order_do_not_wait_for_each_other(
    postgres: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a third has a row in the middle: were their orders their own, each would have half, and want the other."""
    failures: list[BaseException] = []
    tries: list[object] = []

    def swap(names: Sequence[str], new: str) -> None:
        try:
            store.swap({name: Swap("0", new) for name in names})
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    within = registering.swap

    def counted(*said: Any) -> Any:
        # What was undone for a deadlock is tried again.
        tries.append(said)
        return within(*said)

    with contextlib.closing(postgres.open(tmp_path)) as store:
        store.swap({name: Swap(None, "0") for name in NAMES})
        monkeypatch.setattr(registering, "swap", counted)
        threads = [
            threading.Thread(target=swap, args=(NAMES, "1")),
            threading.Thread(target=swap, args=(NAMES[::-1], "2")),
        ]
        meta = f"{store._names.schema}.outbox_meta"
        with psycopg.connect(postgres.dsn) as third:
            third.execute(f"SELECT FROM {meta} WHERE name = 'register:n5' FOR UPDATE".encode())
            for thread in threads:
                thread.start()
            with psycopg.connect(postgres.dsn, autocommit=True) as onlooker:
                _await_two(onlooker, store._names.schema)
        for thread in threads:
            thread.join()

        assert not failures
        assert len(tries) == 2
        (text,) = {each.text for each in store.registers(NAMES).values()}
        assert text in ("1", "2")
    postgres.leave(tmp_path)


def _await_two(onlooker: psycopg.Connection, schema: str) -> None:
    """Until two statements on tables of this schema wait for a lock."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = onlooker.execute(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, %s) > 0", [schema]
        ).fetchall()
        if len(found) == 2:
            return
        time.sleep(0.01)
    raise AssertionError("the two do not wait")

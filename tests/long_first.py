"""The long tests begin first: one that begins last is waited for by all the other processes.

pytest-xdist gives each process as many tests as the others, in their order, and lets who has none left take from the
end of what another has (``--dist worksteal``).  So the long ones stand at the head of each share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import pytest

__all__ = ["LONG", "LongFirst", "dealt"]

LONG: Final = (
    "test_steady.py::test_two_hundred_thousand_transitions_leave_nothing_behind[filesystem]",
    "test_chaos.py::test_eight_runners_that_are_killed_and_stopped_lose_nothing",
    "test_store_suite.py::test_a_store_is_asked_for_nothing_that_it_does_not_promise",
    "test_benchmarks_drain.py::test_a_quick_run_fills_every_table",
    "test_filesystem_store.py::TestFilesystemMachine::",
    "test_sqlite_store.py::TestSQLiteMachine::",
    "test_simulation_command.py::test_the_least_world_can_be_seen_whole",
    "test_simulation.py::test_a_broken_seed_says_how_to_see_it_again_in_the_least_world",
    "test_steady.py::test_two_hundred_thousand_transitions_leave_nothing_behind[sqlite]",
    "test_kill.py::test_a_drain_killed_at_twenty_moments",
    "test_store_suite.py::test_the_state_machine_finds_a_broken_store",
    "test_store_machine.py::test_a_store_whose_commits_fail",
    "test_import_time.py::test_every_module_can_be_the_first_to_be_imported",
    "test_benchmarks.py::test_a_quick_run_fills_every_table",
    "test_supervisor_patience.py::test_systemd_is_told_that_settings_are_in_force",
)
"""How their names begin, the longest first: ten seconds and more where two processors share out the whole."""

T = TypeVar("T")


def dealt(long: Sequence[T], others: Sequence[T], processes: int) -> list[T]:
    """All of them, in the order in which each of the *processes* has its part of the long ones first."""
    left = list(others)
    order: list[T] = []
    for number in range(processes):
        share = list(long[number::processes])
        size = (len(long) + len(others) - len(order)) // (processes - number)
        room = max(0, size - len(share))
        order += [*share, *left[:room]]
        del left[:room]
    return order + left


def place(name: str) -> int:
    """Which of the long ones it is; none, as one behind them."""
    name = name.rpartition("tests/")[2]
    return next((number for number, begins in enumerate(LONG) if name.startswith(begins)), len(LONG))


class LongFirst:
    """A plugin of pytest."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        processes = getattr(config, "workerinput", {}).get("workercount", 1)
        long = sorted(
            (item for item in items if place(item.nodeid) < len(LONG)), key=lambda item: place(item.nodeid)
        )
        items[:] = dealt(long, [item for item in items if place(item.nodeid) == len(LONG)], processes)

"""How the tests are shared out over processes; see ``long_first``."""

from __future__ import annotations

from pathlib import Path

import pytest
from long_first import LONG, dealt


def shares(order: list[str], processes: int) -> list[list[str]]:
    """What ``--dist worksteal`` gives each process to begin with."""
    left = list(order)
    return [[left.pop(0) for _ in range(len(left) // (processes - number))] for number in range(processes)]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_each_process_begins_with_its_part_of_the_long_ones(processes: int) -> None:
    long, others = ["A", "B", "C", "D", "E"], [f"t{number}" for number in range(20)]
    order = dealt(long, others, processes)

    assert sorted(order) == sorted(long + others)
    for number, share in enumerate(shares(order, processes)):
        mine = long[number::processes]
        assert share[: len(mine)] == mine
    assert [name for name in order if name in others] == others


@pytest.mark.parametrize(("long", "others"), [("ABCDE", ""), ("ABCDE", "x"), ("", "xyz"), ("", "")])
def test_nothing_is_left_out_of_a_few(long: str, others: str) -> None:
    assert sorted(dealt(long, others, 4)) == sorted(long + others)


@pytest.mark.parametrize("begins", LONG)
def test_what_is_long_is_there(begins: str) -> None:
    file, _, name = begins.partition("::")
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")

    assert name.partition("[")[0].removesuffix("::") in text

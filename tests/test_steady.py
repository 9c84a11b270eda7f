"""At a steady backlog nothing grows with what has passed through: no file, no memory, no descriptors, no threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from crashing import workplace
from test_docs import ROOT

TRANSITIONS = 200_000
BACKLOG = 1_000

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="memory and descriptors are counted as POSIX has them"
)


@pytest.mark.parametrize("kind", ["sqlite", "filesystem"])
def test_two_hundred_thousand_transitions_leave_nothing_behind(kind: str, tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "steady.py"
    with workplace(tmp_path) as place:
        command = [sys.executable, str(script), kind, str(place), str(TRANSITIONS), str(BACKLOG)]
        samples = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    first, last = samples[1], samples[-1]

    assert last["transitions"] >= TRANSITIONS
    assert last["disk"] <= 1.5 * first["disk"]
    assert last["resident"] <= first["resident"] + (3 << 20)
    assert last["descriptors"] <= first["descriptors"] + 20
    assert last["threads"] == first["threads"]

"""Runs pytest in another process over what is broken on purpose, and reads which clauses went red."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

__all__ = ["failures", "pytest_in"]


def failures(run: str) -> dict[str, set[str]]:
    """The clauses that failed, by the name of the class without its ``Test``."""
    found = defaultdict(set)
    for name, clause in re.findall(r"^FAILED \S+::Test(\w+)::(\w+)", run, re.MULTILINE):
        found[name].add(clause)
    assert " failed" in run, run
    return found


def pytest_in(folder: Path, *named: str) -> str:
    """Run all tests of *folder*, or those that are named."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", "-W", "error"]
    return subprocess.run(
        [*command, "--rootdir", str(folder), *(named or [str(folder)])],
        env={**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    ).stdout

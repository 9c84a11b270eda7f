"""Runs pytest in another process over what is broken on purpose, and reads which clauses went red."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

__all__ = ["failures", "once", "only", "pytest_in"]


def only(suite: type, clauses: Collection[str]) -> dict[str, None]:
    """What a class below *suite* has in the place of the clauses that are not among *clauses*.

    To name a clause to pytest is not enough: it makes all two hundred of a class before it looks for the one,
    and there are two hundred classes.
    """
    missing = [clause for clause in clauses if not hasattr(suite, clause)]
    assert not missing, missing
    return {name: None for name in dir(suite) if name.startswith("test_") and name not in clauses}


def once(factory: pytest.TempPathFactory, name: str, run: Callable[[Path], str]) -> str:
    """What *run* says of a new folder: of the processes that share the tests out the first asks it, for all of them."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    said = place / f"{name}.said"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            text = run(factory.mktemp(name))
            said.write_text(text, encoding="utf-8")
        return said.read_text(encoding="utf-8")


def failures(run: str) -> dict[str, set[str]]:
    """The clauses that failed, by the name of the class without its ``Test``."""
    found = defaultdict(set)
    for name, clause in re.findall(r"^FAILED \S+::Test(\w+)::(\w+)", run, re.MULTILINE):
        found[name].add(clause)
    assert " failed" in run, run
    return found


def pytest_in(folder: Path, *named: str) -> str:
    """Run all tests of *folder*, or those that are named; further options may be among the names."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", "-W", "error"]
    return subprocess.run(
        [*command, "--rootdir", str(folder), *(named or [str(folder)])],
        env={**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    ).stdout

"""A run of the tests that changes the machine it ran on fails, and names what it changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from as_before import RUN, changes, seen

CONFTEST = """
from pathlib import Path
from as_before import AsBefore

def pytest_configure(config):
    here = Path(__file__).parent
    config.pluginmanager.register(AsBefore(accounts=(str(here / "accounts"),), folders=(here,), patience=0.0))
"""


def run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "accounts").write_text("root\n", encoding="ascii")
    (folder / "conftest.py").write_text(CONFTEST, encoding="ascii")
    (folder / "test_it.py").write_text(test, encoding="ascii")
    environment = {key: value for key, value in os.environ.items() if key != RUN and "PYTEST" not in key}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            folder,
            *options,
            folder,
        ],
        env=environment | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("does", "named"),
    [
        ("open(here / 'accounts', 'a').write('postgres\\n')", "accounts was"),
        ("here.chmod(0o777)", "is drwxrwxrwx"),
        ("left = subprocess.Popen(['sleep', '600'])", "sleep 600"),
        ("pass", None),
        ("track()", None),
    ],
    ids=["an account", "a mode", "a process", "nothing", "what ends with Python itself"],
)
def test_a_run_fails_by_what_it_leaves_changed(tmp_path: Path, does: str, named: str | None) -> None:
    test = f"""
import os, subprocess
from multiprocessing import resource_tracker
from pathlib import Path
here = Path(__file__).parent

def track():
    resource_tracker.ensure_running()
    seen = Path("/proc", str(resource_tracker._resource_tracker._pid), "cmdline")
    while seen.exists() and b"resource_tracker" not in seen.read_bytes():
        pass

def test_it():
    left = None
    {does}
    if left: (here / "left").write_text(str(left.pid)); left.returncode = 0
"""
    ran = run(tmp_path, test, *(("-n", "1") if "Popen" in does else ()))
    if (left := tmp_path / "left").exists():
        os.kill(int(left.read_text(encoding="ascii")), 9)
    assert "1 passed" in ran.stdout
    assert (ran.returncode == 0) is (named is None), ran.stdout
    if named is not None:
        assert named in ran.stdout


def test_what_cannot_be_read_is_compared_by_that(tmp_path: Path) -> None:
    before = seen([tmp_path / "none"], [])
    (tmp_path / "none").touch()
    assert len(changes(before, seen([tmp_path / "none"], []))) == 1
